//! When a server says to come back.

use std::time::SystemTime;

use http::HeaderMap;

/// Seconds to wait from now: `retry-after-ms` (milliseconds), else `retry-after` as seconds or as an HTTP date
/// (RFC 9110, section 10.2.3). `None` when absent, not understood, or not positive.
pub fn read(headers: &HeaderMap, now: SystemTime) -> Option<f64> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let milliseconds = text("retry-after-ms").and_then(|value| value.parse::<f64>().ok()).map(|ms| ms / 1000.0);
    let wait = milliseconds.or_else(|| {
        let value = text("retry-after")?;
        value.parse::<f64>().ok().or_else(|| {
            let then = httpdate::parse_http_date(value).ok()?;
            Some(then.duration_since(now).map(|wait| wait.as_secs_f64()).unwrap_or_default())
        })
    })?;
    (wait.is_finite() && wait > 0.0).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn each_form_is_understood() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let date = httpdate::fmt_http_date(now + Duration::from_secs(30));
        for (pairs, expected) in [
            (&[("retry-after", "7")][..], Some(7.0)),
            (&[("retry-after", " 0.5 ")], Some(0.5)),
            (&[("retry-after", date.as_str())], Some(30.0)),
            (&[("retry-after", "9"), ("retry-after-ms", "250")], Some(0.25)),
            (&[("retry-after", "9"), ("retry-after-ms", "soon")], Some(9.0)),
            (&[("retry-after", "0")], None),
            (&[("retry-after", "-3")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "inf")], None),
            (&[("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")], None),
            (&[("retry-after", "tomorrow")], None),
            (&[], None),
        ] {
            assert_eq!(read(&headers(pairs), now), expected, "{pairs:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_sound_wait_or_nothing(value in "[ -~]{0,40}") {
            let map = headers(&[("retry-after", &value), ("retry-after-ms", &value)]);
            if let Some(wait) = read(&map, SystemTime::now()) {
                prop_assert!(wait.is_finite() && wait > 0.0);
            }
        }
    }
}
