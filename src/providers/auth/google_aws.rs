//! What Google takes as proof of an identity at AWS: a signed request to AWS's STS, which it sends itself. Used by
//! [`google`](super::google).

use std::time::SystemTime;

use reqwest::Url;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::sigv4::{AwsKeys, Scope, ToSign, encode, sha256};

/// The request's address, unless the credentials name another.
pub const VERIFICATION: &str = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";

/// The request as a token (Google's AIP-4117).
///
/// # Errors
/// That the address is none.
pub fn subject(keys: &AwsKeys, region: &str, url: &str, audience: &str) -> Result<String, String> {
    let parsed = Url::parse(url).map_err(|_| "regional_cred_verification_url is not a valid URL".to_owned())?;
    let scope = Scope { region: region.to_owned(), service: "sts" };
    let target = [("x-goog-cloud-target-resource", audience)];
    let payload = sha256([]);
    let request = ToSign { method: "POST", url: &parsed, headers: &target, payload: &payload };
    let signature = keys.sign(&request, &scope, SystemTime::now());
    let mut headers = vec![
        ("authorization", signature.authorization.as_str()),
        ("host", parsed.host_str().unwrap_or_default()),
        ("x-amz-date", signature.date.as_str()),
        ("x-goog-cloud-target-resource", audience),
    ];
    headers.extend(keys.session.as_ref().map(|token| ("x-amz-security-token", token.expose_secret())));
    let headers: Vec<Value> = headers.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    let request = json!({"url": parsed.as_str(), "method": "POST", "headers": headers}).to_string();
    let mut token = String::new();
    encode(&request, false, &mut token);
    Ok(token)
}
