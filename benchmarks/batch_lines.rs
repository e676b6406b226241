//! How fast lines of batches are written and read, on one core, and what they cost in the ledger:
//! `cargo run --release --no-default-features --example batch_lines [LINES]`.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

// With the bridge, the crate's modules are private.
#[cfg(feature = "python")]
fn main() {
    println!("add --no-default-features");
}

#[cfg(not(feature = "python"))]
fn main() {
    measured::main();
}

#[cfg(not(feature = "python"))]
mod measured {
    use std::io::Write;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use batch_llm_core::batches::chunk::{Filling, digest, line_of};
    use batch_llm_core::batches::wire::{Limits, Outcome, wire_of};
    use batch_llm_core::journal::batches::{Ledger, Route};
    use batch_llm_core::journal::place::Format;
    use batch_llm_core::journal::record::{Key, Reuse};
    use batch_llm_core::journal::{Durability, Options};
    use batch_llm_core::spool::Spool;

    const CHUNK: usize = 5_000;

    pub fn main() {
        let lines: usize = std::env::args().nth(1).map_or(1_000_000, |given| given.parse().unwrap());
        let folder = tempfile::tempdir_in(".").unwrap();
        let path = folder.path().join("run.db");
        let options = Options {
            durability: Durability::Flush,
            busy_timeout: Duration::from_secs(5),
            reuse: Reuse::Success,
            package_version: "0".to_owned(),
            user_metadata: None,
        };
        let ledger = Ledger::open(&path, Format::Sqlite, &options).unwrap();
        let spool = Arc::new(Spool::beside(&path).unwrap());
        let wire = wire_of("openai", "chat/completions").unwrap();
        let text = |text: &str| text.to_owned();
        let (provider, base_url) = (text("openai"), text("http://h/v1"));
        let route =
            Route { account: [7; 16], provider, base_url, model: text("m"), endpoint: text("chat/completions") };

        let (mut writing, mut planning, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
        let (mut chunks, mut body) = (Vec::new(), Vec::new());
        for first in (0..lines).step_by(CHUNK) {
            let bodies: Vec<Vec<u8>> = (first..lines.min(first + CHUNK))
                .map(|number| {
                    body.clear();
                    let message = "{\"model\":\"gpt-4.1-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"";
                    write!(body, "{message}{number:0200}\"}}]}}").unwrap();
                    body.clone()
                })
                .collect();
            let began = Instant::now();
            let most = Limits { lines: CHUNK, bytes: 64 << 20 };
            let mut filling = Filling::new(&*wire, "m", most, Some(Arc::clone(&spool))).unwrap();
            for body in &bodies {
                filling.add(&*wire, digest(body), body).unwrap();
            }
            let (sealed, keys) = filling.seal();
            writing += began.elapsed();
            bytes += sealed.body.size();
            let began = Instant::now();
            let id = ledger.plan(&sealed.nonce, &route, sealed.body.size(), &keys).unwrap();
            planning += began.elapsed();
            chunks.push((id, sealed.nonce.clone(), keys, sealed));
        }
        report("lines written, with digests, to the disk", lines, writing);
        println!("{:.0} bytes each", bytes as f64 / lines as f64);

        let (mut reading, mut keeping, mut passing, mut forgetting) = Default::default();
        for (id, nonce, keys, _) in chunks {
            let results: Vec<Vec<u8>> = keys.iter().enumerate().map(|(at, key)| result(&nonce, *key, at)).collect();
            let began = Instant::now();
            let replies: Vec<(u32, u16, Vec<u8>)> = results
                .iter()
                .map(|line| {
                    let line = wire.read_line(line).unwrap();
                    let (_, number) = line_of(&nonce, &line.custom_id).unwrap();
                    let Outcome::Reply(status, body) = line.outcome else { panic!("a reply") };
                    (number, status, body.into())
                })
                .collect();
            add(&mut reading, began);
            let began = Instant::now();
            // As they are written down while they come.
            replies.chunks(1024).for_each(|group| ledger.answer(id, group).unwrap());
            add(&mut keeping, began);
            let began = Instant::now();
            let mut part = 0;
            while let Some((next, _)) = ledger.replies(id, part).unwrap() {
                part = next;
            }
            add(&mut passing, began);
            let began = Instant::now();
            let all: Vec<u32> = (0..u32::try_from(keys.len()).unwrap()).collect();
            ledger.forget(id, &all).unwrap();
            add(&mut forgetting, began);
        }
        report("lines of results read", lines, reading);
        report("keys into the ledger, synced", lines, planning);
        report("replies into the ledger, synced", lines, keeping);
        report("replies out of it", lines, passing);
        report("lines forgotten", lines, forgetting);
        report("all in the ledger", lines, planning + keeping + passing + forgetting);
    }

    fn add(sum: &mut Duration, began: Instant) {
        *sum += began.elapsed();
    }

    fn result(nonce: &str, key: Key, line: usize) -> Vec<u8> {
        let id = batch_llm_core::batches::chunk::custom_id(nonce, key, u32::try_from(line).unwrap());
        format!(
            "{{\"id\":\"batch_req_{line}\",\"custom_id\":\"{id}\",\"response\":{{\"status_code\":200,\"request_id\":\"r{line}\",\
             \"body\":{{\"id\":\"chatcmpl-{line}\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"gpt-4.1-mini\",\
             \"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{line:0100}\"}},\"finish_reason\":\
             \"stop\"}}],\"usage\":{{\"prompt_tokens\":60,\"completion_tokens\":30,\"total_tokens\":90}}}}}},\"error\":null}}"
        )
        .into_bytes()
    }

    #[allow(clippy::cast_precision_loss)]
    fn report(what: &str, lines: usize, took: Duration) {
        let each = took.as_secs_f64() / lines as f64;
        println!("{what}: {:.0} a second, {:.2} us each", 1.0 / each, each * 1e6);
    }
}
