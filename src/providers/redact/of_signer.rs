//! The secrets that a signer has at the time: to look for them is cheap, to prepare that is not. Used by [`Secrets`] alone.

use std::sync::{Arc, Mutex, PoisonError};

use super::super::auth::Signer;
use super::{Secret, Secrets};

/// See the module.
pub struct OfSigner {
    signer: Arc<Signer>,
    /// Those of a version of its credentials.
    known: Mutex<Option<(u64, Arc<[Secret]>)>>,
}

impl OfSigner {
    /// Nothing is prepared yet.
    pub fn new(signer: Arc<Signer>) -> Self {
        Self { signer, known: Mutex::default() }
    }

    /// Those that requests in flight may have.
    pub fn present(&self) -> Arc<[Secret]> {
        let version = self.signer.version();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, secrets)) = known.as_ref().filter(|(of, _)| *of == version) {
            return Arc::clone(secrets);
        }
        let mut own = Secrets::default();
        self.signer.secrets().iter().for_each(|secret| own.add_header(secret));
        let secrets: Arc<[Secret]> = own.0.into();
        *known = Some((version, Arc::clone(&secrets)));
        secrets
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;
    use crate::providers::auth::{Environment, Kind};
    use crate::providers::shared::Payload;

    #[tokio::test]
    async fn what_a_signer_has_is_prepared_once_and_is_found_in_replies() {
        let session = "IQoJb3JpZ2luX2VjEHo/+abc==";
        let variables = [
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+b"),
            ("AWS_SESSION_TOKEN", session),
        ];
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // Another test may have done so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let signer = Signer::new(Kind::Aws, &Environment::new(variables), "eu-west-1", reqwest::Client::new());
        let signer = Arc::new(signer.unwrap());
        let secrets = OfSigner::new(Arc::clone(&signer));
        assert_eq!(secrets.present().len(), 0, "nothing was fetched yet");
        let url = "https://bedrock-runtime.eu-west-1.amazonaws.com/model/m/converse".parse().unwrap();
        let (headers, body) = (HeaderMap::new(), Payload::One(Bytes::new()));
        let sign = || signer.sign(&url, &headers, &body);
        sign().await.unwrap();
        let first = secrets.present();
        assert_eq!(first.len(), 6, "two, in three ways each");
        sign().await.unwrap();
        assert!(Arc::ptr_eq(&first, &secrets.present()));
        let all = Secrets::default().and_of(Some(signer));
        let said = format!("a {session} b IQoJb3JpZ2luX2VjEHo\\/+abc== c");
        assert_eq!(all.masked(Bytes::from(said), None), "a IQo... b IQo... c");
    }
}
