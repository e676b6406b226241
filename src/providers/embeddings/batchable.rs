//! Texts as lines of a batch, each by itself.

use bytes::Bytes;
use http::HeaderMap;

use super::{Embedder, Inner, reply, text_of};
use crate::providers::account::{Account, OfAccount};
use crate::providers::dialect::Body;
use crate::providers::error::ProviderError;
use crate::providers::numbers;
use crate::providers::prompt::Ask;
use crate::providers::reply::Reply;
use crate::providers::table::Language;
use crate::providers::vectors::{Vectors, vectors};

impl OfAccount for Embedder {
    fn line(&self, ask: &mut Ask) -> Result<Bytes, ProviderError> {
        self.0.line(text_of(&ask.prompt)?).map_err(ProviderError::Request)
    }

    fn read_success(&self, body: Bytes) -> Result<Reply, ProviderError> {
        let found = vectors(self.0.language, 1, self.0.options.dimensions, &body, &HeaderMap::new())?;
        let Vectors { mut vectors, total, model } = found;
        // One text, one vector: that was checked.
        Ok(reply(vectors.pop().transpose()?.unwrap_or_default(), total, model))
    }

    fn model(&self) -> &str {
        &self.0.options.model
    }

    fn path(&self) -> String {
        self.0.path.clone()
    }

    fn account(&self) -> Account<'_> {
        let inner = &self.0;
        Account { base_url: &inner.base_url, keys: &inner.keys, transport: &inner.transport, secrets: &inner.secrets }
    }
}

impl Inner {
    fn line(&self, text: &str) -> Result<Bytes, String> {
        if matches!(self.language, Language::Gemini) {
            let written = serde_json::to_vec(&self.gemini(text));
            let written = written.map_err(|error| format!("the request cannot be written: {error}"))?;
            return Ok(numbers::with_digits(written).into());
        }
        let mut body = Body::new(&self.head, text.len());
        self.write(&[text], &mut body)?;
        Ok(body.finish().joined())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::call::Batchable;
    use crate::providers::client::Parts;
    use crate::providers::embeddings::PackLimits;
    use crate::providers::keys::{Auth, Keys};
    use crate::providers::prompt::Prompt;
    use crate::providers::reply::Output;
    use crate::providers::table::Api;
    use crate::providers::transport::TransportOptions;
    use crate::providers::{caching::Caching, limits::Periods, table, testing};
    use serde_json::{Value, json};
    use std::time::Duration;

    fn embedder(provider: &str) -> Embedder {
        let row = table::row(provider).unwrap();
        let parts = Parts {
            dialect: row.dialect("m", Api::Usual),
            base_url: "http://localhost/v1".to_owned(),
            keys: Keys::new(Auth::Bearer, &[]).unwrap(),
            signer: None,
            periods: Periods::default(),
            options: testing::options(json!({"dimensions": 2, "extra_body": {"x": 1}})),
            headers: vec![],
            transport: TransportOptions::default(),
            caching: Caching::None,
            raw: false,
        };
        let limits = PackLimits { items: 9, tokens: 9, linger: Duration::ZERO };
        Embedder::new(parts, row.language, limits).unwrap()
    }

    fn line(provider: &str, text: &str) -> Result<Value, ProviderError> {
        let line = Batchable::line(&embedder(provider), &mut Ask::new(Prompt::Text(text.to_owned().into())))?;
        Ok(serde_json::from_slice(&line).unwrap())
    }

    #[test]
    fn a_line_has_one_text() {
        let openai = line("openai", "a").unwrap();
        assert_eq!(
            (&openai["input"], &openai["encoding_format"], &openai["x"]),
            (&json!(["a"]), &json!("base64"), &json!(1))
        );
        let gemini = line("gemini", "a").unwrap();
        assert_eq!(gemini["content"], json!({"parts": [{"text": "a"}]}));
        assert_eq!(
            (&gemini["outputDimensionality"], &gemini["x"], gemini.get("requests")),
            (&json!(2), &json!(1), None)
        );
        assert!(line("openai", "").is_err());
        assert!(Batchable::path(&embedder("gemini")).ends_with(":batchEmbedContents"));
    }

    #[test]
    fn a_reply_has_one_vector() {
        let read = |provider: &str, status: u16, reply: &Value| {
            Batchable::read(&embedder(provider), status, reply.to_string().into())
        };
        let openai = json!({"data": [{"embedding": [1, 2]}], "model": "m", "usage": {"prompt_tokens": 7}});
        let reply = read("openai", 200, &openai).unwrap();
        assert!(matches!(&reply.output, Output::Vector(vector) if vector == &[1.0, 2.0]));
        assert_eq!((reply.usage.input, reply.model.as_deref()), (7, Some("m")));
        for gemini in [json!({"embedding": {"values": [1, 2]}}), json!({"embeddings": [{"values": [1, 2]}]})] {
            let reply = read("gemini", 200, &gemini).unwrap();
            assert!(matches!(&reply.output, Output::Vector(vector) if vector == &[1.0, 2.0]));
        }
        assert!(read("gemini", 200, &json!({})).is_err());
        assert!(read("openai", 200, &json!({"data": [{"embedding": [1]}]})).is_err());
        let error = read("openai", 429, &json!({"error": {"message": "slow"}})).unwrap_err();
        assert_eq!(error.category().name(), "rate_limit");
    }
}
