//! What headers say about limits: when to come back, and how much is left, in all forms that providers use.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use memchr::memmem::Finder;

use crate::engine::quota::{Measure, Told};

/// Header names by measure: limit, remaining, reset. The first row of a measure that is present counts.
///
/// Sources: the API references of OpenAI, Azure OpenAI, Anthropic, Groq, Together, Mistral and OpenRouter (2026).
const NAMES: &[(Measure, [&str; 3])] = &[
    (Measure::Requests, ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]),
    (Measure::Tokens, ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]),
    (
        Measure::Requests,
        [
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ],
    ),
    (
        Measure::Tokens,
        [
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-reset",
        ],
    ),
    (
        Measure::InputTokens,
        [
            "anthropic-ratelimit-input-tokens-limit",
            "anthropic-ratelimit-input-tokens-remaining",
            "anthropic-ratelimit-input-tokens-reset",
        ],
    ),
    (
        Measure::OutputTokens,
        [
            "anthropic-ratelimit-output-tokens-limit",
            "anthropic-ratelimit-output-tokens-remaining",
            "anthropic-ratelimit-output-tokens-reset",
        ],
    ),
    (Measure::Requests, ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]),
    (Measure::Tokens, ["x-tokenlimit-limit", "x-tokenlimit-remaining", "x-tokenlimit-reset"]),
    (
        Measure::Tokens,
        ["x-ratelimitbysize-limit-minute", "x-ratelimitbysize-remaining-minute", "ratelimitbysize-reset"],
    ),
];

/// All limits that a reply tells, one per measure.
pub fn read(headers: &HeaderMap, now: SystemTime) -> Vec<Told> {
    let mut limits: Vec<Told> = Vec::new();
    // Most replies say nothing, and looking up every name costs more than the rest of a reply's headers.
    static LIMIT: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("limit"));
    if !headers.keys().any(|name| LIMIT.find(name.as_str().as_bytes()).is_some()) {
        return limits;
    }
    for (measure, [limit, remaining, reset]) in NAMES {
        if limits.iter().any(|known| known.measure == *measure) {
            continue;
        }
        let found = Told {
            measure: *measure,
            limit: amount(headers, limit),
            remaining: amount(headers, remaining),
            reset: text(headers, reset).and_then(|value| wait(value, now)),
        };
        if found.limit.is_some() || found.remaining.is_some() || found.reset.is_some() {
            limits.push(found);
        }
    }
    limits
}

/// Seconds to wait from now, as the server says: `retry-after-ms` (milliseconds), else `retry-after` (RFC 9110,
/// section 10.2.3). `None` when absent, not understood, or not positive.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<f64> {
    let milliseconds = text(headers, "retry-after-ms").and_then(|value| value.parse::<f64>().ok());
    match milliseconds {
        Some(milliseconds) => sound(milliseconds / 1000.0),
        None => wait(text(headers, "retry-after")?, now),
    }
}

/// For a refusal without `retry-after`: when the limits that are used up are whole again.
pub fn until_reset(headers: &HeaderMap, now: SystemTime) -> Option<f64> {
    let used_up = read(headers, now).into_iter().filter(|limit| limit.remaining.is_some_and(|left| left < 1.0));
    used_up
        .filter_map(|limit| limit.reset)
        .fold(None, |longest: Option<f64>, wait| Some(longest.unwrap_or(0.0).max(wait)))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// A count; -1 is Azure's word for "unknown".
fn amount(headers: &HeaderMap, name: &str) -> Option<f64> {
    text(headers, name)?.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)
}

/// A point in time, or a span until then, as seconds from now: seconds (`7`, `0.5`), Go durations (`6m0s`, `599ms`),
/// RFC 3339, HTTP dates, and seconds or milliseconds since 1970.
pub fn wait(value: &str, now: SystemTime) -> Option<f64> {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    if let Ok(number) = value.parse::<f64>() {
        // No server asks for thirty years; numbers of that size are instants.
        return sound(match number {
            number if number > 1e11 => number / 1000.0 - since_epoch,
            number if number > 1e9 => number - since_epoch,
            number => number,
        });
    }
    if let Some(seconds) = go_duration(value) {
        return sound(seconds);
    }
    if let Ok(instant) = value.parse::<jiff::Timestamp>() {
        return sound(instant.as_duration().as_secs_f64() - since_epoch);
    }
    let instant = httpdate::parse_http_date(value).ok()?;
    sound(instant.duration_since(now).unwrap_or(Duration::ZERO).as_secs_f64())
}

/// `1h2m3.5s`, `599ms`: numbers with units, as Go's `time.Duration` prints them.
fn go_duration(value: &str) -> Option<f64> {
    let mut rest = value;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit())?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let (unit, scale) = [
            ("ms", 1e-3),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("ns", 1e-9),
            ("h", 3600.0),
            ("m", 60.0),
            ("s", 1.0),
            ("d", 86_400.0),
        ]
        .into_iter()
        .find(|(unit, _)| rest.starts_with(unit))?;
        seconds += number * scale;
        rest = &rest[unit.len()..];
    }
    (!value.is_empty()).then_some(seconds)
}

fn sound(seconds: f64) -> Option<f64> {
    (seconds.is_finite() && seconds > 0.0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn noon() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_770_000_000)
    }

    #[test]
    fn every_form_of_a_wait_is_understood() {
        let date = httpdate::fmt_http_date(noon() + Duration::from_secs(30));
        let instant = jiff::Timestamp::from_second(1_770_000_045).unwrap().to_string();
        for (value, expected) in [
            ("7", Some(7.0)),
            ("0.5", Some(0.5)),
            ("0", None),
            ("-1", None),
            ("NaN", None),
            ("inf", None),
            ("1s", Some(1.0)),
            ("6m0s", Some(360.0)),
            ("599ms", Some(0.599)),
            ("41.724s", Some(41.724)),
            ("1h2m3s", Some(3723.0)),
            ("2m59.56s", Some(179.56)),
            ("1770000020", Some(20.0)),
            ("1770000020500", Some(20.5)),
            (date.as_str(), Some(30.0)),
            (instant.as_str(), Some(45.0)),
            ("2026-02-02T02:41:10+00:00", Some(70.0)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None),
            ("tomorrow", None),
            ("5 apples", None),
            ("", None),
        ] {
            let got = wait(value, noon());
            let close = match (got, expected) {
                (Some(got), Some(expected)) => (got - expected).abs() < 1e-3,
                (got, expected) => got == expected,
            };
            assert!(close, "{value:?}: {got:?}, expected {expected:?}");
        }
    }

    #[test]
    fn milliseconds_go_before_seconds() {
        assert_eq!(retry_after(&headers(&[("retry-after", "9"), ("retry-after-ms", "250")]), noon()), Some(0.25));
        assert_eq!(retry_after(&headers(&[("retry-after", "9"), ("retry-after-ms", "soon")]), noon()), Some(9.0));
        assert_eq!(retry_after(&headers(&[]), noon()), None);
    }

    #[test]
    fn every_providers_names_are_known() {
        let openai = headers(&[
            ("x-ratelimit-limit-requests", "500"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "120ms"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ]);
        assert_eq!(
            read(&openai, noon())[0],
            Told { measure: Measure::Requests, limit: Some(500.0), remaining: Some(0.0), reset: Some(0.12) }
        );
        assert_eq!(until_reset(&openai, noon()), Some(360.0));
        let anthropic = headers(&[
            ("anthropic-ratelimit-output-tokens-remaining", "8000"),
            ("anthropic-ratelimit-output-tokens-reset", "2026-02-02T02:40:30Z"),
        ]);
        let limits = read(&anthropic, noon());
        assert_eq!(
            (limits[0].measure, limits[0].remaining, limits[0].limit),
            (Measure::OutputTokens, Some(8000.0), None)
        );
        assert!((limits[0].reset.unwrap() - 30.0).abs() < 1e-3);
        assert_eq!(until_reset(&anthropic, noon()), None);
        let azure = headers(&[("x-ratelimit-remaining-tokens", "-1"), ("x-ratelimit-reset-tokens", "0")]);
        assert!(read(&azure, noon()).is_empty());
        let openrouter = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1770000003000")]);
        assert!((until_reset(&openrouter, noon()).unwrap() - 3.0).abs() < 1e-3);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_sound_wait_or_nothing(value in "[ -~]{0,40}") {
            if let Some(wait) = retry_after(&headers(&[("retry-after", &value)]), SystemTime::now()) {
                prop_assert!(wait.is_finite() && wait > 0.0);
            }
            read(&headers(&[("x-ratelimit-reset", &value), ("x-ratelimit-limit", &value)]), SystemTime::now());
        }

        #[test]
        fn go_durations_of_whole_units_add_up(hours in 0u32..100, minutes in 0u32..60, millis in 1u32..60_000) {
            let text = format!("{hours}h{minutes}m{}s", f64::from(millis) / 1000.0);
            let expected = f64::from(hours * 3600 + minutes * 60) + f64::from(millis) / 1000.0;
            prop_assert!((wait(&text, SystemTime::now()).unwrap() - expected).abs() < 1e-6);
        }
    }
}
