//! Whether an answer is of use: refusals, truncation, structured output, the calls of tools. Used by the client alone.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::providers::dialect::{Answer, Dialect};
use crate::providers::error::{Category, ProviderError, Unusable};
use crate::providers::options::Options;
use crate::providers::reply::{Choice, Finish, Output, Reply, ToolCall};
use crate::providers::schema::{Check, find_json};
use crate::providers::transport::Received;
use crate::providers::{json, limits, state, status};

/// Makes replies of answers.
pub struct Answers {
    check: Option<Check>,
    /// For answers with several values in them, where somebody above checks.
    chooser: OnceLock<Option<Check>>,
    /// Whether replies carry their whole body.
    raw: bool,
}

impl Answers {
    /// Of requests with these options.
    ///
    /// # Errors
    /// What is wrong with the schema.
    pub fn new(options: &Options, raw: bool) -> Result<Self, String> {
        let check = match &options.schema {
            Some(wanted) if wanted.check => Some(Check::new(&wanted.schema)?),
            _ => None,
        };
        Ok(Self { check, chooser: OnceLock::new(), raw })
    }

    /// Sees to it that an answer is of use. `after`: the number of what it answers; see [`state::keep`].
    pub fn finish(
        &self,
        dialect: &dyn Dialect,
        options: &Options,
        answer: Answer,
        received: Received,
        after: Option<u64>,
    ) -> Result<Reply, ProviderError> {
        let request_id = status::request_id(&received.headers);
        let limits = limits::read(&received.headers, limits::server_time(&received.headers, SystemTime::now()));
        let processing_ms = status::processing_ms(&received.headers);
        let Answer { mut choices, usage, model, extras, .. } = answer;
        let verdicts: Vec<Option<(Category, bool)>> = choices.iter().map(|choice| unusable(options, choice)).collect();
        if let Some(Some((category, retryable))) = verdicts.first()
            && verdicts.iter().all(Option::is_some)
        {
            let first = choices.swap_remove(0);
            return Err(ProviderError::Unusable(Box::new(Unusable {
                category: *category,
                retryable: *retryable,
                finish_reason: first.finish.name(),
                native_finish: first.native_finish,
                text: first
                    .refusal
                    .or(Some(first.text).filter(|text| !text.is_empty()))
                    .or(first.reasoning)
                    .unwrap_or_default(),
                usage,
                request_id,
            })));
        }
        // Of several samples, those that are of no use are left out.
        let mut verdicts = verdicts.into_iter();
        choices.retain(|_| verdicts.next().flatten().is_none());
        if options.schema.is_some() {
            let mut problem = None;
            choices.retain_mut(|choice| match self.structure(options, choice) {
                // Words beside a call need not fit.
                Err(wrong) if choice.tool_calls.is_empty() => {
                    problem.get_or_insert((wrong, std::mem::take(&mut choice.text)));
                    false
                }
                _ => true,
            });
            // Of several samples, those that do not fit are left out.
            if choices.is_empty()
                && let Some((problem, text)) = problem
            {
                return Err(ProviderError::Validation { problem, text, usage: usage.into(), request_id });
            }
        }
        for choice in &mut choices {
            tell_apart(&mut choice.tool_calls);
            for call in &mut choice.tool_calls {
                // Halves of surrogate pairs, NaN: what nobody could store or send back.
                if serde_json::from_str::<serde_json::Value>(&call.arguments).is_err() {
                    call.arguments = json::proper(&call.arguments);
                }
            }
            let keep = |turn| state::keep(dialect.protocol(), &options.model, turn, after);
            match (choice.turn.take(), choice.tool_calls.first_mut()) {
                (Some(turn), Some(call)) => call.state = keep(turn),
                (None, None) if options.keeps_turns => {
                    choice.state = dialect.turn(&received.body).and_then(|turn| keep(turn.into()));
                }
                _ => {}
            }
        }
        let account = limits::account(&received.headers);
        let raw = self.raw.then_some(received.body);
        let by_hand = || options.extra_body.get("n").and_then(serde_json::Value::as_u64).is_some_and(|n| n > 1);
        let many = options.n.is_some_and(|n| n > 1) || by_hand();
        let first_token = received.first_token;
        Ok(Reply {
            output: Output::Chat(choices),
            many,
            usage,
            model,
            request_id,
            extras,
            raw,
            processing_ms,
            first_token,
            limits,
            account,
        })
    }

    /// Reduces an answer to its JSON, and checks it if that is done here.
    fn structure(&self, options: &Options, choice: &mut Choice) -> Result<(), String> {
        let found = match (find_json(&choice.text), &self.check) {
            (Ok(found), _) => found,
            // Whoever checks above says what is wrong with it in words of their own.
            (Err(_), None) => return Ok(()),
            (Err(problem), Some(_)) => return Err(problem),
        };
        let json = match (&self.check, found.as_slice()) {
            (Some(check), found) => first_that_fits(check, found)?,
            (None, [json]) => json,
            (None, found) => {
                let schema = options.schema.as_ref();
                let chooser = self.chooser.get_or_init(|| Check::new(&schema?.schema).ok());
                let chosen = chooser.as_ref().and_then(|check| first_that_fits(check, found).ok());
                chosen.or_else(|| found.iter().find(|json| json.starts_with('{')).copied()).unwrap_or(found[0])
            }
        };
        choice.checked = self.check.is_some();
        if json.len() != choice.text.len() {
            choice.text = json.to_owned();
        }
        Ok(())
    }
}

/// Gives calls with the id of another one an id of their own: results are told by it.
fn tell_apart(calls: &mut [ToolCall]) {
    if calls.len() < 2 {
        return;
    }
    let given: HashSet<String> = calls.iter().map(|call| call.id.clone()).collect();
    let mut known = HashSet::with_capacity(calls.len());
    let mut number = 1;
    for call in calls {
        let mut id = call.id.clone();
        while known.contains(&id) || (id != call.id && given.contains(&id)) {
            number += 1;
            id = format!("{}_{number}", call.id);
        }
        known.insert(id.clone());
        call.id = id;
    }
}

/// Why an answer is of no use, if it is not, and whether another attempt may help.
fn unusable(options: &Options, choice: &Choice) -> Option<(Category, bool)> {
    let says_nothing = choice.text.trim().is_empty() && choice.tool_calls.is_empty();
    let category = match choice.finish {
        Finish::Refusal => Category::Refusal,
        Finish::ContentFilter => Category::ContentFilter,
        Finish::Interrupted { overloaded: true } => Category::Overload,
        Finish::Interrupted { overloaded: false } => Category::Server,
        Finish::Malformed => Category::Validation,
        Finish::Stopped => return None,
        // A call that is truncated is none, even if what there is of it can be read.
        Finish::Length if says_nothing || options.schema.is_some() || !choice.tool_calls.is_empty() => {
            Category::Truncated
        }
        _ if says_nothing => return Some((Category::Empty, choice.retry_empty)),
        _ => return None,
    };
    Some((category, category.is_retryable()))
}

/// The first of several JSON values that fits, else what is wrong with the first.
fn first_that_fits<'a>(check: &Check, found: &[&'a str]) -> Result<&'a str, String> {
    let mut problem = None;
    for json in found {
        match check.apply_to(json) {
            Ok(()) => return Ok(json),
            Err(wrong) => drop(problem.get_or_insert(wrong)),
        }
    }
    Err(problem.unwrap_or_else(|| "it contains no JSON".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn distinct(ids: &[String]) -> Vec<String> {
        let call = |id: &String| ToolCall::new(id.clone(), "f".to_owned(), "{}".to_owned());
        let mut calls: Vec<ToolCall> = ids.iter().map(call).collect();
        tell_apart(&mut calls);
        calls.into_iter().map(|call| call.id).collect()
    }

    #[test]
    fn calls_with_one_id_are_told_apart() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(distinct(&ids(&["a", "a", "b"])), ["a", "a_2", "b"]);
        assert_eq!(distinct(&ids(&["a", "a", "a_2", "a"])), ["a", "a_3", "a_2", "a_4"]);
    }

    proptest! {
        #[test]
        fn no_two_calls_have_one_id(ids in proptest::collection::vec("[ab](_[234])?", 0..9)) {
            let told = distinct(&ids);
            prop_assert_eq!(told.iter().collect::<HashSet<_>>().len(), ids.len());
            // Each given id stays with the first that has it.
            for (place, id) in ids.iter().enumerate() {
                let is_first = !ids[..place].contains(id);
                prop_assert_eq!(&told[place] == id, is_first);
            }
        }
    }
}
