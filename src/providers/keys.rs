//! Secrets: API keys and how they are sent.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::error::ProviderError;
use super::reply::Reply;

/// The header that carries a key, or a signature.
#[derive(Debug, Clone)]
pub struct KeyHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
    /// Others that belong to it.
    pub more: Vec<(HeaderName, HeaderValue)>,
}

impl KeyHeader {
    /// One alone.
    pub fn new(name: HeaderName, value: HeaderValue) -> Self {
        Self { name, value, more: Vec::new() }
    }

    /// Sets it in place of others of its name.
    pub fn put_on(&self, headers: &mut HeaderMap) {
        headers.insert(&self.name, self.value.clone());
        for (name, value) in &self.more {
            headers.insert(name, value.clone());
        }
    }
}

/// How a key is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// `authorization: Bearer KEY` (RFC 6750).
    Bearer,
    /// In a header of the provider's own.
    Header(&'static str),
}

/// The keys of one strategy. With several, each request takes the next.
pub struct Keys {
    auth: Auth,
    values: Vec<HeaderValue>,
    next: AtomicUsize,
}

impl Keys {
    /// # Errors
    /// When a key has characters that no header can carry. The message holds no key.
    pub fn new(auth: Auth, keys: &[SecretString]) -> Result<Self, String> {
        let values = keys.iter().map(|key| value(auth, key)).collect::<Result<_, _>>()?;
        Ok(Self { auth, values, next: AtomicUsize::new(0) })
    }

    /// Makes of what replies say about one key's limits what holds for all keys together, which take turns.
    #[allow(clippy::cast_precision_loss)]
    pub fn for_all(&self, outcome: &mut Result<Reply, ProviderError>) {
        let keys = self.values.len().max(1) as f64;
        let limits = match outcome {
            Ok(reply) => &mut reply.limits,
            Err(ProviderError::Status { limits, .. }) => limits,
            Err(_) => return,
        };
        for told in limits.iter_mut().filter(|_| keys > 1.0) {
            told.limit = told.limit.map(|limit| limit * keys);
            told.remaining = told.remaining.map(|remaining| remaining * keys);
        }
    }

    /// The fixed keys, as headers carry them.
    pub fn values(&self) -> &[HeaderValue] {
        &self.values
    }

    /// The header that all requests have, unless one has another key: with the only key, or the first.
    pub fn usual_header(&self) -> Option<KeyHeader> {
        self.values.first().map(|value| KeyHeader::new(name(self.auth), value.clone()))
    }

    /// The header of the next request if it is not the usual one: with `fresh` if the user's function gave a key for it,
    /// else with the next of several.
    ///
    /// # Errors
    /// When `fresh` has characters that no header can carry.
    pub fn header(&self, fresh: Option<&SecretString>) -> Result<Option<KeyHeader>, String> {
        let value = match (fresh, self.values.as_slice()) {
            (Some(key), _) => {
                let auth = how(self.auth, key);
                return Ok(Some(KeyHeader::new(name(auth), value(auth, key)?)));
            }
            (None, [] | [_]) => return Ok(None),
            (None, many) => many[self.next.fetch_add(1, Ordering::Relaxed) % many.len()].clone(),
        };
        Ok(Some(KeyHeader::new(name(self.auth), value)))
    }
}

/// The header of Azure's keys.
const OF_AZURE: Auth = Auth::Header("api-key");

/// How a key of the user's function is sent: at Azure it may be a token of Entra, which is a JSON web token.
fn how(auth: Auth, key: &SecretString) -> Auth {
    let key = key.expose_secret().trim();
    let is_token = key.starts_with("eyJ") && key.split('.').count() == 3;
    if auth == OF_AZURE && is_token { Auth::Bearer } else { auth }
}

fn name(auth: Auth) -> HeaderName {
    match auth {
        Auth::Bearer => http::header::AUTHORIZATION,
        Auth::Header(name) => HeaderName::from_static(name),
    }
}

fn value(auth: Auth, key: &SecretString) -> Result<HeaderValue, String> {
    // A line break at the end comes from a file or a shell, and is part of no key.
    let key = key.expose_secret().trim();
    let value = match auth {
        Auth::Bearer => HeaderValue::from_str(&format!("Bearer {key}")),
        Auth::Header(_) => HeaderValue::from_str(key),
    };
    let mut value = value.map_err(|_| {
        "api_key has characters that are not allowed in a header, such as a line break; remove them".to_owned()
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(auth: Auth, keys: &[&str]) -> Result<Keys, String> {
        Keys::new(auth, &keys.iter().map(|key| SecretString::from(*key)).collect::<Vec<_>>())
    }

    fn sent(keys: &Keys) -> String {
        keys.header(None).unwrap().unwrap().value.to_str().unwrap().to_owned()
    }

    #[test]
    fn several_keys_take_turns() {
        let keys = keys(Auth::Header("x-api-key"), &["a", "b"]).unwrap();
        assert_eq!([sent(&keys), sent(&keys), sent(&keys)], ["a", "b", "a"]);
    }

    #[test]
    fn a_fresh_key_goes_first_and_none_is_no_header() {
        let none = keys(Auth::Bearer, &[]).unwrap();
        assert!(none.header(None).unwrap().is_none() && none.usual_header().is_none());
        let KeyHeader { name, value, .. } = none.header(Some(&SecretString::from("k"))).unwrap().unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Bearer k"));
        assert!(format!("{value:?}").contains("Sensitive"));
    }

    #[test]
    fn a_function_may_give_tokens_of_entra() {
        let azure = keys(OF_AZURE, &[]).unwrap();
        let sent = |key: &str| {
            let KeyHeader { name, value, .. } = azure.header(Some(&SecretString::from(key))).unwrap().unwrap();
            format!("{name}: {}", value.to_str().unwrap())
        };
        assert_eq!(sent("0123"), "api-key: 0123");
        assert_eq!(sent("eyJhbGciOi.eyJhdWQi.c2ln"), "authorization: Bearer eyJhbGciOi.eyJhdWQi.c2ln");
    }

    #[test]
    fn the_only_key_is_the_usual_one() {
        let keys = keys(Auth::Bearer, &["k"]).unwrap();
        let KeyHeader { name, value, .. } = keys.usual_header().unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Bearer k"));
        assert!(value.is_sensitive() && keys.header(None).unwrap().is_none());
        assert_eq!(keys.header(Some(&SecretString::from("f"))).unwrap().unwrap().value, "Bearer f");
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_refused_without_being_shown() {
        let error = keys(Auth::Bearer, &["sk-secret\nof a file"]).err().unwrap();
        assert!(error.contains("api_key") && !error.contains("secret"));
    }
}
