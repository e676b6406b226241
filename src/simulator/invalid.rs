//! Requests that are rejected: what the simulator says of them itself, and what the vendors say in their own words.

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The message.
    pub message: String,
    /// The machine-readable code, where the vendor has one.
    pub code: Option<&'static str>,
    /// The place in the request, where the vendor names it.
    pub param: Option<String>,
}

impl Invalid {
    /// In the words of a vendor.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: None, param: None }
    }

    /// The same, with the place in the request.
    pub fn at(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }
}

impl From<String> for Invalid {
    fn from(problem: String) -> Self {
        Self::new(format!("the request is not valid: {problem}"))
    }
}

impl From<&str> for Invalid {
    fn from(problem: &str) -> Self {
        problem.to_owned().into()
    }
}
