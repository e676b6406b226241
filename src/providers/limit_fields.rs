//! The IETF's header fields for limits, `RateLimit` and `RateLimit-Policy`: the newer form with parameters
//! (draft-ietf-httpapi-ratelimit-headers-10, `"name";r=50;t=30` and `"name";q=100;w=60`), and the older one
//! (`limit=100, remaining=50, reset=30` and `100;w=60`).

use http::HeaderMap;

use crate::engine::measure::{Measure, ReportedLimit};

/// A limit by its name, as far as it is known.
struct Policy<'a> {
    name: &'a str,
    reported: ReportedLimit,
    /// Whether it counts something else, bytes for instance.
    is_foreign: bool,
}

/// Passes on every limit that the two fields tell.
pub fn read(headers: &HeaderMap, tell: &mut dyn FnMut(ReportedLimit)) {
    let mut policies: Vec<Policy<'_>> = Vec::new();
    for field in ["ratelimit", "ratelimit-policy"] {
        for value in headers.get_all(field).iter().filter_map(|value| value.to_str().ok()) {
            for member in split(value, ',') {
                take(&mut policies, member);
            }
        }
    }
    for policy in policies.into_iter().filter(|policy| !policy.is_foreign) {
        tell(policy.reported);
    }
}

fn take<'a>(policies: &mut Vec<Policy<'a>>, member: &'a str) {
    let mut items = split(member, ';').into_iter().map(str::trim);
    let first = items.next().unwrap_or_default();
    // The older form has one limit, and its numbers where the newer has names.
    let older = if first.parse::<f64>().is_ok() { Some(("q", first)) } else { first.split_once('=') };
    let name = if older.is_some() { "" } else { first.trim_matches('"') };
    if first.is_empty() {
        return;
    }
    let place = policies.iter().position(|policy| policy.name == name).unwrap_or(policies.len());
    if place == policies.len() {
        let measure = if name.contains("token") { Measure::Tokens } else { Measure::Requests };
        let reported = ReportedLimit { measure, limit: None, remaining: None, reset: None, per: None };
        policies.push(Policy { name, reported, is_foreign: false });
    }
    let policy = &mut policies[place];
    for (key, value) in older.into_iter().chain(items.filter_map(|item| item.split_once('='))) {
        let number =
            value.trim().parse::<f64>().ok().filter(|number| number.is_finite() && (0.0..1e15).contains(number));
        let positive = number.filter(|number| *number > 0.0);
        match key.trim() {
            "r" | "remaining" => policy.reported.remaining = number,
            "t" | "reset" => policy.reported.reset = positive.filter(|wait| *wait <= 31.0 * 86_400.0),
            "q" | "limit" => policy.reported.limit = number,
            "w" => policy.reported.per = positive,
            "qu" => policy.is_foreign = value.trim().trim_matches('"') != "requests",
            _ => {}
        }
    }
}

/// The parts between separators that stand in no string.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut quoted = false;
    text.split(|letter| {
        quoted ^= letter == '"';
        letter == separator && !quoted
    })
    .map(str::trim)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&'static str, &str)]) -> Vec<ReportedLimit> {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let mut found = Vec::new();
        read(&headers, &mut |reported| found.push(reported));
        found
    }

    fn limit(limit: Option<f64>, remaining: Option<f64>, reset: Option<f64>, per: Option<f64>) -> ReportedLimit {
        ReportedLimit { measure: Measure::Requests, limit, remaining, reset, per }
    }

    #[test]
    fn both_forms_are_read() {
        let newer = found(&[("ratelimit", r#""default";r=50;t=30"#), ("ratelimit-policy", r#""default";q=100;w=60"#)]);
        assert_eq!(newer, [limit(Some(100.0), Some(50.0), Some(30.0), Some(60.0))]);
        let older = found(&[("ratelimit", "limit=100, remaining=0, reset=5"), ("ratelimit-policy", "100;w=10")]);
        assert_eq!(older, [limit(Some(100.0), Some(0.0), Some(5.0), Some(10.0))]);
    }

    #[test]
    fn several_limits_are_told_apart() {
        let policy = r#""a, b";q=10;w=1, "tokens";q=5000;w=60, "size";q=9;qu="content-bytes""#;
        let limits = found(&[("ratelimit-policy", policy), ("ratelimit", r#""tokens";r=7"#)]);
        let tokens = ReportedLimit { measure: Measure::Tokens, ..limit(Some(5000.0), Some(7.0), None, Some(60.0)) };
        assert_eq!(limits, [tokens, limit(Some(10.0), None, None, Some(1.0))]);
    }

    #[test]
    fn odd_values_are_unknown() {
        for value in ["", ";;", "\"x\";r=-1;t=no", "\"x\";t=-5;t=1e300", "=;=", "\""] {
            for reported in found(&[("ratelimit", value), ("ratelimit-policy", value)]) {
                assert_eq!(reported, limit(None, None, None, None), "{value}");
            }
        }
    }
}
