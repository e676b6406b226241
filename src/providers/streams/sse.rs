//! Server-sent events cut out of the bytes of a stream (WHATWG HTML, section 9.2.6), however the network has split them.
//!
//! A JSON object that stands in the stream without `data:` is an event too: Google sends errors that way.

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name; empty if it has none.
    pub name: String,
    /// Its data, of several lines joined by line feeds.
    pub data: String,
}

/// What has been read of the event that is not whole yet.
#[derive(Debug, Default)]
pub struct Events {
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// Whether the last byte was a carriage return: a line feed after it ends no other line.
    after_return: bool,
    name: String,
    data: String,
    has_data: bool,
    /// A JSON object without `data:`, as far as it has come.
    bare: String,
    begun: bool,
}

impl Events {
    /// Takes bytes, and calls `each` with the events that are whole. How many bytes wait for the rest of an event is
    /// returned.
    pub fn push(&mut self, bytes: &[u8], each: &mut dyn FnMut(&Event)) -> usize {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let (part, ending) = (&rest[..end], rest[end]);
            rest = &rest[end + 1..];
            if ending == b'\n' && std::mem::take(&mut self.after_return) && part.is_empty() && self.line.is_empty() {
                continue;
            }
            self.after_return = ending == b'\r';
            if self.line.is_empty() {
                self.take(part, each);
            } else {
                self.line.extend_from_slice(part);
                let line = std::mem::take(&mut self.line);
                self.take(&line, each);
            }
        }
        if !rest.is_empty() {
            self.after_return = false;
            self.line.extend_from_slice(rest);
        }
        self.line.len() + self.data.len() + self.bare.len()
    }

    /// Takes the end of the stream: an event whose last line has not ended is whole all the same, if it can be read.
    pub fn end(&mut self, each: &mut dyn FnMut(&Event)) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take(&line, each);
        }
        self.take(b"", each);
    }

    fn take(&mut self, line: &[u8], each: &mut dyn FnMut(&Event)) {
        let line = if std::mem::replace(&mut self.begun, true) {
            line
        } else {
            line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
        };
        if !self.bare.is_empty() || line.trim_ascii_start().first() == Some(&b'{') {
            return self.take_bare(line, each);
        }
        if line.is_empty() {
            let event = Event { name: std::mem::take(&mut self.name), data: std::mem::take(&mut self.data) };
            if std::mem::take(&mut self.has_data) {
                each(&event);
                // Its memory serves the next event.
                self.data = event.data;
                self.data.clear();
            }
            return;
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(0) => return, // a comment
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[..0]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                match std::str::from_utf8(value) {
                    Ok(text) => self.data.push_str(text),
                    Err(_) => self.data.push_str(&String::from_utf8_lossy(value)),
                }
            }
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }

    /// Collects a bare object until it can be read.
    fn take_bare(&mut self, line: &[u8], each: &mut dyn FnMut(&Event)) {
        self.bare.push_str(&String::from_utf8_lossy(line));
        self.bare.push('\n');
        if line.trim_ascii_end().last() == Some(&b'}')
            && serde_json::from_str::<serde::de::IgnoredAny>(&self.bare).is_ok()
        {
            each(&Event { name: String::new(), data: std::mem::take(&mut self.bare) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(parts: &[&[u8]]) -> Vec<(String, String)> {
        let (mut events, mut found) = (Events::default(), Vec::new());
        let mut each = |event: &Event| found.push((event.name.clone(), event.data.clone()));
        for part in parts {
            events.push(part, &mut each);
        }
        events.end(&mut each);
        found
    }

    fn event(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn lines_end_in_three_ways_and_comments_say_nothing() {
        let stream =
            "\u{feff}: hello\r\ndata: a\r\rdata:b\ndata:  c\n\nevent: x\nid: 7\nnonsense\ndata\n\nevent: lost\n\n";
        let expected = [event("", "a"), event("", "b\n c"), event("x", "")];
        assert_eq!(events(&[stream.as_bytes()]), expected);
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(events(&bytes), expected);
    }

    #[test]
    fn an_object_without_data_is_an_event() {
        let stream = b"data: {}\n\n{\n  \"error\": {\n    \"code\": 503\n  }\n}\n\ndata: 1\n";
        let found = events(&[stream]);
        assert_eq!(found[0], event("", "{}"));
        assert!(found[1].1.contains("503"));
        assert_eq!(found[2], event("", "1"));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_bytes_are_split(text in "(data:|event:|: ?|[a-zé\u{1f600}{}\"]{0,3}|\r|\n|\r\n){0,40}",
                                                    cuts in prop::collection::vec(0usize..200, 0..8)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let (mut parts, mut at) = (Vec::new(), 0);
            for cut in cuts {
                parts.push(&bytes[at..cut]);
                at = cut;
            }
            parts.push(&bytes[at..]);
            prop_assert_eq!(events(&parts), events(&[bytes]));
        }
    }
}
