//! Caches that are prolonged, at the simulated provider.

use jiff::Timestamp;

use super::*;
use crate::providers::caching::Caching;
use crate::providers::client::{Client, Parts};
use crate::providers::keys::{Auth, Keys};
use crate::providers::limits::Periods;
use crate::providers::prompt::Prompt;
use crate::providers::table::{Api, row};
use crate::providers::testing;
use crate::providers::transport::TransportOptions;
use crate::simulator::{Behaviour, Simulator};

const KEY: u64 = 7;

/// When a cache ends, as the provider says.
async fn end(client: &Inner, name: &str) -> Timestamp {
    let body = client.account().call(Call::get(name)).await.unwrap().body;
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
    told["expireTime"].as_str().unwrap().parse().unwrap()
}

/// It has so little left that the next question prolongs it.
async fn nearly_ends(caches: &Caches) {
    let place = Arc::clone(&caches.all.lock().unwrap()[&KEY]);
    let mut state = place.lock().await;
    match &mut *state {
        State::There(cache) => cache.ends = Instant::now() + PROLONG / 2,
        _ => panic!("there is no cache"),
    }
}

#[tokio::test]
async fn a_cache_that_is_used_lives_on() {
    let row = row("gemini").unwrap();
    let simulator = Simulator::start(Behaviour::default(), 0).unwrap();
    let client = Client::new(Parts {
        dialect: row.dialect("gemini-3.8-flash", Api::Usual),
        base_url: format!("http://{}/v1beta", simulator.address()),
        keys: Keys::new(Auth::Header("x-goog-api-key"), &["key".to_owned().into()]).unwrap(),
        signer: None,
        periods: Periods::default(),
        options: testing::options(json!({"model": "gemini-3.8-flash"})),
        headers: vec![],
        transport: TransportOptions::default(),
        caching: Caching::of(row, "gemini-3.8-flash", true),
        raw: false,
    })
    .unwrap();
    let (client, caches) = (&*client.0, client.0.caches.as_ref().unwrap());
    let text = |text: &str| Prompt::Text(text.to_owned().into());
    let cut = Cut { key: KEY, before: text(&"A ledger. ".repeat(2_000)), after: text("Who?") };
    let name = caches.name(client, &cut).await.unwrap();
    let made = caches.take_unpaid();
    assert!(made.cache_write > 0 && made.cache_held > 0);

    // Somebody lets it end soon: what is asked for is seen in when it will.
    let body = json!({"ttl": "70s"}).to_string();
    let call = Call { method: Method::PATCH, ..Call::post(name.as_str()).json(body) };
    client.account().call(call).await.unwrap();
    let before = end(client, &name).await;
    nearly_ends(caches).await;
    assert_eq!(caches.name(client, &cut).await.as_deref(), Some(name.as_str()));
    let longer = end(client, &name).await.as_second() - before.as_second();
    assert!((200..=LIFE.as_secs().cast_signed()).contains(&longer), "{longer} s");
    // Only what it holds for longer is paid for.
    let prolonged = caches.take_unpaid();
    assert_eq!((prolonged.cache_write, prolonged.input), (0, 0));
    assert!((made.cache_held / 2..made.cache_held).contains(&prolonged.cache_held), "{prolonged:?}");
    assert_eq!(caches.name(client, &cut).await.as_deref(), Some(name.as_str()), "it is used as it is");
    assert_eq!(caches.take_unpaid(), TokenUsage::default());

    // What is gone cannot be prolonged, and is made again.
    client.account().call(Call::delete(name.as_str())).await.unwrap();
    nearly_ends(caches).await;
    let next = caches.name(client, &cut).await.unwrap();
    assert_ne!(next, name);
    assert_eq!(caches.take_unpaid().cache_write, made.cache_write);
}
