//! Which requests go wrong, and how.

/// A scheduled error reply. Requests are numbered from 1 in the order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// Hits every n-th request; 0 = none by rhythm.
    pub every: u64,
    /// Hits these requests, sorted.
    pub on: Vec<u64>,
    /// Sent as `retry-after`, seconds.
    pub retry_after: Option<f64>,
}

impl Fault {
    /// Whether request number `request` is hit.
    pub fn hits(&self, request: u64) -> bool {
        (self.every > 0 && request.is_multiple_of(self.every)) || self.on.binary_search(&request).is_ok()
    }

    /// The error object of the reply, in OpenAI's words for this status.
    pub fn body(&self) -> String {
        let (kind, code, message) = match self.status {
            400 => ("invalid_request_error", "invalid_request_error", "The request is invalid."),
            401 => ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
            403 => ("invalid_request_error", "permission_denied", "You are not allowed to use this model."),
            404 => ("invalid_request_error", "model_not_found", "The model does not exist."),
            429 => ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
            503 => ("service_unavailable_error", "server_is_overloaded", "The server is overloaded."),
            _ => ("server_error", "server_error", "The server had an error while processing your request."),
        };
        serde_json::json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_by_rhythm_and_by_number() {
        let fault = Fault { status: 500, every: 4, on: vec![1, 6], retry_after: None };
        let hit: Vec<u64> = (1..=12).filter(|request| fault.hits(*request)).collect();
        assert_eq!(hit, [1, 4, 6, 8, 12]);
        assert!(!Fault { every: 0, on: vec![], ..fault }.hits(4));
    }
}
