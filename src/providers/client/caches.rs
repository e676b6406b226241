//! Caches at the provider, made and deleted by requests of their own: the ones of Gemini. Used by the client alone.
//!
//! What questions begin with gets one where the provider's own cache misses it ([`cut`](crate::providers::heads::Heads::cut)), as long as runs hold the
//! client. It lives for five minutes, is prolonged while it is used, and deleted after the last run; if the process dies,
//! it ends by itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::Inner;
use crate::providers::account::Account;
use crate::providers::call::Call;
use crate::providers::error::ProviderError;
use crate::providers::heads::Cut;
use crate::providers::prompt::Ask;
use crate::providers::reply::TokenUsage;

/// How long a cache lives that nobody prolongs. What is left of it at the end is paid for: not an hour, as by default.
const LIFE: Duration = Duration::from_secs(300);
/// It is prolonged when so much is left.
const PROLONG: Duration = Duration::from_secs(60);
/// After a failure that may pass, none is made for so long.
const REST: Duration = Duration::from_secs(60);
/// Caches of one client.
const MOST: usize = 256;
/// How long deleting may take.
const LONGEST_END: Duration = Duration::from_secs(10);
/// The longest name that is taken for one.
const LONGEST_NAME: usize = 256;

/// The caches of one client.
#[derive(Default)]
pub struct Caches {
    holders: AtomicUsize,
    all: Mutex<FxHashMap<u64, Arc<tokio::sync::Mutex<State>>>>,
    /// What was paid and is in no reply yet.
    unpaid: Mutex<TokenUsage>,
}

/// What is known of one.
enum State {
    /// It is to be made.
    Wanted,
    /// It is there.
    There(Cache),
    /// It could not be made, and is not tried again before that.
    Failed(Option<Instant>),
}

#[derive(Clone)]
struct Cache {
    name: String,
    tokens: u64,
    ends: Instant,
}

/// What is to be done for the next question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It is asked as a whole.
    None,
    /// The cache is made.
    Make,
    /// It is used as it is.
    Use,
    /// It is prolonged, and used.
    Prolong,
}

impl State {
    fn next(&self, now: Instant) -> Next {
        match self {
            Self::Failed(until) if until.is_none_or(|until| until > now) => Next::None,
            Self::There(cache) if cache.ends > now + PROLONG => Next::Use,
            Self::There(cache) if cache.ends > now => Next::Prolong,
            Self::Wanted | Self::There(_) | Self::Failed(_) => Next::Make,
        }
    }
}

/// A cache as the provider tells of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CachedContent {
    name: String,
    #[serde(default)]
    usage_metadata: Counted,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Counted {
    #[serde(default)]
    total_token_count: u64,
}

impl Caches {
    /// A run uses the client.
    pub fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether any run does.
    pub fn are_held(&self) -> bool {
        self.holders.load(Ordering::Relaxed) > 0
    }

    /// What making and prolonging caches has cost, once: for the next reply.
    pub fn take_unpaid(&self) -> TokenUsage {
        std::mem::take(&mut *self.unpaid.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn pay(&self, usage: TokenUsage) {
        let mut unpaid = self.unpaid.lock().unwrap_or_else(PoisonError::into_inner);
        *unpaid = unpaid.plus(&usage);
    }

    /// The name of the cache with the first part of a question. `None`: there is none, and the question is asked as a
    /// whole.
    pub async fn name(&self, client: &Inner, cut: &Cut) -> Option<String> {
        let place = {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= MOST && !all.contains_key(&cut.key) {
                return None;
            }
            let place = all.entry(cut.key).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(State::Wanted)));
            Arc::clone(place)
        };
        // Others wait here while one makes it.
        let mut state = place.lock().await;
        let now = Instant::now();
        match (state.next(now), &mut *state) {
            (Next::None, _) => return None,
            (Next::Use, State::There(cache)) => return Some(cache.name.clone()),
            (Next::Prolong, State::There(cache)) => {
                let before = cache.ends;
                if prolong(&client.account(), cache).await.is_ok() {
                    cache.ends = now + LIFE;
                    self.pay(storage(cache.tokens, cache.ends - before));
                    return Some(cache.name.clone());
                }
            }
            _ => {}
        }
        match make(client, cut).await {
            Ok(Some(told)) => {
                let tokens = told.usage_metadata.total_token_count;
                let cache = Cache { name: told.name, tokens, ends: now + LIFE };
                self.pay(TokenUsage { input: tokens, total: tokens, cache_write: tokens, ..storage(tokens, LIFE) });
                let name = cache.name.clone();
                *state = State::There(cache);
                Some(name)
            }
            Ok(None) => {
                *state = State::Failed(None);
                None
            }
            Err(error) => {
                // What is too short for a cache stays so; a limit or an outage does not.
                let is_final =
                    matches!(error, ProviderError::Status { status: 400..=499, .. }) && !error.is_retryable();
                *state = State::Failed((!is_final).then(|| now + REST));
                None
            }
        }
    }

    /// A cache is gone, as the provider says.
    pub async fn forget(&self, key: u64, name: &str) {
        let place = self.all.lock().unwrap_or_else(PoisonError::into_inner).get(&key).map(Arc::clone);
        let Some(place) = place else { return };
        let mut state = place.lock().await;
        if matches!(&*state, State::There(cache) if cache.name == name) {
            *state = State::Wanted;
        }
    }

    /// A run no longer uses the client: after the last one all caches are deleted.
    pub async fn release(&self, account: Account<'_>) {
        if self.holders.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        let all = std::mem::take(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner));
        let ends = all.into_values().map(|place| async {
            if let State::There(cache) = &*place.lock_owned().await {
                // It ends by itself within minutes.
                let _ = account.call(Call::delete(cache.name.as_str())).await;
            }
        });
        let _ = tokio::time::timeout(LONGEST_END, futures_util::future::join_all(ends)).await;
    }
}

/// What holding a cache for so long costs.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn storage(tokens: u64, time: Duration) -> TokenUsage {
    let hours = time.as_secs_f64() / 3600.0;
    TokenUsage { cache_held: (tokens as f64 * hours).round() as u64, ..TokenUsage::default() }
}

async fn make(client: &Inner, cut: &Cut) -> Result<Option<CachedContent>, ProviderError> {
    let head = Ask::new(cut.before.clone());
    let body = client.dialect.cache(&client.options, &head, LIFE.as_secs()).map_err(ProviderError::Request)?;
    let Some(body) = body else { return Ok(None) };
    let received = client.account().call(Call::post("cachedContents").json(body.joined())).await?;
    let told = serde_json::from_slice::<CachedContent>(&received.body).ok();
    Ok(told.filter(|told| told.name.starts_with("cachedContents/") && told.name.len() <= LONGEST_NAME))
}

async fn prolong(account: &Account<'_>, cache: &Cache) -> Result<(), ProviderError> {
    let body = json!({"ttl": format!("{}s", LIFE.as_secs())}).to_string();
    let call = Call { method: Method::PATCH, ..Call::post(cache.name.as_str()).json(body) };
    account.call(call.query("updateMask", "ttl")).await.map(drop)
}

/// Whether an error says that a cache is not there.
pub fn is_gone(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Status { status: 400 | 403 | 404, message, .. }
        if message.to_ascii_lowercase().contains("cachedcontent"))
}

#[cfg(test)]
mod simulated_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_made_used_prolonged_and_made_again() {
        let now = Instant::now();
        assert_eq!(State::Wanted.next(now), Next::Make);
        let there = State::There(Cache { name: "cachedContents/1".to_owned(), tokens: 5_000, ends: now + LIFE });
        assert_eq!(there.next(now), Next::Use);
        assert_eq!(there.next(now + LIFE - PROLONG - Duration::from_secs(1)), Next::Use);
        assert_eq!(there.next(now + LIFE - PROLONG), Next::Prolong);
        assert_eq!(there.next(now + LIFE), Next::Make);
    }

    #[test]
    fn what_fails_rests_or_is_left() {
        let now = Instant::now();
        assert_eq!(State::Failed(None).next(now + 100 * LIFE), Next::None);
        let failed = State::Failed(Some(now + REST));
        assert_eq!((failed.next(now), failed.next(now + REST)), (Next::None, Next::Make));
    }

    #[test]
    fn five_minutes_cost_a_twelfth_of_an_hour() {
        assert_eq!(storage(12_000, LIFE).cache_held, 1_000);
        assert_eq!(storage(1, Duration::ZERO), TokenUsage::default());
    }
}
