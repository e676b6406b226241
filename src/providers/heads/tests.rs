//! Where heads end, and what is marked.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::providers::dialect::Dialect;
use crate::providers::media::{Media, MediaKind};
use crate::providers::prompt::{Message, Part};
use crate::providers::reply::ToolCall;
use crate::providers::table::{Api, row};
use crate::providers::testing;

mod sent;

fn text(word: &str, tokens: usize) -> String {
    format!("{word}{}", "x".repeat(tokens * 4 - word.len()))
}

fn ask(text: &str) -> Ask {
    Ask::new(Prompt::Text(text.to_owned().into()))
}

fn say(role: Role, parts: &[&str]) -> Message {
    let parts = parts.iter().map(|text| Part::Text((*text).to_owned().into())).collect();
    Message { role, parts, ..Message::default() }
}

/// A provider, a model there, and the heads of a strategy with these options.
struct Case {
    dialect: Box<dyn Dialect>,
    options: Options,
    heads: Heads,
    now: Instant,
}

impl Case {
    fn new(provider: &str, model: &str, options: Value) -> Self {
        let mut fields = json!({"model": model});
        fields.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let options = testing::options(fields);
        let row = row(provider).unwrap();
        let heads = Heads::new(Caching::of(row, model, true), &options);
        let api = if row.has_responses { Api::Responses } else { Api::Usual };
        Self { dialect: row.dialect(model, api), options, heads, now: Instant::now() }
    }

    /// The plan of the last of these questions, once all of them were seen.
    fn plan(&self, asks: &[Ask]) -> Option<Plan> {
        self.heads.notice(&asks.iter().collect::<Vec<_>>(), self.now);
        self.heads.plan(asks.last().unwrap(), self.now)
    }

    fn head(&self, asks: &[Ask]) -> Option<Head> {
        self.plan(asks)?.head
    }

    /// The body of the request for the last question.
    fn request(&self, asks: Vec<Ask>) -> Value {
        let plan = self.plan(&asks);
        let mut ask = asks.into_iter().next_back().unwrap();
        if let Some(plan) = &plan {
            split(plan, &mut ask.prompt);
        }
        ask.plan = plan.map(Box::new).into();
        let mut written = testing::request(&*self.dialect, &self.options, &ask).unwrap();
        if ask.marks().is_some_and(|marks| marks.fixed) {
            self.dialect.mark(&self.options, written.as_object_mut().unwrap());
        }
        written
    }
}

fn three() -> Vec<Ask> {
    ["a", "b", "c"].map(ask).into()
}

#[test]
fn instructions_are_a_head_from_three_questions_on() {
    let case = Case::new("anthropic", "claude-sonnet-5", json!({"system_prompt": text("s", 1_024)}));
    assert_eq!(case.head(&[ask("a")]), None);
    assert_eq!(case.head(&[ask("a"), ask("b")]), None);
    assert_eq!(case.head(&[ask("b"), ask("a"), ask("a")]), None, "the same again is not another");
    let head = case.head(&three()).unwrap();
    assert_eq!((head.tokens, head.marked, head.readable), (1_024, true, Readable::AtFirstByte));
    assert_eq!(head.life, Duration::from_secs(300));
    assert_eq!(case.heads.plan(&ask("a"), case.now).unwrap().head, Some(head));
    // Who comes after the life of an entry shares it with nobody.
    let later = case.now + Duration::from_secs(601);
    assert_eq!(case.heads.plan(&ask("d"), later), None);
}

#[test]
fn short_heads_and_providers_that_are_not_known_have_none() {
    for (provider, model, tokens) in [
        ("anthropic", "claude-sonnet-5", 1_023),
        ("anthropic", "claude-haiku-4-5", 4_095),
        ("openai", "gpt-5-mini", 1_023),
        ("gemini", "gemini-3.8-flash", 4_095),
        ("ollama", "m", 100_000),
    ] {
        let case = Case::new(provider, model, json!({"system_prompt": text("s", tokens)}));
        assert_eq!(case.head(&three()), None, "{provider} {model}");
    }
    let never = json!({"system_prompt": text("s", 5_000), "cache_prompt": "never"});
    assert_eq!(Case::new("anthropic", "claude-sonnet-5", never).plan(&three()), None);
    for name in ["system", "tools", "cache_control"] {
        let by_hand = json!({"system_prompt": text("s", 5_000), "extra_body": {name: []}});
        assert_eq!(Case::new("anthropic", "claude-sonnet-5", by_hand).plan(&three()), None, "{name}");
    }
}

#[test]
fn heads_that_are_almost_long_enough_are_worth_a_word() {
    let is = |provider: &str, options: Value| Case::new(provider, "claude-sonnet-5", options).heads.are_too_short();
    assert!(is("anthropic", json!({"system_prompt": text("s", 512)})));
    assert!(!is("anthropic", json!({"system_prompt": text("s", 511)})));
    assert!(is("anthropic", json!({"cache_prompt": "1h"})));
    assert!(!is("anthropic", json!({"system_prompt": text("s", 512), "cache_prompt": "never"})));
    assert!(!is("ollama", json!({"system_prompt": text("s", 512), "cache_prompt": "1h"})));
    assert!(!is("anthropic", json!({})));
    // Where this is long enough, something else is the reason.
    assert!(!is("anthropic", json!({"system_prompt": text("s", 1_024), "cache_prompt": "1h"})));
}

#[test]
fn anthropic_is_told_where_instructions_or_tools_end() {
    let system = text("s", 2_000);
    let case = Case::new("anthropic", "claude-sonnet-5", json!({"system_prompt": system}));
    let marked = json!([{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]);
    let written = case.request(three());
    assert_eq!((&written["system"], &written["messages"][0]["content"]), (&marked, &json!("c")));
    let case = Case::new("anthropic", "claude-sonnet-5", json!({"system_prompt": system, "cache_prompt": "1h"}));
    assert_eq!(case.request(three())["system"][0]["cache_control"], json!({"type": "ephemeral", "ttl": "1h"}));
    assert_eq!(case.head(&three()).unwrap().life, Duration::from_secs(3_600));
    let case = Case::new("anthropic", "claude-sonnet-5", json!({"system_prompt": system}));
    assert!(case.request(vec![ask("a")])["system"].is_string(), "one question");
    let tools = json!([{"name": "f", "description": text("d", 600), "parameters": {}},
        {"name": "g", "description": text("d", 600), "parameters": {}}]);
    let case = Case::new("anthropic", "claude-sonnet-5", json!({"tools": tools}));
    let written = case.request(three());
    assert_eq!(written["tools"][1]["cache_control"], json!({"type": "ephemeral"}));
    assert!(written["tools"][0].get("cache_control").is_none() && written.get("system").is_none());
    let case = Case::new("anthropic", "claude-sonnet-5", json!({"tools": tools, "system_prompt": "short"}));
    let written = case.request(three());
    assert!(written["tools"][1].get("cache_control").is_none(), "the mark after the instructions is theirs too");
    assert_eq!(written["system"][0]["cache_control"], json!({"type": "ephemeral"}));
}

#[test]
fn documents_that_some_questions_share_are_heads_of_their_own() {
    let case = Case::new("anthropic", "claude-sonnet-5", json!({"system_prompt": text("s", 1_200)}));
    let document = |number: usize| text(&format!("d{number}"), 3_000);
    let about =
        |number: usize, question: &str| Ask::new(Prompt::from(vec![say(Role::User, &[&document(number), question])]));
    let asks = |number: usize| (0..3).map(|one| about(number, &one.to_string())).collect::<Vec<_>>();
    let (first, second) = (case.head(&asks(1)).unwrap(), case.head(&asks(2)).unwrap());
    assert_eq!((first.tokens, second.tokens), (4_200, 4_200));
    assert_ne!(first.key, second.key);
    let written = case.request(asks(1));
    let mark = json!({"type": "ephemeral"});
    assert_eq!(written["messages"][0]["content"][0]["cache_control"], mark);
    assert!(written["messages"][0]["content"][1].get("cache_control").is_none());
    // Others begin with the instructions alone.
    assert_eq!(written["system"][0]["cache_control"], mark);
    let alone = case.head(&[about(9, "x")]).unwrap();
    assert_eq!(alone.tokens, 1_200);
}

#[test]
fn media_and_leading_messages_are_heads_too() {
    let picture = Arc::new(Media::from_bytes(MediaKind::Image, "image/png", &[7; 20_000]));
    let of = |question: &str| {
        let parts = vec![Part::Media(Arc::clone(&picture)), Part::Text(question.to_owned().into())];
        Ask::new(Prompt::from(vec![Message { parts, ..Message::default() }]))
    };
    let case = Case::new("anthropic", "claude-sonnet-5", json!({}));
    let written = case.request(vec![of("a"), of("b"), of("c")]);
    let content = &written["messages"][0]["content"];
    assert_eq!((&content[0]["type"], &content[0]["cache_control"]), (&json!("image"), &json!({"type": "ephemeral"})));
    let example = text("example", 1_100);
    let of = |question: &str| {
        Ask::new(Prompt::from(vec![
            say(Role::System, &["Be brief."]),
            say(Role::User, &[&example]),
            say(Role::Assistant, &["So."]),
            say(Role::User, &[question]),
        ]))
    };
    let written = case.request(vec![of("a"), of("b"), of("c")]);
    assert_eq!(written["system"], json!("Be brief."));
    assert_eq!(written["messages"][0]["content"], json!(example));
    assert_eq!(
        written["messages"][1]["content"],
        json!([{"type": "text", "text": "So.", "cache_control": {"type": "ephemeral"}}])
    );
    // OpenAI takes no breakpoint in what the model has said.
    let case = Case::new("openai", "gpt-6-sol", json!({}));
    let written = case.request(vec![of("a"), of("b"), of("c")]);
    assert_eq!(written["input"][1]["content"][0]["prompt_cache_breakpoint"], json!({"mode": "explicit"}));
    assert!(written["input"][2]["content"][0].get("prompt_cache_breakpoint").is_none());
    assert!(written.get("prompt_cache_options").is_none(), "the conversation may go on");
}

#[test]
fn openais_newer_models_get_a_breakpoint_a_key_and_nothing_else() {
    let system = text("s", 2_000);
    let case = Case::new("openai", "gpt-6-luna", json!({"system_prompt": system, "max_tokens": 5}));
    let written = case.request(three());
    let block = json!({"type": "input_text", "text": system, "prompt_cache_breakpoint": {"mode": "explicit"}});
    let said = json!({"role": "user", "content": [{"type": "input_text", "text": "c"}]});
    assert_eq!(written["input"], json!([{"role": "developer", "content": [block]}, said]));
    assert!(written.get("instructions").is_none());
    assert_eq!(written["prompt_cache_options"], json!({"mode": "explicit"}));
    let key = written["prompt_cache_key"].as_str().unwrap();
    assert!(key.len() <= 64 && case.request(three())["prompt_cache_key"] == key, "one for each head");
    // The same order in every request.
    let names = |written: &Value| written.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&case.request(vec![ask("another")])));
    let plain = Case::new("openai", "gpt-6-luna", json!({"system_prompt": system})).request(vec![ask("a")]);
    assert_eq!((&plain["instructions"], &plain["input"]), (&json!(system), &json!("a")));
    assert!(plain.get("prompt_cache_key").is_none() && plain.get("prompt_cache_options").is_none());
    // Tools cannot end at a breakpoint.
    let tools = json!([{"name": "f", "description": text("d", 2_000), "parameters": {}}]);
    assert_eq!(Case::new("openai", "gpt-6-luna", json!({"tools": tools})).head(&three()), None);
}

#[test]
fn chat_completions_have_the_same_in_their_words() {
    let system = text("s", 2_000);
    let mut case = Case::new("openai", "gpt-5.6", json!({"system_prompt": system}));
    case.dialect = row("openai").unwrap().dialect("m", Api::Usual);
    let written = case.request(three());
    let block = json!({"type": "text", "text": system, "prompt_cache_breakpoint": {"mode": "explicit"}});
    assert_eq!(
        written["messages"],
        json!([{"role": "developer", "content": [block]}, {"role": "user", "content": "c"}])
    );
    assert_eq!(written["prompt_cache_options"], json!({"mode": "explicit"}));
    let document = text("d", 2_000);
    let of = |question: &str| Ask::new(Prompt::from(vec![say(Role::User, &[&document, question])]));
    let mut case = Case::new("openai", "gpt-5.6", json!({}));
    case.dialect = row("openai").unwrap().dialect("m", Api::Usual);
    let written = case.request(vec![of("a"), of("b"), of("c")]);
    let content = &written["messages"][0]["content"];
    assert_eq!(content[0]["prompt_cache_breakpoint"], json!({"mode": "explicit"}));
    assert!(content[1].get("prompt_cache_breakpoint").is_none());
}

#[test]
fn many_long_questions_without_a_head_write_nothing() {
    let long = |word: &str| ask(&text(word, 1_500));
    let case = Case::new("openai", "gpt-6-luna", json!({}));
    let written = case.request(vec![long("a"), long("b"), long("c")]);
    assert_eq!(written["prompt_cache_options"], json!({"mode": "explicit"}));
    assert!(written.get("prompt_cache_key").is_none());
    let case = Case::new("openai", "gpt-6-luna", json!({}));
    assert!(case.request(vec![long("a"), long("b")]).get("prompt_cache_options").is_none(), "two questions");
    let case = Case::new("openai", "gpt-6-luna", json!({"tools": [{"name": "f", "parameters": {}}]}));
    let written = case.request(vec![long("a"), long("b"), long("c")]);
    assert!(written.get("prompt_cache_options").is_none(), "a conversation finds its earlier messages");
}

#[test]
fn automatic_caches_are_told_nothing_but_a_key() {
    let system = json!({"system_prompt": text("s", 5_000)});
    for (provider, model, has_key) in [
        ("openai", "gpt-5-mini", true),
        ("mistral", "m", true),
        ("deepseek", "m", false),
        ("gemini", "gemini-2.5-flash", false),
        ("vllm", "m", false),
    ] {
        let case = Case::new(provider, model, system.clone());
        let head = case.head(&three()).unwrap();
        assert!(head.tokens == 5_000 && !head.marked, "{provider}");
        let written = case.request(three());
        assert_eq!(written.get("prompt_cache_key").is_some(), has_key, "{provider}");
        // Also the first, when nobody knows that there will be more.
        let first = Case::new(provider, model, system.clone()).request(vec![ask("a")]);
        assert_eq!(first.get("prompt_cache_key"), written.get("prompt_cache_key"), "{provider}");
        assert!(!written.to_string().contains("breakpoint") && !written.to_string().contains("cache_control"));
    }
}

#[test]
fn texts_that_begin_alike_are_split_between_lines_where_the_end_has_to_be_marked() {
    let template = format!("{}\n{}", text("Say what this is about", 2_900), text("Text: ", 90));
    let asks = || ["a", "b", "c"].map(|end| ask(&format!("{template}{end}"))).into_iter().collect::<Vec<_>>();
    // Everywhere else steps of 4 KiB are as good.
    assert_eq!(Case::new("openai", "gpt-5-mini", json!({})).head(&asks()).unwrap().tokens, 2_048);
    let case = Case::new("anthropic", "claude-sonnet-5", json!({}));
    assert_eq!(case.head(&asks()), None, "there is no line that ends in the first 8 KiB");
    let template = format!("{}\n{template}", text("Instructions", 1_500));
    let asks = || ["a", "b", "c"].map(|end| ask(&format!("{template}{end}"))).into_iter().collect::<Vec<_>>();
    let (first, rest) = (format!("{}\n", text("Instructions", 1_500)), template.split_once('\n').unwrap().1);
    let written = case.request(asks());
    assert_eq!(
        written["messages"][0]["content"],
        json!([{"type": "text", "text": first, "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": format!("{rest}c")}])
    );
    let said = |question: &str| {
        let question = format!("{template}{question}");
        Ask::new(Prompt::from(vec![say(Role::System, &["Be brief."]), say(Role::User, &["Hello", &question])]))
    };
    let case = Case::new("openai", "gpt-6-luna", json!({}));
    let written = case.request(vec![said("a"), said("b"), said("c")]);
    let content = written["input"][1]["content"].as_array().unwrap();
    assert_eq!(content.len(), 3);
    assert_eq!(
        (&content[1]["text"], &content[1]["prompt_cache_breakpoint"]["mode"]),
        (&json!(first), &json!("explicit"))
    );
    assert!(content[2].get("prompt_cache_breakpoint").is_none());
}

#[test]
fn no_key_has_more_requests_a_minute_than_a_machine_takes() {
    let case = Case::new("openai", "gpt-5-mini", json!({"system_prompt": text("s", 2_000)}));
    let counts = |questions: usize, now: Instant| {
        let asks: Vec<Ask> = (0..questions).map(|number| ask(&number.to_string())).collect();
        case.heads.notice(&asks.iter().collect::<Vec<_>>(), now);
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for ask in &asks {
            let plan = case.heads.plan(ask, now).unwrap();
            *counts.entry(plan.marks.key.unwrap()).or_default() += 1;
        }
        counts.into_values().collect::<Vec<_>>()
    };
    // Nobody knows yet how many there will be a minute.
    assert_eq!(counts(15, case.now), [15]);
    assert_eq!(counts(45, case.now), [15; 3]);
    assert_eq!(counts(1_000, case.now).len(), 16);
    let plan = case.heads.plan(&ask("1"), case.now).unwrap();
    for number in 0..60 {
        case.heads.sent(&plan, case.now + Duration::from_secs(number));
    }
    // Sixty a minute: four keys, each with fifteen.
    assert_eq!(counts(600, case.now + Duration::from_secs(59)).len(), 4);
    assert_eq!((keys(Some(0.5)), keys(Some(16.0)), keys(Some(600.0)), keys(Some(1e9))), (1, 2, 40, 64));
}

/// A conversation of rounds with so many calls at once.
fn rounds(calls: usize, rounds: usize) -> Ask {
    let mut messages = vec![say(Role::User, &[&text("q", 2_000)])];
    for round in 0..rounds {
        let id = |call: usize| format!("c{round}_{call}");
        let made = |call| ToolCall::new(id(call), "f".to_owned(), "{}".to_owned());
        messages.push(Message { tool_calls: (0..calls).map(made).collect(), ..say(Role::Assistant, &[]) });
        let results = (0..calls).map(|call| Message { tool_call_id: Some(id(call)), ..say(Role::Tool, &["7"]) });
        messages.extend(results);
    }
    Ask::new(Prompt::from(messages))
}

#[test]
fn what_the_round_before_has_written_is_found_however_many_blocks_a_round_has() {
    for (provider, model) in [("anthropic", "claude-sonnet-5"), ("openrouter", "anthropic/claude-sonnet-5")] {
        let marked = |ask: Ask| {
            let options = json!({"tools": [{"name": "f", "parameters": {"type": "object"}}]});
            let case = Case::new(provider, model, options);
            let written = case.request(vec![ask])["messages"].clone();
            let blocks = written.as_array().unwrap().iter().flat_map(|message| {
                let mut blocks: Vec<&Value> =
                    message["content"].as_array().map_or_else(Vec::new, |all| all.iter().collect());
                if message["content"].is_string() {
                    blocks.push(message);
                }
                blocks.extend(message["tool_calls"].as_array().into_iter().flatten());
                blocks
            });
            let marks = blocks.enumerate().filter(|(_, block)| block.get("cache_control").is_some());
            marks.map(|(place, _)| place).collect::<Vec<_>>()
        };
        for calls in [1, 3, 10, 25, 100] {
            let before = marked(rounds(calls, 2)).pop().unwrap();
            let now = marked(rounds(calls, 3));
            assert!(now.len() <= 2, "{now:?}");
            let finds = |mark: &usize| (before..before + LOOK_BACK).contains(mark);
            assert!(now.iter().any(finds), "{provider}, {calls} calls: {before} from {now:?}");
        }
        assert_eq!(marked(rounds(3, 3)).len(), 1, "the newest mark is near enough");
        assert_eq!(marked(rounds(25, 1)).len(), 1, "the request before has marked nothing");
    }
}

#[test]
fn a_conversation_that_calls_tools_is_read_up_to_its_newest_message() {
    let call = crate::providers::reply::ToolCall::new("c".to_owned(), "f".to_owned(), "{}".to_owned());
    let asked = || {
        let result = say(Role::Tool, &["7"]);
        Ask::new(Prompt::from(vec![
            say(Role::User, &[&text("d", 2_000)]),
            Message { tool_calls: vec![call.clone()], ..say(Role::Assistant, &[]) },
            Message { tool_call_id: Some("c".to_owned()), ..result },
        ]))
    };
    let case = Case::new("anthropic", "claude-sonnet-5", json!({}));
    let plan = case.plan(&[asked()]).unwrap();
    assert!(plan.head.is_none() && plan.marks.newest);
    let written = case.request(vec![asked()]);
    let result = &written["messages"][2]["content"][0];
    assert_eq!((&result["type"], &result["cache_control"]["type"]), (&json!("tool_result"), &json!("ephemeral")));
    assert_eq!(written.to_string().matches("cache_control").count(), 1);
    let short = Ask::new(Prompt::from(vec![
        say(Role::User, &["d"]),
        Message { tool_calls: vec![call.clone()], ..say(Role::Assistant, &[]) },
        Message { tool_call_id: Some("c".to_owned()), ..say(Role::Tool, &["7"]) },
    ]));
    assert_eq!(case.plan(&[short]), None);
}

#[test]
fn parts_marked_by_hand_are_left_alone() {
    let system = text("s", 2_000);
    let case = Case::new("anthropic", "claude-sonnet-5", json!({"system_prompt": system}));
    case.heads.notice(&three().iter().collect::<Vec<_>>(), case.now);
    let fields = serde_json::from_value(json!({"cache_control": {"type": "ephemeral"}})).unwrap();
    let part = Part::With(Box::new((Part::Text("d".to_owned().into()), fields)));
    let asked = Ask::new(Prompt::from(vec![Message { parts: vec![part], ..Message::default() }]));
    assert_eq!(case.heads.plan(&asked, case.now), None);
}

/// A request without what it says to the cache: contents that are texts alone are one text.
fn unmarked(value: &Value) -> Value {
    match value {
        Value::Array(all) => {
            let texts: Option<Vec<&str>> = all.iter().map(|one| one.get("text")?.as_str()).collect();
            match texts {
                Some(texts) if !texts.is_empty() => Value::String(texts.concat()),
                _ => all.iter().map(unmarked).collect(),
            }
        }
        Value::Object(fields) => {
            let said = fields.iter().filter(|(name, _)| !name.contains("cache"));
            said.map(|(name, value)| match value.as_str() {
                Some("developer") => (name.clone(), json!("system")),
                _ => (name.clone(), unmarked(value)),
            })
            .collect()
        }
        // What is between instructions that are one text is not between blocks.
        Value::String(text) => Value::String(text.replace("\n\n", "")),
        other => other.clone(),
    }
}

#[test]
fn marks_change_nothing_of_what_is_said() {
    let lines = "A line of an instruction.\n".repeat(400);
    let document = text("document", 2_000);
    let asks = |kind: usize| {
        let of = |number: usize| {
            let (lines, document) = (lines.clone(), document.clone());
            let question = format!("Question {number}?");
            match kind {
                0 => ask(&question),
                1 => ask(&format!("{lines}{question}")),
                2 => Ask::new(Prompt::from(vec![say(Role::User, &[&document, &question])])),
                3 => Ask::new(Prompt::from(vec![
                    say(Role::System, &["Be brief."]),
                    say(Role::User, &[&document]),
                    say(Role::Assistant, &["So."]),
                    say(Role::User, &[&question]),
                ])),
                _ => Ask::new(Prompt::from(vec![say(Role::User, &["Look:", &format!("{lines}{question}")])])),
            }
        };
        (0..3).map(of).collect::<Vec<_>>()
    };
    for (model, options) in [
        ("claude-sonnet-5", json!({"system_prompt": text("s", 1_500)})),
        ("claude-sonnet-5", json!({"system_prompt": text("s", 1_500), "cache_prompt": "1h"})),
        ("claude-sonnet-5", json!({"tools": [{"name": "f", "description": text("d", 1_500), "parameters": {}}]})),
        ("gpt-6-sol", json!({"system_prompt": text("s", 1_500)})),
        ("gpt-6-sol", json!({})),
        ("gpt-5-mini", json!({"system_prompt": text("s", 1_500)})),
    ] {
        for kind in 0..5 {
            let provider = if model.starts_with("claude") { "anthropic" } else { "openai" };
            let mut options = options.clone();
            let make = |options: &Value| {
                let mut case = Case::new(provider, model, options.clone());
                case.dialect = row(provider).unwrap().dialect("m", Api::Usual);
                case
            };
            let marked = make(&options).request(asks(kind));
            options["cache_prompt"] = json!("never");
            let plain = make(&options).request(asks(kind));
            assert!(!plain.to_string().contains("cache"));
            assert_eq!(unmarked(&marked), unmarked(&plain), "{model} {kind}");
        }
    }
}

#[test]
fn a_question_begins_with_a_head_until_that_is_changed() {
    let case = Case::new("anthropic", "claude-sonnet-5", json!({"system_prompt": text("s", 1_500)}));
    let document = text("document", 2_000);
    let about = |document: &str, more: &[&str]| {
        let parts = [&[document], more].concat();
        Ask::new(Prompt::from(vec![say(Role::User, &parts)]))
    };
    let base = case.head(&["a", "b", "c"].map(|question| about(&document, &[question]))).unwrap().base;
    assert!(case.heads.begin(&about(&document, &["d"]), base));
    assert!(case.heads.begin(&about(&document, &["d", "e"]), base));
    assert!(!case.heads.begin(&about(&document[1..], &["d"]), base));
    assert!(!case.heads.begin(&about("Please: ", &[&document, "d"]), base));
    case.heads.refuse();
    assert!(case.heads.begin(&about("x", &[]), base), "nothing is marked any more");
}
