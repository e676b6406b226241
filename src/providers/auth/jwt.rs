//! JSON web tokens that a service account signs (RFC 7519, RS256). Used by [`google`](super::google).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::Value;

/// A private key.
pub struct PrivateKey(RsaKeyPair);

impl PrivateKey {
    /// From PEM: PKCS #8, or the older RSA form.
    ///
    /// # Errors
    /// That it is none. The message does not show it.
    pub fn from_pem(pem: &str) -> Result<Self, String> {
        const NONE: &str = "private_key is not an RSA key in PEM";
        let body = |name: &str| {
            let (_, rest) = pem.split_once(&format!("-----BEGIN {name}-----"))?;
            let (body, _) = rest.split_once(&format!("-----END {name}-----"))?;
            // Some files have the letters `\n` where lines end.
            let body: String = body.replace("\\n", "").chars().filter(|letter| !letter.is_whitespace()).collect();
            STANDARD.decode(body).ok()
        };
        let key = match (body("PRIVATE KEY"), body("RSA PRIVATE KEY")) {
            (Some(der), _) => RsaKeyPair::from_pkcs8(&der),
            (None, Some(der)) => RsaKeyPair::from_der(&der),
            (None, None) => return Err(NONE.to_owned()),
        };
        key.map(Self).map_err(|_| NONE.to_owned())
    }

    /// A signed token with these claims; `id`: of the key.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn sign(&self, claims: &Value, id: Option<&str>) -> Result<String, String> {
        let mut head = serde_json::json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = id {
            head["kid"] = id.into();
        }
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encoded(&head), encoded(claims));
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| "the token could not be signed".to_owned())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    /// Made for this test, and used nowhere else.
    const PEM: &str = include_str!("testing_key.txt");

    #[test]
    fn signatures_are_valid() {
        let key = PrivateKey::from_pem(PEM).unwrap();
        let token = key.sign(&serde_json::json!({"iss": "me"}), Some("k")).unwrap();
        let (text, signature) = token.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.0.public().as_ref().to_vec());
        public.verify(text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let (head, claims) = text.split_once('.').unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(head).unwrap(), br#"{"alg":"RS256","typ":"JWT","kid":"k"}"#);
        assert_eq!(URL_SAFE_NO_PAD.decode(claims).unwrap(), br#"{"iss":"me"}"#);
    }

    #[test]
    fn what_is_no_key_is_not_shown() {
        for pem in ["secret", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"] {
            assert!(!PrivateKey::from_pem(pem).err().unwrap().contains("secret"));
        }
        assert!(PrivateKey::from_pem(&PEM.replace('\n', "\\n")).is_ok());
    }
}
