//! The dispatcher with a simulated provider, on paused time.

use super::*;
use crate::engine::{Run, Settings};
use crate::providers::prompt::Prompt;
use crate::providers::provider::Attempt;
use crate::providers::reply::{Choice, Output, ToolCall};
use std::num::NonZeroUsize;
use std::time::Duration;

/// Answers with the question; `fail`, `call` and `hang` are orders.
struct Echo;

impl Provider for Echo {
    fn attempt(&self, ask: Ask) -> Attempt {
        let Prompt::Text(text) = ask.prompt else { panic!("a text") };
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let tool_calls = match &*text {
                "fail" => {
                    return Err(ProviderError::Protocol {
                        protocol: "test",
                        problem: "made on purpose".to_owned(),
                        excerpt: String::new(),
                    });
                }
                "hang" => return std::future::pending().await,
                "call" => vec![ToolCall::new(String::new(), String::new(), String::new())],
                _ => Vec::new(),
            };
            let choice = Choice { text: text.into_string(), tool_calls, ..Choice::default() };
            let usage = TokenUsage { input: 1, output: 2, total: 3, ..TokenUsage::default() };
            Ok(Reply { output: Output::Chat(vec![choice]), usage, ..Reply::default() })
        })
    }
}

struct World {
    mailbox: Arc<Mailbox>,
    dispatcher: Dispatcher,
    run: Run<Dispatcher>,
}

fn world(workers: usize) -> World {
    let mailbox = Arc::new(Mailbox::new(false).unwrap());
    let dispatcher = Dispatcher::new(Arc::clone(&mailbox), Handle::current());
    let settings = Settings { max_workers: NonZeroUsize::new(workers).unwrap(), ..Settings::default() };
    let run = Run::new(settings, Box::new(|| 0.5), dispatcher.clone(), &Handle::current());
    dispatcher.belongs_to(run.remote());
    World { mailbox, dispatcher, run }
}

impl World {
    fn stage(&self, first: ItemIndex, words: &[&str], whole: bool) {
        let ask = |text: &&str| Ask::new(Prompt::Text((*text).to_owned().into()));
        let staged = |text| Staged::new(Arc::new(Echo), ask(text), whole);
        self.dispatcher.stage((first..).zip(words.iter().map(staged)).collect());
    }

    fn accept(&self, count: u64) {
        self.run.tell(|scheduler, now| scheduler.accept(0, 0, count, now)).unwrap();
    }

    /// What the loop gets, in short.
    fn reported(&self) -> Vec<String> {
        std::iter::from_fn(|| self.mailbox.take())
            .map(|message| match message {
                Message::Done(done) => format!("done {} {}", done.item, done.reply.choices()[0].text),
                Message::Answered { item, outcome, .. } => format!("answered {item} {}", outcome.is_ok()),
                Message::Command(Command::Start { item, attempt, .. }) => format!("start {item} {attempt}"),
                Message::Command(Command::Drained) => "drained".to_owned(),
                _ => "another".to_owned(),
            })
            .collect()
    }

    fn processed(&self) -> u64 {
        self.run.tell(|scheduler, _| scheduler.stats().processed).unwrap()
    }
}

/// Its replies begin after a second and end after ten.
struct Slow;

impl Provider for Slow {
    fn attempt(&self, ask: Ask) -> Attempt {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            ask.listener.iter().for_each(|listener| listener.begin());
            tokio::time::sleep(Duration::from_secs(9)).await;
            Ok(Reply { output: Output::Chat(vec![Choice::default()]), ..Reply::default() })
        })
    }

    fn head(&self, _: &Ask) -> Option<heads::Head> {
        let (life, readable) = (Duration::from_secs(300), heads::Readable::AtFirstByte);
        Some(heads::Head { key: 7, base: 7, tokens: 4_000, life, readable, marked: true })
    }
}

#[tokio::test(start_paused = true)]
async fn the_others_start_when_the_reply_to_the_first_begins() {
    let world = world(10);
    let ask = || Ask::new(Prompt::Text("a".to_owned().into()));
    let mut staged: Vec<_> = (0..5).map(|item| (item, Staged::new(Arc::new(Slow), ask(), true))).collect();
    let heads: Vec<_> = staged.iter_mut().map(|(_, one)| one.find_head()).collect();
    world.dispatcher.stage(staged);
    world.run.tell(|scheduler, now| scheduler.heads(0, &heads, now)).unwrap();
    world.accept(5);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(world.dispatcher.in_flight(), 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.dispatcher.in_flight(), 5);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.processed(), 5);
}

#[tokio::test(start_paused = true)]
async fn staged_items_begin_and_end_without_the_loop() {
    let world = world(1);
    world.stage(0, &["a", "b", "c"], true);
    world.accept(3);
    assert_eq!((world.dispatcher.in_flight(), world.dispatcher.room(3)), (1, 1));
    // Nobody takes messages; each success starts the next item all the same.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!((world.processed(), world.dispatcher.in_flight()), (2, 1));
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(world.reported(), ["done 0 a", "done 1 b", "done 2 c", "drained"]);
    let tokens = world.run.tell(|scheduler, _| scheduler.stats().usage.total).unwrap();
    assert_eq!((tokens, world.dispatcher.in_flight()), (9, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_staged_is_left_to_the_loop() {
    let world = world(10);
    world.stage(1, &["b"], true);
    world.accept(3);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.reported(), ["start 0 1", "start 2 1", "done 1 b"]);
    // One that is staged after its start was decided is forgotten when the loop begins it.
    world.stage(2, &["c"], true);
    world.dispatcher.forget(2..3);
    assert_eq!(world.dispatcher.room(5), 5);
}

#[tokio::test(start_paused = true)]
async fn whatever_else_happens_is_adopted() {
    let world = world(10);
    world.stage(0, &["fail", "call", "hang"], true);
    world.stage(3, &["to be parsed"], false);
    world.accept(4);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut reported = world.reported();
    reported.sort();
    assert_eq!(reported, ["answered 0 false", "answered 1 true", "answered 3 true"]);
    assert_eq!(world.processed(), 0);
    for item in 0..4 {
        let attempt = world.dispatcher.adopt(item).unwrap();
        assert_eq!(attempt.request.is_some_and(|request| request.is_finished()), item != 2);
        assert!(world.dispatcher.adopt(item).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_adopted_attempt_counts_nothing() {
    let world = world(10);
    world.stage(0, &["a"], true);
    world.accept(1);
    assert!(world.dispatcher.adopt(0).is_some());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((world.reported(), world.processed()), (vec!["answered 0 true".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn closing_drops_requests_and_names_their_items() {
    let world = world(2);
    world.stage(0, &["a", "b", "c"], true);
    world.accept(3);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut on = world.dispatcher.close();
    on.sort_unstable();
    assert_eq!((on, world.dispatcher.in_flight(), world.dispatcher.room(7)), (vec![0, 1], 0, 7));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.processed(), 0);
}

#[tokio::test(start_paused = true)]
async fn refused_items_are_staged_no_more() {
    let world = world(1);
    world.stage(0, &["a", "b", "c"], true);
    world.accept(3);
    world.run.tell(|scheduler, now| scheduler.stop(crate::engine::guard::Stop::Aborted, false, now)).unwrap();
    assert_eq!(world.dispatcher.room(3), 3);
}

#[test]
fn what_was_read_is_freed_where_it_was_made() {
    struct Freed(std::sync::mpsc::Sender<std::thread::ThreadId>);
    impl Drop for Freed {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().id());
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let dispatcher = Dispatcher::new(Arc::new(Mailbox::new(false).unwrap()), runtime.handle().clone());
    for count in [WORTH_A_TASK - 1, WORTH_A_TASK, 64] {
        let (freed, seen) = std::sync::mpsc::channel();
        dispatcher.discard((0..count).map(|_| Freed(freed.clone())).collect());
        drop(freed);
        let here = seen.iter().filter(|thread| *thread == std::thread::current().id()).count();
        assert_eq!(here, if count < WORTH_A_TASK { count } else { 0 });
    }
}

#[test]
fn long_prompts_are_staged_one_at_a_time() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dispatcher = Dispatcher::new(Arc::new(Mailbox::new(false).unwrap()), runtime.handle().clone());
    let ask = Ask::new(Prompt::Text("x".repeat(MOST_BYTES).into()));
    dispatcher.stage(vec![(0, Staged::new(Arc::new(Echo), ask, true))]);
    assert_eq!(dispatcher.room(100), 0);
    dispatcher.forget(0..1);
    assert_eq!(dispatcher.room(100), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_ends_at_once_are_each_counted_once() {
    struct AtOnce;
    impl Provider for AtOnce {
        fn attempt(&self, _: Ask) -> Attempt {
            Box::pin(async { Ok(Reply { output: Output::Chat(vec![Choice::default()]), ..Reply::default() }) })
        }
    }
    const ITEMS: u64 = 20_000;
    let world = world(50);
    let ask = || Ask::new(Prompt::Text(String::new().into()));
    let staged = |item| (item, Staged::new(Arc::new(AtOnce), ask(), true));
    world.dispatcher.stage((0..ITEMS).map(staged).collect());
    world.accept(ITEMS);
    let mut seen = vec![0; usize::try_from(ITEMS).unwrap()];
    loop {
        match world.mailbox.take() {
            Some(Message::Done(done)) => seen[usize::try_from(done.item).unwrap()] += 1,
            Some(Message::Command(Command::Drained)) => break,
            Some(_) => panic!("nothing else happens"),
            None => tokio::task::yield_now().await,
        }
    }
    assert!(seen.iter().all(|times| *times == 1));
    assert_eq!((world.processed(), world.dispatcher.in_flight()), (ITEMS, 0));
}

#[tokio::test]
async fn whoever_expects_a_start_has_it_before_all_messages_or_gets_one_later() {
    let world = world(1);
    world.accept(2);
    let starts = || {
        let messages = std::iter::from_fn(|| world.mailbox.take());
        let start = |message| match message {
            Message::Command(Command::Start { item, attempt, .. }) => Some((item, attempt)),
            _ => None,
        };
        messages.filter_map(start).collect::<Vec<_>>()
    };
    let next_round = || world.run.tell(|scheduler, now| scheduler.next_round(0, None, now)).unwrap();
    assert_eq!(starts(), [(0, 1)]);
    world.run.tell(|scheduler, now| scheduler.end_round(0, None, now)).unwrap();
    assert_eq!(starts(), [(1, 1)]);
    // The only worker is busy.
    let (outcome, start) = world.dispatcher.taking_start(0, next_round);
    assert!(outcome.is_ok() && start.is_none());
    let release = |item| world.run.tell(|scheduler, now| scheduler.release(item, now)).unwrap();
    release(1);
    assert_eq!(starts(), [(0, 2)]);
    world.run.tell(|scheduler, now| scheduler.end_round(0, None, now)).unwrap();
    let (outcome, start) = world.dispatcher.taking_start(0, next_round);
    assert!(outcome.is_ok());
    assert_eq!(start.map(|(attempt, _)| attempt), Some(3));
    assert_eq!(starts(), []);
}
