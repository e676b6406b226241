//! Names of what holds secrets: the one list of them, for headers, query parameters, fields of requests and of data.
//! Used by [`redact`](super::redact), and through the bridge by Python.

/// Parts of names. What has one of them may be no secret ("keywords"): for places where a mistake costs nothing, such as
/// headers and texts of errors.
const PARTS: &[&str] = &["key", "token", "secret", "auth", "passw", "credential", "cookie", "session", "signature"];

/// Names, without hyphens and underscores, of nothing but credentials; another word may stand before them.
const CREDENTIALS: &[&str] = &[
    "apikey",
    "apisecret",
    "apitoken",
    "accesskey",
    "accesskeyid",
    "accesstoken",
    "accountkey",
    "authkey",
    "authorization",
    "authtoken",
    "bearertoken",
    "clientassertion",
    "clientsecret",
    "connectionstring",
    "credential",
    "credentials",
    "encryptionkey",
    "idtoken",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "refreshtoken",
    "secret",
    "secretkey",
    "securitytoken",
    "serviceaccountkey",
    "sessiontoken",
    "sharedkey",
    "signingkey",
    "subjecttoken",
    "subscriptionkey",
];

/// Whether something of this name may be a secret.
pub fn may_be_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    PARTS.iter().any(|part| name.contains(part))
}

/// Whether something of this name is a credential, and nothing else.
pub fn is_credential(name: &str) -> bool {
    let name: String = name
        .chars()
        .filter(|letter| !matches!(letter, '-' | '_' | ' ' | '.'))
        .map(|one| one.to_ascii_lowercase())
        .collect();
    let singular = name.strip_suffix('s').unwrap_or(&name);
    CREDENTIALS.iter().any(|known| name.ends_with(known) || singular.ends_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_told_from_what_is_called_alike() {
        for name in [
            "api_key",
            "X-Api-Key",
            "openaiApiKey",
            "Authorization",
            "proxy-authorization",
            "aws_secret_access_key",
            "AWS_ACCESS_KEY_ID",
            "aws_session_token",
            "client_assertion",
            "subject_token",
            "client_secret",
            "PASSWORD",
            "db_password",
            "api_keys",
            "vertex_credentials",
            "Ocp-Apim-Subscription-Key",
            "private_key",
            "secrets",
        ] {
            assert!(is_credential(name), "{name}");
            assert!(may_be_secret(name) || ["passphrase", "client_assertion"].contains(&name), "{name}");
        }
        for name in
            ["keywords", "max_tokens", "key", "primary_key", "author", "session_id", "token_count", "keys", "sort_key"]
        {
            assert!(!is_credential(name), "{name}");
        }
        assert!(may_be_secret("Cookie") && may_be_secret("x-tenant-token") && !may_be_secret("x-title"));
    }
}
