//! Where a model's thoughts end that stand in the text of its answer. Used by [`schema`](super::schema).

/// Names of tags around thoughts: `</think>`, `[/THINK]`, `◁/think▷`.
const TAGS: &[&str] =
    &["think", "thinking", "thought", "thoughts", "reasoning", "seed:think", "analysis", "scratchpad"];
/// What ends thoughts without being a tag (Cohere; Sky-T1; gpt-oss, whose last channel is the answer).
const MARKS: &[&str] = &["<|end_thinking|>", "<|end_of_thought|>", "<|channel|>final<|message|>"];

/// The places behind every end of thoughts.
pub fn ends(text: &str) -> Vec<usize> {
    let starts = text.match_indices(['<', '[', '◁']);
    starts.filter_map(|(at, _)| Some(at + end(&text[at..])?)).collect()
}

/// The length of an end of thoughts at the beginning of a text. Case does not count, and blanks in a tag neither.
fn end(text: &str) -> Option<usize> {
    let is = |known: &&&str| text.get(..known.len()).is_some_and(|given| given.eq_ignore_ascii_case(known));
    if let Some(mark) = MARKS.iter().find(is) {
        return Some(mark.len());
    }
    let (closing, rest) = [("<", ">"), ("[", "]"), ("◁", "▷")]
        .into_iter()
        .find_map(|(opening, closing)| Some((closing, text.strip_prefix(opening)?)))?;
    // No tag is longer: what has no end nearby is not looked through.
    let close = rest.bytes().take(40).position(|byte| byte == closing.as_bytes()[0])?;
    let name = rest[..close].trim_start().strip_prefix('/')?.trim();
    let rest = rest[close..].strip_prefix(closing)?;
    TAGS.iter().any(|tag| name.eq_ignore_ascii_case(tag)).then(|| text.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_all_kinds() {
        for mark in [
            "</think>",
            "</THINK>",
            "</ think >",
            "[/THINK]",
            "◁/think▷",
            "</seed:think>",
            "</analysis>",
            "</scratchpad>",
            "<|END_THINKING|>",
            "<|end_of_thought|>",
            "<|channel|>final<|message|>",
        ] {
            assert_eq!(ends(&format!("a{mark}b")), [1 + mark.len()], "{mark}");
        }
        for text in ["<think>", "</div>", "</", "<|", "◁/", "◁", "< /é", "[think]", "<|channel|>analysis<|message|>"]
        {
            assert!(ends(text).is_empty(), "{text}");
        }
    }
}
