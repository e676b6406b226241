//! Secrets in what servers say. Some repeat the key that they were sent, whole or in part; no error may show it.

use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use memchr::memmem::Finder;
use reqwest::Url;
use rustc_hash::FxHashSet;

use super::auth::Signer;
use super::error::ProviderError;
use super::secret_names::may_be_secret;
use super::shown::escape_controls;
use super::status::REQUEST_IDS;
use super::transport::Received;
use of_signer::OfSigner;

mod of_signer;

/// So many characters of a secret in a row give it away.
const TELLING: usize = 8;
/// Shorter ones are no secrets but placeholders.
const SHORTEST: usize = 4;
/// Secrets of this length and more are shown by their first characters.
const LONG: usize = 16;
const SHOWN: usize = 3;
/// In an answer only secrets of this length and more are looked for: shorter ones may be words.
const LONGEST_WORD: usize = 16;
/// Variables with the addresses of proxies, which may hold passwords.
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// The secrets of one strategy.
#[derive(Default)]
pub struct Secrets(Vec<Secret>, Option<OfSigner>);

struct Secret {
    text: String,
    /// All its parts that give it away.
    telling: FxHashSet<[u8; TELLING]>,
    finder: Finder<'static>,
    /// Whether answers are searched for it.
    tells: bool,
    /// A password may be any word; a key has more than letters.
    is_password: bool,
}

impl Secrets {
    /// The secrets in these keys, in an address, and in further headers.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a HeaderValue>, urls: &[&str], headers: &HeaderMap) -> Self {
        let mut secrets = Self::default();
        for key in keys {
            secrets.add_header(key);
        }
        for url in urls.iter().filter_map(|url| Url::parse(url).ok()) {
            secrets.add_url(&url);
        }
        for proxy in PROXIES.iter().filter_map(|name| std::env::var(name).ok()) {
            let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
            if let Ok(url) = Url::parse(&proxy) {
                secrets.add_url(&url);
            }
        }
        for (name, value) in headers {
            if may_be_secret(name.as_str()) {
                secrets.add_header(value);
            }
        }
        secrets
    }

    /// The same with those that a signer has at the time.
    #[must_use]
    pub fn and_of(self, signer: Option<Arc<Signer>>) -> Self {
        Self(self.0, signer.map(OfSigner::new))
    }

    /// Removes the secrets, and the key that this request alone had, from all that an error shows.
    pub fn remove(&self, error: &mut ProviderError, key: Option<&HeaderValue>) {
        let mut own = Self::default();
        if let Some(key) = key {
            own.add_header(key);
        }
        let signers = self.1.as_ref().map(OfSigner::present);
        let clean = |text: &mut String| {
            for secret in self.0.iter().chain(&own.0).chain(signers.iter().flat_map(|secrets| secrets.iter())) {
                secret.remove(text);
            }
        };
        let shown = |text: &mut String| {
            clean(text);
            escape_controls(text);
        };
        let mut texts: Vec<&mut String> = Vec::new();
        match error {
            ProviderError::Elsewhere(_) | ProviderError::Deferred => {}
            ProviderError::Status { message, code, request_id, beginning, .. } => {
                shown(message);
                texts.extend(beginning.as_mut().map(|beginning| &mut beginning.text));
                code.iter_mut().chain(request_id).for_each(shown);
            }
            ProviderError::Connection { message, .. } | ProviderError::Timeout { message, .. } => shown(message),
            ProviderError::Request(message) => shown(message),
            ProviderError::Protocol { problem, excerpt, .. } => [problem, excerpt].into_iter().for_each(shown),
            ProviderError::Cut(cut) => {
                shown(&mut cut.message);
                texts.push(&mut cut.text);
            }
            ProviderError::Unusable(unusable) => {
                texts.push(&mut unusable.text);
                texts.extend(&mut unusable.native_finish);
                texts.extend(&mut unusable.request_id);
            }
            ProviderError::Validation { problem, text, request_id, .. } => {
                texts.extend([problem, text]);
                texts.extend(request_id);
            }
        }
        texts.into_iter().for_each(clean);
    }

    /// A reply's body without the secrets, and without the key that this request alone had, where they stand in it as
    /// they were sent. Nearly always it is the same body.
    pub fn masked(&self, body: Bytes, key: Option<&HeaderValue>) -> Bytes {
        let mut own = Self::default();
        if let Some(key) = key.filter(|key| may_be_in(&body, key)) {
            own.add_header(key);
        }
        let signers = self.1.as_ref().map(OfSigner::present);
        let is_there = |secret: &&Secret| secret.tells && secret.finder.find(&body).is_some();
        let all = self.0.iter().chain(&own.0).chain(signers.iter().flat_map(|secrets| secrets.iter()));
        let found: Vec<&Secret> = all.filter(is_there).collect();
        if found.is_empty() {
            return body;
        }
        let mut clean = body.to_vec();
        for secret in found {
            let (instead, whole) = (secret.instead(), std::mem::take(&mut clean));
            let mut copied = 0;
            for at in secret.finder.find_iter(&whole) {
                clean.extend_from_slice(&whole[copied..at]);
                clean.extend_from_slice(instead.as_bytes());
                copied = at + secret.text.len();
            }
            clean.extend_from_slice(&whole[copied..]);
        }
        clean.into()
    }

    /// The same for a whole reply: its body, and the headers that are passed on.
    pub fn mask(&self, received: &mut Received, key: Option<&HeaderValue>) {
        received.body = self.masked(std::mem::take(&mut received.body), key);
        for name in REQUEST_IDS {
            let Some(value) = received.headers.get_mut(*name).filter(|value| value.len() >= LONGEST_WORD) else {
                continue;
            };
            let clean = self.masked(Bytes::copy_from_slice(value.as_bytes()), key);
            if clean != value.as_bytes()
                && let Ok(clean) = HeaderValue::from_maybe_shared(clean)
            {
                *value = clean;
            }
        }
    }

    /// The secrets in further fields of requests, by their names: some gateways take keys there.
    pub fn add_fields(&mut self, fields: &serde_json::Map<String, serde_json::Value>) {
        for (name, value) in fields {
            self.add_field(value, may_be_secret(name));
        }
    }

    fn add_field(&mut self, value: &serde_json::Value, is_secret: bool) {
        match value {
            serde_json::Value::String(text) if is_secret => self.add(text, false),
            serde_json::Value::Array(values) => values.iter().for_each(|value| self.add_field(value, is_secret)),
            serde_json::Value::Object(inner) => self.add_fields(inner),
            _ => {}
        }
    }

    /// The secret of a header's value, without the word that says what it is (`Bearer`).
    fn add_header(&mut self, value: &HeaderValue) {
        if let Ok(value) = value.to_str() {
            let value = value.trim();
            let (scheme, rest) = value.split_once(' ').map_or(("", value), |(scheme, rest)| (scheme, rest.trim()));
            self.add(rest, false);
            if scheme.eq_ignore_ascii_case("basic")
                && let Ok(pair) = base64::engine::general_purpose::STANDARD.decode(rest)
                && let Ok(pair) = String::from_utf8(pair)
                && let Some((_, word)) = pair.split_once(':')
            {
                self.add(word, true);
            }
        }
    }

    fn add_url(&mut self, url: &Url) {
        if let Some(password) = url.password() {
            let decoded = |text: &str| {
                let pairs = format!("x={}", text.replace('+', "%2B"));
                url::form_urlencoded::parse(pairs.as_bytes()).next().map(|(_, value)| value.into_owned())
            };
            let (user, word) = (decoded(url.username()).unwrap_or_default(), decoded(password).unwrap_or_default());
            // As it is sent (RFC 7617).
            self.add(&base64::engine::general_purpose::STANDARD.encode(format!("{user}:{word}")), false);
            self.add(password, true);
            self.add(&word, true);
        }
        for (name, value) in url.query_pairs() {
            if may_be_secret(&name) || matches!(&*name, "sig" | "code") {
                self.add(&value, false);
            }
        }
    }

    /// Adds a secret, in all the ways in which it is written: as it is, in URLs, in JSON.
    fn add(&mut self, text: &str, is_password: bool) {
        self.add_written(text.to_owned(), is_password);
        if !text.bytes().all(is_unreserved) {
            let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
            self.add_written(encoded.replace('+', "%20"), is_password);
            self.add_written(text.replace('/', "\\/"), is_password);
        }
    }

    fn add_written(&mut self, text: String, is_password: bool) {
        if text.len() >= SHORTEST && !self.0.iter().any(|known| known.text == text) {
            let telling = text.as_bytes().windows(TELLING).filter_map(|part| part.try_into().ok()).collect();
            let finder = Finder::new(text.as_bytes()).into_owned();
            self.0.push(Secret { tells: tells(&text), text, telling, finder, is_password });
        }
    }
}

/// Whether a key is in a text as it is, or may be in it in another form: it costs more to look for all of them.
fn may_be_in(text: &[u8], key: &HeaderValue) -> bool {
    let key = key.as_bytes();
    let word = key.rsplit(|byte| *byte == b' ').next().unwrap_or(key);
    !word.iter().all(|byte| is_unreserved(*byte)) || memchr::memmem::find(text, word).is_some()
}

/// Whether a byte is written as it is in URLs and in JSON.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Whether a text is no word that an answer may well have.
fn tells(text: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| text.as_bytes().iter().any(kind);
    text.len() >= LONGEST_WORD && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
}

impl Secret {
    fn remove(&self, text: &mut String) {
        let Some(mut place) = self.find(text) else { return };
        let (mut clean, mut rest) = (String::with_capacity(text.len()), text.as_str());
        loop {
            clean.push_str(&rest[..place.0]);
            clean.push_str(&self.instead());
            rest = &rest[place.1..];
            match self.find(rest) {
                Some(next) => place = next,
                None => break,
            }
        }
        clean.push_str(rest);
        *text = clean;
    }

    /// What stands in place of the secret.
    fn instead(&self) -> String {
        match self.text.char_indices().nth(SHOWN) {
            Some((end, _)) if self.text.len() >= LONG => format!("{}...", &self.text[..end]),
            _ => "[redacted]".to_owned(),
        }
    }

    /// The first place where a text has the secret, or a part of it that gives it away, with all that belongs to it.
    fn find(&self, text: &str) -> Option<(usize, usize)> {
        if self.text.len() < TELLING {
            return self.find_word(text);
        }
        let gives_away = |part: &[u8]| part.try_into().is_ok_and(|part: [u8; TELLING]| self.telling.contains(&part));
        let found = text.as_bytes().windows(TELLING).position(gives_away)?;
        let belongs = |letter: char| letter.is_ascii_alphanumeric() || "_-.*+/~=\u{2026}\u{2022}".contains(letter);
        let before = text.get(..found).map_or("", |before| before);
        let start = before.trim_end_matches(|letter| belongs(letter) && !"=/".contains(letter)).len();
        let rest = text.get(found + TELLING..).unwrap_or_default();
        let end = text.len() - rest.trim_start_matches(belongs).len();
        // A full stop ends the sentence, not the key.
        let end = start + text.get(start..end).unwrap_or_default().trim_end_matches('.').len();
        (text.is_char_boundary(start) && text.is_char_boundary(end) && start < end).then_some((start, end))
    }

    /// A short secret, where it stands by itself.
    fn find_word(&self, text: &str) -> Option<(usize, usize)> {
        if !self.is_password && self.text.chars().all(char::is_alphabetic) {
            return None; // A placeholder, such as "EMPTY".
        }
        let is_part = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
        text.match_indices(&self.text)
            .map(|(at, found)| (at, at + found.len()))
            .find(|(from, to)| !is_part(text[..*from].chars().next_back()) && !is_part(text[*to..].chars().next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::error::{Beginning, Contact, Unusable};
    use crate::providers::{Category, TokenUsage};
    use proptest::prelude::*;
    use serde_json::json;

    const KEY: &str = "sk-SECRET-1234567890";

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    fn cleaned(secrets: &Secrets, text: &str) -> String {
        let mut error = ProviderError::Request(text.to_owned());
        secrets.remove(&mut error, None);
        error.to_string()
    }

    #[test]
    fn keys_are_masked_however_they_are_repeated() {
        let secrets = Secrets::new([&value(&format!("Bearer {KEY}"))], &[], &HeaderMap::new());
        for (text, expected) in [
            ("Incorrect API key provided: sk-SECRET-1234567890.", "Incorrect API key provided: sk-...."),
            ("invalid key: Bearer sk-SECRET-1234567890", "invalid key: Bearer sk-..."),
            ("provided: sk-SECRE***7890. Find", "provided: sk-.... Find"),
            ("provided: sk-SECRE\u{2026}7890!", "provided: sk-...!"),
            ("ends in ...-1234567890", "ends in sk-..."),
            ("{\"key\":\"sk-SECRET-1234567890\"}", "{\"key\":\"sk-...\"}"),
            ("a sk-SECRET-1234567890 b sk-SECRET-1234567890", "a sk-... b sk-..."),
            ("https://h/?key=sk-SECRET-1234567890&x=1", "https://h/?key=sk-...&x=1"),
            ("l\u{e4}nger: sk-SECRET-12\u{fffd}", "l\u{e4}nger: sk-...\u{fffd}"),
            ("keys begin with sk-", "keys begin with sk-"),
            ("nothing", "nothing"),
            ("\u{1b}[2Jred\r\u{202e}", "\\x1b[2Jred\\r\\u202e"),
            ("two\nlines", "two\nlines"),
        ] {
            assert_eq!(cleaned(&secrets, text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_and_headers_have_secrets_too() {
        let headers: HeaderMap =
            [("x-portkey-api-key", "portkey-77"), ("cookie", "id=abcdefgh12"), ("x-title", "my title is long")]
                .into_iter()
                .map(|(name, text)| (name.parse().unwrap(), value(text)))
                .collect();
        let url = "https://me:hunter2%21@host/v1?api-key=querykey99&api-version=2024-10-21";
        let secrets = Secrets::new([], &[url, "not a url"], &headers);
        let said =
            "hunter2! hunter2%21 bWU6aHVudGVyMiE= querykey99 portkey-77 id=abcdefgh12 my title is long 2024-10-21";
        let clean = cleaned(&secrets, said);
        for secret in ["hunter2", "bWU6aHVudGVyMiE", "querykey", "portkey-77", "abcdefgh"] {
            assert!(!clean.contains(secret), "{clean}");
        }
        assert!(clean.contains("my title is long 2024-10-21"), "{clean}");
    }

    #[test]
    fn placeholders_are_left_and_short_keys_masked() {
        let secrets = Secrets::new([&value("EMPTY"), &value("Bearer k"), &value("key-1")], &[], &HeaderMap::new());
        assert_eq!(cleaned(&secrets, "EMPTY k key-1 key-12"), "EMPTY k [redacted] key-12");
        let secrets = Secrets::new([&value("a-redacted-key")], &[], &HeaderMap::new());
        assert_eq!(cleaned(&secrets, "a-redacted-key"), "[redacted]");
        let secrets = Secrets::new([], &["http://me:word@h"], &HeaderMap::new());
        assert_eq!(cleaned(&secrets, "word, sword"), "[redacted], sword");
    }

    #[test]
    fn secrets_are_found_however_they_are_written() {
        let headers = [(
            "authorization",
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("me:open sesame!")),
        )];
        let headers = headers.iter().map(|(name, text)| (name.parse().unwrap(), value(text))).collect();
        let key = "abc/def+ghi==12345678";
        let mut secrets = Secrets::new([&value(key)], &[], &headers);
        let fields = json!({"extra": {"keys": ["first-of-many-1", {"token": "inside-1234"}]}, "title": "not secret"});
        secrets.add_fields(fields.as_object().unwrap());
        let said =
            "abc%2Fdef%2Bghi%3D%3D12345678 abc\\/def+ghi==12345678 open sesame! first-of-many-1 inside-1234 not secret";
        let clean = cleaned(&secrets, said);
        for secret in ["def", "sesame", "first-of", "inside"] {
            assert!(!clean.contains(secret), "{clean}");
        }
        assert!(clean.ends_with("not secret"), "{clean}");
    }

    #[test]
    fn answers_lose_keys_and_no_words() {
        let secrets = Secrets::new(
            [&value("Bearer simulated-placeholder"), &value(&format!("Bearer {KEY}"))],
            &[],
            &HeaderMap::new(),
        );
        let mask = |text: &str, key: Option<&HeaderValue>| {
            String::from_utf8(secrets.masked(Bytes::from(text.to_owned()), key).to_vec()).unwrap()
        };
        assert_eq!(mask("a simulated-placeholder", None), "a simulated-placeholder");
        assert_eq!(mask(&format!("{{\"a\": \"{KEY}{KEY} {KEY}\"}}"), None), "{\"a\": \"sk-...sk-... sk-...\"}");
        let fresh = value("Bearer fresh-1234567890ab");
        assert_eq!(mask("x fresh-1234567890ab", Some(&fresh)), "x fre...");
    }

    #[test]
    fn every_text_of_an_error_is_looked_at() {
        let own = value(KEY);
        let text = || format!("x {KEY} y");
        let usage = TokenUsage::default;
        for mut error in [
            ProviderError::Status {
                status: 401,
                message: text(),
                code: Some(text()),
                category: Category::Authentication,
                retryable: false,
                retry_after: None,
                request_id: Some(text()),
                limits: vec![],
                beginning: Some(Box::new(Beginning { text: text(), usage: usage() })),
            },
            ProviderError::Connection { message: text(), contact: Contact::Some },
            ProviderError::Timeout { message: text(), contact: Contact::Some },
            ProviderError::Request(text()),
            ProviderError::Protocol { protocol: "p", problem: text(), excerpt: text() },
            ProviderError::Unusable(Box::new(Unusable {
                category: Category::Refusal,
                retryable: false,
                finish_reason: "refusal",
                native_finish: Some(text()),
                text: text(),
                usage: usage(),
                request_id: Some(text()),
            })),
            ProviderError::Validation {
                problem: text(),
                text: text(),
                usage: usage().into(),
                request_id: Some(text()),
            },
        ] {
            Secrets::default().remove(&mut error, Some(&own));
            assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn no_eight_characters_of_a_key_are_left(text in ".{0,60}", cut in 0usize..30, key in "[A-Za-z0-9_-]{8,40}", more in ".{0,20}") {
            let part = &key[cut.min(key.len() - 8)..];
            let secrets = Secrets::new([&value(&key)], &[], &HeaderMap::new());
            let clean = cleaned(&secrets, &format!("{text}{part}{more}"));
            prop_assert!(!key.as_bytes().windows(8).any(|one| clean.contains(std::str::from_utf8(one).unwrap())), "{}", clean);
        }
    }
}
