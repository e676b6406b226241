//! The whole engine under tokio's paused time: hours of cooldowns in milliseconds, the same on every run.
//!
//! [`Provider`] stands for the world: it executes attempts as tasks that take time and end as a script says.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use proptest::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::measure::{Limit, Measure};
use super::outage::Sign;
use super::stats::Stats;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LIMITED: Failure = Failure::RateLimit { at_least: Duration::ZERO, has_retry_after: false };
const RETRY: Failure = Failure::Retryable { backoff: true, at_least: Duration::ZERO, overload: false };

/// What an attempt does: takes this long, and ends so.
type Script = Box<dyn Fn(ItemIndex, u32) -> (Duration, Result<(), Failure>) + Send + Sync>;

/// One observation: at this time since the start, this happened to this attempt of this item.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Seen {
    Start(ItemIndex, u32),
    TimedOut(ItemIndex, u32),
    Abandon(ItemIndex, u32),
    Asked(u32),
    CooldownEnded(Duration),
}

struct Provider {
    run: OnceLock<Weak<Run<Arc<Provider>>>>,
    script: Script,
    pause: Duration,
    delays: Vec<Duration>,
    began: Instant,
    seen: Mutex<Vec<(Duration, Seen)>>,
    drained: Notify,
    open: AtomicU64,
    peak: AtomicU64,
}

impl Executor for Arc<Provider> {
    fn command(&self, command: Command) {
        let note = match command {
            Command::Start { item, attempt, .. } => Some(Seen::Start(item, attempt)),
            Command::TimedOut { item, attempt, .. } => Some(Seen::TimedOut(item, attempt)),
            Command::Abandon { item, attempt } => Some(Seen::Abandon(item, attempt)),
            Command::AskCooldown { consecutive, .. } => Some(Seen::Asked(consecutive)),
            Command::CooldownEnded { lasted, .. } => Some(Seen::CooldownEnded(lasted)),
            _ => None,
        };
        if let Some(note) = note {
            self.seen.lock().unwrap().push((self.began.elapsed(), note));
        }
        // Commands come under the run's lock: answers must come from outside of it.
        let provider = Arc::clone(self);
        tokio::spawn(async move { provider.carry_out(command).await });
    }

    fn broken(&self, message: &str) {
        panic!("{message}");
    }
}

impl Provider {
    fn new(script: Script) -> Self {
        Self {
            run: OnceLock::new(),
            script,
            pause: SECOND * 10,
            delays: Vec::new(),
            began: Instant::now(),
            seen: Mutex::default(),
            drained: Notify::new(),
            open: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }
    }

    async fn carry_out(&self, command: Command) {
        let Some(run) = self.run.get().and_then(Weak::upgrade) else { return };
        match command {
            Command::Start { item, attempt, .. } => {
                let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
                self.peak.fetch_max(open, Ordering::SeqCst);
                let (takes, outcome) = (self.script)(item, attempt);
                tokio::time::sleep(takes).await;
                self.open.fetch_sub(1, Ordering::SeqCst);
                let verdict = match outcome {
                    Ok(()) => None,
                    Err(failure) => {
                        Some(run.tell(|s, now| s.failed(item, failure, Sign::Nothing, 1, None, now)).unwrap())
                    }
                };
                if verdict != Some(Verdict::Retry) {
                    let report = ItemReport { success: verdict.is_none(), ..ItemReport::default() };
                    run.tell(|s, now| {
                        s.record(item, report, now);
                        s.release(item, now);
                    })
                    .unwrap();
                }
            }
            Command::AskCooldown { queue, .. } => {
                let delays = self.delays.clone();
                run.tell(|s, now| s.decide_cooldown(queue, self.pause, delays, false, now)).unwrap();
            }
            Command::AskSlowStart { queue, .. } => run.tell(|s, _| s.extend_slow_start(queue, [], false)).unwrap(),
            Command::Drained => self.drained.notify_one(),
            _ => {}
        }
    }

    fn starts(&self) -> Vec<(f64, ItemIndex, u32)> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter_map(|(at, seen)| match seen {
                Seen::Start(item, attempt) => Some((at.as_secs_f64(), *item, *attempt)),
                _ => None,
            })
            .collect()
    }

    fn saw(&self, what: impl Fn(&Seen) -> bool) -> Vec<(Duration, Seen)> {
        self.seen.lock().unwrap().iter().filter(|(_, seen)| what(seen)).copied().collect()
    }
}

fn per_minute(measure: Measure, amount: f64) -> Limit {
    Limit { measure, amount, per: SECOND * 60 }
}

fn settings(workers: usize) -> Settings {
    Settings {
        max_workers: NonZeroUsize::new(workers).unwrap(),
        backoff: Backoff { jitter: false, ..Backoff::default() },
        ..Settings::default()
    }
}

/// Runs `items` items to the end and returns what was seen, and the counters.
async fn finish(items: u64, settings: Settings, provider: Provider) -> (Arc<Provider>, Stats) {
    let provider = Arc::new(provider);
    let run = Arc::new(Run::new(settings, Box::new(|| 0.5), Arc::clone(&provider), &Handle::current()));
    let _ = provider.run.set(Arc::downgrade(&run));
    run.tell(|s, now| s.accept(0, 0, items, now)).unwrap();
    provider.drained.notified().await;
    assert!(run.tell(|s, _| s.is_drained()).unwrap());
    let stats = run.tell(|s, _| s.stats().clone()).unwrap();
    (provider, stats)
}

fn at_once(outcome: impl Fn(ItemIndex, u32) -> Result<(), Failure> + Send + Sync + 'static) -> Script {
    Box::new(move |item, attempt| (Duration::ZERO, outcome(item, attempt)))
}

#[tokio::test(start_paused = true)]
async fn items_start_in_order_and_never_more_than_workers() {
    let script: Script = Box::new(|item, _| (SECOND * (1 + item as u32 % 3), Ok(())));
    let (provider, stats) = finish(1000, settings(7), Provider::new(script)).await;
    assert_eq!((stats.succeeded, stats.processed, stats.total), (1000, 1000, 1000));
    assert_eq!(provider.peak.load(Ordering::SeqCst), 7);
    let order: Vec<_> = provider.starts().iter().map(|start| start.1).collect();
    assert_eq!(order, (0..1000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_empty_run_drains_at_once() {
    let (_, stats) = finish(0, settings(3), Provider::new(at_once(|_, _| Ok(())))).await;
    assert_eq!(stats, Stats::default());
}

#[tokio::test(start_paused = true)]
async fn waits_follow_the_backoff_and_attempts_end() {
    let settings = Settings { max_attempts: 5, ..settings(1) };
    let (provider, stats) = finish(1, settings, Provider::new(at_once(|_, _| Err(RETRY)))).await;
    let times: Vec<f64> = provider.starts().iter().map(|start| start.0.floor()).collect();
    assert_eq!(times, [0.0, 1.0, 3.0, 7.0, 15.0]);
    assert_eq!((stats.failed, stats.succeeded), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_item_holds_its_worker_only_if_it_is_the_only_one() {
    let script = || at_once(|item, attempt| if item == 0 && attempt == 1 { Err(RETRY) } else { Ok(()) });
    let (provider, _) = finish(3, settings(2), Provider::new(script())).await;
    let order: Vec<_> = provider.starts().iter().map(|start| (start.1, start.2)).collect();
    assert_eq!(order, [(0, 1), (1, 1), (2, 1), (0, 2)]);
    let (provider, _) = finish(3, settings(1), Provider::new(script())).await;
    let order: Vec<_> = provider.starts().iter().map(|start| (start.1, start.2)).collect();
    assert_eq!(order, [(0, 1), (0, 2), (1, 1), (2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn all_workers_at_the_limit_make_one_cooldown_and_nobody_is_early() {
    let script: Script = Box::new(|_, attempt| (SECOND, if attempt == 1 { Err(LIMITED) } else { Ok(()) }));
    let settings = Settings { max_attempts: 1, ..settings(200) };
    let (provider, stats) = finish(200, settings, Provider::new(script)).await;
    assert_eq!((stats.succeeded, stats.rate_limits), (200, 200));
    assert_eq!(provider.saw(|seen| matches!(seen, Seen::Asked(_))).len(), 1);
    let again: Vec<_> = provider.starts().into_iter().filter(|start| start.2 == 2).collect();
    assert_eq!(again.len(), 200);
    assert!(again.iter().all(|start| start.0 >= 11.0), "{again:?}");
    assert!(again.iter().all(|start| start.0 < 12.1), "a tenth of the pause later at most");
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_from_before_a_cooldown_starts_no_second_one() {
    // Item 1's request was sent before item 0 met the limit, and is refused long after the pause.
    let script: Script = Box::new(|item, attempt| match (item, attempt) {
        (0, 1) => (SECOND, Err(LIMITED)),
        (1, 1) => (SECOND * 60, Err(LIMITED)),
        _ => (SECOND, Ok(())),
    });
    let (provider, stats) = finish(2, settings(2), Provider::new(script)).await;
    assert_eq!((stats.succeeded, stats.rate_limits), (2, 2));
    assert_eq!(provider.saw(|seen| matches!(seen, Seen::CooldownEnded(_))).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn cooldowns_grow_in_count_until_a_success_and_retries_are_bounded() {
    let script = at_once(|item, attempt| if item == 0 || attempt == 1 { Err(LIMITED) } else { Ok(()) });
    let settings = Settings { max_rate_limit_retries: 4, ..settings(1) };
    let (provider, stats) = finish(2, settings, Provider::new(script)).await;
    let asked: Vec<_> = provider.saw(|seen| matches!(seen, Seen::Asked(_))).iter().map(|(_, seen)| *seen).collect();
    assert_eq!(asked, [1, 2, 3, 4, 5, 6].map(Seen::Asked));
    assert_eq!((stats.failed, stats.succeeded), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_servers_word_is_waited_out_by_item_and_by_all() {
    let wait = Failure::RateLimit { at_least: SECOND * 30, has_retry_after: true };
    let script = at_once(move |item, attempt| if item == 0 && attempt == 1 { Err(wait) } else { Ok(()) });
    let (provider, _) = finish(50, settings(2), Provider::new(script)).await;
    assert!(provider.starts().iter().filter(|start| start.1 > 1).all(|start| start.0 >= 30.0));
    let busy = Failure::Retryable { backoff: true, at_least: SECOND * 30, overload: false };
    let script = at_once(move |item, attempt| if item == 0 && attempt == 1 { Err(busy) } else { Ok(()) });
    let (provider, _) = finish(50, settings(2), Provider::new(script)).await;
    let starts = provider.starts();
    assert!(starts.iter().filter(|start| start.1 > 0).all(|start| start.0 < 1.0), "others do not wait");
    assert!(starts.last().unwrap().0 >= 30.0);
}

#[tokio::test(start_paused = true)]
async fn slow_start_spaces_the_starts_of_fresh_items() {
    let script = at_once(|item, attempt| if item == 0 && attempt == 1 { Err(LIMITED) } else { Ok(()) });
    let provider = Provider { delays: vec![SECOND * 3, SECOND * 2, SECOND], ..Provider::new(script) };
    let (provider, _) = finish(10, settings(1), provider).await;
    let times: Vec<f64> = provider.starts().iter().map(|start| start.0.floor()).collect();
    assert_eq!(times[..7], [0.0, 10.0, 13.0, 15.0, 16.0, 16.0, 16.0]);
}

#[tokio::test(start_paused = true)]
async fn requests_per_minute_hold_over_hours() {
    let settings = Settings { limits: vec![per_minute(Measure::Requests, 600.0)], ..settings(50) };
    let (provider, _) = finish(36_000, settings, Provider::new(at_once(|_, _| Ok(())))).await;
    let starts = provider.starts();
    // An hour's worth less the burst of ten seconds.
    let took = starts.last().unwrap().0;
    assert!((3589.0..3600.0).contains(&took), "{took}");
    for window in starts.windows(701) {
        assert!(window[700].0 - window[0].0 > 60.0 - 1e-3, "more than a minute's quota and the burst in a minute");
    }
}

#[tokio::test(start_paused = true)]
async fn time_outs_come_in_time_and_only_for_attempts_that_are_on() {
    let script: Script = Box::new(|item, _| (if item == 5 { SECOND * 500 } else { SECOND * 119 }, Ok(())));
    let (provider, _) = finish(100, settings(10), Provider::new(script)).await;
    let seen = provider.saw(|seen| matches!(seen, Seen::TimedOut(..) | Seen::Abandon(..)));
    let whole: Vec<_> = seen.iter().map(|(at, seen)| (at.as_secs(), *seen)).collect();
    assert_eq!(whole, [(120, Seen::TimedOut(5, 1)), (122, Seen::Abandon(5, 1))]);
}

#[tokio::test(start_paused = true)]
async fn a_bounded_queue_refuses_and_then_makes_room() {
    let provider = Arc::new(Provider::new(Box::new(|_, _| (SECOND, Ok(())))));
    let settings = Settings { max_queue: NonZeroUsize::new(2), ..settings(1) };
    let run = Arc::new(Run::new(settings, Box::new(|| 0.5), Arc::clone(&provider), &Handle::current()));
    let _ = provider.run.set(Arc::downgrade(&run));
    let offers: Vec<bool> = (0..5).map(|_| run.tell(|s, now| s.offer(0, 0, true, now).is_ok()).unwrap()).collect();
    assert_eq!(offers, [true, true, true, false, false]); // one started, two queued
    assert!(run.tell(|s, now| s.offer(0, 0, false, now).is_ok()).unwrap(), "an unbounded offer is never refused");
    provider.drained.notified().await;
    assert_eq!(run.tell(|s, _| s.stats().succeeded).unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_run_leaves_no_timer() {
    let provider = Arc::new(Provider::new(Box::new(|_, _| (SECOND, Ok(())))));
    let run = Run::new(settings(1), Box::new(|| 0.5), Arc::clone(&provider), &Handle::current());
    run.tell(|s, now| s.accept(0, 0, 1, now)).unwrap();
    drop(run);
    tokio::time::sleep(SECOND).await;
    assert_eq!(Arc::strong_count(&provider), 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_run_says_nothing_more() {
    let provider = Arc::new(Provider::new(Box::new(|_, _| (SECOND, Ok(())))));
    let run = Arc::new(Run::new(settings(1), Box::new(|| 0.5), Arc::clone(&provider), &Handle::current()));
    run.tell(|s, now| s.close(now)).unwrap();
    run.tell(|s, now| s.accept(0, 0, 10, now)).unwrap();
    tokio::time::sleep(SECOND * 1000).await;
    assert!(provider.seen.lock().unwrap().is_empty());
}

#[test]
fn a_panic_breaks_the_run_for_everybody_and_hangs_nobody() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _context = runtime.enter();
    let provider = Arc::new(Provider::new(at_once(|_, _| Ok(()))));
    let run = Run::new(settings(1), Box::new(|| 0.5), provider, runtime.handle());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _: Result<(), _> = run.tell(|_, _| panic!("on purpose"));
    }));
    assert!(panicked.is_err());
    assert!(run.tell(|s, now| s.accept(0, 0, 1, now)).is_err());
}

#[test]
fn news_from_many_threads_at_once_lose_nothing() {
    // Real threads and real time: 20,000 items whose attempts end on four threads, every third one after a retry.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let settings = Settings { backoff: Backoff { initial: 1e-4, ..Backoff::default() }, ..settings(300) };
    let script = at_once(|item, attempt| if item % 3 == 0 && attempt == 1 { Err(RETRY) } else { Ok(()) });
    let (provider, stats) = runtime.block_on(async { finish(20_000, settings, Provider::new(script)).await });
    assert_eq!((stats.succeeded, stats.processed), (20_000, 20_000));
    let starts = provider.starts();
    assert_eq!(starts.len(), 20_000 + 6_667);
    let items: HashSet<_> = starts.iter().map(|start| start.1).collect();
    assert_eq!(items.len(), 20_000);
    assert!(provider.peak.load(Ordering::SeqCst) <= 300);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever fails in whatever way, every item ends exactly once, within its bounds, and the run drains.
    #[test]
    fn every_item_ends(
        outcomes in prop::collection::vec(0u8..6, 1..200), workers in 1usize..20, rate in prop::option::of(30.0f64..6000.0),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let table = outcomes.clone();
        let script: Script = Box::new(move |item, attempt| {
            let takes = Duration::from_millis(100 * (1 + item * 7 % 5));
            let roll = table[(item as usize * 31 + attempt as usize * 17) % table.len()];
            (takes, match roll {
                0 => Err(LIMITED),
                1 => Err(RETRY),
                2 => Err(Failure::Retryable { backoff: false, at_least: SECOND, overload: false }),
                3 => Err(Failure::Permanent),
                _ => Ok(()),
            })
        });
        let limits = rate.map(|rate| per_minute(Measure::Requests, rate)).into_iter().collect();
        let settings = Settings { limits, max_rate_limit_retries: 5, ..settings(workers) };
        let items = outcomes.len() as u64;
        let (provider, stats) = runtime.block_on(async { finish(items, settings, Provider::new(script)).await });
        prop_assert_eq!(stats.processed, items);
        prop_assert_eq!(stats.succeeded + stats.failed, items);
        prop_assert!(provider.peak.load(Ordering::SeqCst) <= workers as u64);
        for item in 0..items {
            let attempts: Vec<u32> = provider.starts().iter().filter(|start| start.1 == item).map(|start| start.2).collect();
            prop_assert!(attempts.iter().copied().eq(1..=attempts.len() as u32), "attempts count up: {attempts:?}");
            prop_assert!(attempts.len() <= 3 + 5 + 1);
        }
    }
}

#[test]
fn a_time_out_that_is_put_off_comes_when_it_is_due_and_cancels_the_abandonment() {
    let settings = Settings { attempt_timeout: Some(SECOND * 10), ..Settings::default() };
    let start = Instant::now();
    let mut scheduler = scheduler::Scheduler::new(settings, Box::new(|| 0.5), Arc::new(|| ()), start);
    scheduler.accept(0, 0, 1, Instant::now());
    scheduler.advance(start);
    let commands = |scheduler: &mut scheduler::Scheduler, at: Instant| {
        scheduler.advance(at);
        std::iter::from_fn(|| scheduler.next_command()).collect::<Vec<_>>()
    };
    let started = commands(&mut scheduler, start + SECOND * 9);
    assert!(matches!(started[..], [Command::Start { item: 0, attempt: 1, worker: 0, .. }]), "{started:?}");
    let timed_out = [Command::TimedOut { item: 0, attempt: 1, limit: commands::Limit::Attempt }];
    assert_eq!(commands(&mut scheduler, start + SECOND * 10), timed_out);
    scheduler.extend(0, SECOND * 3, start + SECOND * 10);
    // Not abandoned two seconds after the first word, for that has become void.
    assert_eq!(commands(&mut scheduler, start + SECOND * 12), []);
    assert_eq!(scheduler.wakes_at(), Some(start + SECOND * 13));
    assert_eq!(commands(&mut scheduler, start + SECOND * 13), timed_out);
    assert_eq!(commands(&mut scheduler, start + SECOND * 15), [Command::Abandon { item: 0, attempt: 1 }]);
}
