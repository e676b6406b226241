//! The least that requests through reqwest cost: `bare_reqwest URL CONCURRENCY REQUESTS` prints requests/s and CPU us each.
//! The same body as `wire.py`, the reply is read into a `serde_json::Value`; no engine, no Python.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

async fn run(client: &reqwest::Client, url: &str, concurrency: usize, requests: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..concurrency)
        .map(|_| {
            let (client, url, next) = (client.clone(), url.to_owned(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return;
                    }
                    let message = serde_json::json!({"role": "user", "content": format!("Say {number}")});
                    let body = serde_json::json!({"model": "simulated", "messages": [message]}).to_string();
                    let request = client.post(&url).header("content-type", "application/json").body(body);
                    let reply = request.send().await.expect("a reply").bytes().await.expect("a body");
                    let value: serde_json::Value = serde_json::from_slice(&reply).expect("JSON");
                    assert!(value["choices"][0]["message"]["content"].is_string());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("workers do not fail");
    }
}

#[allow(clippy::print_stdout)]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, concurrency, requests] = arguments.as_slice() else { panic!("URL CONCURRENCY REQUESTS") };
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let (concurrency, requests) = (number(concurrency), number(requests));
    let url = format!("{url}/chat/completions");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().pool_max_idle_per_host(65_536).tcp_nodelay(true).build().expect("a client");
    // As many as batch-llm has: the provider runs here too.
    let workers = std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).clamp(1, 8));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(workers).enable_all().build().expect("a runtime").block_on(async {
        run(&client, &url, 10, 100).await;
        let (start, cpu) = (Instant::now(), cpu_seconds());
        run(&client, &url, concurrency, requests).await;
        #[allow(clippy::cast_precision_loss)]
        let requests = requests as f64;
        println!("{} {}", requests / start.elapsed().as_secs_f64(), (cpu_seconds() - cpu) / requests * 1e6);
    });
}
