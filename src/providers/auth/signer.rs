//! What signs the requests of one client, with credentials that are renewed for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::{Client, Url};
use secrecy::ExposeSecret;

use super::aws::AwsSource;
use super::entra::EntraSource;
use super::environment::Environment;
use super::google::GoogleSource;
use super::http::Http;
use super::renewed::{Current, Renewed};
use super::sigv4::{AwsKeys, Scope, ToSign, sensitive, sha256};
use super::token::Token;
use crate::providers::error::ProviderError;
use crate::providers::keys::KeyHeader;
use crate::providers::shared::Payload;

/// A clock that is off by less is right: signatures are valid for five minutes, and `Date` has no fractions.
const SKEW: i64 = 30;

/// Whose credentials a provider takes, beside keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// AWS's.
    Aws,
    /// Google Cloud's.
    Google,
    /// Microsoft Entra's.
    Entra,
}

/// See the module.
pub struct Signer(Way);

enum Way {
    Token(Renewed<Token>),
    Keys {
        keys: Renewed<AwsKeys>,
        scope: Scope,
        /// Seconds that the server's clock is ahead of ours, as signatures take it.
        ahead: AtomicI64,
        /// The same, as the last error reply had it.
        seen: AtomicI64,
    },
}

/// The headers of one request, and what they were made with.
pub struct Signed {
    /// The headers.
    pub key: KeyHeader,
    used: Used,
}

enum Used {
    Token(Arc<Current<Token>>),
    Keys { held: Arc<Current<AwsKeys>>, ahead: i64 },
}

impl Signer {
    /// Finds credentials of this kind; nothing is fetched. `region`: of AWS. `outside`: sends requests for credentials
    /// over the internet.
    ///
    /// # Errors
    /// That there are none, or what is wrong with them.
    pub fn new(kind: Kind, environment: &Environment, region: &str, outside: Client) -> Result<Self, String> {
        let http = Http::new(outside)?;
        Ok(Self(match kind {
            Kind::Google => Way::Token(Renewed::new(Box::new(GoogleSource::new(environment, http)?))),
            Kind::Entra => Way::Token(Renewed::new(Box::new(EntraSource::new(environment, http)?))),
            Kind::Aws => Way::Keys {
                keys: Renewed::new(Box::new(AwsSource::new(environment, region, http)?)),
                scope: Scope { region: region.to_owned(), service: "bedrock" },
                ahead: AtomicI64::new(0),
                seen: AtomicI64::new(0),
            },
        }))
    }

    /// Signs a request that is posted.
    ///
    /// # Errors
    /// Why there are no credentials.
    pub async fn sign(&self, url: &Url, headers: &HeaderMap, body: &Payload) -> Result<Signed, ProviderError> {
        match &self.0 {
            Way::Token(tokens) => Ok(of_token(tokens.get().await?)),
            Way::Keys { keys, scope, ahead, .. } => {
                let held = keys.get().await?;
                let ahead = ahead.load(Ordering::Relaxed);
                Ok(of_keys(held, (scope, ahead), url, headers, body))
            }
        }
    }

    /// Signs a request of which only the headers matter.
    ///
    /// # Errors
    /// Why there are no credentials, or that the body matters, too.
    pub async fn sign_headers(&self) -> Result<Signed, ProviderError> {
        match &self.0 {
            Way::Token(tokens) => Ok(of_token(tokens.get().await?)),
            Way::Keys { .. } => Err(ProviderError::Request("batches on Amazon Bedrock are not supported".to_owned())),
        }
    }

    /// Sees to what a server says is wrong with a signature: credentials are renewed, the clock is corrected. Returns
    /// whether the request is worth another attempt at once.
    pub fn mend(&self, signed: &Signed, error: &ProviderError) -> bool {
        let ProviderError::Status { status, code, message, .. } = error else { return false };
        let code = code.as_deref().unwrap_or_default();
        match (&self.0, &signed.used) {
            (Way::Token(tokens), Used::Token(held)) => *status == 401 && tokens.reject(held),
            (Way::Keys { keys, ahead, seen, .. }, Used::Keys { held, ahead: used })
                if matches!(status, 400 | 401 | 403) =>
            {
                let is_about_time = message.contains("expired") || message.contains("current");
                if matches!(
                    code,
                    "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestExpired" | "RequestTimeTooSkewed"
                ) || (code.is_empty() && is_about_time)
                {
                    let there = seen.load(Ordering::Relaxed);
                    ahead.store(there, Ordering::Relaxed);
                    return (there - used).abs() > SKEW;
                }
                let is_over = matches!(
                    code,
                    "ExpiredTokenException" | "ExpiredToken" | "UnrecognizedClientException" | "InvalidClientTokenId"
                );
                is_over && keys.reject(held)
            }
            _ => false,
        }
    }

    /// Takes note of the server's clock, by the headers of an error reply.
    pub fn note_time(&self, headers: &HeaderMap) {
        if let (Way::Keys { seen, .. }, Some(there)) = (&self.0, ahead_of_us(headers)) {
            seen.store(there, Ordering::Relaxed);
        }
    }

    /// Changes whenever [`secrets`](Self::secrets) may.
    pub fn version(&self) -> u64 {
        match &self.0 {
            Way::Token(tokens) => tokens.version(),
            Way::Keys { keys, .. } => keys.version(),
        }
    }

    /// What must not be shown of what requests in flight may have.
    pub fn secrets(&self) -> Vec<HeaderValue> {
        match &self.0 {
            Way::Token(tokens) => tokens.in_use().into_iter().flatten().map(|held| held.value.bearer.clone()).collect(),
            Way::Keys { keys, .. } => {
                let of = |held: Arc<Current<AwsKeys>>| {
                    let session = held.value.session.as_ref().map(|token| token.expose_secret().to_owned());
                    [Some(held.value.secret().expose_secret().to_owned()), session]
                };
                let texts = keys.in_use().into_iter().flatten().flat_map(of).flatten();
                texts.filter_map(|text| HeaderValue::from_str(&text).ok()).collect()
            }
        }
    }
}

fn of_token(held: Arc<Current<Token>>) -> Signed {
    let mut key = KeyHeader::new(header::AUTHORIZATION, held.value.bearer.clone());
    key.more.extend(held.value.more.clone());
    Signed { key, used: Used::Token(held) }
}

fn of_keys(
    held: Arc<Current<AwsKeys>>,
    (scope, ahead): (&Scope, i64),
    url: &Url,
    headers: &HeaderMap,
    body: &Payload,
) -> Signed {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let signed: Vec<(&str, &str)> = kind.map(|kind| ("content-type", kind)).into_iter().collect();
    let payload = match body {
        Payload::One(bytes) => sha256([&bytes[..]]),
        Payload::Many(parts) => sha256(parts.iter().map(|part| &part[..])),
    };
    let by = Duration::from_secs(ahead.unsigned_abs());
    let now = SystemTime::now();
    let now = if ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) }.unwrap_or(now);
    let signature = held.value.sign(&ToSign { method: "POST", url, headers: &signed, payload: &payload }, scope, now);
    let session = held.value.session_header.clone();
    let mut key = KeyHeader::new(header::AUTHORIZATION, sensitive(signature.authorization));
    key.more.push((HeaderName::from_static("x-amz-date"), sensitive(signature.date)));
    key.more.extend(session.map(|token| (HeaderName::from_static("x-amz-security-token"), token)));
    Signed { key, used: Used::Keys { held, ahead } }
}

/// How many seconds a server's clock is ahead of ours, by the `Date` of its reply.
fn ahead_of_us(headers: &HeaderMap) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    match date.duration_since(SystemTime::now()) {
        Ok(ahead) => i64::try_from(ahead.as_secs()).ok(),
        Err(error) => i64::try_from(error.duration().as_secs()).ok().map(|behind| -behind),
    }
}
