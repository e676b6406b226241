//! Bearer tokens, and how OAuth's token endpoints give them (RFC 6749, section 5.1). Used by [`google`](super::google),
//! [`entra`](super::entra) and [`signer`](super::signer).

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::failure::Failure;
use super::renewed::Fresh;

/// How long a token lives that does not say it.
const USUAL_LIFE: Duration = Duration::from_secs(3_600);

/// A token as requests send it.
pub struct Token {
    /// `Bearer TOKEN`.
    pub bearer: HeaderValue,
    /// Another header that goes along.
    pub more: Option<(HeaderName, HeaderValue)>,
}

/// A token and its life.
pub fn token(text: &str, life: Option<Duration>, who: &str) -> Result<Fresh<Token>, Failure> {
    let bearer = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
    let mut bearer = bearer.map_err(|_| Failure::away(format!("the token of {who} cannot be sent in a header")))?;
    bearer.set_sensitive(true);
    Ok(Fresh { value: Token { bearer, more: None }, life: Some(life.unwrap_or(USUAL_LIFE)) })
}

/// The text of the token in a reply, and its life. Some write numbers as texts.
pub fn read(reply: &Value, who: &str) -> Result<(String, Option<Duration>), Failure> {
    let Some(text) = reply.get("access_token").and_then(Value::as_str).filter(|text| !text.is_empty()) else {
        return Err(Failure::away(format!("the reply of {who} has no access_token")));
    };
    Ok((text.to_owned(), reply.get("expires_in").and_then(seconds)))
}

/// Seconds, as a number or a text.
pub fn seconds(value: &Value) -> Option<Duration> {
    let seconds = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn replies_are_read() {
        let (text, life) = read(&json!({"access_token": "t", "expires_in": "3599"}), "it").unwrap();
        assert_eq!((text.as_str(), life), ("t", Some(Duration::from_secs(3599))));
        assert_eq!(read(&json!({"access_token": "t", "expires_in": -1}), "it").unwrap().1, None);
        assert!(read(&json!({"access_token": ""}), "it").is_err());
        let fresh = token("t\n", None, "it").unwrap();
        assert!(fresh.value.bearer.is_sensitive() && fresh.value.bearer == "Bearer t");
        assert!(token("a\nb", None, "it").is_err());
    }
}
