//! Cost of signatures of AWS (version 4), a request of Bedrock each, with the body's hash.
//!
//! `cargo run --release --no-default-features --example signing`

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::time::{Instant, SystemTime};

// By itself, so that nothing else is measured.
#[allow(dead_code)]
#[path = "../src/providers/auth/sigv4.rs"]
mod sigv4;

use secrecy::SecretString;
use sigv4::{AwsKeys, Scope, ToSign, sha256};

const REQUESTS: u32 = 100_000;

fn main() {
    let url = "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova-pro-v1%3A0/converse".parse().unwrap();
    let scope = Scope { region: "us-east-1".to_owned(), service: "bedrock" };
    let session = Some(SecretString::from("t".repeat(800)));
    let keys = AwsKeys::new("AKIDEXAMPLE".to_owned(), SecretString::from("secret"), session);
    let headers = [("content-type", "application/json")];
    for size in [100, 1_000, 10_000] {
        let body = vec![b'x'; size];
        let sign = || {
            let payload = sha256([&body[..]]);
            keys.sign(
                &ToSign { method: "POST", url: &url, headers: &headers, payload: &payload },
                &scope,
                SystemTime::now(),
            )
        };
        sign();
        let began = Instant::now();
        for _ in 0..REQUESTS {
            std::hint::black_box(sign());
        }
        let micros = began.elapsed().as_secs_f64() * 1e6 / f64::from(REQUESTS);
        println!("a body of {size} bytes: {micros:.2} us");
    }
}
