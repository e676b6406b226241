//! What a fallback may be asked for.

/// Why a fallback is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The model refused.
    Refusal,
    /// No member can answer: all fail, or have too much to do.
    Overload,
    /// The prompt is too long for the model.
    ContextLength,
    /// The provider's filter cut in.
    ContentFilter,
    /// The answer did not match the schema, although the model was shown its mistake.
    Invalid,
    /// The answer is doubtful.
    Escalated,
}

/// A set of reasons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reasons(u8);

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Refusal, Self::Overload, Self::ContextLength, Self::ContentFilter, Self::Invalid, Self::Escalated];

    /// The name in results and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refusal => "refusal",
            Self::Overload => "overload",
            Self::ContextLength => "context_length",
            Self::ContentFilter => "content_filter",
            Self::Invalid => "invalid",
            Self::Escalated => "escalated",
        }
    }
}

impl Reasons {
    /// Those with these names.
    ///
    /// # Errors
    /// The first that is none.
    pub fn named(names: &[String]) -> Result<Self, &String> {
        names.iter().try_fold(Self::default(), |Self(all), name| {
            let known = Reason::ALL.into_iter().find(|reason| reason.name() == name).ok_or(name)?;
            Ok(Self(all | 1 << known as u8))
        })
    }

    /// Whether this is one of them.
    pub fn have(self, reason: Reason) -> bool {
        self.0 >> reason as u8 & 1 == 1
    }
}
