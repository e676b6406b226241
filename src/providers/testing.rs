//! Short cuts for the tests of dialects.

use serde_json::Value;

use super::dialect::{Body, Dialect};
use super::options::Options;
use super::prompt::Ask;

/// Options from JSON.
pub fn options(fields: Value) -> Options {
    serde_json::from_value(fields).unwrap()
}

/// The body that a dialect writes.
pub fn request(dialect: &dyn Dialect, options: &Options, ask: &Ask) -> Result<Value, String> {
    let head = serde_json::to_vec(&dialect.fields(options)?).unwrap().into();
    let mut body = Body::new(&head, 0);
    dialect.conversation(options, ask, &mut body)?;
    Ok(serde_json::from_slice(&body.finish().joined()).unwrap())
}
