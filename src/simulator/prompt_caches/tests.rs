//! The rules, each in its vendor's words, on a clock that is given.

use serde_json::{Value, json};

use super::*;

/// A text of so many tokens, which begins with a word of its own.
fn text(word: &str, tokens: usize) -> String {
    format!("{word}{}", "x".repeat(tokens * 4 - word.len()))
}

/// Asks at a time, and gets the reply at once, or after so many seconds.
fn ask(state: &mut State, prompt: Result<Prompt, super::super::invalid::Invalid>, now: f64, takes: f64) -> Charge {
    let prompt = prompt.map_err(|problem| problem.message).unwrap();
    let (charge, writes) = state.look_up(&prompt, now, Settings { time_scale: 1.0, per_machine: 15.0, implicit: 1.0 });
    state.write(writes, takes);
    charge
}

/// What was read, written for five minutes, and for an hour.
fn tokens(charge: Charge) -> (usize, usize, usize) {
    (charge.read, charge.written, charge.written_hour)
}

fn problem(prompt: Result<Prompt, super::super::invalid::Invalid>) -> String {
    prompt.map(|_| ()).unwrap_err().message
}

fn marked(text: &str, ttl: &str) -> Value {
    json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": ttl}})
}

/// A request to Anthropic with these blocks as instructions.
fn messages(system: Value, question: &str) -> Result<Prompt, super::super::invalid::Invalid> {
    anthropic_prompt(&json!({"model": "claude-sonnet-5", "system": system,
        "messages": [{"role": "user", "content": question}]}))
}

#[test]
fn anthropic_reads_what_a_mark_has_written_from_the_first_byte_on_for_five_minutes_since() {
    let mut state = State::default();
    let head = || json!([marked(&text("head", 2_000), "5m")]);
    let mut at = |now: f64, question: &str| tokens(ask(&mut state, messages(head(), question), now, 2.0));
    assert_eq!(at(0.0, "a"), (0, 2_000, 0));
    assert_eq!(at(1.9, "b"), (0, 2_000, 0), "the reply of the first has not begun");
    assert_eq!(at(2.0, "c"), (2_000, 0, 0));
    // Reads renew it; its life begins with the request.
    assert_eq!(at(301.9, "d"), (2_000, 0, 0));
    assert_eq!(at(601.9, "e"), (0, 2_000, 0));
    assert_eq!((state.entries.writes, state.entries.useful), (3, 1));
    let sums = state.models["claude-sonnet-5"];
    // The second could have had it, had it waited; the last could not.
    assert_eq!((sums.possible_hits, sums.possible, sums.necessary), (3, 6_000, 2_000));
}

#[test]
fn anthropic_does_not_cache_what_is_not_marked_or_too_short() {
    let mut state = State::default();
    for (system, model) in [
        (json!(text("head", 2_000)), "claude-sonnet-5"),
        (json!([marked(&text("head", 1_023), "5m")]), "claude-sonnet-5"),
        (json!([marked(&text("head", 511), "5m")]), "claude-opus-5-5"),
        (json!([marked(&text("head", 2_047), "5m")]), "claude-opus-4-7"),
        (json!([marked(&text("head", 4_095), "5m")]), "claude-haiku-4-5-20251001"),
    ] {
        let body = json!({"model": model, "system": system, "messages": [{"role": "user", "content": "a"}]});
        for now in [0.0, 10.0] {
            assert_eq!(tokens(ask(&mut state, anthropic_prompt(&body), now, 0.0)), (0, 0, 0), "{model}");
        }
    }
    let body = |tokens: usize| {
        json!({"model": "claude-fable-5-2", "system": [marked(&text("head", tokens), "5m")],
            "messages": [{"role": "user", "content": "a"}]})
    };
    assert_eq!(tokens(ask(&mut state, anthropic_prompt(&body(512)), 0.0, 0.0)), (0, 512, 0));
}

#[test]
fn anthropic_has_an_hour_and_says_which_was_written() {
    let mut state = State::default();
    let system = || json!([marked(&text("one", 1_500), "1h"), marked(&text("two", 500), "5m")]);
    assert_eq!(tokens(ask(&mut state, messages(system(), "a"), 0.0, 0.0)), (0, 500, 1_500));
    assert_eq!(tokens(ask(&mut state, messages(system(), "b"), 1_000.0, 0.0)), (1_500, 500, 0));
    assert_eq!(tokens(ask(&mut state, messages(system(), "c"), 1_001.0, 0.0)), (2_000, 0, 0));
}

#[test]
fn anthropic_looks_back_twenty_blocks() {
    let mut state = State::default();
    let blocks = |more: usize| {
        let mut system = vec![marked(&text("head", 2_000), "5m")];
        system.extend((0..more).map(|number| json!({"type": "text", "text": text(&format!("b{number}"), 10)})));
        system[more]["cache_control"] = json!({"type": "ephemeral"});
        if more > 0 {
            system[0].as_object_mut().unwrap().shift_remove("cache_control");
        }
        Value::Array(system)
    };
    assert_eq!(tokens(ask(&mut state, messages(blocks(0), "a"), 0.0, 0.0)), (0, 2_000, 0));
    assert_eq!(tokens(ask(&mut state, messages(blocks(20), "b"), 1.0, 0.0)), (0, 2_200, 0));
    assert_eq!(tokens(ask(&mut state, messages(blocks(19), "b"), 2.0, 0.0)), (2_000, 190, 0));
}

#[test]
fn anthropic_reads_tools_before_instructions_before_messages() {
    let mut state = State::default();
    let mut of = |tool: &str, system: &str, choice: &str, now: f64| {
        let body = json!({"model": "claude-sonnet-5",
            "tools": [{"name": tool, "input_schema": {}, "description": text("d", 1_100), "cache_control": {"type": "ephemeral"}}],
            "tool_choice": {"type": choice}, "system": [marked(&text(system, 1_000), "5m")],
            "messages": [{"role": "user", "content": [marked(&text("said", 100), "5m")]}]});
        ask(&mut state, anthropic_prompt(&body), now, 0.0)
    };
    let all = of("f", "s", "auto", 0.0).written;
    let tools = all - 1_100;
    assert!(tools > 1_100);
    assert_eq!(of("f", "s", "auto", 1.0).read, all);
    assert_eq!(tokens(of("f", "s", "any", 2.0)), (tools + 1_000, 100, 0));
    assert_eq!(tokens(of("f", "other", "auto", 3.0)), (tools, 1_100, 0));
    assert_eq!(tokens(of("g", "s", "auto", 4.0)), (0, all, 0));
}

#[test]
fn anthropic_rejects_marks_that_cannot_be() {
    let many = |count: usize| Value::Array((0..count).map(|_| marked("x", "5m")).collect());
    assert!(messages(many(4), "a").is_ok());
    assert!(
        problem(messages(many(5), "a")).contains("A maximum of 4 blocks with cache_control may be provided. Found 5")
    );
    assert!(problem(messages(json!([marked("a", "5m"), marked("b", "1h")]), "a")).contains("must not come after"));
    assert!(problem(messages(json!([marked("a", "2h")]), "a")).contains("'5m' or '1h'"));
    assert!(problem(messages(json!([marked("", "5m")]), "a")).contains("empty text"));
    let automatic = json!({"model": "claude-sonnet-5", "cache_control": {"type": "ephemeral"},
        "system": many(4), "messages": [{"role": "user", "content": "a"}]});
    assert!(problem(anthropic_prompt(&automatic)).contains("Found 5"));
    let thinking = json!({"model": "claude-sonnet-5", "messages": [{"role": "assistant", "content":
        [{"type": "thinking", "thinking": "t", "signature": "s", "cache_control": {"type": "ephemeral"}}]}]});
    assert!(problem(anthropic_prompt(&thinking)).contains("thinking blocks"));
}

fn chat(model: &str, head: &str, tail: &str, more: Value) -> Result<Prompt, super::super::invalid::Invalid> {
    let mut body = json!({"model": model, "messages": [
        {"role": "developer", "content": head}, {"role": "user", "content": tail}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    chat_prompt(&body)
}

#[test]
fn openais_older_models_cache_by_themselves_once_the_writer_has_finished() {
    let mut state = State::default();
    let head = text("head", 2_000);
    let mut at = |now: f64, tail: &str| tokens(ask(&mut state, chat("gpt-5-mini", &head, tail, json!({})), now, 2.0));
    assert_eq!(at(0.0, &text("a", 50)), (0, 0, 0));
    assert_eq!(at(1.9, &text("b", 50)), (0, 0, 0));
    // Multiples of 128.
    assert_eq!(at(2.0, &text("c", 50)), (1_920, 0, 0));
    assert_eq!(at(301.0, &text("d", 50)), (1_920, 0, 0));
    assert_eq!(at(700.0, &text("e", 50)), (0, 0, 0));
    let short = text("head", 1_000);
    let mut at = |now: f64| ask(&mut state, chat("gpt-5-mini", &short, "a", json!({})), now, 0.0).read;
    assert_eq!((at(1_000.0), at(1_001.0)), (0, 0));
    // In larger steps, and as long as it was asked to be kept.
    let long = text("head", 5_000);
    let kept = json!({"prompt_cache_retention": "24h"});
    let mut at = |now: f64, tail: &str| ask(&mut state, chat("gpt-5.5", &long, tail, kept.clone()), now, 0.0).read;
    assert_eq!((at(0.0, "a"), at(1_700.0, "b")), (0, 4_096));
}

#[test]
fn openai_spreads_what_begins_alike_over_machines_unless_keys_part_it() {
    let (head, mut state) = (text("head", 2_000), State::default());
    let reads = |state: &mut State, key: &dyn Fn(usize) -> String| {
        let all = (0..60).map(|number| {
            let key = json!({"prompt_cache_key": key(number)});
            ask(state, chat("gpt-5-mini", &head, &text(&format!("t{number}"), 10), key), number as f64 / 100.0, 0.0)
                .read
        });
        all.filter(|read| *read > 0).count()
    };
    // Four machines, each of which has to read it once.
    assert_eq!(reads(&mut state, &|_| String::new()), 56);
    assert_eq!(state.models["gpt-5-mini"].possible_hits, 56);
    let mut state = State::default();
    assert_eq!(reads(&mut state, &|number| format!("k{}", number % 4)), 56);
    let mut state = State::default();
    assert_eq!(reads(&mut state, &|number| number.to_string()), 0);
    assert!(problem(chat("gpt-5-mini", "a", "b", json!({"prompt_cache_key": "k".repeat(65)}))).contains("64"));
}

/// A request to Responses with an explicit breakpoint at the end of its instructions.
fn responses(model: &str, head: &str, tail: &str, options: Value) -> Result<Prompt, super::super::invalid::Invalid> {
    responses_prompt(&json!({"model": model, "prompt_cache_options": options, "input": [
        {"role": "developer", "content":
            [{"type": "input_text", "text": head, "prompt_cache_breakpoint": {"mode": "explicit"}}]},
        {"role": "user", "content": tail}]}))
}

#[test]
fn what_is_sent_on_to_a_further_machine_is_possible_once_it_can_be_read_there() {
    let (head, mut state) = (text("head", 2_000), State::default());
    for number in 0..16 {
        let tail = text(&format!("t{number}"), 10);
        ask(&mut state, chat("gpt-5-mini", &head, &tail, json!({})), f64::from(number) / 100.0, 1.0);
    }
    // On the first machine all but one could have waited; nobody could know that the last would go to a second.
    assert_eq!(state.models["gpt-5-mini"].possible_hits, 14);
    let mut at = |now: f64| {
        ask(&mut state, chat("gpt-5-mini", &head, &text(&now.to_string(), 10), json!({})), now, 1.0);
        state.models["gpt-5-mini"].possible_hits
    };
    assert_eq!((at(0.2), at(0.3), at(2.0), at(2.1)), (15, 15, 16, 17));
}

#[test]
fn openais_newer_models_share_nothing_but_what_ends_at_a_breakpoint() {
    let (mut state, head) = (State::default(), text("head", 2_000));
    let plain = |state: &mut State, now: f64, tail: &str| {
        tokens(ask(state, chat("gpt-5.6-luna", &head, tail, json!({})), now, 1.0))
    };
    // Each pays for writing all of it, and nobody reads it.
    assert_eq!(plain(&mut state, 0.0, &text("a", 50)), (0, 2_050, 0));
    assert_eq!(plain(&mut state, 5.0, &text("b", 50)), (0, 2_050, 0));
    // The same again is read.
    assert_eq!(plain(&mut state, 6.5, &text("b", 50)), (2_050, 0, 0));
    let explicit = || json!({"mode": "explicit"});
    let marked = |state: &mut State, now: f64, tail: &str, options: Value| {
        tokens(ask(state, responses("gpt-6-sol", &head, tail, options), now, 1.0))
    };
    assert_eq!(marked(&mut state, 0.0, &text("a", 50), explicit()), (0, 2_000, 0));
    assert_eq!(marked(&mut state, 0.9, &text("b", 50), explicit()), (0, 2_000, 0));
    assert_eq!(marked(&mut state, 1.0, &text("c", 50), explicit()), (2_000, 0, 0));
    // The breakpoint that nobody has set writes what is new.
    assert_eq!(marked(&mut state, 2.0, &text("d", 50), json!({})), (2_000, 50, 0));
    // Half an hour after its last use it ends.
    assert_eq!(marked(&mut state, 1_801.0, &text("e", 50), explicit()), (2_000, 0, 0));
    assert_eq!(marked(&mut state, 3_602.0, &text("f", 50), explicit()), (0, 2_000, 0));
    // Without a breakpoint there is no cache at all.
    let none = chat("gpt-5.6-luna", &head, "x", json!({"prompt_cache_options": {"mode": "explicit"}}));
    assert_eq!(tokens(ask(&mut state, none, 0.0, 0.0)), (0, 0, 0));
}

#[test]
fn what_was_written_without_being_asked_for_is_not_found_by_who_asks() {
    let (mut state, head) = (State::default(), text("head", 2_000));
    let conversation = |mark: bool, mode: &str| {
        let mut said = json!([{"type": "text", "text": head}]);
        if mark {
            said[0]["prompt_cache_breakpoint"] = json!({"mode": "explicit"});
        }
        chat_prompt(&json!({"model": "gpt-5.6", "prompt_cache_options": {"mode": mode},
            "messages": [{"role": "user", "content": said}]}))
    };
    assert_eq!(tokens(ask(&mut state, conversation(false, "implicit"), 0.0, 0.0)), (0, 2_000, 0));
    assert_eq!(tokens(ask(&mut state, conversation(true, "explicit"), 1.0, 0.0)), (0, 2_000, 0));
    // The other way round it is.
    assert_eq!(tokens(ask(&mut state, conversation(false, "implicit"), 2.0, 0.0)), (2_000, 0, 0));
}

#[test]
fn a_conversation_finds_the_ends_of_its_earlier_messages() {
    let mut state = State::default();
    let said = |turns: usize| {
        let turns = (0..turns).map(|turn| {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            json!({"role": role, "content": text(&turn.to_string(), 1_100)})
        });
        chat_prompt(&json!({"model": "gpt-6-sol", "messages": turns.collect::<Vec<_>>()}))
    };
    assert_eq!(tokens(ask(&mut state, said(1), 0.0, 0.0)), (0, 1_100, 0));
    assert_eq!(tokens(ask(&mut state, said(3), 1.0, 0.0)), (1_100, 2_200, 0));
    assert_eq!(tokens(ask(&mut state, said(5), 2.0, 0.0)), (3_300, 2_200, 0));
}

#[test]
fn openai_rejects_what_a_model_does_not_know() {
    for model in ["gpt-5.5", "gpt-5-mini", "gpt-4o", "o3", "any-model"] {
        assert!(problem(responses(model, "a", "b", Value::Null)).contains("'prompt_cache_options' is not supported"));
        let part = json!([{"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}]);
        let body = json!({"model": model, "messages": [{"role": "user", "content": part}]});
        assert!(problem(chat_prompt(&body)).contains("'prompt_cache_breakpoint' is not supported"), "{model}");
    }
    let with = |options: Value| responses("gpt-5.6", "a", "b", options);
    assert!(with(json!({"mode": "implicit", "ttl": "12h"})).is_ok());
    assert!(problem(with(json!({"mode": "none"}))).contains("mode"));
    assert!(problem(with(json!({"ttl": "5m"}))).contains("ttl"));
    assert!(problem(chat("gpt-5.6", "a", "b", json!({"prompt_cache_options": {"ttl": "12h"}}))).contains("ttl"));
    let part = json!([{"type": "output_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}]);
    let body = json!({"model": "gpt-6", "input": [{"role": "assistant", "content": part}]});
    assert!(problem(responses_prompt(&body)).contains("Outputs of the model"));
}

#[test]
fn a_request_writes_at_four_breakpoints_at_most() {
    let mut state = State::default();
    let parts = |count: usize| {
        let part = |number: usize| {
            json!({"type": "input_text", "text": text(&format!("p{number}"), 1_100),
                "prompt_cache_breakpoint": {"mode": "explicit"}})
        };
        responses_prompt(&json!({"model": "gpt-6-sol", "prompt_cache_options": {"mode": "explicit"},
            "input": [{"role": "user", "content": (0..count).map(part).collect::<Vec<_>>()}]}))
    };
    assert_eq!(tokens(ask(&mut state, parts(6), 0.0, 0.0)), (0, 6_600, 0));
    // The oldest two were not written.
    assert_eq!(tokens(ask(&mut state, parts(2), 1.0, 0.0)), (0, 2_200, 0));
    assert_eq!(tokens(ask(&mut state, parts(3), 2.0, 0.0)), (3_300, 0, 0));
}

#[test]
fn gemini_caches_long_prompts_by_itself_and_rejects_what_is_given_twice() {
    let mut state = State::default();
    let of = |model: &str, head: usize, tail: &str| {
        gemini_prompt(
            &json!({"systemInstruction": {"parts": [{"text": text("head", head)}]},
                "contents": [{"role": "user", "parts": [{"text": tail}]}]}),
            model,
        )
    };
    for (model, head, read) in
        [("gemini-2.5-flash", 2_048, 2_048), ("gemini-2.5-flash", 2_000, 0), ("gemini-3.8-flash", 4_000, 0)]
    {
        assert_eq!(ask(&mut state, of(model, head, "a"), 0.0, 1.0).read, 0);
        assert_eq!(ask(&mut state, of(model, head, "b"), 0.5, 1.0).read, 0);
        assert_eq!(ask(&mut state, of(model, head, "c"), 1.0, 1.0).read, read, "{model} {head}");
    }
    let twice = json!({"cachedContent": "cachedContents/1", "systemInstruction": {"parts": []}, "contents": []});
    assert!(problem(gemini_prompt(&twice, "gemini-2.5-flash")).contains("systemInstruction"));
}
