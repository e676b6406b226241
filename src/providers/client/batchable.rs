//! A client's questions as lines of a batch.

use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderMap;

use super::pauses::paused;
use super::{Client, with_type};
use crate::providers::account::{Account, OfAccount};
use crate::providers::dialect::Body;
use crate::providers::error::ProviderError;
use crate::providers::prompt::Ask;
use crate::providers::reply::Reply;
use crate::providers::transport::Received;

impl OfAccount for Client {
    fn line(&self, ask: &mut Ask) -> Result<Bytes, ProviderError> {
        let inner = &self.0;
        // Without what prompt caches are told: that depends on the other questions of this run, and the next run has to
        // find the line by its bytes.
        ask.plan = OnceLock::from(None);
        let mut body = Body::new(inner.head.of(ask), ask.own_bytes());
        inner.dialect.conversation(&inner.options, ask, &mut body).map_err(ProviderError::Request)?;
        Ok(body.finish().joined())
    }

    fn read_success(&self, body: Bytes) -> Result<Reply, ProviderError> {
        let inner = &self.0;
        let received = Received { headers: HeaderMap::new(), body, first_token: None, is_stopped: false };
        let answer =
            inner.dialect.read(&received.body, &received.headers).map_err(|error| with_type(error, &received))?;
        match answer.unfinished {
            // What it answers is not at hand any more.
            None => inner.finish(answer, received, None),
            // It could go on in a request of its own, which would not be one of the batch.
            Some(_) => Err(paused(answer)),
        }
    }

    fn model(&self) -> &str {
        &self.0.options.model
    }

    fn path(&self) -> String {
        self.0.dialect.path(&self.0.options.model)
    }

    fn account(&self) -> Account<'_> {
        self.0.account()
    }
}
