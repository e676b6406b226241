//! What puts the events of one dialect together.

use super::fields::Fields;
use crate::providers::listener::Part;

/// What an event means.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It is known and changes nothing: a ping, for instance.
    Nothing,
    /// It has changed the answer.
    Progress,
    /// It is an error in place of the rest: the body of the reply that says so.
    Failed(String),
}

/// Puts the events of one dialect together.
pub trait Fold: Send {
    /// Takes an event whose data are an object.
    fn take(&mut self, name: &str, fields: &Fields<'_>) -> Step;

    /// Takes an event by its data if it is like the one before but for its text. Returns the event's name, for errors, and
    /// whether the answer has changed.
    fn take_repeated(&mut self, _name: &str, _data: &str) -> Option<(&'static str, bool)> {
        None
    }

    /// Expects events that are like this one, which was taken last.
    fn expect_like(&mut self, _name: &str, _data: &str, _fields: &Fields<'_>) {}

    /// Takes the mark at the end, `[DONE]`.
    fn done(&mut self) {}

    /// Tells the new parts of the answer (of the first, where there are several) that an event holds.
    fn parts(&self, name: &str, fields: &Fields<'_>, hear: &mut dyn FnMut(Part, &str));

    /// The body of the plain reply. `None`: the stream does not say that it is whole.
    fn body(&self) -> Option<String>;

    /// The body as far as it has come, for its text and its usage.
    fn so_far(&self) -> String;
}
