//! Requests with one head are the same, byte by byte, up to its end.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::*;
use crate::providers::dialect::Body;

/// The body of the request for a question as it is sent.
fn sent(case: &Case, ask: &Ask) -> (Option<Head>, String) {
    let plan = case.heads.plan(ask, case.now);
    let head = plan.as_ref().and_then(|plan| plan.head);
    let mut ask = Ask::new(ask.prompt.clone());
    if let Some(plan) = &plan {
        split(plan, &mut ask.prompt);
    }
    ask.plan = plan.map(Box::new).into();
    let mut fields = case.dialect.fields(&case.options).unwrap();
    if ask.marks().is_some_and(|marks| marks.fixed) {
        case.dialect.mark(&case.options, &mut fields);
    }
    let mut body = Body::new(&serde_json::to_vec(&fields).unwrap().into(), 0);
    case.dialect.conversation(&case.options, &ask, &mut body).unwrap();
    (head, String::from_utf8(body.finish().joined().to_vec()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever two questions have in common as their head, the bytes of their requests are the same up to its end and
    /// beyond, until the questions differ: in every dialect.
    #[test]
    fn requests_with_one_head_are_equal_up_to_it(
        (provider, model, is_chat) in select(vec![
            ("anthropic", "claude-sonnet-5", false), ("openai", "gpt-6-luna", false), ("openai", "gpt-6-luna", true),
            ("openai", "gpt-5-mini", true), ("gemini", "gemini-2.5-flash", false), ("mistral", "m", true),
            ("deepseek", "m", true), ("vllm", "m", true), ("openrouter", "anthropic/claude-opus-4.5", true),
        ]),
        line in "[a-z\u{e9}\"\\\\ ]{40,60}",
        shape in 0..4usize,
        has_system in any::<bool>(),
        has_tools in any::<bool>(),
        ends in ["[a-z\"\n]{0,40}", "[a-z\"\n]{0,40}"],
    ) {
        let shared = (0..500).map(|number| format!("{number} {line}\n")).collect::<String>();
        let mut options = json!({"max_tokens": 9});
        if has_system {
            options["system_prompt"] = json!(text("s", 1_100));
        }
        if has_tools {
            options["tools"] = json!([{"name": "f", "description": "d", "parameters": {"type": "object"}}]);
        }
        let mut case = Case::new(provider, model, options);
        if is_chat {
            case.dialect = row(provider).unwrap().dialect("m", Api::Usual);
        }
        let of = |question: &str| match shape {
            0 => ask(&format!("{shared}{question}")),
            1 => Ask::new(Prompt::from(vec![say(Role::User, &[&shared, question])])),
            2 => Ask::new(Prompt::from(vec![
                say(Role::System, &["Be brief."]),
                say(Role::User, &[&shared]),
                say(Role::Assistant, &["So."]),
                say(Role::User, &[question]),
            ])),
            _ => Ask::new(Prompt::from(vec![say(Role::User, &["Look:", &format!("{shared}{question}")])])),
        };
        // The first differs from both where they begin to differ from each other.
        let (one, other) = (of(&format!("+1+{}", ends[0])), of(&format!("+2+{}", ends[1])));
        case.heads.notice(&[&of("+3+"), &one, &other], case.now);
        let ((head, one), (same_head, other)) = (sent(&case, &one), sent(&case, &other));
        prop_assert!(head.is_some(), "{}", one);
        prop_assert_eq!(head, same_head);
        let ends = (one.find("+1+").unwrap(), other.find("+2+").unwrap());
        prop_assert_eq!(&one[..ends.0], &other[..ends.1]);
    }
}
