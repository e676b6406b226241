//! Bodies of forms with files (`multipart/form-data`, RFC 7578).

use bytes::Bytes;
use memchr::memmem;

/// Most fields of a form.
const MOST_FIELDS: usize = 64;

/// A field of a form.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The name of its file.
    pub file: Option<String>,
    /// Its value, without a copy.
    pub value: Bytes,
}

/// The fields of a body. `kind`: its content type, which names the boundary.
///
/// # Errors
/// What is wrong with it.
pub fn fields(kind: &str, body: &Bytes) -> Result<Vec<Field>, String> {
    if !kind.to_ascii_lowercase().starts_with("multipart/form-data") {
        return Err(format!("the content type must be multipart/form-data, not {kind:?}"));
    }
    let boundary = parameter(kind, "boundary").ok_or("the content type names no boundary")?;
    let (first, next) = (format!("--{boundary}"), format!("\r\n--{boundary}"));
    let mut at = memmem::find(body, first.as_bytes()).ok_or("the body does not contain the boundary")? + first.len();
    let mut fields = Vec::new();
    while !body[at..].starts_with(b"--") {
        let head = at + 2; // after the line's end
        let end = memmem::find(&body[head.min(body.len())..], b"\r\n\r\n").ok_or("a field has no headers")? + head;
        let value = end + 4;
        let length = memmem::find(&body[value..], next.as_bytes()).ok_or("the last boundary is missing")?;
        let headers = String::from_utf8_lossy(&body[head..end]).into_owned();
        let said = headers.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"));
        let said = said.ok_or("a field has no Content-Disposition")?;
        let name = parameter(said, "name").ok_or("a field has no name")?;
        fields.push(Field { name, file: parameter(said, "filename"), value: body.slice(value..value + length) });
        if fields.len() > MOST_FIELDS {
            return Err(format!("a form may have {MOST_FIELDS} fields"));
        }
        at = value + length + next.len();
    }
    Ok(fields)
}

/// A parameter of a header, with or without quotes.
fn parameter(header: &str, name: &str) -> Option<String> {
    let parts = header.split(';').skip(1);
    let mut found = parts.filter_map(|part| part.trim().split_once('=')).filter(|(key, _)| key.trim() == name);
    found.next().map(|(_, value)| value.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_files_are_read() {
        let body = "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--XX\r\n\
                    Content-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\
                    Content-Type: application/jsonl\r\n\r\n{}\r\n--X\n\r\n--XX--\r\n";
        let fields = fields("multipart/form-data; boundary=\"XX\"", &Bytes::from(body)).unwrap();
        assert_eq!((fields[0].name.as_str(), &fields[0].value[..]), ("purpose", &b"batch"[..]));
        assert_eq!((fields[1].file.as_deref(), &fields[1].value[..]), (Some("a.jsonl"), &b"{}\r\n--X\n"[..]));
    }

    #[test]
    fn nonsense_is_refused() {
        for (kind, body) in [
            ("application/json", "{}"),
            ("multipart/form-data", "x"),
            ("multipart/form-data; boundary=X", "x"),
            ("multipart/form-data; boundary=X", "--X"),
            ("multipart/form-data; boundary=X", "--X\r\n\r\n\r\n"),
            ("multipart/form-data; boundary=X", "--X\r\nA: b\r\n\r\nvalue\r\n--X--"),
            ("multipart/form-data; boundary=X", "--X\r\nContent-Disposition: form-data; name=a\r\n\r\nvalue"),
        ] {
            assert!(fields(kind, &Bytes::from(body)).is_err(), "{kind} {body}");
        }
    }
}
