//! Where a model's thoughts end that stand in the text of its answer. Used by [`schema`](super::schema).

/// Names of tags around thoughts: `</think>`, `[/THINK]`, `◁/think▷`.
const TAGS: &[&str] =
    &["think", "thinking", "thought", "thoughts", "reasoning", "seed:think", "analysis", "scratchpad"];
/// What ends thoughts without being a tag (Cohere; Sky-T1; gpt-oss, whose last channel is the answer).
const MARKS: &[&str] = &["<|end_thinking|>", "<|end_of_thought|>", "<|channel|>final<|message|>"];

/// The places behind every end of thoughts, in their order. Case does not count, and blanks in a tag neither.
pub fn ends(text: &str) -> Vec<usize> {
    let marks = text.match_indices("<|").filter_map(|(at, _)| {
        let is = |mark: &&&str| text.get(at..at + mark.len()).is_some_and(|given| given.eq_ignore_ascii_case(mark));
        MARKS.iter().find(is).map(|mark| at + mark.len())
    });
    let tags = text.match_indices('/').filter_map(|(at, _)| end_of_tag(&text[..at], &text[at + 1..], at + 1));
    let mut ends: Vec<usize> = marks.chain(tags).collect();
    ends.sort_unstable();
    ends
}

/// Where a closing tag ends whose slash stands between two texts, the second of which begins at `at`.
fn end_of_tag(before: &str, after: &str, at: usize) -> Option<usize> {
    let closing = match before.trim_end().chars().next_back()? {
        '<' => '>',
        '[' => ']',
        '◁' => '▷',
        _ => return None,
    };
    // No tag is longer: what has no end nearby is not looked through.
    let (close, _) = after.char_indices().take(40).find(|(_, letter)| *letter == closing)?;
    let name = after[..close].trim();
    TAGS.iter().any(|tag| name.eq_ignore_ascii_case(tag)).then(|| at + close + closing.len_utf8())
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
