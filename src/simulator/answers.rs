//! What a model answers to the body of a request, wherever it came from: live endpoints and batches both ask here, so
//! that their answers are the same. The server and [`batches`](super::batches) call this.

use serde_json::Value;

use super::caches::Caches;
use super::dialect::{Answer, Dialect, output_tokens};
use super::model::{Completion, Question};
use super::prompt_caches::Prompt;

/// What answers depend on, beside the request.
#[derive(Debug, Default)]
pub struct Model {
    /// Another seed gives other answers.
    pub seed: u64,
    /// Reply templates; empty = an echo, or a value that fits the schema.
    pub replies: Vec<String>,
    /// Explicit caches, which requests may name.
    pub caches: Caches,
    /// Whether prompts are read as prompt caches see them, which count more of them than the words.
    pub reads_prompts: bool,
}

/// A status and the body of an error.
pub type Refusal = (u16, Value);

/// An answer that was asked for with nothing but a body.
#[derive(Debug)]
pub struct BatchAnswer {
    /// The question.
    pub question: Question,
    /// The reply, JSON text.
    pub body: Vec<u8>,
    /// Its tokens.
    pub output: usize,
}

impl Model {
    /// Reads a request that can be answered. `model`: the one that the path names.
    ///
    /// # Errors
    /// What its vendor says of it.
    pub fn read(
        &self,
        dialect: &dyn Dialect,
        body: &[u8],
        model: Option<&str>,
    ) -> Result<(Question, Option<Prompt>), Refusal> {
        let invalid = |problem| (400, dialect.invalid(&problem));
        let mut question = dialect.question(body, model).map_err(invalid)?;
        let prompt = if self.reads_prompts { dialect.prompt(body, model).map_err(invalid)? } else { None };
        question.prompt_tokens = prompt.as_ref().map(Prompt::tokens);
        if let Some(problem) = question.excess() {
            return Err(invalid(problem));
        }
        if let Some(name) = &question.cache {
            question.cached_tokens = self.caches.tokens(name, &question.model)?;
        }
        Ok((question, prompt))
    }

    /// The samples and the vectors of an answer.
    pub fn think(&self, question: &Question) -> (Vec<Completion>, Vec<Vec<f32>>) {
        match question.texts.is_empty() {
            true => (question.answer(self.seed, &self.replies), Vec::new()),
            false => (Vec::new(), question.vectors(self.seed)),
        }
    }

    /// The whole way from a body to the body of the reply.
    ///
    /// # Errors
    /// What its vendor says of a request that cannot be answered.
    pub fn answer(&self, dialect: &dyn Dialect, body: &[u8], model: Option<&str>) -> Result<BatchAnswer, Refusal> {
        let (question, _) = self.read(dialect, body, model)?;
        let (completions, vectors) = self.think(&question);
        let digest = question.digest(self.seed);
        let answer = Answer { question: &question, completions: &completions, vectors: &vectors, digest };
        let body = dialect.answer(&answer);
        Ok(BatchAnswer { body, output: output_tokens(&completions), question })
    }
}
