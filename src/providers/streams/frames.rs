//! Events cut out of AWS's event streams (`application/vnd.amazon.eventstream`): binary frames with headers, a payload,
//! and two checksums.
//!
//! An exception becomes an event with the name `error`, as other dialects call it; a `chunk` of InvokeModel becomes the
//! event of the model's own dialect inside it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::sse::Event;

/// Total length, length of the headers, and the checksum of both.
const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;
/// Longest frame: AWS's own limit of a payload, and of headers.
const LONGEST: usize = (24 << 20) + (128 << 10) + PRELUDE + CHECKSUM;

/// What has come of the frame that is not whole yet.
#[derive(Default)]
pub struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    /// Takes bytes, and calls `each` with the events that are whole. How many bytes wait for the rest is returned.
    ///
    /// # Errors
    /// What is wrong with a frame: nothing after it can be read.
    pub fn push(&mut self, bytes: &[u8], each: &mut dyn FnMut(&Event)) -> Result<usize, String> {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(frame) = next(&self.rest[at..])? {
            at += frame.len();
            if let Some(event) = event(frame)? {
                each(&event);
            }
        }
        self.rest.drain(..at);
        Ok(self.rest.len())
    }

    /// Whether the stream ends between two frames.
    pub fn is_at_an_end(&self) -> bool {
        self.rest.is_empty()
    }
}

fn number(bytes: &[u8]) -> Option<usize> {
    let bytes: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

fn is_sum(of: &[u8], sum: &[u8]) -> bool {
    number(sum).is_some_and(|sum| sum == crc32fast::hash(of) as usize)
}

/// The frame at the beginning, if it is whole.
fn next(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    let Some(prelude) = bytes.get(..PRELUDE) else { return Ok(None) };
    if !is_sum(&prelude[..8], &prelude[8..]) {
        return Err("a frame of the event stream has a wrong checksum".to_owned());
    }
    let (Some(total), Some(headers)) = (number(prelude), number(&prelude[4..])) else { return Ok(None) };
    if total > LONGEST || headers > total.saturating_sub(PRELUDE + CHECKSUM) {
        return Err(format!("a frame of the event stream has an impossible length ({total})"));
    }
    let Some(frame) = bytes.get(..total) else { return Ok(None) };
    if !is_sum(&frame[..total - CHECKSUM], &frame[total - CHECKSUM..]) {
        return Err("a frame of the event stream has a wrong checksum".to_owned());
    }
    Ok(Some(frame))
}

/// The headers of a frame that are looked at, all of them texts.
#[derive(Default)]
struct Headers {
    message: String,
    event: String,
    exception: String,
    code: String,
    words: String,
}

/// The event in a whole frame. `None`: there is none of interest.
fn event(frame: &[u8]) -> Result<Option<Event>, String> {
    let length = number(&frame[4..]).unwrap_or(0);
    let headers =
        headers(&frame[PRELUDE..PRELUDE + length]).ok_or("a frame of the event stream has invalid headers")?;
    let payload = &frame[PRELUDE + length..frame.len() - CHECKSUM];
    let text = String::from_utf8_lossy(payload);
    let error = |kind: &str, message: &str| {
        let data = json!({"type": kind, "message": message}).to_string();
        Some(Event { name: "error".to_owned(), data })
    };
    Ok(match headers.message.as_str() {
        "exception" => {
            #[derive(Deserialize, Default)]
            struct ErrorBody {
                #[serde(default, alias = "Message")]
                message: String,
            }
            let said: ErrorBody = serde_json::from_str(&text).unwrap_or_default();
            error(&headers.exception, &said.message)
        }
        "error" => error(&headers.code, &headers.words),
        _ if headers.event == "chunk" => {
            #[derive(Deserialize)]
            struct Chunk {
                bytes: String,
            }
            let chunk: Chunk = serde_json::from_str(&text).map_err(|_| "a chunk of the event stream has no bytes")?;
            let data = STANDARD.decode(chunk.bytes).map_err(|_| "a chunk of the event stream is not valid base64")?;
            Some(Event { name: String::new(), data: String::from_utf8_lossy(&data).into_owned() })
        }
        _ => Some(Event { name: headers.event, data: text.into_owned() }),
    })
}

fn headers(mut bytes: &[u8]) -> Option<Headers> {
    let mut found = Headers::default();
    while let Some((length, rest)) = bytes.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (kind, rest) = rest.split_first()?;
        let (value, rest) = match kind {
            // Yes, no; numbers; an instant; an id.
            0 | 1 => (&[][..], rest),
            2 => rest.split_at_checked(1)?,
            3 => rest.split_at_checked(2)?,
            4 => rest.split_at_checked(4)?,
            5 | 8 => rest.split_at_checked(8)?,
            9 => rest.split_at_checked(16)?,
            // Bytes, a text.
            6 | 7 => {
                let (length, rest) = rest.split_at_checked(2)?;
                rest.split_at_checked(usize::from(u16::from_be_bytes(length.try_into().ok()?)))?
            }
            _ => return None,
        };
        bytes = rest;
        let field = match name {
            b":message-type" => &mut found.message,
            b":event-type" => &mut found.event,
            b":exception-type" => &mut found.exception,
            b":error-code" => &mut found.code,
            b":error-message" => &mut found.words,
            _ => continue,
        };
        *field = String::from_utf8_lossy(value).into_owned();
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut written = Vec::new();
        for (name, value) in headers {
            written.push(u8::try_from(name.len()).unwrap());
            written.extend_from_slice(name.as_bytes());
            written.push(7);
            written.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
            written.extend_from_slice(value.as_bytes());
        }
        let total = PRELUDE + written.len() + payload.len() + CHECKSUM;
        let mut frame = Vec::new();
        frame.extend_from_slice(&u32::try_from(total).unwrap().to_be_bytes());
        frame.extend_from_slice(&u32::try_from(written.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
        frame.extend_from_slice(&written);
        frame.extend_from_slice(payload);
        frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
        frame
    }

    fn stream() -> Vec<u8> {
        let chunk = json!({"bytes": STANDARD.encode("{\"type\":\"ping\"}"), "p": "abc"}).to_string();
        [
            frame(&[(":message-type", "event"), (":event-type", "messageStart")], br#"{"role":"assistant"}"#),
            frame(&[(":event-type", "chunk"), (":content-type", "application/json")], chunk.as_bytes()),
            frame(
                &[(":message-type", "exception"), (":exception-type", "throttlingException")],
                br#"{"message":"slow"}"#,
            ),
            frame(&[(":message-type", "error"), (":error-code", "X"), (":error-message", "no")], b""),
        ]
        .concat()
    }

    fn read(parts: &[&[u8]]) -> Result<Vec<(String, String)>, String> {
        let (mut frames, mut events) = (Frames::default(), Vec::new());
        for part in parts {
            frames.push(part, &mut |event| events.push((event.name.clone(), event.data.clone())))?;
        }
        assert!(frames.is_at_an_end());
        Ok(events)
    }

    #[test]
    fn frames_are_events() {
        let events = read(&[&stream()]).unwrap();
        let expected = [
            ("messageStart", r#"{"role":"assistant"}"#),
            ("", r#"{"type":"ping"}"#),
            ("error", r#"{"type":"throttlingException","message":"slow"}"#),
            ("error", r#"{"type":"X","message":"no"}"#),
        ];
        assert_eq!(events, expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
    }

    #[test]
    fn wrong_checksums_and_lengths_are_found() {
        for at in [0, 5, 9, 14, 40] {
            let mut damaged = stream();
            damaged[at] ^= 1;
            assert!(read(&[&damaged]).is_err(), "{at}");
        }
        let mut huge = vec![0xff; 8];
        huge.extend_from_slice(&crc32fast::hash(&huge).to_be_bytes());
        assert!(read(&[&huge]).unwrap_err().contains("impossible"));
    }

    proptest! {
        #[test]
        fn fuzz_frames(cuts in prop::collection::vec(0usize..400, 0..6), damage in any::<Option<(usize, u8)>>()) {
            let mut bytes = stream();
            if let Some((at, byte)) = damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut frames = Frames::default();
            let (mut from, mut count) = (0, 0);
            for to in cuts.into_iter().chain([bytes.len()]) {
                if frames.push(&bytes[from..to], &mut |_| count += 1).is_err() {
                    prop_assert!(damage.is_some());
                    return Ok(());
                }
                from = to;
            }
            prop_assert!(count <= 4);
        }
    }
}
