//! A provider whose questions wait in batches.

use std::sync::Arc;

use super::chunk::digest;
use super::route::{Answered, Route, Told};
use crate::providers::provider::Attempt;
use crate::providers::reply::Extra;
use crate::providers::{Ask, Provider, ProviderError, Reply, status};

/// A line that comes back without an answer so often is an error: its batches expire, or lose it.
const MOST_AGAIN: u32 = 5;

/// See the module.
pub struct InBatches(pub Arc<Route>);

impl Provider for InBatches {
    fn attempt(&self, ask: Ask) -> Attempt {
        Box::pin(asked(Arc::clone(&self.0), ask))
    }
}

async fn asked(route: Arc<Route>, mut ask: Ask) -> Result<Reply, ProviderError> {
    for _ in 0..MOST_AGAIN {
        let told = {
            let body = route.client().line(&mut ask)?;
            route.enter(digest(&body), &body)
        };
        match told.await {
            Ok(Told::Reply(Answered { status, body, batch, chunk })) => {
                let outcome = route.client().read(status, body);
                let usage = match &outcome {
                    Ok(reply) => Some(&reply.usage),
                    Err(error) => error.usage(),
                };
                usage.into_iter().for_each(|usage| route.spend(chunk, usage));
                let mut reply = outcome?;
                reply.extras.push(("lane", Extra::Text("batch".to_owned())));
                if !batch.is_empty() {
                    reply.extras.push(("batch_id", Extra::Text(batch.to_string())));
                }
                return Ok(reply);
            }
            Ok(Told::Again) => {}
            Ok(Told::Failed(error)) => return Err(error),
            // The run is over: nobody hears this.
            Ok(Told::Detached) | Err(_) => break,
        }
    }
    let body = b"{\"error\":{\"message\":\"the batches with this request ended without an answer to it\"}}";
    Err(status::read(500, &http::HeaderMap::new(), body))
}
