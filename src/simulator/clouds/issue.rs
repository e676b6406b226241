//! The endpoints that give credentials: OAuth's token endpoints of Google and Entra, AWS's STS, and the metadata services
//! of machines. Each checks what the real one checks of a request.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use http::request::Parts;
use serde_json::{Value, json};

use super::{Cloud, Clouds, signature};

/// Which endpoint a path is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Google's token endpoint.
    GoogleTokens,
    /// Google's security token service.
    GoogleSts,
    /// Google's tokens of other accounts.
    GoogleImpersonation,
    /// Google's metadata server.
    GoogleMachine,
    /// Entra's token endpoint.
    EntraTokens,
    /// What Entra says of itself.
    EntraDiscovery,
    /// Azure's service for managed identities.
    AzureMachine,
    /// App Service's.
    AzureService,
    /// AWS's STS.
    AwsSts,
    /// The metadata service of an instance of AWS.
    AwsMachine,
    /// The credentials service of a container of AWS.
    AwsContainer,
}

/// The endpoint of a path, if it gives credentials.
pub fn route(path: &str) -> Option<Route> {
    Some(match path {
        "/google/token" => Route::GoogleTokens,
        "/google/sts" => Route::GoogleSts,
        "/metadata/identity/oauth2/token" => Route::AzureMachine,
        "/azure/identity" => Route::AzureService,
        "/aws/sts" | "/aws/sts/" => Route::AwsSts,
        "/aws/container" => Route::AwsContainer,
        _ if path.starts_with("/computeMetadata/") => Route::GoogleMachine,
        _ if path.starts_with("/google/impersonate/") && path.ends_with(":generateAccessToken") => {
            Route::GoogleImpersonation
        }
        _ if path.starts_with("/latest/") => Route::AwsMachine,
        _ if path.ends_with("/oauth2/v2.0/token") => Route::EntraTokens,
        _ if path.ends_with("/.well-known/openid-configuration") => Route::EntraDiscovery,
        _ => return None,
    })
}

/// An answer: the status, the text, and whether it is JSON.
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// Whether Google's metadata server has written it.
    pub is_google: bool,
}

fn ok(body: impl ToString) -> Answered {
    Answered { status: 200, body: body.to_string(), is_google: false }
}

fn no(status: u16, error: &str, words: &str) -> Answered {
    let body = json!({"error": error, "error_description": words}).to_string();
    Answered { status, body, is_google: false }
}

/// Where Entra's endpoints are, for a tenant.
fn discovery(head: &Parts) -> Answered {
    let host = head.headers.get("host").and_then(|host| host.to_str().ok());
    let host = host.or(head.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default();
    let tenant = head.uri.path().trim_start_matches('/').split('/').next().unwrap_or_default();
    let at = format!("https://{host}/{tenant}");
    ok(json!({"issuer": format!("{at}/v2.0"), "authorization_endpoint": format!("{at}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{at}/oauth2/v2.0/token")}))
}

/// The fields of a form.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

impl Clouds {
    /// Answers a request for credentials.
    pub fn give(&self, route: Route, head: &Parts, body: &[u8]) -> Answered {
        if route == Route::EntraDiscovery {
            return discovery(head);
        }
        if self.is_busy() {
            return no(429, "slow_down", "Too many requests");
        }
        let form = Fields(url::form_urlencoded::parse(body).into_owned().collect());
        let field = |name: &str| form.get(name);
        let given = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let answered = match route {
            Route::GoogleTokens => self.google_token(&form),
            Route::GoogleSts => {
                if field("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange"
                    || ["audience", "subject_token", "subject_token_type", "scope"]
                        .iter()
                        .any(|name| field(name).is_empty())
                {
                    no(400, "invalid_request", "Invalid or missing parameter.")
                } else if field("subject_token").contains("wrong") {
                    no(400, "invalid_grant", "The subject token is not valid.")
                } else {
                    ok(self.oauth(Cloud::Google, "google_federated"))
                }
            }
            Route::GoogleImpersonation => self.impersonate(given("authorization")),
            Route::GoogleMachine => self.google_machine(head, given("metadata-flavor")),
            Route::EntraTokens => {
                let is_proven = !field("client_secret").is_empty() || !field("client_assertion").is_empty();
                if field("grant_type") != "client_credentials" || !field("scope").ends_with("/.default") {
                    no(400, "invalid_request", "AADSTS90014: a required field is missing.")
                } else if !is_proven || field("client_secret").contains("wrong") {
                    no(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
                } else {
                    let is_federated = !field("client_assertion").is_empty();
                    ok(self.oauth(Cloud::Azure, if is_federated { "entra_federated" } else { "entra_secret" }))
                }
            }
            Route::AzureMachine | Route::AzureService => {
                let query = head.uri.query().unwrap_or_default();
                let is_machine = route == Route::AzureMachine;
                let is_known =
                    if is_machine { given("metadata") == "true" } else { !given("x-identity-header").is_empty() };
                if !is_known || !query.contains("resource=") || !query.contains("api-version=") {
                    no(400, "invalid_request", "Required metadata header not specified")
                } else {
                    let mut reply =
                        self.oauth(Cloud::Azure, if is_machine { "azure_machine" } else { "azure_service" });
                    // Azure writes numbers as texts there.
                    reply["expires_in"] = reply["expires_in"].to_string().into();
                    reply["expires_on"] = self.end().as_second().to_string().into();
                    ok(reply)
                }
            }
            Route::EntraDiscovery => discovery(head),
            Route::AwsSts => self.sts(head, body, &form),
            Route::AwsMachine => self.aws_machine(head),
            Route::AwsContainer => ok(self.keys_of_machine("aws_container")),
        };
        if answered.status >= 400 {
            self.state().counts.refused += 1;
        }
        answered
    }

    /// When credentials of now end, by this machine's clock.
    fn end(&self) -> jiff::Timestamp {
        jiff::Timestamp::now().checked_add(self.settings.life).unwrap_or(jiff::Timestamp::MAX)
    }

    fn oauth(&self, cloud: Cloud, kind: &'static str) -> Value {
        let token = self.token(cloud, kind);
        // Whole seconds, as everywhere; less than one is not told.
        let life = self.settings.life.max(Duration::from_secs(1)).as_secs();
        json!({"access_token": token, "expires_in": life, "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"})
    }

    fn google_token(&self, form: &Fields) -> Answered {
        let field = |name: &str| form.get(name);
        if field("grant_type") == "refresh_token" {
            let is_whole = ["client_id", "client_secret", "refresh_token"].iter().all(|name| !field(name).is_empty());
            return if is_whole && !field("refresh_token").contains("wrong") {
                ok(self.oauth(Cloud::Google, "google_person"))
            } else {
                no(400, "invalid_grant", "Token has been expired or revoked.")
            };
        }
        if field("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
            return no(400, "unsupported_grant_type", "Invalid grant_type");
        }
        let assertion: Vec<&str> = field("assertion").split('.').collect();
        let read = |part: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok()
        };
        let [head, claims, signature] = assertion[..] else {
            return no(400, "invalid_grant", "The assertion is no JSON web token.");
        };
        let (head, claims) = (read(head).unwrap_or_default(), read(claims).unwrap_or_default());
        let (begin, end) = (claims["iat"].as_i64().unwrap_or(0), claims["exp"].as_i64().unwrap_or(0));
        let now = jiff::Timestamp::now().as_second();
        let is_good = head["alg"] == "RS256"
            && claims["iss"].is_string()
            && claims["aud"].as_str().is_some_and(|aud| aud.ends_with("/token"))
            && (begin - 300..=end).contains(&now)
            && end - begin <= 3_600
            && URL_SAFE_NO_PAD.decode(signature.trim_end_matches('=')).is_ok_and(|bytes| bytes.len() >= 256);
        if is_good {
            ok(self.oauth(Cloud::Google, "google_service_account"))
        } else {
            no(
                400,
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
            )
        }
    }

    fn impersonate(&self, authorization: &str) -> Answered {
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        let is_known = self.state().tokens.get(token).is_some_and(|(_, end)| *end > std::time::Instant::now());
        if !is_known {
            return no(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.");
        }
        let token = self.token(Cloud::Google, "google_impersonated");
        ok(json!({"accessToken": token, "expireTime": self.end().to_string()}))
    }

    fn google_machine(&self, head: &Parts, flavor: &str) -> Answered {
        if flavor != "Google" {
            return Answered { is_google: true, ..no(403, "forbidden", "Missing Metadata-Flavor:Google header.") };
        }
        let path = head.uri.path().strip_prefix("/computeMetadata/v1/").unwrap_or_default();
        let answered = match path.trim_end_matches('/') {
            "instance/service-accounts/default/token" => ok(self.oauth(Cloud::Google, "google_machine")),
            "instance/service-accounts/default" => {
                ok(json!({"aliases": ["default"], "email": "simulated@simulated.iam.gserviceaccount.com",
                    "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}))
            }
            "project/project-id" => ok("simulated"),
            "universe/universe-domain" | "universe/universe_domain" => ok("googleapis.com"),
            "" => ok("instance/\nproject/\n"),
            _ => no(404, "not_found", "There is no such metadata."),
        };
        Answered { is_google: true, ..answered }
    }

    fn sts(&self, head: &Parts, body: &[u8], form: &Fields) -> Answered {
        let field = |name: &str| form.get(name);
        let wrong = |status, code: &str, message: &str| {
            let body = format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
            );
            Answered { status, body, is_google: false }
        };
        let (action, kind) = match field("Action") {
            "AssumeRole" => {
                let given = signature::read(&head.headers);
                let is_signed = given.filter(|given| given.id == super::ACCESS_KEY).is_some_and(|given| {
                    signature::is_timely(&given, self.now()).is_ok()
                        && signature::verify(&given, super::SECRET_KEY, head, body).is_ok()
                });
                if !is_signed {
                    return wrong(403, "SignatureDoesNotMatch", "The request signature does not match.");
                }
                ("AssumeRole", "aws_role")
            }
            "AssumeRoleWithWebIdentity" if field("WebIdentityToken").contains("wrong") => {
                return wrong(400, "InvalidIdentityToken", "The web identity token is not valid.");
            }
            "AssumeRoleWithWebIdentity" if !field("WebIdentityToken").is_empty() => {
                ("AssumeRoleWithWebIdentity", "aws_web_identity")
            }
            _ => return wrong(400, "InvalidAction", "Could not find operation."),
        };
        if field("RoleArn").is_empty() || field("RoleSessionName").is_empty() {
            return wrong(400, "ValidationError", "RoleArn and RoleSessionName are required.");
        }
        let [id, secret, token] = self.session(kind);
        ok(format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
             <AssumedRoleUser><AssumedRoleId>AROA:s</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/s</Arn></AssumedRoleUser>\
             <Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>{token}</SessionToken><Expiration>{}</Expiration></Credentials></{action}Result>\
             <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>",
            self.end()
        ))
    }

    fn aws_machine(&self, head: &Parts) -> Answered {
        const TOKEN: &str = "simulated-metadata-token";
        const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
        let path = head.uri.path();
        if path == "/latest/api/token" {
            let is_good =
                head.method == Method::PUT && head.headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds");
            return if is_good { ok(TOKEN) } else { no(400, "bad", "use PUT, with a life") };
        }
        if head.headers.get("x-aws-ec2-metadata-token").is_none_or(|token| token != TOKEN) {
            return no(401, "Unauthorized", "a token is needed");
        }
        match path.strip_prefix(ROLES) {
            Some("") => ok("simulated-role"),
            Some("simulated-role") => ok(self.keys_of_machine("aws_machine")),
            _ => no(404, "NotFound", "There is no such metadata."),
        }
    }

    fn keys_of_machine(&self, kind: &'static str) -> Value {
        let [id, secret, token] = self.session(kind);
        // By their letters, in whole seconds.
        let end = self.end().round(jiff::Unit::Second).unwrap_or(self.end()).to_string();
        json!({"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "AccessKeyId": id,
            "SecretAccessKey": secret, "Token": token, "Expiration": end, "RoleArn": "arn:aws:iam::1:role/r"})
    }
}
