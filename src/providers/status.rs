//! The meaning of an error reply: by its status, then by the codes in its body, never by searching its text.

use std::time::SystemTime;

use http::HeaderMap;
use serde_json::Value;

use super::error::{Category, excerpt};
use super::{ProviderError, limits};

/// Codes that mean money, not pace. From the error references of OpenAI and Anthropic (2026).
const BILLING: &[&str] = &[
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "spend_limit_reached",
    "usage_limit_reached",
    "enforced_spend_limit_reached",
];
/// Codes of a filter that refused the prompt (Azure OpenAI, OpenAI).
const FILTERED: &[&str] = &["content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"];
/// Codes of a 429 that says "no capacity just now", not "you were too fast" (OpenAI's flex tier).
const NO_CAPACITY: &[&str] = &["resource_unavailable", "capacity_exceeded", "server_is_overloaded"];

/// What an error reply says.
#[derive(Debug, Default, PartialEq)]
struct Said {
    message: String,
    /// Machine-readable words, the most telling first.
    codes: Vec<String>,
    /// A status inside the body (OpenRouter).
    status: Option<u16>,
    retry_after: Option<f64>,
    /// Every quota that was violated is one of a day.
    daily: bool,
}

/// Reads an error reply.
pub fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> ProviderError {
    let said = match serde_json::from_slice::<Value>(body) {
        Ok(value) => Said::from_body(&value).unwrap_or_default(),
        Err(_) => Said::default(),
    };
    let mut error = judge(status, headers, said);
    if let ProviderError::Status { message, .. } = &mut error
        && message.is_empty()
    {
        *message = match excerpt(body) {
            text if text.is_empty() => http::StatusCode::from_u16(status)
                .ok()
                .and_then(|status| status.canonical_reason())
                .unwrap_or("no message")
                .to_owned(),
            text => text,
        };
    }
    error
}

/// Reads an error object that came inside a success reply.
pub fn inside(error: &Value, headers: &HeaderMap) -> ProviderError {
    let said = Said::from_object(error);
    let status = said.status.unwrap_or(502);
    judge(status, headers, said)
}

fn judge(status: u16, headers: &HeaderMap, said: Said) -> ProviderError {
    let now = SystemTime::now();
    let mut retry_after = limits::retry_after(headers, now).or(said.retry_after);
    let codes: Vec<&str> = said.codes.iter().map(String::as_str).collect();
    let category = classify(status, &codes, said.daily);
    if category == Category::RateLimit && retry_after.is_none() {
        retry_after = limits::until_reset(headers, now);
    }
    // OpenRouter's 402 may pass with time; then it says so.
    let retryable = match should_retry(headers) {
        Some(false) => false,
        Some(true) => !matches!(category, Category::Billing | Category::DailyQuota),
        None => category.is_retryable() || (status == 402 && retry_after.is_some()),
    };
    ProviderError::Status {
        status,
        message: said.message,
        code: said.codes.into_iter().next(),
        category,
        retryable,
        retry_after,
        request_id: request_id(headers),
        limits: limits::read(headers, now),
    }
}

/// What a status with these codes means. `daily`: all quotas that were violated are quotas of a day.
///
/// | status | meaning |
/// | --- | --- |
/// | 401; 403; 402 | wrong key; not allowed; no money |
/// | 408, 504 | time-out |
/// | 409, 425, 500, 502, other 5xx | the server's failure |
/// | 429 | rate limit, unless a code says money, a day's quota, or no capacity |
/// | 498, 503, 529 | overload (498 is Groq's, 529 Anthropic's) |
/// | other 4xx | the request is wrong, or was filtered |
pub fn classify(status: u16, codes: &[&str], daily: bool) -> Category {
    let says = |table: &[&str]| codes.iter().any(|code| table.contains(code));
    match status {
        401 => Category::Authentication,
        402 => Category::Billing,
        403 => Category::Permission,
        408 | 504 => Category::Timeout,
        429 if says(BILLING) => Category::Billing,
        429 if daily => Category::DailyQuota,
        429 if says(NO_CAPACITY) => Category::Overload,
        429 => Category::RateLimit,
        498 | 503 | 529 => Category::Overload,
        409 | 425 | 500.. => Category::Server,
        _ if says(FILTERED) => Category::ContentFilter,
        _ if says(BILLING) => Category::Billing,
        _ => Category::Client,
    }
}

/// `x-should-retry`, which OpenAI and Anthropic send to their own SDKs.
fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.to_str().ok()? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// How long the provider says that it took, milliseconds; OpenAI's word.
pub fn processing_ms(headers: &HeaderMap) -> Option<f64> {
    let value = headers.get("openai-processing-ms")?.to_str().ok()?.parse().ok()?;
    Some(value).filter(|ms: &f64| ms.is_finite() && *ms >= 0.0)
}

/// The provider's id of the request, for its support.
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    let value = ["x-request-id", "request-id", "apim-request-id"].iter().find_map(|name| headers.get(*name))?;
    value.to_str().ok().map(str::to_owned)
}

impl Said {
    /// From a whole body: `{"error": {...}}`, `{"error": "text"}`, `[{"error": ...}]` (Gemini, sometimes), flat with
    /// `message` (older vLLM, SGLang, Mistral), or `{"detail": ...}` (FastAPI).
    fn from_body(body: &Value) -> Option<Self> {
        let body = body.get(0).unwrap_or(body);
        if let Some(error) = body.get("error").filter(|error| !error.is_null()) {
            return Some(Self::from_object(error));
        }
        if body.get("message").is_some() {
            return Some(Self::from_object(body));
        }
        let detail = body.get("detail")?;
        let message = detail.as_str().map_or_else(|| detail.to_string(), str::to_owned);
        Some(Self { message, ..Self::default() })
    }

    fn from_object(error: &Value) -> Self {
        if let Some(text) = error.as_str() {
            return Self { message: text.to_owned(), ..Self::default() };
        }
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let mut said = Self { message: text(error.get("message")).unwrap_or_default(), ..Self::default() };
        let inner = error.pointer("/details/error_code").or_else(|| error.pointer("/innererror/code"));
        said.codes =
            [error.get("code"), inner, error.get("status"), error.get("type")].into_iter().filter_map(text).collect();
        let status = error.get("code").and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
        said.status = status.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
        for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
            said.take_detail(detail);
        }
        said
    }

    /// Google's `RetryInfo` and `QuotaFailure` (google/rpc/error_details.proto).
    fn take_detail(&mut self, detail: &Value) {
        match detail.get("@type").and_then(Value::as_str).and_then(|kind| kind.rsplit('.').next()) {
            Some("RetryInfo") => {
                let delay = detail.get("retryDelay").and_then(Value::as_str);
                self.retry_after = delay.and_then(|delay| limits::wait(delay, SystemTime::now()));
            }
            Some("QuotaFailure") => {
                let violations = detail.get("violations").and_then(Value::as_array);
                let mut ids =
                    violations.into_iter().flatten().filter_map(|one| one.get("quotaId")?.as_str()).peekable();
                self.daily = ids.peek().is_some() && ids.all(|id| id.contains("PerDay"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn error(status: u16, headers: &[(&'static str, &str)], body: &Value) -> ProviderError {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        read(status, &headers, body.to_string().as_bytes())
    }

    fn meaning(status: u16, headers: &[(&'static str, &str)], body: &Value) -> (&'static str, bool) {
        let error = error(status, headers, body);
        (error.category().name(), error.is_retryable())
    }

    fn openai(code: &str, kind: &str) -> Value {
        json!({"error": {"message": "m", "type": kind, "param": null, "code": code}})
    }

    #[test]
    fn openai_and_azure() {
        for (status, code, kind, expected) in [
            (400, "context_length_exceeded", "invalid_request_error", ("client_error", false)),
            (400, "content_filter", "invalid_request_error", ("content_filter", false)),
            (401, "invalid_api_key", "invalid_request_error", ("authentication", false)),
            (403, "unsupported_country", "request_forbidden", ("permission_denied", false)),
            (404, "model_not_found", "invalid_request_error", ("client_error", false)),
            (408, "timeout", "", ("api_timeout", true)),
            (409, "conflict", "", ("server_error", true)),
            (413, "", "", ("client_error", false)),
            (422, "", "", ("client_error", false)),
            (429, "rate_limit_exceeded", "requests", ("rate_limit", true)),
            (429, "rate_limit_exceeded", "tokens", ("rate_limit", true)),
            (429, "slow_down", "rate_limit_error", ("rate_limit", true)),
            (429, "insufficient_quota", "insufficient_quota", ("insufficient_balance", false)),
            (429, "credit_balance_exhausted", "insufficient_quota", ("insufficient_balance", false)),
            (429, "resource_unavailable", "", ("server_overload", true)),
            (500, "server_error", "server_error", ("server_error", true)),
            (502, "", "", ("server_error", true)),
            (503, "server_is_overloaded", "service_unavailable_error", ("server_overload", true)),
            (504, "", "", ("api_timeout", true)),
        ] {
            assert_eq!(meaning(status, &[], &openai(code, kind)), expected, "{status} {code}");
        }
    }

    #[test]
    fn anthropic() {
        let body = |kind: &str| json!({"type": "error", "error": {"type": kind, "message": "m"}, "request_id": "r"});
        for (status, kind, expected) in [
            (400, "invalid_request_error", ("client_error", false)),
            (401, "authentication_error", ("authentication", false)),
            (402, "billing_error", ("insufficient_balance", false)),
            (403, "permission_error", ("permission_denied", false)),
            (404, "not_found_error", ("client_error", false)),
            (413, "request_too_large", ("client_error", false)),
            (429, "rate_limit_error", ("rate_limit", true)),
            (500, "api_error", ("server_error", true)),
            (504, "timeout_error", ("api_timeout", true)),
            (529, "overloaded_error", ("server_overload", true)),
        ] {
            assert_eq!(meaning(status, &[], &body(kind)), expected, "{status} {kind}");
        }
        let spent = json!({"error": {"type": "rate_limit_error", "message": "m",
            "details": {"error_code": "enforced_spend_limit_reached"}}});
        assert_eq!(meaning(429, &[], &spent), ("insufficient_balance", false));
    }

    #[test]
    fn gemini() {
        let body = |ids: &[&str]| {
            let violations: Vec<Value> = ids.iter().map(|id| json!({"quotaId": id})).collect();
            json!([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "m", "details": [
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"},
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}]}}])
        };
        let minute = body(&["GenerateRequestsPerMinutePerProject", "GenerateRequestsPerDayPerProject"]);
        let ProviderError::Status { category, retry_after, code, .. } = error(429, &[], &minute) else { panic!() };
        assert_eq!(
            (category, retry_after, code.as_deref()),
            (Category::RateLimit, Some(37.0), Some("RESOURCE_EXHAUSTED"))
        );
        assert_eq!(meaning(429, &[], &body(&["GenerateRequestsPerDayPerProject"])), ("quota_exhausted", false));
        let unavailable = json!({"error": {"code": 503, "status": "UNAVAILABLE", "message": "m"}});
        assert_eq!(meaning(503, &[], &unavailable), ("server_overload", true));
        assert_eq!(meaning(400, &[], &json!({"error": {"code": 400, "status": "INVALID_ARGUMENT"}})).0, "client_error");
    }

    #[test]
    fn the_compatible_ones() {
        let openrouter = json!({"error": {"code": 402, "message": "no credit"}});
        assert_eq!(meaning(402, &[], &openrouter), ("insufficient_balance", false));
        assert_eq!(meaning(402, &[("retry-after", "5")], &openrouter), ("insufficient_balance", true));
        assert_eq!(meaning(498, &[], &openai("capacity_exceeded", "")), ("server_overload", true));
        let deepseek = json!({"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}});
        assert_eq!(meaning(402, &[], &deepseek), ("insufficient_balance", false));
        let flat = json!({"object": "error", "message": "too long", "type": "BadRequestError", "code": 400});
        assert_eq!(error(400, &[], &flat).to_string(), "HTTP 400: too long");
        let fastapi = json!({"detail": [{"loc": ["body"], "msg": "field required"}]});
        assert!(error(422, &[], &fastapi).to_string().contains("field required"));
        assert!(error(404, &[], &json!({"error": "model not found"})).to_string().contains("model not found"));
    }

    #[test]
    fn the_server_may_decide() {
        assert!(!meaning(500, &[("x-should-retry", "false")], &json!({})).1);
        assert!(meaning(400, &[("x-should-retry", "true")], &json!({})).1);
        assert!(!meaning(429, &[("x-should-retry", "true")], &openai("insufficient_quota", "")).1);
    }

    #[test]
    fn bodies_that_are_none_are_shown() {
        let error = |body: &[u8]| read(502, &HeaderMap::new(), body).to_string();
        assert_eq!(error(b"<html>proxy</html>"), "HTTP 502: <html>proxy</html>");
        assert_eq!(error(b""), "HTTP 502: Bad Gateway");
        assert_eq!(error(b"\xff\xfe"), "HTTP 502: \u{fffd}\u{fffd}");
        assert_eq!(error(b"{\"error\": null}"), "HTTP 502: {\"error\": null}");
    }

    #[test]
    fn an_error_inside_a_success_has_its_own_status() {
        let error = inside(&json!({"code": 429, "message": "slow"}), &HeaderMap::new());
        assert_eq!((error.category(), error.to_string().as_str()), (Category::RateLimit, "HTTP 429: slow"));
        assert_eq!(inside(&json!({"message": "?"}), &HeaderMap::new()).category(), Category::Server);
    }
}
