//! Cost of admission: an item's way through the scheduler with every limit on and 10,000 others waiting.
//!
//! `cargo run --release --no-default-features --example admission`

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

// The engine uses nothing of the crate, so that it can be measured by itself.
#[allow(dead_code, unused_imports)]
#[path = "../src/engine/mod.rs"]
mod engine;

use engine::guard::{Caps, Price};
use engine::measure::{Limit, Measure};
use engine::pool::hedging::When;
use engine::pool::{Ending, Part, Pool, Reasons, Report};
use engine::queue::Expected;
use engine::quota::Used;
use engine::scheduler::Scheduler;
use engine::scope::{Control, Scope};
use engine::{Command, ItemReport, Settings, Usage};
use tokio::time::Instant;

const WAITING: u64 = 10_000;
const ITEMS: u64 = 1_000_000;

fn every_limit() -> Settings {
    let limits = [Measure::Requests, Measure::Tokens, Measure::InputTokens, Measure::OutputTokens]
        .into_iter()
        .flat_map(|measure| {
            [1, 60, 86_400].map(|seconds| Limit { measure, amount: 1e12, per: Duration::from_secs(seconds) })
        })
        .collect();
    Settings {
        limits,
        control: Control::PaceAndConcurrency,
        item_timeout: Some(Duration::from_secs(3600)),
        run_timeout: Some(Duration::from_secs(86_400)),
        caps: Caps { tokens: Some(1e15), cost: Some(1e12) },
        max_workers: NonZeroUsize::new(200).unwrap(),
        ..Settings::default()
    }
}

/// Nanoseconds per item from offer to release; with the members of a pool, if there are any.
fn measure(settings: Settings, members: usize) -> f64 {
    let mut now = Instant::now();
    let mut scheduler = Scheduler::new(settings, Box::new(|| 0.5), Arc::new(|| ()), now);
    let part = || Part {
        scope: Arc::default(),
        weight: 1.0,
        tier: 0,
        reasons: Reasons::default(),
        endpoint: 0,
        is_own_server: false,
    };
    let pool = (members > 0).then(|| Arc::new(Pool::new((0..members).map(|_| part()).collect(), When::Tail, 1)));
    let queue = match &pool {
        Some(pool) => scheduler.add_queue(Arc::new(Scope::of_seats(Arc::<Pool>::clone(pool))), now),
        None => 0,
    };
    let kind = scheduler.add_kind(
        256.0,
        Some(Price { input: 1e-6, cached: 1e-7, cache_write: 1e-6, cache_write_hour: 1e-6, output: 4e-6, held: 0.0 }),
    );
    scheduler.accept(queue, 0, WAITING, Instant::now());
    let usage = Usage { input: 100, output: 100, total: 200, ..Usage::default() };
    let report = || ItemReport { success: true, error: None, usage, reported: true };
    let began = std::time::Instant::now();
    let (mut offered, mut done) = (WAITING, 0);
    while done < ITEMS {
        now += Duration::from_micros(10);
        scheduler.advance(now);
        let mut started = Vec::new();
        while let Some(command) = scheduler.next_command() {
            match command {
                Command::Start { item, .. } => started.push(item),
                Command::Estimate { items } => {
                    for item in items {
                        let expected = Expected::Estimate {
                            requests: 1.0,
                            input: 100.0,
                            output: None,
                            most_input: Some(400.0),
                            most_output: Some(500.0),
                            kind,
                        };
                        scheduler.expect(item, expected);
                    }
                }
                _ => {}
            }
        }
        for item in started {
            if offered < ITEMS {
                scheduler.accept(queue, 0, 1, Instant::now());
                offered += 1;
            }
            if let Some(pool) = &pool
                && let Some(place) = pool.claim(None, now)
            {
                pool.ended(&place, &Report { used: Used::Reported(usage), ..Report::of(Ending::Answered) }, now);
            }
            scheduler.record(item, report(), now);
            scheduler.release(item, now);
            done += 1;
        }
    }
    began.elapsed().as_secs_f64() * 1e9 / ITEMS as f64
}

fn main() {
    println!(
        "none {:.0} ns per item",
        measure(Settings { max_workers: NonZeroUsize::new(200).unwrap(), ..Settings::default() }, 0)
    );
    println!("every {:.0} ns per item", measure(every_limit(), 0));
    println!(
        "pool of 16 {:.0} ns per item",
        measure(Settings { max_workers: NonZeroUsize::new(200).unwrap(), ..Settings::default() }, 16)
    );
}
