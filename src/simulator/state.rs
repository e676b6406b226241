//! What a model gives with its answer and wants back with the next question: signatures of thoughts. They can be checked
//! without remembering any, for they depend only on what they sign.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::model::hash;

const BEGINS: &str = "simulated";
/// The SDKs write base64 with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The signature of something that a model has thought.
pub fn signature(model: &str, thought: &str) -> String {
    STANDARD.encode(format!("{BEGINS} {:016x}{:016x}", hash(1, model.as_bytes()), hash(2, thought.as_bytes())))
}

/// Whether this model has signed this.
pub fn is_signed(model: &str, thought: &str, given: &str) -> bool {
    decoded(given) == decoded(&signature(model, thought)) && !given.is_empty()
}

/// Whether a simulated model has made it, whichever.
pub fn is_ours(given: &str) -> bool {
    decoded(given).is_some_and(|bytes| bytes.starts_with(BEGINS.as_bytes()))
}

/// The bytes of base64 in either alphabet.
pub fn decoded(given: &str) -> Option<Vec<u8>> {
    LENIENT.decode(given.replace('-', "+").replace('_', "/")).ok()
}

/// What a model thinks.
pub fn thought(digest: u64) -> String {
    format!("Simulated thought {digest:016x}.")
}

/// When a server of Chat Completions wants thoughts back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reasoning {
    /// Of all earlier answers, once there are tools (DeepSeek).
    OfAll,
    /// Of answers that call tools (Moonshot's Kimi).
    OfCalls,
}

impl Reasoning {
    /// What a model's name tells.
    pub fn of(model: &str) -> Option<Self> {
        let model = model.to_ascii_lowercase();
        if model.contains("deepseek") {
            Some(Self::OfAll)
        } else if model.contains("kimi") {
            Some(Self::OfCalls)
        } else {
            None
        }
    }
}

/// Whether a Gemini model wants signatures back: from the third generation on.
pub fn gemini_signs(model: &str) -> bool {
    let version = model.trim_start_matches("models/").strip_prefix("gemini-").unwrap_or_default();
    let major = version.split(['.', '-']).next().unwrap_or_default();
    major.parse::<u32>().is_ok_and(|major| major >= 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_known_again() {
        let signed = signature("m", "x");
        assert!(is_signed("m", "x", &signed) && is_signed("m", "x", signed.trim_end_matches('=')));
        assert!(!is_signed("m", "y", &signed) && !is_signed("n", "x", &signed) && !is_signed("m", "x", ""));
        assert!(is_ours(&signed) && !is_ours("c2ln") && !is_ours("?"));
    }

    #[test]
    fn names_tell_what_is_wanted_back() {
        assert!(gemini_signs("gemini-3-pro") && gemini_signs("models/gemini-3.5-flash"));
        assert!(!gemini_signs("gemini-2.5-flash") && !gemini_signs("m") && !gemini_signs("gemini-embedding-001"));
        assert_eq!(Reasoning::of("DeepSeek-V4"), Some(Reasoning::OfAll));
        assert_eq!(Reasoning::of("kimi-k3"), Some(Reasoning::OfCalls));
        assert_eq!(Reasoning::of("m"), None);
    }
}
