//! Whole runs over pools of made-up members, in simulated time: the engine and the pool are the real ones.

#![allow(clippy::print_stdout)] // the figures of docs/pools.md

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::*;
use crate::engine::commands::Command;
use crate::engine::outage::Sign;
use crate::engine::pool::hedging::When;
use crate::engine::pool::{Part, Reasons};
use crate::engine::run::Remote;
use crate::engine::scope::Scope;
use crate::engine::{Executor, Failure, ItemIndex, ItemReport, Run, Settings, Usage};
use crate::providers::error::{Contact, Unusable};
use crate::providers::prompt::Prompt;
use crate::providers::reply::{Choice, Output};
use crate::providers::shared::Text;

/// What a made-up member does with a request: how long it takes, and how it ends.
type Act = Box<dyn Fn(&mut fastrand::Rng, Duration) -> (Duration, Result<(), ProviderError>) + Send + Sync>;

pub struct Fake {
    act: Act,
    random: Mutex<fastrand::Rng>,
    born: OnceLock<Instant>,
    asked: Arc<AtomicU64>,
    /// What it answers.
    text: &'static str,
    /// What prompts it has seen, if it has a prompt cache, and how many it had not.
    cache: Option<(Mutex<HashSet<String>>, Arc<AtomicU64>)>,
    /// What it tells of its queue, and how often it was asked.
    queue: Option<(Depth, Arc<AtomicU64>)>,
}

impl Fake {
    fn new(
        act: impl Fn(&mut fastrand::Rng, Duration) -> (Duration, Result<(), ProviderError>) + Send + Sync + 'static,
    ) -> Self {
        let random = Mutex::new(fastrand::Rng::with_seed(7));
        Self {
            act: Box::new(act),
            random,
            born: OnceLock::new(),
            asked: Arc::default(),
            text: "yes",
            cache: None,
            queue: None,
        }
    }

    /// Answers after about so long.
    fn well(latency: Duration) -> Self {
        Self::new(move |random, _| (latency.mul_f64(0.7 + 0.6 * random.f64()), Ok(())))
    }
}

impl Provider for Fake {
    fn queue(&self) -> Option<std::pin::Pin<Box<dyn Future<Output = Depth> + Send>>> {
        let (depth, often) = self.queue.as_ref()?;
        often.fetch_add(1, Ordering::Relaxed);
        Some(Box::pin(std::future::ready(*depth)))
    }

    fn attempt(&self, ask: Ask) -> Attempt {
        if let (Some((seen, missed)), Prompt::Text(text)) = (&self.cache, &ask.prompt)
            && seen.lock().unwrap().insert(text[..2048].to_owned())
        {
            missed.fetch_add(1, Ordering::Relaxed);
        }
        let text = self.text;
        self.asked.fetch_add(1, Ordering::Relaxed);
        let since = self.born.get_or_init(Instant::now).elapsed();
        let (latency, outcome) = (self.act)(&mut self.random.lock().unwrap(), since);
        Box::pin(async move {
            sleep(latency).await;
            outcome.map(|()| Reply {
                output: Output::Chat(vec![Choice { text: text.to_owned(), ..Choice::default() }]),
                usage: TokenUsage { input: 100, output: 10, total: 110, ..TokenUsage::default() },
                ..Reply::default()
            })
        })
    }
}

fn status(status: u16) -> ProviderError {
    crate::providers::status::read(status, &http::HeaderMap::new(), b"{\"error\":{\"message\":\"made up\"}}")
}

fn refusal() -> ProviderError {
    ProviderError::Unusable(Box::new(Unusable {
        category: Category::Refusal,
        retryable: false,
        finish_reason: "refusal",
        native_finish: None,
        text: String::new(),
        usage: TokenUsage { input: 100, total: 100, ..TokenUsage::default() },
        request_id: None,
    }))
}

fn away() -> ProviderError {
    ProviderError::Connection { message: "refused".to_owned(), contact: Contact::None }
}

/// What came of a run.
#[derive(Debug, Default)]
struct Outcome {
    took: Duration,
    /// Requests, by member.
    asked: Vec<u64>,
    /// Answers, by member.
    answered: Vec<u64>,
    reasons: Vec<String>,
    failed: u64,
    hedged: u64,
    tokens: u64,
    /// The most attempts that an item needed.
    attempts: u32,
    news: Vec<News>,
}

impl Outcome {
    /// Requests beyond one for each item.
    fn extra(&self) -> f64 {
        let answered: u64 = self.answered.iter().sum();
        self.asked.iter().sum::<u64>() as f64 / answered as f64 - 1.0
    }

    /// Items in a second.
    fn rate(&self) -> f64 {
        self.answered.iter().sum::<u64>() as f64 / self.took.as_secs_f64()
    }
}

struct Inside {
    provider: Arc<Pooled>,
    engine: OnceLock<Remote<Works>>,
    outcome: Mutex<Outcome>,
    drained: Notify,
}

/// Executes the attempts of a run with a pool.
#[derive(Clone)]
struct Works(Arc<Inside>);

impl Executor for Works {
    fn command(&self, command: Command) {
        match command {
            Command::Start { item, attempt, .. } => {
                let works = self.clone();
                // Documents, each with many questions, in no order.
                let document = item.wrapping_mul(7919) % DOCUMENTS;
                let prompt = Prompt::Text(Text::of(&format!("{document:4}{} {item}", "words ".repeat(500))));
                tokio::spawn(async move {
                    let outcome = works.0.provider.attempt(Ask::new(prompt));
                    works.ended(item, attempt, outcome.await);
                });
            }
            Command::Drained => self.0.drained.notify_one(),
            _ => {}
        }
    }

    fn broken(&self, message: &str) {
        panic!("{message}");
    }
}

impl Works {
    fn ended(&self, item: ItemIndex, attempt: u32, outcome: Result<Reply, ProviderError>) {
        let engine = self.0.engine.get().unwrap();
        let mut seen = self.0.outcome.lock().unwrap();
        seen.attempts = seen.attempts.max(attempt);
        let report = match outcome {
            Ok(reply) => {
                for (name, value) in &reply.extras {
                    let Extra::Text(text) = value else {
                        seen.hedged += 1;
                        continue;
                    };
                    match *name {
                        "member" => seen.answered[text.parse::<usize>().unwrap()] += 1,
                        _ => seen.reasons.push(text.clone()),
                    }
                }
                seen.tokens += reply.usage.total;
                let usage = Usage { total: reply.usage.total, ..Usage::default() };
                ItemReport { success: true, error: None, usage, reported: true }
            }
            Err(error) => {
                let failure = match error.category() {
                    Category::RateLimit => Failure::RateLimit { at_least: Duration::ZERO, has_retry_after: false },
                    _ if error.is_retryable() => {
                        Failure::Retryable { backoff: true, at_least: Duration::ZERO, overload: false }
                    }
                    _ => Failure::Permanent,
                };
                let sign = if error.server_away() { Sign::Away } else { Sign::Alive };
                drop(seen);
                let verdict = engine.tell(|scheduler, now| scheduler.failed(item, failure, sign, 1, None, now));
                if verdict.unwrap() == crate::engine::Verdict::Retry {
                    return;
                }
                seen = self.0.outcome.lock().unwrap();
                seen.failed += 1;
                ItemReport { success: false, error: None, usage: Usage::default(), reported: false }
            }
        };
        drop(seen);
        engine
            .tell(|scheduler, now| {
                scheduler.record(item, report, now);
                scheduler.release(item, now);
            })
            .unwrap();
    }
}

/// A run of so many items over these members; those behind `fallbacks` are fallbacks with these reasons.
async fn run(members: Vec<Fake>, fallbacks: Vec<(Fake, Reasons)>, when: When, items: u64, workers: usize) -> Outcome {
    let counts: Vec<_> =
        members.iter().chain(fallbacks.iter().map(|(fake, _)| fake)).map(|fake| Arc::clone(&fake.asked)).collect();
    let fallbacks = fallbacks.into_iter().zip(1_u8..).map(|((fake, reasons), tier)| (fake, tier, reasons));
    let all: Vec<_> = members.into_iter().map(|fake| (fake, 0, Reasons::default())).chain(fallbacks).collect();
    let part = |(_, tier, reasons): &(Fake, u8, Reasons)| Part {
        scope: Arc::default(),
        weight: 1.0,
        tier: *tier,
        reasons: *reasons,
        endpoint: 0,
        is_own_server: true,
    };
    let pool = Arc::new(Pool::new(all.iter().map(part).collect(), when, 1));
    let member = |(number, (fake, ..)): (usize, (Fake, u8, Reasons))| Member {
        provider: Arc::new(fake),
        label: number.to_string(),
    };
    let members: Vec<_> = all.into_iter().enumerate().map(member).collect();
    let outcome = Outcome { answered: vec![0; members.len()], ..Outcome::default() };
    let news: Arc<Mutex<Vec<News>>> = Arc::default();
    let heard = Arc::clone(&news);
    let hear: Hear = Box::new(move |news, _, _| heard.lock().unwrap().push(news));
    let doubt: Doubt = Box::new(|reply| reply.choices().iter().any(|choice| choice.text == "perhaps"));
    let ways = Ways { hear, doubt: Some(doubt) };
    let provider = Arc::new(Pooled::new(members, Arc::clone(&pool), ways));
    let inside = Inside { provider, engine: OnceLock::new(), outcome: Mutex::new(outcome), drained: Notify::new() };
    let works = Works(Arc::new(inside));
    let settings = Settings { max_workers: workers.try_into().unwrap(), attempt_timeout: None, ..Settings::default() };
    let run = Run::new(settings, Box::new(|| 0.5), works.clone(), &Handle::current());
    works.0.engine.set(run.remote()).ok().unwrap();
    let began = Instant::now();
    run.tell(|scheduler, now| {
        let queue = scheduler.add_queue(Arc::new(Scope::of_seats(pool)), now);
        scheduler.accept(queue, 0, items, now);
    })
    .unwrap();
    works.0.drained.notified().await;
    let mut outcome = std::mem::take(&mut *works.0.outcome.lock().unwrap());
    outcome.took = began.elapsed();
    outcome.asked = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    outcome.news = std::mem::take(&mut *news.lock().unwrap());
    outcome
}

/// How many documents prompts begin with.
const DOCUMENTS: u64 = 100;
const LATENCY: Duration = Duration::from_millis(500);

#[tokio::test(start_paused = true)]
async fn members_share_the_load_and_one_answers_alone() {
    let outcome = run((0..4).map(|_| Fake::well(LATENCY)).collect(), vec![], When::Tail, 2000, 100).await;
    assert_eq!(outcome.failed, 0);
    assert!(outcome.answered.iter().all(|answered| (350..650).contains(answered)), "{outcome:?}");
    let alone = run(vec![Fake::well(LATENCY)], vec![], When::Tail, 100, 10).await;
    assert_eq!((alone.failed, alone.answered[0]), (0, 100));
}

#[tokio::test(start_paused = true)]
async fn sick_members_cost_next_to_nothing() {
    let flaky = || {
        Fake::new(|random, _| {
            let latency = LATENCY.mul_f64(0.7 + 0.6 * random.f64());
            if random.f64() < 0.3 { (latency / 5, Err(status(500))) } else { (latency, Ok(())) }
        })
    };
    let dead = || Fake::new(|_, _| (Duration::from_millis(50), Err(status(401))));
    let sick = vec![Fake::well(LATENCY), Fake::well(10 * LATENCY), flaky(), dead()];
    let outcome = run(sick, vec![], When::Tail, 10_000, 100).await;
    let healthy = run(vec![Fake::well(LATENCY)], vec![], When::Tail, 10_000, 100).await;
    println!("{outcome:?} {} {}", outcome.extra(), outcome.rate() / healthy.rate());
    assert_eq!((outcome.failed, outcome.attempts), (0, 1));
    assert!(outcome.rate() >= 0.95 * healthy.rate(), "{} of {}", outcome.rate(), healthy.rate());
    assert!(outcome.extra() <= 0.02, "{}", outcome.extra());
    assert_eq!(outcome.news.iter().filter(|news| **news == News::Dropped(3)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_dies_and_returns_fails_nothing_and_works_again() {
    let dies = Fake::new(|random, since| {
        let is_away = (20..50).contains(&since.as_secs());
        if is_away { (Duration::ZERO, Err(away())) } else { (LATENCY.mul_f64(0.7 + 0.6 * random.f64()), Ok(())) }
    });
    let outcome = run(vec![Fake::well(LATENCY), Fake::well(LATENCY), dies], vec![], When::Tail, 20_000, 100).await;
    assert_eq!((outcome.failed, outcome.attempts), (0, 1), "{outcome:?}");
    assert!(outcome.extra() <= 0.01, "{}", outcome.extra());
    assert!(outcome.answered[2] > 3_000 && outcome.news.contains(&News::Back(2)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rate_limited_member_pauses_alone_and_uses_up_no_attempt() {
    let limited = Fake::new(|_, since| match since.as_millis() % 10_000 {
        0..5_000 => (LATENCY, Ok(())),
        _ => {
            let mut headers = http::HeaderMap::new();
            headers.insert("retry-after", http::HeaderValue::from_static("5"));
            (Duration::ZERO, Err(crate::providers::status::read(429, &headers, b"{}")))
        }
    });
    let outcome = run(vec![Fake::well(LATENCY), limited], vec![], When::Tail, 4_000, 50).await;
    assert_eq!((outcome.failed, outcome.attempts), (0, 1), "{outcome:?}");
    assert!(outcome.extra() < 0.05 && outcome.answered[1] > 150, "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_member_is_never_dropped_and_its_error_is_the_error() {
    let dead = || Fake::new(|_, _| (Duration::ZERO, Err(status(401))));
    let outcome = run(vec![dead(), dead()], vec![], When::Tail, 10, 2).await;
    assert_eq!((outcome.failed, outcome.news.len()), (10, 1), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_answers_what_members_refuse_and_no_other_does() {
    let refuses = Fake::new(|random, _| (LATENCY, if random.f64() < 0.2 { Err(refusal()) } else { Ok(()) }));
    let named = |name: &str| Reasons::named(&[name.to_owned()]).unwrap();
    let fallbacks = vec![(Fake::well(LATENCY), named("overload")), (Fake::well(LATENCY), named("refusal"))];
    let outcome = run(vec![refuses], fallbacks, When::Never, 500, 20).await;
    assert_eq!((outcome.failed, outcome.asked[1]), (0, 0), "{outcome:?}");
    assert!((60..140).contains(&outcome.answered[2]), "{outcome:?}");
    assert!(outcome.reasons.len() as u64 == outcome.answered[2] && outcome.reasons.iter().all(|why| why == "refusal"));
    assert_eq!(outcome.tokens, 500 * 110 + outcome.answered[2] * 100, "what the refusals cost is counted");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_takes_over_while_no_member_answers() {
    let dies =
        Fake::new(|_, since| if since.as_secs() < 30 { (Duration::ZERO, Err(status(503))) } else { (LATENCY, Ok(())) });
    let overload = Reasons::named(&["overload".to_owned()]).unwrap();
    let outcome = run(vec![dies], vec![(Fake::well(LATENCY), overload)], When::Tail, 3_000, 20).await;
    assert_eq!((outcome.failed, outcome.attempts), (0, 1), "{outcome:?}");
    assert!(outcome.answered[0] > 1000 && outcome.answered[1] > 1000, "{outcome:?}");
    assert!(outcome.reasons.len() as u64 == outcome.answered[1] && outcome.reasons.iter().all(|why| why == "overload"));
}

#[tokio::test(start_paused = true)]
async fn hedges_end_a_heavy_tailed_run_earlier() {
    // The 99th percentile is 20 times the median.
    let heavy = |seed| {
        let act = |random: &mut fastrand::Rng, _| {
            let normal = (-2.0 * random.f64().max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
            (LATENCY.mul_f64((normal * 20_f64.ln() / 2.326).exp()), Ok(()))
        };
        Fake { random: Mutex::new(fastrand::Rng::with_seed(seed)), ..Fake::new(act) }
    };
    let (mut took, mut tokens) = ([Duration::ZERO; 2], [0; 2]);
    for seed in 0..8 {
        for (number, when) in [When::Never, When::Tail].into_iter().enumerate() {
            let outcome = run(vec![heavy(2 * seed), heavy(2 * seed + 1)], vec![], when, 2000, 100).await;
            took[number] += outcome.took;
            tokens[number] += outcome.tokens;
            assert!(outcome.answered.iter().all(|answered| *answered > 500), "{outcome:?}");
            assert!((outcome.hedged > 0) == (when == When::Tail) && outcome.extra() <= 0.02, "{outcome:?}");
        }
    }
    let [without, with] = took.map(|took| took.as_secs_f64());
    println!("{without:.0} s, {with:.0} s, {:.4} times the tokens", tokens[1] as f64 / tokens[0] as f64);
    assert!(with <= 0.75 * without, "{with} and {without}");
    assert!(tokens[1] as f64 <= 1.015 * tokens[0] as f64, "{tokens:?}");
}

#[tokio::test(start_paused = true)]
async fn doubtful_answers_go_to_the_fallback_and_stay_if_that_fails() {
    let named = |name: &str| Reasons::named(&[name.to_owned()]).unwrap();
    let doubtful = || Fake { text: "perhaps", ..Fake::well(LATENCY) };
    let outcome = run(vec![doubtful()], vec![(Fake::well(LATENCY), named("escalated"))], When::Never, 50, 10).await;
    assert_eq!((outcome.failed, outcome.answered[1], outcome.tokens), (0, 50, 2 * 50 * 110), "{outcome:?}");
    assert!(outcome.reasons.iter().all(|why| why == "escalated"));
    let fails = Fake::new(|_, _| (LATENCY, Err(status(400))));
    let outcome = run(vec![doubtful()], vec![(fails, named("escalated"))], When::Never, 50, 10).await;
    assert_eq!((outcome.failed, outcome.answered[0], outcome.tokens), (0, 50, 50 * 110), "{outcome:?}");
    let other = vec![(Fake::well(LATENCY), named("refusal"))];
    let outcome = run(vec![doubtful()], other, When::Never, 50, 10).await;
    assert_eq!((outcome.failed, outcome.asked[1]), (0, 0), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_others_keep_busy_gets_fewer_requests() {
    let often: [Arc<AtomicU64>; 3] = Default::default();
    let depths = [
        Depth::Known { running: Some(30.0), waiting: 40.0 },
        Depth::Known { running: Some(0.0), waiting: 0.0 },
        Depth::Never,
    ];
    let told =
        |number: usize| Fake { queue: Some((depths[number], Arc::clone(&often[number]))), ..Fake::well(LATENCY) };
    let outcome = run((0..3).map(told).collect(), vec![], When::Never, 3_000, 30).await;
    println!("{:?} in {:?}", outcome.answered, outcome.took);
    assert_eq!(outcome.failed, 0);
    assert!(outcome.answered[0] * 5 < outcome.answered[1].min(outcome.answered[2]), "{outcome:?}");
    let [busy, idle, never] = often.map(|often| often.load(Ordering::Relaxed));
    let seconds = outcome.took.as_secs();
    assert!(
        (seconds / 2..=seconds + 1).contains(&busy) && (seconds / 2..=seconds + 1).contains(&idle),
        "{busy} {idle}"
    );
    assert_eq!(never, 1);
}

#[tokio::test(start_paused = true)]
async fn documents_stay_with_the_member_that_has_them_in_its_cache() {
    let missed: Arc<AtomicU64> = Arc::default();
    let cached = |_| Fake { cache: Some((Mutex::default(), Arc::clone(&missed))), ..Fake::well(LATENCY) };
    let outcome = run((0..4).map(cached).collect(), vec![], When::Never, 10_000, 64).await;
    let missed = missed.load(Ordering::Relaxed) as f64;
    // The best that there is: each document is missed once.
    let (best, hits) = (1.0 - DOCUMENTS as f64 / 10_000.0, 1.0 - missed / 10_000.0);
    println!("{hits} of {best}; {:?}", outcome.answered);
    assert!(hits >= 0.97 * best, "{hits} of {best}");
    assert!(outcome.answered.iter().all(|answered| (2000..3100).contains(answered)), "{outcome:?}");
}
