//! The meaning of an error reply: by the words in its body ([`error_words`]), then by its status.

use std::time::SystemTime;

use http::{HeaderMap, header};
use reqwest::Url;
use serde_json::Value;

use super::error::{Category, ProviderError, excerpt};
use super::error_body::ErrorBody;
use super::{error_words, json, limits};

/// Reads an error reply. A body that cannot be read leaves it to status and headers.
pub fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> ProviderError {
    let mut said = json::read::<Value>(body).map(|value| ErrorBody::of(&value)).unwrap_or_default();
    if let Some(name) = aws_name(headers) {
        said.codes.insert(0, name);
    }
    let mut error = judge(Some(status), headers, said);
    if let ProviderError::Status { message, .. } = &mut error
        && message.is_empty()
    {
        *message = match excerpt(body) {
            text if text.is_empty() => reason(status),
            text => text,
        };
    }
    if let ProviderError::Status { message, .. } = &mut error
        && let Some(address) = moved_to(status, headers)
    {
        message.push_str(&format!(
            "; the server sends this request on to {address}, where its key is not sent: if you trust that address, base_url must have it"
        ));
    }
    error
}

/// Where a redirect leads, without the parts of an address that may have secrets.
fn moved_to(status: u16, headers: &HeaderMap) -> Option<String> {
    let location = headers.get(header::LOCATION).filter(|_| (300..400).contains(&status))?.to_str().ok()?;
    let location = location.split(['?', '#']).next().unwrap_or_default();
    Some(match Url::parse(location) {
        Ok(url) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
        // A path, or the name of a host that it begins with; a user and a password have an @.
        Err(_) => location.rsplit('@').next().unwrap_or_default().to_owned(),
    })
}

/// The name of an error of AWS: `ThrottlingException:http://...`.
fn aws_name(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-amzn-errortype")?.to_str().ok()?;
    let name = value.split(':').next().unwrap_or_default().trim();
    (!name.is_empty() && name.len() <= 100).then(|| name.to_owned())
}

/// Reads an error object that came inside a success reply.
pub fn inside(error: &Value, headers: &HeaderMap) -> ProviderError {
    within(ErrorBody::of_error(error), headers)
}

/// The error in a success reply that holds nothing else: `error` at any depth, a flat `{"code", "message"}`, MiniMax's
/// `base_resp`. `None` if it says nothing of an error.
pub fn instead(body: &[u8], headers: &HeaderMap) -> Option<ProviderError> {
    let value: Value = json::read(body).ok()?;
    let said = ErrorBody::of(&value);
    said.names_an_error().then(|| within(said, headers))
}

/// An error with no status but its own. Without a message, its code is one.
fn within(mut said: ErrorBody, headers: &HeaderMap) -> ProviderError {
    if said.message.is_empty() {
        said.message = match (said.codes.first(), said.status) {
            (Some(code), _) => code.clone(),
            (None, status) => status.map(reason).unwrap_or_default(),
        };
    }
    judge(said.status, headers, said)
}

/// A status in words.
fn reason(status: u16) -> String {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    reason.unwrap_or("no message").to_owned()
}

fn judge(status: Option<u16>, headers: &HeaderMap, said: ErrorBody) -> ProviderError {
    let now = limits::server_time(headers, SystemTime::now());
    let mut retry_after = limits::retry_after(headers, now).or(said.retry_after);
    let codes: Vec<&str> = said.codes.iter().map(String::as_str).collect();
    let category = classify(status, &codes, &said.message, said.daily);
    if category == Category::RateLimit && retry_after.is_none() {
        retry_after = limits::until_reset(headers, now);
    }
    // OpenRouter's 402 may pass with time; then it says so.
    let retryable = match should_retry(headers) {
        Some(false) => false,
        Some(true) => !matches!(category, Category::Billing | Category::DailyQuota),
        None => category.is_retryable() || (status == Some(402) && retry_after.is_some()),
    };
    ProviderError::Status {
        status: status.unwrap_or(200),
        message: said.message,
        code: said.codes.into_iter().next(),
        category,
        retryable,
        retry_after,
        request_id: request_id(headers),
        limits: limits::read(headers, now),
        beginning: None,
    }
}

/// What an error with these codes and this message means. The provider's own words decide before the status does; an
/// error without a status (inside a success) and without a known word is the server's. `daily`: a quota of a day was
/// violated.
///
/// | status | meaning |
/// | --- | --- |
/// | 401; 403; 402 | wrong key; not allowed; no money |
/// | 408, 504, 522, 524 | timeout (the last two are Cloudflare's) |
/// | 409, 425, 499, 500, 502, other 5xx | the server's failure (499 is nginx's: somebody on the way hung up) |
/// | 429 | rate limit |
/// | 498, 503, 529 | overload (498 is Groq's, 529 Anthropic's) |
/// | other 4xx | the request is wrong |
pub fn classify(status: Option<u16>, codes: &[&str], message: &str, daily: bool) -> Category {
    let by_words = error_words::telling(codes, message);
    let category = by_words.unwrap_or_else(|| match status {
        None => error_words::general(codes).unwrap_or(Category::Server),
        Some(401) => Category::Authentication,
        Some(402) => Category::Billing,
        Some(403) => Category::Permission,
        Some(408 | 504 | 522 | 524) => Category::Timeout,
        Some(429) => Category::RateLimit,
        Some(498 | 503 | 529) => Category::Overload,
        Some(409 | 425 | 499 | 500..) => Category::Server,
        Some(_) => Category::Client,
    });
    match category {
        // A request that is larger than the limit of a minute never fits, whatever its word (Groq; OpenAI with 429).
        Category::RateLimit if status == Some(413) || error_words::is_too_large(message) => Category::Client,
        Category::RateLimit if daily => Category::DailyQuota,
        category => category,
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

/// Headers with the provider's id of a request.
pub const REQUEST_IDS: &[&str] = &["x-request-id", "request-id", "apim-request-id", "x-amzn-requestid"];

/// The provider's id of the request, for its support.
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    let value = REQUEST_IDS.iter().find_map(|name| headers.get(*name))?;
    value.to_str().ok().map(str::to_owned)
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
        let minute = body(&["GenerateRequestsPerMinutePerProject"]);
        let ProviderError::Status { category, retry_after, code, .. } = error(429, &[], &minute) else { panic!() };
        assert_eq!(
            (category, retry_after, code.as_deref()),
            (Category::RateLimit, Some(37.0), Some("RESOURCE_EXHAUSTED"))
        );
        let both = body(&["GenerateRequestsPerMinutePerProject", "GenerateRequestsPerDayPerProject"]);
        assert_eq!(meaning(429, &[], &both), ("quota_exhausted", false));
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
        assert_eq!(error(b"\xef\xbb\xbf{\"error\": {\"message\": \"busy\"}}"), "HTTP 502: busy");
        assert_eq!(error(b"{\"error\": null}"), "HTTP 502: {\"error\": null}");
    }

    #[test]
    fn an_error_inside_a_success_has_its_own_status() {
        let error = inside(&json!({"code": 429, "message": "slow"}), &HeaderMap::new());
        assert_eq!((error.category(), error.to_string().as_str()), (Category::RateLimit, "HTTP 429: slow"));
        assert_eq!(inside(&json!({"message": "?"}), &HeaderMap::new()).category(), Category::Server);
    }

    #[test]
    fn a_code_without_a_message_is_the_message() {
        let shown = |error: &Value| inside(error, &HeaderMap::new()).to_string();
        assert_eq!(shown(&json!({"code": "rate_limit_exceeded"})), "HTTP 200: rate_limit_exceeded");
        assert_eq!(shown(&json!({"code": 429})), "HTTP 429: Too Many Requests");
        let flat = instead(br#"{"code": "rate_limit_exceeded"}"#, &HeaderMap::new()).unwrap();
        assert_eq!(
            (flat.category(), flat.to_string().as_str()),
            (Category::RateLimit, "HTTP 200: rate_limit_exceeded")
        );
        assert!(instead(br#"{"code": 200, "msg": "ok", "data": {"x": 1}}"#, &HeaderMap::new()).is_none());
    }

    #[test]
    fn a_redirect_says_where_it_leads() {
        let to = |location: &str| {
            let headers = HeaderMap::from_iter([(header::LOCATION, location.parse().unwrap())]);
            let ProviderError::Status { message, retryable, .. } = read(301, &headers, b"") else { panic!() };
            assert!(!retryable);
            message
        };
        let said = to("https://user:pass@api.example.com/v1/chat?key=secret#s");
        assert!(
            said.contains("Moved Permanently; ") && said.contains(" to https://api.example.com/v1/chat,"),
            "{said}"
        );
        assert!(!said.contains("pass") && !said.contains("secret"), "{said}");
        assert!(to("/v2/chat?key=secret").contains(" to /v2/chat,"));
        assert!(to("//user:pass@host/v1").contains(" to host/v1,"));
        let ProviderError::Status { message, .. } = read(304, &HeaderMap::new(), b"") else { panic!() };
        assert_eq!(message, "Not Modified");
    }

    #[test]
    fn statuses_of_proxies() {
        let category = |status| read(status, &HeaderMap::new(), b"<html>").category().name();
        assert_eq!((category(522), category(524), category(499)), ("api_timeout", "api_timeout", "server_error"));
        let flagged =
            json!({"error": {"message": "m", "code": 403, "metadata": {"reasons": ["x"], "flagged_input": "y"}}});
        assert_eq!(meaning(403, &[], &flagged).0, "content_filter");
        let large = json!({"error": {"message": "Request too large for gpt-4o: Limit 3, Requested 4.", "code": "rate_limit_exceeded"}});
        assert_eq!(meaning(429, &[], &large).0, "client_error");
    }

    #[test]
    fn words_decide_before_the_status() {
        for (status, word, expected) in [
            (429, "exceeded_current_quota_error", "insufficient_balance"),
            (429, "engine_overloaded_error", "server_overload"),
            (429, "rate_limit_reached_error", "rate_limit"),
            (400, "Arrearage", "insufficient_balance"),
            (500, "rate_limit_exceeded", "rate_limit"),
            (500, "context_length_exceeded", "client_error"),
            (403, "RATE_LIMIT_EXCEEDED", "rate_limit"),
            (429, "1113", "insufficient_balance"),
            (429, "1302", "rate_limit"),
            (400, "1301", "content_filter"),
            (400, "tool_use_failed", "structured_output_validation_error"),
            (413, "rate_limit_exceeded", "client_error"),
            (413, "insufficient_quota", "insufficient_balance"),
            (401, "missing_scope", "permission_denied"),
            (403, "insufficient_user_quota", "insufficient_balance"),
            (403, "AllocationQuota.FreeTierOnly", "insufficient_balance"),
            (429, "NoCapacity", "server_overload"),
            (400, "moderation_blocked", "content_filter"),
        ] {
            assert_eq!(meaning(status, &[], &openai(word, "")).0, expected, "{status} {word}");
        }
        assert_eq!(meaning(429, &[], &json!({"error": {"code": 1113, "message": "no"}})).0, "insufficient_balance");
        let low = json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": "Your credit balance is too low to access the Anthropic API."}});
        assert_eq!(meaning(400, &[], &low), ("insufficient_balance", false));
    }

    #[test]
    fn google_gives_reasons() {
        let body = |status: u16, word: &str, reason: &str| {
            json!({"error": {"code": status, "status": word, "message": "m", "details": [
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}]}})
        };
        for (status, word, reason, expected) in [
            (400, "INVALID_ARGUMENT", "API_KEY_INVALID", "authentication"),
            (403, "PERMISSION_DENIED", "SERVICE_DISABLED", "permission_denied"),
            (403, "PERMISSION_DENIED", "BILLING_DISABLED", "insufficient_balance"),
            (429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", "rate_limit"),
        ] {
            assert_eq!(meaning(status, &[], &body(status, word, reason)).0, expected, "{reason}");
        }
    }

    #[test]
    fn an_error_is_found_at_any_depth() {
        for body in [
            json!({"error": {"error": {"code": "rate_limit_exceeded", "message": "slow"}}}),
            json!({"error": "{\"error\": {\"code\": 429, \"message\": \"slow\"}}"}),
            json!({"error": {"message": "{\"code\": \"rate_limit_exceeded\", \"message\": \"slow\"}"}}),
            json!({"errors": [{"code": "rate_limit_exceeded", "message": "slow"}]}),
            json!({"detail": {"error": {"type": "rate_limit_error", "message": "slow"}}}),
            json!({"code": "1302", "msg": "slow", "success": false}),
            json!({"status_code": 429, "message": "slow"}),
            json!({"error": {"message": "slow", "code": 502, "metadata": {"raw": "{\"error\": {\"type\": \"rate_limit_error\"}}"}}}),
            json!({"base_resp": {"status_code": 1002, "status_msg": "slow"}, "choices": null}),
        ] {
            let error = instead(body.to_string().as_bytes(), &HeaderMap::new()).unwrap();
            assert_eq!(error.category(), Category::RateLimit, "{body}");
            assert!(error.to_string().contains("slow"), "{error}");
        }
        let nothing = json!({"id": "x", "object": "chat.completion", "choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}});
        assert!(instead(nothing.to_string().as_bytes(), &HeaderMap::new()).is_none());
        let spent = json!({"base_resp": {"status_code": 1008, "status_msg": "no money"}});
        assert_eq!(instead(spent.to_string().as_bytes(), &HeaderMap::new()).unwrap().category(), Category::Billing);
        // Never deeper than a few levels, whatever is nested.
        let mut deep = json!({"code": 429});
        for _ in 0..100 {
            deep = json!({"error": deep});
        }
        assert!(instead(deep.to_string().as_bytes(), &HeaderMap::new()).is_none());
    }

    #[test]
    fn a_word_inside_a_success_is_what_it_says() {
        for (word, expected) in [
            ("rate_limit_exceeded", "rate_limit"),
            ("insufficient_quota", "insufficient_balance"),
            ("invalid_api_key", "authentication"),
            ("overloaded_error", "server_overload"),
            ("permission_error", "permission_denied"),
            ("invalid_request_error", "client_error"),
            ("INVALID_ARGUMENT", "client_error"),
            ("not_found_error", "client_error"),
            ("resource_not_found_error", "client_error"),
            ("permission_denied_error", "permission_denied"),
            ("UNAVAILABLE", "server_overload"),
            ("timeout_error", "api_timeout"),
            ("server_error", "server_error"),
            ("api_error", "server_error"),
        ] {
            let error = inside(&json!({"message": "m", "type": word}), &HeaderMap::new());
            assert_eq!(error.category().name(), expected, "{word}");
        }
    }
}
