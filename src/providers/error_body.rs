//! What the body of an error reply says, whatever shape servers give it. Used by [`status`](super::status).

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::{error_words, lenient, limits};

/// How deep errors are looked for in a body.
const DEPTH: usize = 6;
/// Longest message, characters.
const LONGEST_MESSAGE: usize = 1000;
/// Where servers put the machine-readable words of an error, the most telling first.
const CODES: &[&str] = &[
    "code",
    "reason",
    "error_code",
    "errorCode",
    "err_code",
    "errcode",
    "status_code",
    "statusCode",
    "status",
    "type",
    "error_type",
];
/// Where they put its message.
const MESSAGES: &[&str] =
    &["message", "msg", "status_msg", "error_message", "errorMessage", "error_msg", "error_description", "detail"];
/// Where they put the error itself, or another one that caused it.
const INSIDE: &[&str] = &[
    "error",
    "errors",
    "details",
    "detail",
    "innererror",
    "inner_error",
    "cause",
    "base_resp",
    "metadata",
    "last_error",
];
/// Where an answer may be too: only what is called an error in there is one.
const ANSWERS: &[&str] = &["response", "data", "body", "result"];

/// What an error reply says.
#[derive(Debug, Default, PartialEq)]
pub struct ErrorBody {
    pub message: String,
    /// The message of the server behind a gateway, where it is another one.
    behind: String,
    /// Machine-readable words, the outermost first.
    pub codes: Vec<String>,
    /// A status inside the body (OpenRouter).
    pub status: Option<u16>,
    pub retry_after: Option<f64>,
    /// A quota of a day was violated.
    pub daily: bool,
}

impl ErrorBody {
    /// From a body, whatever shape servers give it (`{"error": {...}}`, `{"error": "text"}`,
    /// a list of them, flat, FastAPI's `detail`, JSON inside of a text).
    pub fn of(value: &Value) -> Self {
        Self::gathered(|said| said.gather(value, 0))
    }

    /// From what a reply calls an error.
    pub fn of_error(error: &Value) -> Self {
        Self::gathered(|said| said.gather_error(error, 0))
    }

    fn gathered(gather: impl FnOnce(&mut Self)) -> Self {
        let mut said = Self::default();
        gather(&mut said);
        if !said.behind.is_empty() && !said.message.contains(&said.behind) {
            let colon = if said.message.is_empty() { "" } else { ": " };
            said.message = format!("{}{colon}{}", said.message, said.behind);
        }
        if let Some((end, _)) = said.message.char_indices().nth(LONGEST_MESSAGE) {
            said.message.truncate(end);
        }
        said
    }

    /// Whether it says anything of an error.
    pub fn names_an_error(&self) -> bool {
        !self.message.is_empty() || self.status.is_some() || self.codes.iter().any(|code| error_words::is_known(code))
    }

    fn gather(&mut self, value: &Value, depth: usize) {
        if depth > DEPTH {
            return;
        }
        match value {
            Value::String(text) => {
                if error_words::is_known(text) {
                    self.add_code(text);
                }
                self.gather_text(text, depth);
            }
            Value::Array(values) => values.iter().take(8).for_each(|value| self.gather(value, depth + 1)),
            Value::Object(fields) => self.gather_object(fields, depth),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// A message, or JSON that a gateway has put into a text.
    fn gather_text(&mut self, text: &str, depth: usize) {
        if let Some(inner) = json_inside(text) {
            self.gather(&inner, depth + 1);
        }
        if self.message.is_empty() {
            text.trim().clone_into(&mut self.message);
        }
    }

    fn gather_object(&mut self, fields: &Map<String, Value>, depth: usize) {
        // What stands beside "success" is no error; something inside may be one all the same.
        if !says_success(fields) {
            self.gather_words(fields, depth);
        }
        self.take_detail(fields);
        for name in INSIDE {
            match (*name, fields.get(*name)) {
                ("base_resp", Some(Value::Object(inner))) => self.take_base_resp(inner),
                // Taken as a message above.
                ("detail", Some(Value::String(_))) | (_, None) => {}
                ("error" | "errors" | "last_error", Some(inner)) => self.gather_error(inner, depth + 1),
                (_, Some(inner)) => self.gather(inner, depth + 1),
            }
        }
        if let Some(raw) = fields.get("raw") {
            self.take_raw(raw, depth);
        }
        for answer in ANSWERS.iter().filter_map(|name| fields.get(*name)) {
            let parsed = answer.as_str().and_then(json_inside);
            for name in ["error", "errors"] {
                if let Some(inner) = parsed.as_ref().unwrap_or(answer).get(name) {
                    self.gather_error(inner, depth + 1);
                }
            }
        }
    }

    /// What is called an error is one, whatever number its code is, unless it says nothing else.
    fn gather_error(&mut self, value: &Value, depth: usize) {
        if let Value::Object(fields) = value
            && says_success(fields)
            && !matches!(fields.get("success"), Some(Value::Bool(true)))
            && !lenient::says_nothing(value)
        {
            self.gather_words(fields, depth);
        }
        self.gather(value, depth);
    }

    /// The codes and the message that stand directly in an object.
    fn gather_words(&mut self, fields: &Map<String, Value>, depth: usize) {
        for name in CODES {
            match fields.get(*name) {
                Some(Value::String(word)) if !word.is_empty() && word.len() <= 100 => self.add_code(word),
                Some(Value::Number(number)) if number.as_i64() != Some(0) => self.add_code(&number.to_string()),
                _ => {}
            }
        }
        // OpenRouter's moderation has no word of its own.
        if fields.contains_key("flagged_input") {
            self.add_code("flagged_input");
        }
        for name in MESSAGES {
            if let Some(Value::String(text)) = fields.get(*name) {
                self.gather_text(text, depth);
            }
        }
        if let Some(detail @ (Value::Array(_) | Value::Object(_))) = fields.get("detail")
            && self.message.is_empty()
        {
            self.message = detail.to_string();
        }
    }

    /// A word, or a status that stands in the place of one.
    fn add_code(&mut self, code: &str) {
        match code.parse::<u16>() {
            Ok(status) if (400..600).contains(&status) => self.status = self.status.or(Some(status)),
            _ => self.codes.push(code.to_owned()),
        }
    }

    /// What the server behind a gateway said, as the gateway got it (OpenRouter). The gateway's own message is mostly
    /// "Provider returned error".
    fn take_raw(&mut self, raw: &Value, depth: usize) {
        let mut inner = Self::default();
        inner.gather(raw, depth + 1);
        self.codes.append(&mut inner.codes);
        self.status = self.status.or(inner.status);
        self.retry_after = self.retry_after.or(inner.retry_after);
        self.daily |= inner.daily;
        self.behind = if inner.behind.is_empty() { inner.message } else { inner.behind };
    }

    /// MiniMax's numbers, which mean other things than the same numbers elsewhere. 0 is a success.
    fn take_base_resp(&mut self, fields: &Map<String, Value>) {
        let code = fields.get("status_code");
        let number = code.and_then(|code| code.as_u64().or_else(|| code.as_str()?.trim().parse().ok()));
        let Some(number) = number.filter(|number: &u64| *number != 0) else { return };
        self.codes.push(format!("base_resp {number}"));
        match fields.get("status_msg").and_then(Value::as_str).filter(|text| !text.is_empty()) {
            Some(text) => self.gather_text(text, DEPTH),
            None if self.message.is_empty() => self.message = format!("status_code {number}"),
            None => {}
        }
    }

    /// Google's `RetryInfo` and `QuotaFailure` (google/rpc/error_details.proto).
    fn take_detail(&mut self, detail: &Map<String, Value>) {
        match detail.get("@type").and_then(Value::as_str).and_then(|kind| kind.rsplit('.').next()) {
            Some("RetryInfo") => {
                let delay = detail.get("retryDelay").and_then(Value::as_str);
                self.retry_after = delay.and_then(|delay| limits::wait(delay, SystemTime::now()));
            }
            Some("QuotaFailure") => {
                let violations = detail.get("violations").and_then(Value::as_array);
                let mut ids = violations.into_iter().flatten().filter_map(|one| one.get("quotaId")?.as_str());
                // Where a quota of a minute is violated too, waiting a minute helps nothing.
                self.daily |= ids.any(|id| id.contains("PerDay"));
            }
            _ => {}
        }
    }
}

/// The JSON that a text consists of. Messages that merely begin with a bracket ("[] is too short") are none.
fn json_inside(text: &str) -> Option<Value> {
    let text = text.trim();
    let value: Value = text.starts_with(['{', '[']).then(|| serde_json::from_str(text).ok())??;
    let is_told = match &value {
        Value::Array(values) => !values.is_empty() && values.iter().all(Value::is_object),
        value => value.is_object(),
    };
    is_told.then_some(value)
}

/// Whether an object says that it is no error: `{"code": 0, "message": "ok"}`, `{"success": true}`.
fn says_success(fields: &Map<String, Value>) -> bool {
    let is_success = |value: &Value| match value {
        Value::Number(number) => number.as_u64().is_some_and(|code| code == 0 || (200..300).contains(&code)),
        Value::String(word) => ["0", "200", "ok", "success"].iter().any(|known| word.eq_ignore_ascii_case(known)),
        _ => false,
    };
    match fields.get("success") {
        Some(Value::Bool(success)) => *success,
        _ => {
            let codes = ["code", "status_code", "statusCode", "errcode", "status"];
            codes.iter().find_map(|name| fields.get(*name)).is_some_and(is_success)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(body: &Value) -> String {
        ErrorBody::of(body).message
    }

    #[test]
    fn messages_that_begin_with_a_bracket_are_messages() {
        for text in ["[] is too short - 'messages'", "{} is not of type 'string' - 'stop'", "[1305] model busy", "[]"] {
            assert_eq!(message(&json!({"error": {"message": text, "type": "x"}})), text);
        }
        let inner = json!([{"error": {"message": "slow"}}]).to_string();
        assert_eq!(message(&json!({"error": {"message": inner}})), "slow");
    }

    #[test]
    fn what_a_gateway_hides_is_shown() {
        let raw = json!({"error": {"message": "too long", "code": "context_length_exceeded"}}).to_string();
        let gateway = |raw: Value| json!({"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}});
        let said = ErrorBody::of(&gateway(json!(raw)));
        assert_eq!(said.message, "Provider returned error: too long");
        assert_eq!((said.codes.as_slice(), said.status), (&["context_length_exceeded".to_owned()][..], Some(400)));
        assert_eq!(message(&gateway(json!("busy"))), "Provider returned error: busy");
        assert_eq!(message(&gateway(json!("Provider returned error"))), "Provider returned error");
        assert_eq!(message(&gateway(json!("x".repeat(5000)))).chars().count(), LONGEST_MESSAGE);
    }

    #[test]
    fn an_error_with_the_code_of_a_success_keeps_its_words() {
        for code in [json!(0), json!("0"), json!(200), json!("success")] {
            let error = json!({"message": "model engine crashed", "code": code});
            assert_eq!(ErrorBody::of_error(&error).message, "model engine crashed");
            assert_eq!(message(&json!({"error": error})), "model engine crashed");
            assert_eq!(message(&json!({"data": {"error": error}})), "model engine crashed");
        }
        assert_eq!(message(&json!({"error": {"message": "ok", "code": 0}})), "");
        assert_eq!(message(&json!({"error": {"message": "done", "success": true}})), "");
    }

    #[test]
    fn a_success_is_no_error() {
        for body in [
            json!({"code": 200, "msg": "ok", "data": {"message": "hello"}}),
            json!({"code": "0", "msg": "ok"}),
            json!({"success": true, "message": "ok"}),
            json!({"success": true, "result": {"message": "x", "code": 429}}),
            json!({"code": 0, "message": "", "data": "text"}),
            json!({"data": "text", "body": "text", "errors": []}),
            json!({"status": "success", "message": "done"}),
        ] {
            assert!(!ErrorBody::of(&body).names_an_error(), "{body}");
        }
        for body in [
            json!({"code": "rate_limit_exceeded"}),
            json!({"code": 0, "data": {"error": {"message": "m"}}}),
            json!({"statusCode": 200, "body": "{\"error\": {\"message\": \"m\"}}"}),
            json!({"success": false, "code": 200, "message": "no"}),
        ] {
            assert!(ErrorBody::of(&body).names_an_error(), "{body}");
        }
    }

    #[test]
    fn numbers_of_minimax_may_be_texts() {
        assert_eq!(ErrorBody::of(&json!({"base_resp": {"status_code": "1008"}})).codes, ["base_resp 1008"]);
        assert!(ErrorBody::of(&json!({"base_resp": {"status_code": "0"}})).codes.is_empty());
    }
}
