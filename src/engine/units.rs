//! What every part of the engine counts in: items, random numbers, seconds.

use std::time::Duration;

/// An item's place in the order of submission of its run, from 0. The engine knows items by nothing else.
pub type ItemIndex = u64;

/// A source of numbers uniform in [0, 1). Injected, so that tests choose the jitter.
pub type UniformSource = Box<dyn FnMut() -> f64 + Send>;

/// Converts seconds from outside to a duration. Negative numbers and NaN become zero, the rest is at most a century, so
/// that adding it to an instant cannot overflow.
pub fn seconds(value: f64) -> Duration {
    const CENTURY: f64 = 100.0 * 365.0 * 86_400.0;
    if value > 0.0 { Duration::from_secs_f64(value.min(CENTURY)) } else { Duration::ZERO }
}
