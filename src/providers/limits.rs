//! What headers say about limits: when to come back, and how much is left, in all forms that providers use.

use std::hash::{Hash, Hasher};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use memchr::memmem::Finder;

use super::error::ProviderError;
use super::limit_fields as fields;
use super::reply::Reply;
use crate::engine::measure::{Measure, ReportedLimit};

/// Larger counts are none.
const MOST: f64 = 1e15;
/// A quota of a month is the longest that there is, seconds.
const LONGEST: f64 = 31.0 * 86_400.0;
/// A server's clock that differs by no more from ours is right: a reply may take some seconds.
const CLOCKS_AGREE: Duration = Duration::from_secs(5);

/// What a provider's limits are for, where their headers do not say it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Periods {
    /// Seconds that a limit of requests is for.
    pub requests: Option<f64>,
    /// Seconds that a limit of tokens is for.
    pub tokens: Option<f64>,
}

impl Periods {
    /// Completes what the headers of a reply say.
    pub fn complete(self, outcome: &mut Result<Reply, ProviderError>) {
        let limits = match outcome {
            Ok(reply) => &mut reply.limits,
            Err(ProviderError::Status { limits, .. }) => limits,
            Err(_) => return,
        };
        for reported in limits.iter_mut().filter(|reported| reported.per.is_none()) {
            reported.per = if reported.measure == Measure::Requests { self.requests } else { self.tokens };
        }
    }
}

/// A number for the account that a reply's headers name, and its project: their keys share limits.
pub fn account(headers: &HeaderMap) -> Option<u64> {
    const NAMES: [&str; 2] = ["openai-organization", "anthropic-organization-id"];
    let named = NAMES.into_iter().find_map(|name| headers.get(name)).filter(|value| !value.is_empty())?;
    let mut hasher = rustc_hash::FxHasher::default();
    (named.as_bytes(), headers.get("openai-project").map(|value| value.as_bytes())).hash(&mut hasher);
    Some(hasher.finish())
}

/// What the value of a header says of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Limit,
    Remaining,
    Reset,
}

/// A header about a limit, by its name.
#[derive(Debug, PartialEq)]
struct Named {
    part: Part,
    measure: Measure,
    /// Whether the name says what is counted.
    is_specific: bool,
    per: Option<f64>,
}

/// How names of headers begin, and what they count if they say no more. Sources: the API references of OpenAI, Azure
/// OpenAI, Anthropic, Groq, Together, Mistral, OpenRouter and Cerebras (2026), and older drafts of the IETF's.
const BEGINNINGS: &[(&str, Measure)] = &[
    ("x-ratelimit-", Measure::Requests),
    ("anthropic-ratelimit-", Measure::Requests),
    ("ratelimit-", Measure::Requests),
    ("x-tokenlimit-", Measure::Tokens),
    ("x-ratelimitbysize-", Measure::Tokens),
    ("ratelimitbysize-", Measure::Tokens),
];

impl Named {
    /// Reads a name such as `x-ratelimit-remaining-tokens-minute`. Names with words of which nothing is known are of
    /// limits of which nothing is known.
    fn read(name: &str) -> Option<Self> {
        let (rest, measure) =
            BEGINNINGS.iter().find_map(|(begin, measure)| Some((name.strip_prefix(begin)?, *measure)))?;
        let (mut part, mut found, mut per, mut count) = (None, None, None, 1.0);
        let (mut input, mut output) = (false, false);
        for word in rest.split('-') {
            match word {
                "limit" => part = Some(Part::Limit),
                "remaining" => part = Some(Part::Remaining),
                "reset" => part = Some(Part::Reset),
                "requests" | "request" | "req" => found = Some(Measure::Requests),
                "tokens" | "token" => found = Some(Measure::Tokens),
                "input" => input = true,
                "output" => output = true,
                "per" | "after" => {}
                "second" | "minute" | "hour" | "day" | "month" => per = Some(count * unit(word)),
                number => count = number.parse().ok().filter(|count| (1.0..=1000.0).contains(count))?,
            }
        }
        let measure = match (found, input, output) {
            (_, true, false) => Measure::InputTokens,
            (_, false, true) => Measure::OutputTokens,
            (Some(Measure::Tokens), ..) => Measure::Tokens,
            (Some(_), ..) => Measure::Requests,
            (None, ..) => measure,
        };
        Some(Self { part: part?, measure, is_specific: found.is_some(), per })
    }
}

fn unit(word: &str) -> f64 {
    match word {
        "second" => 1.0,
        "minute" => 60.0,
        "hour" => 3600.0,
        "day" => 86_400.0,
        _ => 30.0 * 86_400.0,
    }
}

/// All limits that a reply tells, one for each measure and time.
pub fn read(headers: &HeaderMap, now: SystemTime) -> Vec<ReportedLimit> {
    // Most replies say nothing, and looking at every name in full costs more than the rest of a reply's headers.
    static LIMIT: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("limit"));
    let mut found: Vec<(bool, ReportedLimit)> = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        if LIMIT.find(name.as_bytes()).is_none() {
            continue;
        }
        if let (Some(named), Ok(value)) = (Named::read(name), value.to_str()) {
            let value = value.trim();
            let reported = entry(&mut found, named.measure, named.per, named.is_specific);
            match named.part {
                Part::Limit => reported.limit = amount(value).or(reported.limit),
                Part::Remaining => reported.remaining = amount(value).or(reported.remaining),
                Part::Reset => reported.reset = wait(value, now).or(reported.reset),
            }
        }
    }
    fields::read(headers, &mut |reported| found.push((true, reported)));
    let known =
        |reported: &ReportedLimit| reported.limit.is_some() || reported.remaining.is_some() || reported.reset.is_some();
    found.retain(|(_, reported)| known(reported));
    // A name that does not say what is counted gives way to one that does.
    let specific: Vec<Measure> =
        found.iter().filter(|(specific, _)| *specific).map(|(_, reported)| reported.measure).collect();
    found.retain(|(is_specific, reported)| *is_specific || !specific.contains(&reported.measure));
    found.into_iter().map(|(_, reported)| reported).collect()
}

/// The limit of this measure and time, new if there is none yet.
fn entry(
    found: &mut Vec<(bool, ReportedLimit)>,
    measure: Measure,
    per: Option<f64>,
    is_specific: bool,
) -> &mut ReportedLimit {
    let place = found
        .iter()
        .position(|(specific, reported)| (reported.measure, reported.per, *specific) == (measure, per, is_specific))
        .unwrap_or(found.len());
    if place == found.len() {
        found.push((is_specific, ReportedLimit { measure, limit: None, remaining: None, reset: None, per }));
    }
    &mut found[place].1
}

/// The server's time, by the `date` of its reply: the instants that it names are of its own clock. Ours, where the two
/// agree, for it has fractions of seconds.
pub fn server_time(headers: &HeaderMap, ours: SystemTime) -> SystemTime {
    let Some(theirs) = text(headers, "date").and_then(|value| httpdate::parse_http_date(value).ok()) else {
        return ours;
    };
    let apart = theirs.duration_since(ours).unwrap_or_else(|error| error.duration());
    if apart > CLOCKS_AGREE { theirs } else { ours }
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

/// For a rate limit without `retry-after`: when the limits that are used up are whole again. A limit of which nothing
/// but that is said is one that is used up.
pub fn until_reset(headers: &HeaderMap, now: SystemTime) -> Option<f64> {
    let used_up = read(headers, now).into_iter().filter(|limit| limit.remaining.is_none_or(|left| left < 1.0));
    used_up
        .filter_map(|limit| limit.reset)
        .fold(None, |longest: Option<f64>, wait| Some(longest.unwrap_or(0.0).max(wait)))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// A count; -1 is Azure's word for "unknown". Of a list (`100, 100;w=60`) the first counts.
fn amount(value: &str) -> Option<f64> {
    let first = value.split([',', ';']).next().unwrap_or_default().trim();
    first.parse::<f64>().ok().filter(|value| value.is_finite() && (0.0..MOST).contains(value))
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

/// Nothing, where a wait is none, or longer than any quota's.
fn sound(seconds: f64) -> Option<f64> {
    (seconds.is_finite() && seconds > 0.0 && seconds <= LONGEST).then_some(seconds)
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
    fn accounts_are_told_apart_by_organisation_and_project() {
        let account = |entries: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            entries.iter().for_each(|(name, value)| drop(headers.insert(*name, value.parse().unwrap())));
            super::account(&headers)
        };
        assert_eq!(account(&[]), None);
        assert_eq!(account(&[("openai-organization", "")]), None);
        let one = account(&[("openai-organization", "acme"), ("openai-project", "p1")]);
        assert!(one.is_some() && one == account(&[("openai-project", "p1"), ("openai-organization", "acme")]));
        assert_ne!(one, account(&[("openai-organization", "acme"), ("openai-project", "p2")]));
        assert!(account(&[("anthropic-organization-id", "acme")]).is_some());
    }

    #[test]
    fn instants_are_of_the_servers_clock() {
        let later = |seconds: i64| {
            let instant = if seconds < 0 {
                noon() - Duration::from_secs(seconds.unsigned_abs())
            } else {
                noon() + Duration::from_secs(seconds.unsigned_abs())
            };
            httpdate::fmt_http_date(instant)
        };
        for (apart, expected) in
            [(86_400, 20.0), (-86_400, 20.0), (60, 20.0), (-60, 20.0), (3, 23.0), (-3, 17.0), (0, 20.0)]
        {
            let headers = headers(&[("date", &later(apart)), ("retry-after", &later(apart + 20))]);
            assert_eq!(retry_after(&headers, server_time(&headers, noon())), Some(expected), "{apart} s apart");
        }
        assert_eq!(server_time(&headers(&[("date", "yesterday")]), noon()), noon());
        assert_eq!(server_time(&headers(&[]), noon()), noon());
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
            ReportedLimit {
                measure: Measure::Requests,
                limit: Some(500.0),
                remaining: Some(0.0),
                reset: Some(0.12),
                per: None
            }
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

    #[test]
    fn names_say_what_is_counted_and_for_which_time() {
        for (name, part, measure, per) in [
            ("x-ratelimit-limit-requests", Part::Limit, Measure::Requests, None),
            ("x-ratelimit-reset-tokens", Part::Reset, Measure::Tokens, None),
            ("anthropic-ratelimit-input-tokens-remaining", Part::Remaining, Measure::InputTokens, None),
            ("x-ratelimit-limit", Part::Limit, Measure::Requests, None),
            ("ratelimit-reset", Part::Reset, Measure::Requests, None),
            ("x-tokenlimit-remaining", Part::Remaining, Measure::Tokens, None),
            ("x-ratelimitbysize-limit-minute", Part::Limit, Measure::Tokens, Some(60.0)),
            ("x-ratelimit-limit-req-minute", Part::Limit, Measure::Requests, Some(60.0)),
            ("x-ratelimit-remaining-requests-per-second", Part::Remaining, Measure::Requests, Some(1.0)),
            ("x-ratelimit-limit-tokens-5-minute", Part::Limit, Measure::Tokens, Some(300.0)),
            ("x-ratelimit-limit-requests-day", Part::Limit, Measure::Requests, Some(86_400.0)),
        ] {
            let named = Named::read(name).unwrap();
            assert_eq!((named.part, named.measure, named.per), (part, measure, per), "{name}");
        }
        for name in ["x-ratelimit-limit-images", "x-ratelimit-tokens", "x-ratelimit-limit-project-tokens", "limit"] {
            assert_eq!(Named::read(name), None, "{name}");
        }
    }

    #[test]
    fn limits_for_different_times_stand_beside_each_other() {
        let reported = read(
            &headers(&[
                ("x-ratelimit-limit-requests-day", "14400"),
                ("x-ratelimit-remaining-requests-day", "14000"),
                ("x-ratelimit-limit-requests-minute", "30"),
                ("x-ratelimit-limit", "7"),
                ("x-ratelimit-limit-tokens", "1e300"),
                ("x-ratelimit-remaining-tokens", "lots"),
            ]),
            noon(),
        );
        let found: Vec<_> =
            reported.iter().map(|reported| (reported.limit, reported.remaining, reported.per)).collect();
        assert_eq!(found.len(), 2, "{reported:?}");
        assert!(found.contains(&(Some(14_400.0), Some(14_000.0), Some(86_400.0))));
        assert!(found.contains(&(Some(30.0), None, Some(60.0))));
    }

    #[test]
    fn a_reset_alone_is_obeyed() {
        for (name, value, expected) in [
            ("x-ratelimit-reset", "2", Some(2.0)),
            ("x-ratelimit-reset", "1m30s", Some(90.0)),
            ("x-ratelimit-reset", "1770000004", Some(4.0)),
            ("x-ratelimit-reset", "1770000004500", Some(4.5)),
            ("x-ratelimit-reset-requests", "250ms", Some(0.25)),
            ("x-ratelimit-reset-after", "3", Some(3.0)),
            ("ratelimit-reset", "5", Some(5.0)),
            ("ratelimit", "\"default\";r=0;t=6", Some(6.0)),
            ("ratelimit", "limit=100, remaining=0, reset=7", Some(7.0)),
            ("x-ratelimit-reset", "-2", None),
            ("x-ratelimit-reset", "1e9", None),
            ("x-ratelimit-reset", "99999999", None),
            ("x-ratelimit-reset", "soon", None),
        ] {
            assert_eq!(until_reset(&headers(&[(name, value)]), noon()), expected, "{name}: {value}");
        }
        let plenty = headers(&[("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "9")]);
        assert_eq!(until_reset(&plenty, noon()), None);
    }

    #[test]
    fn what_a_provider_is_known_for_completes_its_headers() {
        let periods = Periods { requests: Some(1.0), tokens: Some(60.0) };
        let reported = headers(&[("x-ratelimit-limit", "10"), ("x-ratelimit-limit-tokens-day", "5")]);
        let mut outcome = Err(crate::providers::status::read(429, &reported, b""));
        periods.complete(&mut outcome);
        let periods: Vec<_> =
            outcome.unwrap_err().limits().iter().map(|reported| (reported.measure, reported.per)).collect();
        assert_eq!(periods, [(Measure::Requests, Some(1.0)), (Measure::Tokens, Some(86_400.0))]);
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
