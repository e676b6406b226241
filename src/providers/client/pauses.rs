//! Models that pause in the middle of their turns, and are asked to go on. Used by the client alone.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::fields::Streams;
use super::{Inner, Request, with_type};
use crate::providers::dialect::Answer;
use crate::providers::error::{Category, ProviderError, Unusable};
use crate::providers::listener::Listener;
use crate::providers::reply::{Finish, Reply};

/// How often a model that pauses in its turn is asked to go on within one attempt.
const MOST_PAUSES: usize = 10;

impl Inner {
    /// Lets the model go on that paused in the middle of its turn. Its turns are one answer.
    pub(super) async fn go_on(
        &self,
        request: &Request,
        first: Answer,
        streams: Option<&Streams>,
        listener: Option<&Arc<Listener>>,
        first_token: Option<Duration>,
    ) -> Result<Reply, ProviderError> {
        let (mut whole, mut body, key) = (first, request.body.clone(), request.key.as_deref());
        let mut turn = Vec::new();
        for _ in 0..MOST_PAUSES {
            let Some(paused) = whole.unfinished.take() else { break };
            let Some(next) = self.dialect.go_on(&body.joined(), &paused) else { break };
            turn.push(paused);
            body = next.into();
            let paid = whole.usage;
            let received = self.send(&body, key, streams, listener).await;
            let mut received = received.map_err(|error| error.with_usage(paid))?;
            received.first_token = first_token;
            self.secrets.mask(&mut received, key.map(|key| &key.value));
            let mut answer = self
                .dialect
                .read(&received.body, &received.headers)
                .map_err(|error| with_type(error, &received).with_usage(paid))?;
            answer.usage = paid.plus(&answer.usage);
            if let (Some(now), Some(before)) = (answer.choices.first_mut(), whole.choices.first()) {
                now.text.insert_str(0, &before.text);
                if let Some(thoughts) = &before.reasoning {
                    now.reasoning.get_or_insert_default().insert_str(0, thoughts);
                }
            }
            if answer.unfinished.is_none() {
                turn.extend(self.dialect.turn(&received.body));
                if let Some(choice) = answer.choices.first_mut() {
                    choice.turn = (!choice.tool_calls.is_empty()).then(|| joined(&turn)).flatten();
                }
                return self.finish(answer, received, request.after);
            }
            whole = answer;
        }
        Err(paused(whole))
    }
}

/// Lists as one list.
fn joined(lists: &[Box<RawValue>]) -> Option<Box<str>> {
    let lists: Result<Vec<Vec<Box<RawValue>>>, _> = lists.iter().map(|list| serde_json::from_str(list.get())).collect();
    serde_json::to_string(&lists.ok()?.concat()).ok().map(Into::into)
}

/// What is wrong with an answer in which the model paused, and was not asked to go on any more.
pub fn paused(answer: Answer) -> ProviderError {
    let usage = answer.usage;
    ProviderError::Unusable(Box::new(Unusable {
        category: Category::Truncated,
        retryable: false,
        finish_reason: Finish::Interrupted { overloaded: false }.name(),
        native_finish: Some("pause_turn".to_owned()),
        text: answer.choices.into_iter().next().unwrap_or_default().text,
        usage,
        request_id: None,
    }))
}
