//! Credentials of clouds: found, fetched, renewed, and used to sign requests. [`transport`](super::transport) signs with
//! a [`Signer`], and [`redact`](super::redact) asks it what must not be shown.
//!
//! - [`signer`]: what signs the requests of one client. [`sigv4`]: AWS's signatures; [`token`]: bearer tokens.
//! - [`renewed`]: what ends is fetched once for all, before its end.
//! - [`aws`], [`google`] (with [`google_aws`]) and [`entra`]: where each cloud's credentials come from, in the
//!   [`environment`], by [`http`] or a [`process`]. [`jwt`]: what a service account signs itself. [`failure`]: why there
//!   are none.

mod aws;
mod entra;
mod environment;
mod failure;
mod google;
mod google_aws;
mod http;
mod jwt;
mod process;
mod renewed;
mod signer;
pub mod sigv4;
mod token;

pub use aws::region;
pub use entra::is_named as is_entra_named;
pub use environment::Environment;
pub use google::project;
pub use signer::{Kind, Signer};
