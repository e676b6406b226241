//! The version in a model's name, as in `gpt-5.6-luna`: what a provider does from some version on. Used by
//! [`caching`](super::caching) and [`streams`](super::streams).

/// What follows the name of a series in a model's name: its version, as major and minor number. `None`: it is of another
/// series, or has no version (`gpt-4o`).
pub fn version(model: &str, series: &str) -> Option<(u32, u32)> {
    let (major, rest) = number(model.strip_prefix(series)?)?;
    let minor = match rest.strip_prefix('.') {
        Some(minor) => number(minor),
        // Three digits and more are a date (`grok-4-0709`).
        None => rest.strip_prefix('-').and_then(number).filter(|(minor, _)| *minor < 100),
    };
    Some((major, minor.map_or(0, |(minor, _)| minor)))
}

/// A number that a text begins with, and the rest, which must not go on as a word.
fn number(text: &str) -> Option<(u32, &str)> {
    let rest = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    if rest.starts_with(char::is_alphanumeric) {
        return None;
    }
    Some((text[..text.len() - rest.len()].parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_makers_write_them() {
        for (model, series, expected) in [
            ("gpt-5.6-luna", "gpt-", Some((5, 6))),
            ("gpt-5.10", "gpt-", Some((5, 10))),
            ("gpt-6", "gpt-", Some((6, 0))),
            ("gpt-5-mini", "gpt-", Some((5, 0))),
            ("gpt-5:free", "gpt-", Some((5, 0))),
            ("grok-4-1-fast", "grok-", Some((4, 1))),
            ("grok-4-0709", "grok-", Some((4, 0))),
            ("claude-opus-4-20250514", "claude-opus-", Some((4, 0))),
            ("kimi-k2.5", "kimi-k", Some((2, 5))),
            ("gpt-4o", "gpt-", None),
            ("gpt-4-32k", "gpt-", Some((4, 0))),
            ("gpt-oss-120b", "gpt-", None),
            ("gpt-99999999999", "gpt-", None),
            ("gpt-", "gpt-", None),
            ("o3", "gpt-", None),
        ] {
            assert_eq!(version(model, series), expected, "{model}");
        }
    }
}
