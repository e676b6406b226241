//! The page on which vLLM tells how much it has to do, in Prometheus's text format. Requests for it are not counted.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};

use super::replies::Body;

/// Where it is.
pub const PATH: &str = "/metrics";

/// The page of a server with so many open requests, and so many of others that wait; `None`: there is no such page.
pub fn page(open: u64, waiting: Option<u64>) -> Response<Body> {
    let mut text = String::new();
    if let Some(waiting) = waiting {
        for (name, help, value) in [
            ("running", "Number of requests in model execution batches.", open),
            ("waiting", "Number of requests waiting to be processed.", waiting),
        ] {
            let name = format!("vllm:num_requests_{name}");
            text += &format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
            text += &format!("{name}{{engine=\"0\",model_name=\"simulated\"}} {value}.0\n");
        }
    }
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(text))));
    if waiting.is_none() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
