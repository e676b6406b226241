//! Context caches of Google's: `cachedContents`, made, listed, prolonged and deleted as the real ones are.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::dialect::words;
use super::model::tokens;

/// What is behind the path of caches; `None` for another path.
pub fn rest_of(path: &str) -> Option<&str> {
    ["/v1beta/cachedContents", "/v1/cachedContents"].into_iter().find_map(|caches| path.strip_prefix(caches))
}

/// How long a cache lives that does not say, as at Google.
const USUAL_TTL: SignedDuration = SignedDuration::from_hours(1);

#[derive(Debug, Clone)]
struct Cache {
    model: String,
    label: Option<String>,
    tokens: usize,
    made: Timestamp,
    ends: Timestamp,
}

/// All caches of a server.
#[derive(Debug, Default)]
pub struct Caches {
    all: Mutex<(u64, BTreeMap<u64, Cache>)>,
}

impl Caches {
    /// Answers a request for the part of its path that [`rest_of`] gives: the status and the body.
    pub fn answer(&self, method: &Method, rest: &str, body: &[u8]) -> (u16, Value) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, caches) = &mut *all;
        let now = Timestamp::now();
        caches.retain(|_, cache| cache.ends > now);
        let given: Value = serde_json::from_slice(body).unwrap_or_default();
        let number = number_of(rest.trim_start_matches('/'));
        match (method.as_str(), number.and_then(|number| Some((number, caches.get_mut(&number)?)))) {
            ("POST", _) if rest.is_empty() => {
                let Some(model) = given.get("model").and_then(Value::as_str) else {
                    return invalid("model is missing");
                };
                let mut texts = Vec::new();
                words(given.get("systemInstruction").unwrap_or(&Value::Null), &mut texts);
                words(given.get("contents").unwrap_or(&Value::Null), &mut texts);
                let cache = Cache {
                    model: model.to_owned(),
                    label: given.get("displayName").and_then(Value::as_str).map(str::to_owned),
                    tokens: texts.iter().map(|text| tokens(text)).sum(),
                    made: now,
                    ends: end(now, &given),
                };
                if caches.len() >= MOST {
                    return invalid("too many caches; delete some");
                }
                *count += 1;
                let told = tell(*count, &cache);
                caches.insert(*count, cache);
                (200, told)
            }
            ("GET", _) if rest.is_empty() => {
                let listed: Vec<Value> = caches.iter().map(|(number, cache)| tell(*number, cache)).collect();
                (200, json!({"cachedContents": listed}))
            }
            ("GET", Some((number, cache))) => (200, tell(number, cache)),
            ("PATCH", Some((number, cache))) => {
                cache.ends = end(now, &given);
                (200, tell(number, cache))
            }
            ("DELETE", Some((number, _))) => {
                caches.remove(&number);
                (200, json!({}))
            }
            (_, None) if !rest.is_empty() => missing(),
            _ => invalid("use POST, GET, PATCH or DELETE"),
        }
    }

    /// Tokens of the cache that a request names.
    ///
    /// # Errors
    /// The status and the body for a cache that is not there.
    pub fn tokens(&self, name: &str) -> Result<usize, (u16, Value)> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let found = name.strip_prefix("cachedContents/").and_then(number_of).and_then(|number| all.1.get(&number));
        found.filter(|cache| cache.ends > Timestamp::now()).map(|cache| cache.tokens).ok_or_else(missing)
    }
}

/// Most caches at a time.
const MOST: usize = 10_000;

fn number_of(id: &str) -> Option<u64> {
    u64::from_str_radix(id, 16).ok()
}

fn ttl(given: &Value) -> SignedDuration {
    let seconds = given.get("ttl").and_then(Value::as_str).and_then(|ttl| ttl.strip_suffix('s')?.parse::<f64>().ok());
    seconds.and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok()).unwrap_or(USUAL_TTL)
}

/// When a cache that is made or prolonged now ends; never later than there is a time for.
fn end(now: Timestamp, given: &Value) -> Timestamp {
    now.checked_add(ttl(given)).unwrap_or(Timestamp::MAX)
}

fn tell(number: u64, cache: &Cache) -> Value {
    json!({
        "name": format!("cachedContents/{number:016x}"), "model": cache.model, "displayName": cache.label,
        "createTime": cache.made.to_string(), "updateTime": cache.made.to_string(), "expireTime": cache.ends.to_string(),
        "usageMetadata": {"totalTokenCount": cache.tokens},
    })
}

fn missing() -> (u16, Value) {
    let message = "CachedContent not found (or permission denied)";
    (403, json!({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": message}}))
}

fn invalid(message: &str) -> (u16, Value) {
    (400, json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": message}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_made_listed_used_prolonged_and_deleted() {
        let caches = Caches::default();
        let body = br#"{"model": "models/g", "contents": [{"parts": [{"text": "12345678"}]}], "ttl": "60s"}"#;
        let (status, made) = caches.answer(&Method::POST, "", body);
        assert_eq!((status, &made["usageMetadata"]["totalTokenCount"]), (200, &json!(2)));
        let name = made["name"].as_str().unwrap();
        assert_eq!(caches.tokens(name), Ok(2));
        let rest = name.strip_prefix("cachedContents").unwrap();
        let (_, longer) = caches.answer(&Method::PATCH, rest, br#"{"ttl": "900s"}"#);
        assert!(longer["expireTime"].as_str() > made["expireTime"].as_str());
        assert_eq!(caches.answer(&Method::GET, "", b"").1["cachedContents"], json!([longer]));
        assert_eq!(caches.answer(&Method::GET, rest, b"").1, longer);
        assert_eq!(caches.answer(&Method::DELETE, rest, b"").0, 200);
        assert_eq!(caches.answer(&Method::GET, rest, b"").0, 403);
        assert_eq!(caches.tokens(name).unwrap_err().0, 403);
    }

    #[test]
    fn a_cache_that_has_ended_is_gone_and_nonsense_is_refused() {
        let caches = Caches::default();
        let (_, made) = caches.answer(&Method::POST, "", br#"{"model": "models/g", "ttl": "0s"}"#);
        assert_eq!(caches.tokens(made["name"].as_str().unwrap()).unwrap_err().0, 403);
        assert_eq!(caches.answer(&Method::POST, "", b"{").0, 400);
        assert_eq!(caches.answer(&Method::PUT, "", b"").0, 400);
        assert_eq!(caches.answer(&Method::GET, "/zz", b"").0, 403);
    }
}
