//! Events that say the same as the one before but for a text: nearly all events of a stream are of this kind. What is
//! around the text is compared instead of parsed, which takes a tenth of the time.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::fields;

/// So many events in a row that no other was like, until nobody compares any more.
const MOST_MISSES: u8 = 8;

/// What stands at a place in which events differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hole {
    /// The text that is wanted.
    Text,
    /// A text that says nothing.
    Padding,
    /// An integer.
    Number,
}

/// An event, and the places in which others differ from it. `T`: what the text is for.
#[derive(Debug)]
pub struct Pattern<T> {
    /// What stands before each hole.
    before: Vec<(Box<str>, Hole)>,
    /// What stands after the last one.
    end: Box<str>,
    /// What the text is for.
    pub target: T,
}

impl<T> Pattern<T> {
    /// The pattern of an event: `holes` are values in its data. `None`: they are not.
    pub fn new(data: &str, mut holes: Vec<(&RawValue, Hole)>, target: T) -> Option<Self> {
        holes.sort_by_key(|(value, _)| value.get().as_ptr());
        let (mut before, mut at) = (Vec::with_capacity(holes.len()), 0);
        for (value, hole) in holes {
            let value = value.get();
            let start = (value.as_ptr() as usize).checked_sub(data.as_ptr() as usize)?;
            let inside =
                if hole == Hole::Number { start..start + value.len() } else { start + 1..start + value.len() - 1 };
            before.push((data.get(at..inside.start)?.into(), hole));
            at = inside.end;
        }
        Some(Self { before, end: data.get(at..)?.into(), target })
    }

    /// The text of an event that is like this one. `None`: it is another one.
    pub fn text<'a>(&self, data: &'a str) -> Option<Cow<'a, str>> {
        let (mut rest, mut text) = (data, None);
        for (before, hole) in &self.before {
            rest = rest.strip_prefix(&**before)?;
            let end = match hole {
                Hole::Number => rest.bytes().position(|byte| !byte.is_ascii_digit())?,
                Hole::Text | Hole::Padding => end_of_string(rest)?,
            };
            let (value, after) = rest.split_at(end);
            if *hole == Hole::Text {
                text = Some(value);
            }
            rest = after;
        }
        let text = text.filter(|_| *rest == *self.end)?;
        if text.bytes().any(|byte| byte == b'\\' || byte < b' ') {
            return serde_json::from_str(&format!("\"{text}\"")).ok().map(Cow::Owned);
        }
        Some(Cow::Borrowed(text))
    }
}

/// Where a string ends whose opening quote is before the text.
fn end_of_string(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// The last event that others may be like.
#[derive(Debug)]
pub struct Repeats<T> {
    last: Option<Pattern<T>>,
    misses: u8,
}

impl<T> Default for Repeats<T> {
    fn default() -> Self {
        Self { last: None, misses: 0 }
    }
}

impl<T: Copy> Repeats<T> {
    /// The text of an event that is like the last one, and what it is for.
    pub fn find<'a>(&mut self, data: &'a str) -> Option<(Cow<'a, str>, T)> {
        let last = self.last.as_ref()?;
        let found = last.text(data).map(|text| (text, last.target));
        match found {
            Some(_) => self.misses = 0,
            None => {
                self.misses = self.misses.saturating_add(1);
                self.last = None;
            }
        }
        found
    }

    /// Whether it is worth while to look for the pattern of an event.
    pub fn are_worth_it(&self) -> bool {
        self.misses < MOST_MISSES
    }

    /// From now on events are compared with this one.
    pub fn expect(&mut self, pattern: Option<Pattern<T>>) {
        self.last = pattern;
    }
}

/// Whether fields other than `known` say nothing.
pub fn only(fields: &fields::Fields<'_>, known: &[&str]) -> bool {
    fields.0.iter().all(|(name, value)| known.contains(&&**name) || fields::is_null(value))
}

#[cfg(test)]
mod tests {
    use super::super::fields::Fields;
    use super::*;

    fn pattern(data: &str, holes: &[(&str, Hole)]) -> Pattern<()> {
        let fields: Fields<'_> = serde_json::from_str(data).unwrap();
        let holes = holes.iter().map(|(name, hole)| (fields.get(name).unwrap(), *hole)).collect();
        Pattern::new(data, holes, ()).unwrap()
    }

    #[test]
    fn an_event_that_differs_in_its_holes_is_recognized() {
        let known = r#"{"n":7,"text":"a","pad":"xx","other":{"text":"b"}}"#;
        let pattern = pattern(known, &[("text", Hole::Text), ("pad", Hole::Padding), ("n", Hole::Number)]);
        let of = |data: &str| pattern.text(data).map(Cow::into_owned);
        assert_eq!(of(known).as_deref(), Some("a"));
        assert_eq!(of(r#"{"n":12,"text":"","pad":"\"","other":{"text":"b"}}"#).as_deref(), Some(""));
        let escaped = r#"{"n":1,"text":"\"\\\u00e9\n","pad":"","other":{"text":"b"}}"#;
        assert_eq!(of(escaped).as_deref(), Some("\"\\\u{e9}\n"));
        for other in [
            r#"{"n":7,"text":"a","pad":"xx","other":{"text":"c"}}"#,
            r#"{"n":7,"text":"a","pad":"xx","other":{"text":"b"}} "#,
            r#"{"n":-7,"text":"a","pad":"xx","other":{"text":"b"}}"#,
            r#"{"n":7,"text":null,"pad":"xx","other":{"text":"b"}}"#,
            r#"{"n":7,"text":"a","more":1,"pad":"xx","other":{"text":"b"}}"#,
            r#"{"n":7,"text":"\ud800","pad":"xx","other":{"text":"b"}}"#,
            "{\"n\":7,\"text\":\"\t\",\"pad\":\"xx\",\"other\":{\"text\":\"b\"}}",
            r#"{"n":7,"text":"a\"#,
            r#"{"n":7,"text":"a"#,
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn nobody_compares_for_ever_where_no_event_is_like_another() {
        let mut repeats = Repeats::default();
        for _ in 0..MOST_MISSES {
            assert!(repeats.are_worth_it());
            repeats.expect(Some(pattern(r#"{"text":"a"}"#, &[("text", Hole::Text)])));
            assert!(repeats.find(r#"{"other":"a"}"#).is_none());
        }
        assert!(!repeats.are_worth_it());
    }
}
