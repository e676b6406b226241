//! Something that ends and has to be fetched anew, such as a token: once for all who use it, before it ends, while the
//! old one serves. Used by [`signer`](super::signer); it knows nothing of what it holds.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::failure::Failure;

/// Part of its life after which it is renewed.
const RENEW_AT: f64 = 0.8;
/// So long before its end it is not used any more: a request takes time to arrive. No more than a twentieth of its life.
const MARGIN: Duration = Duration::from_secs(10);
/// Between two attempts to renew what still serves.
const PAUSE: Duration = Duration::from_secs(1);
/// What is younger, or younger than a quarter of its life, is not renewed because a server rejects it: the next would be
/// rejected too.
const YOUNG: Duration = Duration::from_secs(5);
/// Nothing is taken to live for longer: what lasts longer may have been withdrawn.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Fetches it.
pub type Fetching<T> = Pin<Box<dyn Future<Output = Result<Fresh<T>, Failure>> + Send>>;

/// Where it comes from.
pub trait Source<T>: Send + Sync + 'static {
    /// Fetches a new one. Called again only when the one before has come or failed.
    fn fetch(&self) -> Fetching<T>;
}

/// One that was just fetched.
pub struct Fresh<T> {
    /// It.
    pub value: T,
    /// How long it is good for; `None`: nobody knows of an end.
    pub life: Option<Duration>,
}

/// One that is in use.
pub struct Current<T> {
    /// It.
    pub value: T,
    since: Instant,
    life: Option<Duration>,
    is_rejected: AtomicBool,
}

/// See the module.
pub struct Renewed<T>(Arc<Inner<T>>);

struct Inner<T> {
    source: Box<dyn Source<T>>,
    /// How often there was a new one.
    version: AtomicU64,
    state: Mutex<State<T>>,
}

type Outcome<T> = Option<Result<Arc<Current<T>>, Failure>>;

struct State<T> {
    current: Option<Arc<Current<T>>>,
    /// The one before, which requests in flight may have.
    before: Option<Arc<Current<T>>>,
    /// The fetch in flight.
    renewal: Option<watch::Receiver<Outcome<T>>>,
    /// Not before then, after a failure.
    next: Option<Instant>,
}

impl<T: Send + Sync + 'static> Renewed<T> {
    /// Nothing is fetched until it is wanted.
    pub fn new(source: Box<dyn Source<T>>) -> Self {
        let state = State { current: None, before: None, renewal: None, next: None };
        Self(Arc::new(Inner { source, version: AtomicU64::new(0), state: Mutex::new(state) }))
    }

    /// The one to use now. Waits only if there is none that is good; who waits waits for the same fetch, which goes on
    /// though they stop waiting.
    ///
    /// # Errors
    /// Why it cannot be fetched.
    pub async fn get(&self) -> Result<Arc<Current<T>>, Failure> {
        let mut waiting = {
            let mut state = self.0.state();
            let now = Instant::now();
            match &state.current {
                Some(held) if held.serves(now) => {
                    let held = Arc::clone(held);
                    if held.is_old(now) && state.next.is_none_or(|next| next <= now) {
                        self.0.begin(&mut state);
                    }
                    return Ok(held);
                }
                _ => self.0.begin(&mut state),
            }
        };
        let told = waiting.wait_for(Option::is_some).await;
        told.ok().and_then(|outcome| outcome.clone()).unwrap_or_else(|| Err(Failure::interrupted()))
    }

    /// A server has rejected one. Returns whether another attempt makes sense: there is a newer one, or one is fetched now.
    pub fn reject(&self, used: &Arc<Current<T>>) -> bool {
        let state = self.0.state();
        match &state.current {
            Some(held) if Arc::ptr_eq(held, used) => {
                let is_young = used.since.elapsed() < used.life.map_or(YOUNG, |life| YOUNG.min(life / 4));
                if used.life.is_none() || (is_young && !used.is_rejected.load(Ordering::Relaxed)) {
                    return false;
                }
                used.is_rejected.store(true, Ordering::Relaxed);
                true
            }
            _ => true,
        }
    }

    /// Changes whenever [`in_use`](Self::in_use) does.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Those that requests in flight may have.
    pub fn in_use(&self) -> [Option<Arc<Current<T>>>; 2] {
        let state = self.0.state();
        [state.current.clone(), state.before.clone()]
    }
}

impl<T: Send + Sync + 'static> Inner<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to fetch, unless that has begun. In a task of its own: whoever wanted it may be gone before it is there.
    fn begin(self: &Arc<Self>, state: &mut State<T>) -> watch::Receiver<Outcome<T>> {
        // A task that is gone without a word has dropped its end.
        if let Some(renewal) = state.renewal.as_ref().filter(|renewal| renewal.has_changed().is_ok()) {
            return renewal.clone();
        }
        let (tell, renewal) = watch::channel(None);
        state.renewal = Some(renewal.clone());
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let fetched = inner.source.fetch().await;
            let mut state = inner.state();
            let outcome = match fetched {
                Ok(Fresh { value, life }) => {
                    let life = life.map(|life| life.min(LONGEST));
                    let held = Current { value, since: Instant::now(), life, is_rejected: AtomicBool::new(false) };
                    let held = Arc::new(held);
                    state.before = state.current.replace(Arc::clone(&held));
                    inner.version.fetch_add(1, Ordering::Release);
                    state.next = None;
                    Ok(held)
                }
                Err(failure) => {
                    state.next = Some(Instant::now() + PAUSE);
                    Err(failure)
                }
            };
            state.renewal = None;
            drop(state);
            tell.send_replace(Some(outcome));
        });
        renewal
    }
}

impl<T> Current<T> {
    /// Whether it can be sent.
    fn serves(&self, now: Instant) -> bool {
        let good = |life: Duration| now.duration_since(self.since) < life.saturating_sub(MARGIN.min(life / 20));
        !self.is_rejected.load(Ordering::Relaxed) && self.life.is_none_or(good)
    }

    /// Whether it is time for the next.
    fn is_old(&self, now: Instant) -> bool {
        self.life.is_some_and(|life| now.duration_since(self.since) >= life.mul_f64(RENEW_AT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Gives a number that grows, after a second; fails where it is told to.
    struct Numbers {
        fetched: Arc<AtomicUsize>,
        life: Option<Duration>,
        failing: fn(usize) -> bool,
    }

    impl Source<usize> for Numbers {
        fn fetch(&self) -> Fetching<usize> {
            let number = self.fetched.fetch_add(1, Ordering::Relaxed) + 1;
            let (life, fails) = (self.life, (self.failing)(number));
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if fails { Err(Failure::away("away".to_owned())) } else { Ok(Fresh { value: number, life }) }
            })
        }
    }

    fn renewed(life: Option<u64>, failing: fn(usize) -> bool) -> (Arc<Renewed<usize>>, Arc<AtomicUsize>) {
        let fetched = Arc::new(AtomicUsize::new(0));
        let source = Numbers { fetched: Arc::clone(&fetched), life: life.map(Duration::from_secs), failing };
        (Arc::new(Renewed::new(Box::new(source))), fetched)
    }

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_who_wait_cause_one_fetch() {
        let (renewed, fetched) = renewed(Some(100), |_| false);
        let all: Vec<_> = (0..1000)
            .map(|_| {
                let renewed = Arc::clone(&renewed);
                tokio::spawn(async move { renewed.get().await.map(|held| held.value) })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap(), Ok(1));
        }
        assert_eq!(fetched.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_renewed_before_its_end_while_the_old_one_serves() {
        let (renewed, fetched) = renewed(Some(100), |_| false);
        assert_eq!(renewed.get().await.unwrap().value, 1);
        pass(79).await;
        assert_eq!((renewed.get().await.unwrap().value, fetched.load(Ordering::Relaxed)), (1, 1));
        pass(2).await;
        let before = Instant::now();
        for _ in 0..1000 {
            assert_eq!(renewed.get().await.unwrap().value, 1);
        }
        assert_eq!(before.elapsed(), Duration::ZERO);
        pass(2).await;
        assert_eq!((renewed.get().await.unwrap().value, fetched.load(Ordering::Relaxed)), (2, 2));
        // Nobody used it until after its end: then who comes waits.
        pass(200).await;
        assert_eq!(renewed.get().await.unwrap().value, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_fails_costs_nothing_while_the_old_one_serves() {
        let (renewed, fetched) = renewed(Some(100), |number| number == 2);
        assert_eq!(renewed.get().await.unwrap().value, 1);
        pass(85).await;
        assert_eq!(renewed.get().await.unwrap().value, 1);
        pass(1).await;
        tokio::task::yield_now().await;
        for _ in 0..100 {
            assert_eq!(renewed.get().await.unwrap().value, 1);
        }
        assert_eq!(fetched.load(Ordering::Relaxed), 2);
        pass(3).await;
        assert_eq!(renewed.get().await.unwrap().value, 1);
        pass(2).await;
        assert_eq!((renewed.get().await.unwrap().value, fetched.load(Ordering::Relaxed)), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_failure_is_told_and_the_next_tries_again() {
        let (renewed, _) = renewed(None, |number| number == 1);
        assert_eq!(renewed.get().await.err(), Some(Failure::away("away".to_owned())));
        assert_eq!(renewed.get().await.unwrap().value, 2);
        pass(1_000_000).await;
        assert_eq!(renewed.get().await.unwrap().value, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_rejected_is_renewed_once_for_all() {
        let (renewed, fetched) = renewed(Some(3600), |_| false);
        let used = renewed.get().await.unwrap();
        assert!(!renewed.reject(&used), "one that is new is not at fault");
        pass(60).await;
        let all: Vec<_> = (0..1000)
            .map(|_| {
                let (renewed, used) = (Arc::clone(&renewed), Arc::clone(&used));
                tokio::spawn(async move {
                    assert!(renewed.reject(&used));
                    renewed.get().await.unwrap().value
                })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap(), 2);
        }
        assert_eq!(fetched.load(Ordering::Relaxed), 2);
        // Late news of the old one say nothing of the new one.
        assert!(renewed.reject(&used));
        assert_eq!(renewed.get().await.unwrap().value, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_does_not_stop_the_fetch() {
        let (renewed, fetched) = renewed(Some(100), |_| false);
        let limit = Duration::from_millis(10);
        assert!(tokio::time::timeout(limit, renewed.get()).await.is_err());
        assert_eq!(renewed.get().await.unwrap().value, 1);
        assert_eq!(fetched.load(Ordering::Relaxed), 1);
    }
}
