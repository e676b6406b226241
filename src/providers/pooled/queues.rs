//! The page on which vLLM and SGLang tell how much they have to do: in Prometheus's text format, at the root of the server.
//! Names differ between versions, labels are for parts of the server; so they are added up.

use crate::engine::pool::queue::Depth;

/// A page is no longer than this.
pub const LONGEST: usize = 4 << 20;

const WAITING: [&str; 2] = ["vllm:num_requests_waiting", "sglang:num_queue_reqs"];
/// The same, in parts; where the whole is told, they are not read.
const WAITING_IN_PARTS: &str = "vllm:num_requests_waiting_by_reason";
const RUNNING: [&str; 2] = ["vllm:num_requests_running", "sglang:num_running_reqs"];

/// What a page tells; [`Depth::Never`]: it is none of these servers.
pub fn read(page: &[u8]) -> Depth {
    let (mut waiting, mut parts, mut running) = (None, None, None);
    for line in page.split(|byte| *byte == b'\n') {
        let Some((name, value)) = std::str::from_utf8(line).ok().and_then(sample) else { continue };
        let sum = match name {
            name if WAITING.contains(&name) => &mut waiting,
            WAITING_IN_PARTS => &mut parts,
            name if RUNNING.contains(&name) => &mut running,
            _ => continue,
        };
        *sum = Some(sum.unwrap_or_default() + value);
    }
    waiting.or(parts).map_or(Depth::Never, |waiting| Depth::Known { running, waiting })
}

/// The name and the value of a line, without its labels and its time.
fn sample(line: &str) -> Option<(&str, f64)> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    // A label may contain anything; values and times contain no brace.
    let value = rest.rsplit('}').next()?.split_ascii_whitespace().next()?;
    let value: f64 = value.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(running: Option<f64>, waiting: f64) -> Depth {
        Depth::Known { running, waiting }
    }

    #[test]
    fn vllm_tells_by_model_and_engine() {
        let page = b"# HELP vllm:num_requests_running Number of requests in model execution batches.\n\
            # TYPE vllm:num_requests_running gauge\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"a } b\"} 3.0\n\
            vllm:num_requests_running{engine=\"1\",model_name=\"a } b\"} 4.0 1700000000000\n\
            vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 1e1\n\
            vllm:num_requests_waiting{engine=\"1\",model_name=\"m\"} 2\r\n\
            vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 12.0\n\
            vllm:kv_cache_usage_perc{engine=\"0\"} NaN\n";
        assert_eq!(read(page), depth(Some(7.0), 12.0));
    }

    #[test]
    fn where_only_parts_are_told_they_are_added_up() {
        let page = b"vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 3\n\
            vllm:num_requests_waiting_by_reason{reason=\"deferred\"} 4\n";
        assert_eq!(read(page), depth(None, 7.0));
    }

    #[test]
    fn sglang_tells_by_rank() {
        let page = b"sglang:num_running_reqs{tp_rank=\"0\"} 5\nsglang:num_queue_reqs{tp_rank=\"0\"} 6\n\
            sglang:num_queue_reqs{tp_rank=\"1\"} 7";
        assert_eq!(read(page), depth(Some(5.0), 13.0));
    }

    #[test]
    fn other_pages_tell_nothing() {
        for page in [
            &b""[..],
            b"<html>vllm:num_requests_waiting</html>",
            b"python_gc_objects_collected_total{generation=\"0\"} 5\n",
            b"vllm:num_requests_waiting{} -1\nvllm:num_requests_waiting inf\nvllm:num_requests_waiting{",
            b"\xff\xfe\n",
        ] {
            assert_eq!(read(page), Depth::Never);
        }
    }
}
