//! A client's questions as lines of a batch.

use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderMap;

use super::{Client, Inner, with_type};
use crate::providers::account::Account;
use crate::providers::call::{Batchable, Call, Calling};
use crate::providers::dialect::Body;
use crate::providers::error::{Category, ProviderError, Unusable};
use crate::providers::prompt::Ask;
use crate::providers::reply::{Finish, Reply};
use crate::providers::status;
use crate::providers::transport::Received;

impl Batchable for Client {
    fn line(&self, ask: &mut Ask) -> Result<Bytes, ProviderError> {
        let inner = &self.0;
        // Without what prompt caches are told: that depends on the other questions of this run, and the next run has to
        // find the line by its bytes.
        ask.plan = OnceLock::from(None);
        let mut body = Body::new(inner.head.of(ask), ask.own_bytes());
        inner.dialect.conversation(&inner.options, ask, &mut body).map_err(ProviderError::Request)?;
        Ok(body.finish().joined())
    }

    fn read(&self, status: u16, body: Bytes) -> Result<Reply, ProviderError> {
        let mut outcome = self.0.read_line(status, body);
        if let Err(error) = &mut outcome {
            self.0.secrets.remove(error, None);
        }
        outcome
    }

    fn model(&self) -> &str {
        &self.0.options.model
    }

    fn path(&self) -> String {
        self.0.dialect.path(&self.0.options.model)
    }

    fn base_url(&self) -> String {
        self.0.account().base_url()
    }

    fn key(&self) -> Vec<u8> {
        self.0.account().key()
    }

    fn call(&self, call: Call) -> Calling<'_, Received> {
        Box::pin(async move { self.0.account().call(call).await })
    }

    fn call_lines<'a>(&'a self, call: Call, each: &'a mut (dyn FnMut(&[u8]) + Send)) -> Calling<'a, HeaderMap> {
        Box::pin(async move { self.0.account().call_lines(call, each).await })
    }
}

impl Inner {
    fn account(&self) -> Account<'_> {
        Account { base_url: &self.base_url, keys: &self.keys, transport: &self.transport, secrets: &self.secrets }
    }

    fn read_line(&self, status: u16, body: Bytes) -> Result<Reply, ProviderError> {
        let headers = HeaderMap::new();
        if !(200..300).contains(&status) {
            return Err(status::read(status, &headers, &body));
        }
        let body = self.secrets.masked(body, None);
        let received = Received { headers, body, first_token: None, is_stopped: false };
        let answer =
            self.dialect.read(&received.body, &received.headers).map_err(|error| with_type(error, &received))?;
        if answer.unfinished.is_none() {
            return self.finish(answer, received);
        }
        // It could go on in a request of its own, which would not be one of the batch.
        let text = answer.choices.into_iter().next().unwrap_or_default().text;
        Err(ProviderError::Unusable(Box::new(Unusable {
            category: Category::Truncated,
            retryable: false,
            finish_reason: Finish::Interrupted { overloaded: false }.name(),
            native_finish: Some("pause_turn".to_owned()),
            text,
            usage: answer.usage,
            request_id: None,
        })))
    }
}
