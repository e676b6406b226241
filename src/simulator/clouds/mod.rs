//! The clouds' own rules: who gets credentials, how long they are good for, and what a request must have to be let in.
//!
//! [`issue`] has the endpoints that give credentials, [`signature`] checks AWS's signatures.

mod issue;
mod signature;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::bedrock::named_error;

pub use issue::{Answered, route};

/// The fixed keys of the simulated AWS.
pub const ACCESS_KEY: &str = "AKIASIMULATEDSIMULAT";
/// Their secret half.
pub const SECRET_KEY: &str = "simulated/secret+key/of+nobody0000000000";
/// More tokens than this are not remembered: the oldest are forgotten.
const MOST: usize = 100_000;

/// How the clouds behave.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long credentials are good for.
    pub life: Duration,
    /// Seconds that their clock is ahead of this machine's.
    pub ahead: i64,
    /// So many requests for credentials get a 429 first.
    pub busy: u64,
}

/// A cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// AWS.
    Aws,
    /// Google Cloud.
    Google,
    /// Azure.
    Azure,
}

/// What was given to whom, and what came of it.
#[derive(Debug, Clone, Default)]
pub struct CloudCounts {
    /// Credentials given, by the kind of who asked.
    pub issued: BTreeMap<&'static str, u64>,
    /// Requests for credentials that were turned away.
    pub refused: u64,
    /// Requests that were let in.
    pub admitted: u64,
    /// Requests that were not, by why.
    pub rejected: BTreeMap<&'static str, u64>,
}

/// The clouds of a server.
pub struct Clouds {
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    number: u64,
    tokens: HashMap<String, (Cloud, Instant)>,
    /// Keys of sessions: the secret, the token, the end.
    sessions: HashMap<String, (String, String, Instant)>,
    busy: u64,
    counts: CloudCounts,
}

/// Why a request is not let in: a word for the counts, the status, the body.
type Rejection = (&'static str, u16, Value);

impl Clouds {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: Mutex::new(State { busy: settings.busy, ..State::default() }) }
    }

    /// What it has seen.
    pub fn counts(&self) -> CloudCounts {
        self.state().counts.clone()
    }

    /// Its clock.
    pub fn now(&self) -> SystemTime {
        let by = Duration::from_secs(self.settings.ahead.unsigned_abs());
        if self.settings.ahead < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request in, or says why not. `key`: the key that serves as well.
    ///
    /// # Errors
    /// The status and the body of the error.
    pub fn admit(
        &self,
        cloud: Cloud,
        head: &http::request::Parts,
        body: &[u8],
        key: Option<&str>,
    ) -> Result<(), (u16, Value)> {
        let outcome = self.check(cloud, head, body, key);
        let mut state = self.state();
        match outcome {
            Ok(()) => {
                state.counts.admitted += 1;
                Ok(())
            }
            Err((why, status, body)) => {
                *state.counts.rejected.entry(why).or_default() += 1;
                Err((status, body))
            }
        }
    }

    fn check(
        &self,
        cloud: Cloud,
        head: &http::request::Parts,
        body: &[u8],
        key: Option<&str>,
    ) -> Result<(), Rejection> {
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let authorization = text("authorization").unwrap_or_default();
        if cloud == Cloud::Azure && key.is_some() && text("api-key") == key {
            return Ok(());
        }
        if let Some(token) = authorization.strip_prefix("Bearer ") {
            if Some(token) == key {
                return Ok(());
            }
            let known = self.state().tokens.get(token).copied();
            return match known {
                Some((of, end)) if of == cloud && end > Instant::now() => Ok(()),
                Some((of, _)) if of == cloud => Err(rejection(cloud, "expired")),
                _ => Err(rejection(cloud, "unknown")),
            };
        }
        if cloud != Cloud::Aws {
            return Err(rejection(cloud, "missing"));
        }
        self.check_signature(head, body)
    }

    /// Checks AWS's signature of a request.
    fn check_signature(&self, head: &http::request::Parts, body: &[u8]) -> Result<(), Rejection> {
        let wrong = |why, name, message: &str| (why, 403, named_error(name, message));
        let Some(given) = signature::read(&head.headers) else {
            return Err(wrong("missing", "MissingAuthenticationTokenException", "Missing Authentication Token"));
        };
        let invalid = "The security token included in the request is invalid.";
        let session = head.headers.get("x-amz-security-token").and_then(|token| token.to_str().ok());
        let secret = if given.id == ACCESS_KEY {
            SECRET_KEY.to_owned()
        } else {
            let known = self.state().sessions.get(given.id).cloned();
            let Some((secret, token, end)) = known else {
                return Err(wrong("unknown", "UnrecognizedClientException", invalid));
            };
            if session != Some(token.as_str()) {
                return Err(wrong("unknown", "UnrecognizedClientException", invalid));
            }
            if end <= Instant::now() {
                let message = "The security token included in the request is expired";
                return Err(wrong("expired", "ExpiredTokenException", message));
            }
            secret
        };
        if let Err(message) = signature::is_timely(&given, self.now()) {
            return Err(wrong("skewed", "InvalidSignatureException", &message));
        }
        signature::verify(&given, &secret, head, body)
            .map_err(|message| wrong("signature", "InvalidSignatureException", &message))
    }

    fn issue(&self, kind: &'static str) -> (u64, Instant) {
        let mut state = self.state();
        state.number += 1;
        *state.counts.issued.entry(kind).or_default() += 1;
        if state.tokens.len() + state.sessions.len() > MOST {
            state.tokens.clear();
            state.sessions.clear();
        }
        (state.number, Instant::now() + self.settings.life)
    }

    /// A new token.
    fn token(&self, cloud: Cloud, kind: &'static str) -> String {
        let (number, end) = self.issue(kind);
        let token = format!("simulated-token-of-{kind}-{number:08}");
        self.state().tokens.insert(token.clone(), (cloud, end));
        token
    }

    /// The keys of a new session: key, secret, token.
    fn session(&self, kind: &'static str) -> [String; 3] {
        let (number, end) = self.issue(kind);
        let (id, secret) = (format!("ASIASIMULATED{number:07}"), format!("simulated/session/secret/{number:015}"));
        let token = format!("simulated-session-token-{number:08}");
        self.state().sessions.insert(id.clone(), (secret.clone(), token.clone(), end));
        [id, secret, token]
    }

    /// Whether a request for credentials is turned away because there are too many.
    fn is_busy(&self) -> bool {
        let mut state = self.state();
        let is_busy = state.busy > 0;
        state.busy = state.busy.saturating_sub(1);
        state.counts.refused += u64::from(is_busy);
        is_busy
    }
}

/// A request without a good token, in the words of a cloud.
fn rejection(cloud: Cloud, why: &'static str) -> Rejection {
    let body = match cloud {
        Cloud::Aws => {
            named_error("AccessDeniedException", "Authentication failed: Please make sure your API Key is valid.")
        }
        Cloud::Google => json!({"error": {"code": 401, "status": "UNAUTHENTICATED", "message":
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid \
             authentication credential."}}),
        Cloud::Azure => json!({"error": {"code": "Unauthorized", "message":
            "Access token is missing, invalid, audience is incorrect, or have expired."}}),
    };
    (why, if cloud == Cloud::Aws { 403 } else { 401 }, body)
}

/// The cloud whose path this is, if it is one.
pub fn cloud_of(path: &str, headers: &HeaderMap) -> Option<Cloud> {
    if path.starts_with("/model/") {
        Some(Cloud::Aws)
    } else if path.starts_with("/v1/projects/") {
        Some(Cloud::Google)
    } else if ["/openai/", "/azure/openai/"].iter().any(|below| path.starts_with(below)) {
        // With a key that nobody has set, anybody is let in as everywhere else.
        headers.contains_key(header::AUTHORIZATION).then_some(Cloud::Azure)
    } else {
        None
    }
}
