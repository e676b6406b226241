//! Vectors in replies to requests for embeddings: read, and checked.

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::dialect::error_of;
use super::error::ProviderError;
use super::json::{bad, parse};
use super::table::Language;
use super::{lenient, status};

const PROTOCOL: &str = "embeddings";
/// Some servers leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a reply holds.
pub struct Vectors {
    /// One for each text, or what is wrong with it: one text's vector must not cost the others theirs.
    pub vectors: Vec<Result<Vec<f32>, ProviderError>>,
    /// Tokens of all texts; 0: not reported.
    pub total: u64,
    /// The model that made them.
    pub model: Option<String>,
}

/// Reads the vectors of so many texts, of this length if one was asked for.
///
/// # Errors
/// When the reply holds an error, or is no list of vectors of one length, one for each text, of which any is of use.
pub fn vectors(
    language: Language,
    texts: usize,
    dimensions: Option<u32>,
    body: &[u8],
    headers: &HeaderMap,
) -> Result<Vectors, ProviderError> {
    let total;
    let mut model = None;
    let vectors = if language == Language::Gemini {
        let reply: GeminiReply = parse(PROTOCOL, body)?;
        error_of(reply.error, body, headers)?;
        let found: Vec<GeminiVector> = reply.embeddings.into_iter().chain(reply.embedding).collect();
        if found.is_empty() {
            return Err(status::instead(body, headers)
                .unwrap_or_else(|| bad(PROTOCOL, body, format!("it has 0 vectors for {texts} texts"))));
        }
        total =
            reply.usage_metadata.and_then(|usage| usage.prompt_token_count.or(usage.total_token_count)).unwrap_or(0);
        Ok(found.into_iter().map(|one| one.values.map_or(Ok(Vec::new()), Encoded::decode)).collect())
    } else {
        let reply: OpenAiReply = parse(PROTOCOL, body)?;
        error_of(reply.error, body, headers)?;
        if reply.data.is_empty() {
            return Err(status::instead(body, headers)
                .unwrap_or_else(|| bad(PROTOCOL, body, format!("it has 0 vectors for {texts} texts"))));
        }
        total = reply.usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens)).unwrap_or(0);
        model = reply.model;
        in_order(texts, reply.data)
    };
    let vectors = vectors.and_then(|vectors| checked(vectors, texts, dimensions));
    let is_wrong = |problem| bad(PROTOCOL, body, problem);
    let vectors = vectors.map_err(is_wrong)?.into_iter().map(|vector| vector.map_err(is_wrong)).collect();
    Ok(Vectors { vectors, total, model })
}

/// A vector, or what is wrong with it.
type Found = Result<Vec<f32>, String>;

/// Vectors in the order of their texts, which their indexes tell.
fn in_order(texts: usize, data: Vec<OpenAiVector>) -> Result<Vec<Found>, String> {
    if data.len() != texts {
        return Err(format!("it has {} vectors for {texts} texts", data.len()));
    }
    let mut found: Vec<Option<Found>> = vec![None; texts];
    // Where there is one text there is no doubt, and an index that all have tells nothing: some servers write 0.
    let is_told = data.windows(2).any(|pair| pair[0].index != pair[1].index);
    for (place, one) in data.into_iter().enumerate() {
        let index = match one.index {
            Some(index) if is_told && !index.is_null() => {
                let text = index.as_str().map_or_else(|| index.to_string(), str::to_owned);
                let number = text.trim_end_matches(".0").parse::<usize>();
                number.map_err(|_| format!("a vector has the invalid index {index}"))?
            }
            _ => place,
        };
        match found.get_mut(index) {
            None => return Err(format!("it has a vector with index {index} for {texts} texts")),
            Some(Some(_)) => return Err(format!("it has two vectors with index {index}")),
            Some(slot) => *slot = Some(one.embedding.decode()),
        }
    }
    Ok(found.into_iter().flatten().collect())
}

fn checked(vectors: Vec<Found>, texts: usize, dimensions: Option<u32>) -> Result<Vec<Found>, String> {
    if vectors.len() != texts {
        return Err(format!("it has {} vectors for {texts} texts", vectors.len()));
    }
    let usable = |(place, vector): (usize, Found)| match vector {
        Ok(vector) if vector.is_empty() => Err(format!("vector {place} is empty")),
        Ok(vector) if vector.iter().any(|number| !number.is_finite()) => {
            Err(format!("vector {place} has a number that is not finite"))
        }
        found => found,
    };
    let vectors: Vec<Found> = vectors.into_iter().enumerate().map(usable).collect();
    let Some(length) = vectors.iter().flatten().map(Vec::len).next() else {
        return Err(vectors.into_iter().find_map(Result::err).unwrap_or_default());
    };
    for (place, vector) in vectors.iter().enumerate().filter_map(|(place, vector)| Some((place, vector.as_ref().ok()?)))
    {
        if let Some(wanted) = dimensions
            && usize::try_from(wanted).is_ok_and(|wanted| wanted != vector.len())
        {
            return Err(format!("vector {place} has {} numbers, but {wanted} were requested", vector.len()));
        }
        if vector.len() != length {
            return Err(format!("vector {place} has {} numbers, but the first has {length}", vector.len()));
        }
    }
    Ok(vectors)
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    total_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OpenAiReply {
    #[serde(default, deserialize_with = "lenient::list")]
    data: Vec<OpenAiVector>,
    #[serde(default, deserialize_with = "lenient::text")]
    model: Option<String>,
    #[serde(default, deserialize_with = "lenient::object")]
    usage: Option<Counts>,
    #[serde(default, deserialize_with = "lenient::error")]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct OpenAiVector {
    index: Option<Value>,
    #[serde(default)]
    embedding: Encoded,
}

/// Base64, as asked for; some servers send numbers all the same.
#[derive(Default)]
enum Encoded {
    Base64(String),
    Numbers(Vec<f32>),
    #[default]
    Odd,
}

/// Read as it comes: what tries one form after the other holds each number as a value of any type meanwhile.
impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Encoded;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("base64 or a list of numbers")
            }

            fn visit_str<E>(self, text: &str) -> Result<Encoded, E> {
                Ok(Encoded::Base64(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Encoded, E> {
                Ok(Encoded::Base64(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Encoded, A::Error> {
                let (mut numbers, mut is_odd) = (Vec::new(), false);
                while let Some(number) = seq.next_element::<Element>()? {
                    match number.0 {
                        Some(number) => numbers.push(number),
                        None => is_odd = true,
                    }
                }
                Ok(if is_odd { Encoded::Odd } else { Encoded::Numbers(numbers) })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Encoded, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Encoded::Odd)
            }

            fn visit_unit<E>(self) -> Result<Encoded, E> {
                Ok(Encoded::Odd)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Encoded, E> {
                Ok(Encoded::Odd)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Encoded, E> {
                Ok(Encoded::Odd)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Encoded, E> {
                Ok(Encoded::Odd)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Encoded, E> {
                Ok(Encoded::Odd)
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// A number of a vector; `None`: it is none.
struct Element(Option<f32>);

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl<'de> Visitor<'de> for Number {
            type Value = Element;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a number")
            }

            #[allow(clippy::cast_possible_truncation)]
            fn visit_f64<E>(self, number: f64) -> Result<Element, E> {
                Ok(Element(Some(number as f32)))
            }

            #[allow(clippy::cast_precision_loss)]
            fn visit_u64<E>(self, number: u64) -> Result<Element, E> {
                Ok(Element(Some(number as f32)))
            }

            #[allow(clippy::cast_precision_loss)]
            fn visit_i64<E>(self, number: i64) -> Result<Element, E> {
                Ok(Element(Some(number as f32)))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Element, E> {
                Ok(Element(None))
            }

            fn visit_unit<E>(self) -> Result<Element, E> {
                Ok(Element(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<Element, E> {
                Ok(Element(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Element(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Element(None))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

impl Encoded {
    fn decode(self) -> Result<Vec<f32>, String> {
        match self {
            Self::Numbers(numbers) => Ok(numbers),
            Self::Odd => Err("a vector is neither base64 nor a list of numbers".to_owned()),
            Self::Base64(text) => {
                // Lines are rare: they are looked for where it cannot be read.
                let without_lines = |_| BASE64.decode(text.split_ascii_whitespace().collect::<String>());
                let bytes = BASE64
                    .decode(&text)
                    .or_else(without_lines)
                    .map_err(|error| format!("a vector is not base64: {error}"))?;
                let (floats, rest) = bytes.as_chunks::<4>();
                if rest.is_empty() {
                    Ok(floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
                } else {
                    Err("the bytes of a vector are not 32-bit numbers".to_owned())
                }
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiCounts {
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    total_token_count: Option<u64>,
}

#[derive(Deserialize)]
struct GeminiReply {
    #[serde(default, rename = "usageMetadata", deserialize_with = "lenient::object")]
    usage_metadata: Option<GeminiCounts>,
    #[serde(default, deserialize_with = "lenient::list")]
    embeddings: Vec<GeminiVector>,
    /// The vector of a single text: in batches.
    #[serde(default, deserialize_with = "lenient::object")]
    embedding: Option<GeminiVector>,
    #[serde(default, deserialize_with = "lenient::error")]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct GeminiVector {
    #[serde(default)]
    values: Option<Encoded>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::table::row;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use serde_json::json;

    fn read(provider: &str, dimensions: Option<u32>, reply: &Value) -> Result<Vectors, ProviderError> {
        let body = reply.to_string();
        vectors(row(provider).unwrap().language, 2, dimensions, body.as_bytes(), &HeaderMap::new())
    }

    fn openai(reply: &Value) -> Result<Vectors, ProviderError> {
        read("openai", None, reply)
    }

    /// The vectors, or the first error.
    fn all(found: Result<Vectors, ProviderError>) -> Result<Vec<Vec<f32>>, ProviderError> {
        found?.vectors.into_iter().collect()
    }

    #[test]
    fn vectors_are_read_in_all_forms() {
        let bytes: Vec<u8> = [1.5f32].iter().flat_map(|number| number.to_le_bytes()).collect();
        for encoded in [json!(STANDARD.encode(&bytes)), json!(STANDARD_NO_PAD.encode(&bytes)), json!([1.5])] {
            let reply = json!({"data": [{"embedding": encoded}, {"embedding": [2]}]});
            assert_eq!(all(openai(&reply)).unwrap(), [[1.5], [2.0]]);
        }
        let reply = json!({"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}], "model": "m"});
        let found = openai(&reply).unwrap();
        assert_eq!(found.model.as_deref(), Some("m"));
        assert_eq!(all(Ok(found)).unwrap(), [[1.0], [2.0]]);
        let reply = json!({"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}]});
        assert_eq!(all(openai(&reply)).unwrap(), [[1.0], [2.0]]);
        let reply = json!({"embeddings": [{"values": [1]}, {"values": [2]}]});
        assert_eq!(all(read("gemini", Some(1), &reply)).unwrap(), [[1.0], [2.0]]);
    }

    #[test]
    fn a_wrong_vector_costs_the_others_nothing() {
        for wrong in [json!([1e300]), json!([null]), json!([]), json!("?"), json!("AADAfw=="), Value::Null] {
            let reply = json!({"data": [{"embedding": wrong}, {"embedding": [2]}]});
            let found = openai(&reply).unwrap().vectors;
            assert!(found[0].as_ref().is_err_and(ProviderError::is_retryable), "{wrong}");
            assert_eq!(found[1].as_ref().ok(), Some(&vec![2.0]), "{wrong}");
        }
        let found =
            read("gemini", None, &json!({"embeddings": [{"values": [null]}, {"values": [2]}]})).unwrap().vectors;
        assert!(found[0].is_err() && found[1].is_ok());
    }

    #[test]
    fn odd_usage_and_models_discard_no_vector() {
        for (usage, total) in [
            (json!({"prompt_tokens": 7, "total_tokens": 7}), 7),
            (json!({"prompt_tokens": 7.0}), 7),
            (json!({"prompt_tokens": null, "total_tokens": 8}), 8),
            (json!({"prompt_tokens": "7"}), 7),
            (json!({"prompt_tokens": "many"}), 0),
            (json!({"prompt_tokens": -1}), 0),
            (json!({"prompt_tokens": [null]}), 0),
            (json!([null]), 0),
            (json!("many"), 0),
            (Value::Null, 0),
        ] {
            let reply = json!({"data": [{"embedding": [1]}, {"embedding": [2]}], "usage": usage, "model": 5});
            assert_eq!(openai(&reply).unwrap().total, total, "{usage}");
        }
    }

    #[test]
    fn wrong_vectors_are_told_what_is_wrong() {
        let two = |one: Value, other: Value| json!({"data": [{"embedding": one}, {"embedding": other}]});
        let indexed = |one: Value, other: Value| json!({"data": [{"index": one, "embedding": [1]}, {"index": other, "embedding": [2]}]});
        for (reply, says) in [
            (json!({}), "0 vectors for 2 texts"),
            (json!({"data": null}), "0 vectors for 2 texts"),
            (json!({"data": [{"embedding": [1]}]}), "1 vectors for 2 texts"),
            (two(json!([1]), json!([1, 2])), "vector 1 has 2 numbers, but the first has 1"),
            (two(json!([]), json!([])), "vector 0 is empty"),
            (two(json!([1]), json!([1e300])), "vector 1 has a number that is not finite"),
            (two(json!([1]), json!([null])), "neither base64 nor a list of numbers"),
            (two(json!([1]), Value::Null), "neither base64 nor a list of numbers"),
            (two(json!([1]), json!("AADAfw==")), "vector 1 has a number that is not finite"),
            (two(json!([1]), json!("AAA=")), "the bytes of a vector are not 32-bit numbers"),
            (two(json!([1]), json!("?")), "not base64"),
            (indexed(json!(0), json!("0")), "two vectors with index 0"),
            (indexed(json!(0), json!(2)), "a vector with index 2 for 2 texts"),
            (indexed(json!(0), json!(-1)), "a vector has the invalid index -1"),
        ] {
            let error = all(openai(&reply)).err().unwrap();
            assert!(error.is_retryable() && error.category().name() == "invalid_response");
            assert!(error.to_string().contains(says), "{reply}: {error}");
        }
        let error = read("openai", Some(3), &two(json!([1, 2]), json!([1, 2]))).err().unwrap();
        assert!(error.to_string().contains("has 2 numbers, but 3 were requested"), "{error}");
        let error = all(read("gemini", None, &json!({"embeddings": [{}, {"values": [1]}]}))).err().unwrap();
        assert!(error.to_string().contains("vector 0 is empty"), "{error}");
    }
}
