//! Context caches of Google's: `cachedContents`, made, listed, prolonged and deleted as the real ones are.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::dialect::words;
use super::model::tokens;
use super::prompt_caches::{Settings, gemini_least};

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

impl Cache {
    /// The seconds that it is there, up to a time.
    fn lived(&self, now: Timestamp) -> f64 {
        now.min(self.ends).duration_since(self.made).as_secs_f64().max(0.0)
    }
}

/// All caches of a server.
#[derive(Debug, Default)]
pub struct Caches {
    /// How prompt caches behave, if there are any.
    settings: Option<Settings>,
    all: Mutex<(u64, BTreeMap<u64, Cache>)>,
    /// By model, tokens that were created, and tokens times seconds of caches that are gone.
    past: Mutex<BTreeMap<String, (u64, f64)>>,
}

impl Caches {
    /// Those of a server whose prompt caches behave like this.
    pub fn new(settings: Option<Settings>) -> Self {
        Self { settings, ..Self::default() }
    }

    /// By model, tokens that were created, and tokens times hours that were held.
    pub fn ledger(&self) -> BTreeMap<String, (u64, f64)> {
        let (now, scale) = (Timestamp::now(), self.scale());
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ledger = self.past.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for cache in all.1.values() {
            if let Some((_, held)) = ledger.get_mut(short(&cache.model)) {
                *held += token_seconds(cache, now);
            }
        }
        ledger.values_mut().for_each(|(_, held)| *held *= scale / 3600.0);
        ledger
    }

    /// How many seconds of a cache's life pass in a second.
    fn scale(&self) -> f64 {
        self.settings.map_or(1.0, |settings| settings.time_scale)
    }

    /// A cache is gone.
    fn bury(&self, cache: &Cache, now: Timestamp) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, held)) = past.get_mut(short(&cache.model)) {
            *held += token_seconds(cache, now);
        }
    }

    /// When a cache that is made or prolonged now ends; never later than there is a time for.
    fn end(&self, now: Timestamp, given: &Value) -> Timestamp {
        let life = ttl(given).as_secs_f64() / self.scale();
        let life = SignedDuration::try_from_secs_f64(life).unwrap_or(SignedDuration::MAX);
        now.checked_add(life).unwrap_or(Timestamp::MAX)
    }

    /// Answers a request for the part of its path that [`rest_of`] gives: the status and the body.
    pub fn answer(&self, method: &Method, rest: &str, body: &[u8]) -> (u16, Value) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, caches) = &mut *all;
        let now = Timestamp::now();
        caches.retain(|_, cache| {
            let is_there = cache.ends > now;
            if !is_there {
                self.bury(cache, now);
            }
            is_there
        });
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
                    ends: self.end(now, &given),
                };
                let least = gemini_least(model);
                if self.settings.is_some() && cache.tokens < least {
                    return invalid(&format!(
                        "Cached content is too small. total_token_count={}, min_total_token_count={least}",
                        cache.tokens
                    ));
                }
                if caches.len() >= MOST {
                    return invalid("too many caches; delete some");
                }
                *count += 1;
                let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
                past.entry(short(model).to_owned()).or_default().0 += cache.tokens as u64;
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
                cache.ends = self.end(now, &given);
                (200, tell(number, cache))
            }
            ("DELETE", Some((number, _))) => {
                if let Some(cache) = caches.remove(&number) {
                    self.bury(&cache, now);
                }
                (200, json!({}))
            }
            (_, None) if !rest.is_empty() => missing(),
            _ => invalid("use POST, GET, PATCH or DELETE"),
        }
    }

    /// Tokens of the cache that a request for a model names.
    ///
    /// # Errors
    /// The status and the body for a cache that is not there, or is of another model.
    pub fn tokens(&self, name: &str, model: &str) -> Result<usize, (u16, Value)> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let found = name.strip_prefix("cachedContents/").and_then(number_of).and_then(|number| all.1.get(&number));
        let cache = found.filter(|cache| cache.ends > Timestamp::now()).ok_or_else(missing)?;
        if self.settings.is_some() && short(&cache.model) != short(model) {
            return Err(invalid(&format!(
                "Model used by GenerateContent request (models/{}) and CachedContent ({}) has to be the same.",
                short(model),
                cache.model
            )));
        }
        Ok(cache.tokens)
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

/// A model's name without its place.
fn short(model: &str) -> &str {
    model.trim_start_matches("models/")
}

#[allow(clippy::cast_precision_loss)]
fn token_seconds(cache: &Cache, now: Timestamp) -> f64 {
    cache.tokens as f64 * cache.lived(now)
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
        assert_eq!(caches.tokens(name, "g"), Ok(2));
        let rest = name.strip_prefix("cachedContents").unwrap();
        let (_, longer) = caches.answer(&Method::PATCH, rest, br#"{"ttl": "900s"}"#);
        assert!(longer["expireTime"].as_str() > made["expireTime"].as_str());
        assert_eq!(caches.answer(&Method::GET, "", b"").1["cachedContents"], json!([longer]));
        assert_eq!(caches.answer(&Method::GET, rest, b"").1, longer);
        assert_eq!(caches.answer(&Method::DELETE, rest, b"").0, 200);
        assert_eq!(caches.answer(&Method::GET, rest, b"").0, 403);
        assert_eq!(caches.tokens(name, "g").unwrap_err().0, 403);
    }

    #[test]
    fn a_cache_that_has_ended_is_gone_and_nonsense_is_refused() {
        let caches = Caches::default();
        let (_, made) = caches.answer(&Method::POST, "", br#"{"model": "models/g", "ttl": "0s"}"#);
        assert_eq!(caches.tokens(made["name"].as_str().unwrap(), "g").unwrap_err().0, 403);
        assert_eq!(caches.answer(&Method::POST, "", b"{").0, 400);
        assert_eq!(caches.answer(&Method::PUT, "", b"").0, 400);
        assert_eq!(caches.answer(&Method::GET, "/zz", b"").0, 403);
    }

    #[test]
    fn with_prompt_caches_a_cache_has_a_least_length_a_model_and_a_price() {
        let caches = Caches::new(Some(Settings { time_scale: 3600.0, per_machine: 15.0, implicit: 1.0 }));
        let body = |text: &str| {
            json!({"model": "models/gemini-2.5-flash", "contents": [{"parts": [{"text": text}]}], "ttl": "7200s"})
                .to_string()
        };
        let (status, told) = caches.answer(&Method::POST, "", body("short").as_bytes());
        assert!(status == 400 && told.to_string().contains("min_total_token_count=2048"), "{told}");
        let (_, made) = caches.answer(&Method::POST, "", body(&"x".repeat(8192)).as_bytes());
        let name = made["name"].as_str().unwrap();
        assert_eq!(caches.tokens(name, "gemini-2.5-flash"), Ok(2048));
        assert_eq!(caches.tokens(name, "gemini-2.5-pro").unwrap_err().0, 400);
        // Two hours are two seconds here.
        let [made, ends] =
            ["createTime", "expireTime"].map(|at| made[at].as_str().unwrap().parse::<Timestamp>().unwrap());
        assert_eq!(ends.duration_since(made).as_secs(), 2);
        caches.answer(&Method::DELETE, &name["cachedContents".len()..], b"");
        let ledger = caches.ledger();
        let (created, hours) = ledger["gemini-2.5-flash"];
        assert!(created == 2048 && hours > 0.0 && ledger.len() == 1, "{ledger:?}");
        assert_eq!(caches.ledger(), ledger, "it is gone");
    }
}
