//! A request as prompt caches see it: blocks in the order in which the provider reads them, and the places where entries
//! may end.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::super::model::tokens;

/// The life of an entry for five minutes, and of one for an hour, seconds.
pub const FIVE_MINUTES: f64 = 300.0;
pub const HOUR: f64 = 3_600.0;
/// Shortest entry of OpenAI's, tokens.
pub const OPENAI_LEAST: usize = 1_024;
/// Most tokens of an image, whatever its bytes.
const IMAGE: usize = 1_600;

/// A prompt, and the rules that its provider has for it.
#[derive(Debug)]
pub struct Prompt {
    /// What the prices are for.
    pub model: String,
    /// In the order in which the provider reads them.
    pub blocks: Vec<Block>,
    /// When entries are written and read.
    pub rules: Rules,
    /// The part of the routing, or the isolation, that the client chooses.
    pub key: String,
}

/// A block.
#[derive(Debug)]
pub struct Block {
    /// What is said, and by whom: what entries are known by.
    text: String,
    /// Who says it.
    pub role: String,
    /// Its length.
    pub tokens: usize,
    /// Whether it is a block of the request: other things that entries depend on have no length.
    pub counts: bool,
    /// Whether a message ends with it.
    pub ends_message: bool,
    /// The entry that is to end with it.
    pub mark: Option<Mark>,
}

/// How long an entry is to live, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mark(pub f64);

/// When entries are written and read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rules {
    /// Anthropic's: at marks, which look back.
    Marks {
        /// Shortest entry, tokens.
        least: usize,
    },
    /// OpenAI's from gpt-5.6 on: at explicit breakpoints, and perhaps at the end of the newest message.
    Breakpoints {
        /// Whether there is a breakpoint that nobody has set.
        implicit: bool,
        /// Seconds after the last use.
        life: f64,
    },
    /// OpenAI's before, and Google's: everywhere, in steps.
    Automatic {
        /// Shortest entry, tokens.
        least: usize,
        /// How far the places are apart, tokens.
        step: usize,
        /// Seconds after the last use.
        life: f64,
        /// Whether requests are spread over machines, each with entries of its own.
        is_spread: bool,
    },
    /// None.
    Never,
}

/// A place where an entry may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The number of its block.
    pub block: usize,
    /// Tokens up to it.
    pub tokens: usize,
    /// Of everything up to it.
    pub hash: u64,
}

impl Prompt {
    /// A prompt without blocks.
    pub fn new(model: String, rules: Rules) -> Self {
        Self { model, blocks: Vec::new(), rules, key: String::new() }
    }

    /// Its length.
    pub fn tokens(&self) -> usize {
        self.blocks.iter().map(|block| block.tokens).sum()
    }

    /// Adds what entries depend on, though it is no block.
    pub fn depends(&mut self, name: &str, value: Option<&Value>) {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            let text = format!("{name}={value}");
            self.blocks.push(Block { counts: false, tokens: 0, ..Block::text("", text) });
        }
    }

    /// Adds a block.
    pub fn push(&mut self, block: Block) {
        self.blocks.push(block);
    }

    /// The last block ends a message.
    pub fn end_message(&mut self) {
        if let Some(block) = self.blocks.last_mut() {
            block.ends_message = true;
        }
    }

    /// The ends of all blocks.
    pub fn ends(&self) -> Vec<Point> {
        let (mut hasher, mut all) = (DefaultHasher::new(), 0);
        let points = self.blocks.iter().enumerate().map(|(number, block)| {
            block.text.hash(&mut hasher);
            block.role.hash(&mut hasher);
            all += block.tokens;
            block.counts.then_some(Point { block: number, tokens: all, hash: hasher.finish() })
        });
        points.flatten().collect()
    }

    /// The places in steps of so many tokens, of at least so many.
    pub fn grid(&self, step: usize, least: usize) -> Vec<Point> {
        let (mut hasher, mut all, mut next) = (DefaultHasher::new(), 0, step);
        let mut points = Vec::new();
        for (number, block) in self.blocks.iter().enumerate() {
            block.role.hash(&mut hasher);
            let (text, mut done) = (block.text.as_bytes(), 0);
            while next <= all + block.tokens {
                let end = ((next - all) * 4).min(text.len());
                hasher.write(&text[done.min(end)..end]);
                done = end.max(done);
                points.push(Point { block: number, tokens: next, hash: hasher.finish() });
                next += step;
            }
            hasher.write(&text[done..]);
            all += block.tokens;
        }
        points.retain(|point| point.tokens >= least);
        points
    }
}

impl Block {
    /// A text.
    pub fn text(role: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { tokens: tokens(&text), text, role: role.to_owned(), counts: true, ends_message: false, mark: None }
    }

    /// A block as it is written, without its mark, which is in the field of this name.
    pub fn json(role: &str, value: &Value, mark: &str) -> Self {
        let said = value.get("text").and_then(Value::as_str);
        if let Some(text) = said {
            return Self::text(role, text);
        }
        let mut plain = value.clone();
        if let Some(fields) = plain.as_object_mut() {
            fields.shift_remove(mark);
        }
        let mut block = Self::text(role, plain.to_string());
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind.contains("image") || value.get("inlineData").is_some() {
            block.tokens = block.tokens.min(IMAGE);
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn prompt(texts: &[&str]) -> Prompt {
        let mut prompt = Prompt::new("m".to_owned(), Rules::Never);
        texts.iter().for_each(|text| prompt.push(Block::text("user", *text)));
        prompt
    }

    #[test]
    fn prompts_have_points_in_common_as_far_as_they_are_the_same() {
        let (one, other) = (prompt(&["head", "a"]), prompt(&["head", "b"]));
        let (one, other) = (one.ends(), other.ends());
        assert_eq!((one[0], one[0].tokens), (other[0], 1));
        assert_ne!(one[1].hash, other[1].hash);
        // Who says it counts, and so does what is no block.
        let mut third = prompt(&[]);
        third.push(Block::text("assistant", "head"));
        assert_ne!(third.ends()[0].hash, one[0].hash);
        let mut fourth = prompt(&[]);
        fourth.depends("format", Some(&json!({"type": "x"})));
        fourth.push(Block::text("user", "head"));
        assert_eq!((fourth.ends().len(), fourth.tokens()), (1, 1));
        assert_ne!(fourth.ends()[0].hash, one[0].hash);
    }

    #[test]
    fn steps_end_inside_of_blocks() {
        let head = "x".repeat(40);
        let (one, other) = (prompt(&[&head, &"a".repeat(40)]), prompt(&[&head, &"b".repeat(40)]));
        let (one, other) = (one.grid(4, 8), other.grid(4, 8));
        assert_eq!(one.iter().map(|point| point.tokens).collect::<Vec<_>>(), [8, 12, 16, 20]);
        assert_eq!(one[0], other[0]);
        assert_ne!(one[1].hash, other[1].hash);
        // Where the blocks end makes no difference within one.
        assert_eq!(prompt(&[&"x".repeat(32)]).grid(4, 8)[0], Point { block: 0, ..one[0] });
    }

    #[test]
    fn marks_are_no_part_of_a_block_and_images_are_short() {
        let (plain, marked) =
            (json!({"type": "image", "source": "a"}), json!({"type": "image", "source": "a", "m": 1}));
        assert_eq!(Block::json("user", &plain, "m").text, Block::json("user", &marked, "m").text);
        let image = json!({"type": "image", "source": "a".repeat(100_000)});
        assert_eq!(Block::json("user", &image, "m").tokens, IMAGE);
    }
}
