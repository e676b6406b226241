//! Tokens of Google Cloud, as Application Default Credentials describe them: of service accounts, of people, of workload
//! identities, of another account that is impersonated, of the machine. Used by [`signer`](super::signer).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::environment::{Environment, read, read_now};
use super::failure::Failure;
use super::http::{Http, Request};
use super::jwt::PrivateKey;
use super::renewed::{Fetching, Fresh, Source};
use super::token::{self, Token};
use super::{aws, google_aws, process};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const TOKENS: &str = "https://oauth2.googleapis.com/token";
const LIFE: u64 = 3_600;
const JWT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// How deep one credential may refer to another.
const DEPTH: usize = 3;
const NONE: &str = "no Google credentials: set GOOGLE_APPLICATION_CREDENTIALS to a file with credentials, or run gcloud \
                    auth application-default login (or pass api_key=...)";

/// Where a token comes from.
enum Plan {
    ServiceAccount { email: String, key: PrivateKey, key_id: Option<String>, tokens: String },
    Person { id: String, secret: String, refresh: String, tokens: String },
    Federated { audience: String, kind: String, subject: Subject, tokens: String, impersonated: Option<String> },
    Impersonated { from: Box<Plan>, url: String, delegates: Value },
    Machine { url: String },
}

/// Where the token comes from that another authority has given.
enum Subject {
    File { path: PathBuf, field: Option<String> },
    Url { url: String, headers: Vec<(String, String)>, field: Option<String> },
    Program(String),
    Aws { keys: Arc<aws::AwsSource>, region: String, url: String },
}

/// See the module.
pub struct GoogleSource {
    plan: Arc<Plan>,
    http: Http,
    /// The project that pays, if the file names one.
    payer: Option<HeaderValue>,
}

/// A file with credentials; `None`: there is none.
fn file_of(environment: &Environment) -> Result<Option<Value>, String> {
    let named = environment.get("GOOGLE_APPLICATION_CREDENTIALS");
    let below = [".config", "gcloud", "application_default_credentials.json"];
    let path = match (named, environment.get("CLOUDSDK_CONFIG"), environment.get("APPDATA")) {
        (Some(path), _, _) => Some(environment.expanded(path)),
        (None, Some(folder), _) => Some(PathBuf::from(folder).join(below[2])),
        (None, None, Some(folder)) => Some(PathBuf::from(folder).join(below[1]).join(below[2])),
        _ => environment.path("", &below),
    };
    let Some(path) = path else { return Ok(None) };
    let shown = path.display();
    match read_now(&path).map_err(|failure| failure.to_string())? {
        Some(text) => {
            serde_json::from_str(&text).map(Some).map_err(|_| format!("the credentials in {shown} are not JSON"))
        }
        None if named.is_some() => Err(format!("GOOGLE_APPLICATION_CREDENTIALS names {shown}, which does not exist")),
        None => Ok(None),
    }
}

/// The project that the environment or the file with credentials names.
pub fn project(environment: &Environment) -> Option<String> {
    let named = ["GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT", "ANTHROPIC_VERTEX_PROJECT_ID"];
    if let Some(project) = environment.first(&named) {
        return Some(project.to_owned());
    }
    let file = file_of(environment).ok()??;
    text(&file, "project_id").or_else(|| text(&file, "quota_project_id"))
}

impl GoogleSource {
    /// Finds out where tokens come from; nothing is fetched.
    ///
    /// # Errors
    /// That there are none, or what is wrong with the file that names them.
    pub fn new(environment: &Environment, http: Http) -> Result<Self, String> {
        let file = file_of(environment)?;
        let payer = environment.get("GOOGLE_CLOUD_QUOTA_PROJECT").map(str::to_owned);
        let payer = payer.or_else(|| text(file.as_ref()?, "quota_project_id"));
        let payer = payer.and_then(|project| HeaderValue::from_str(&project).ok());
        let plan = match &file {
            Some(file) => plan_of(file, environment, &http, DEPTH)?,
            None if environment.is_true("NO_GCE_CHECK") => return Err(NONE.to_owned()),
            None => {
                let host = environment.first(&["GCE_METADATA_HOST", "GCE_METADATA_ROOT"]);
                let host = host.unwrap_or("metadata.google.internal");
                let path = "computeMetadata/v1/instance/service-accounts/default/token";
                Plan::Machine { url: format!("http://{host}/{path}") }
            }
        };
        Ok(Self { plan: Arc::new(plan), http, payer })
    }
}

impl Source<Token> for GoogleSource {
    fn fetch(&self) -> Fetching<Token> {
        let (plan, http, payer) = (Arc::clone(&self.plan), self.http.clone(), self.payer.clone());
        Box::pin(async move {
            let (text, life) = fetch(&plan, &http).await?;
            let Fresh { mut value, life } = token::token(&text, life, "Google")?;
            value.more = payer.map(|project| (HeaderName::from_static("x-goog-user-project"), project));
            Ok(Fresh { value, life })
        })
    }
}

fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// What a file with credentials says.
fn plan_of(file: &Value, environment: &Environment, http: &Http, depth: usize) -> Result<Plan, String> {
    let kind = text(file, "type").unwrap_or_default();
    let need = |name: &str| {
        text(file, name).ok_or_else(|| format!("Google credentials of the type {kind:?} have no field {name:?}"))
    };
    let tokens = text(file, "token_uri").unwrap_or_else(|| TOKENS.to_owned());
    Ok(match kind.as_str() {
        "service_account" => Plan::ServiceAccount {
            email: need("client_email")?,
            key: PrivateKey::from_pem(&need("private_key")?)?,
            key_id: text(file, "private_key_id"),
            tokens,
        },
        "authorized_user" => Plan::Person {
            id: need("client_id")?,
            secret: need("client_secret")?,
            refresh: need("refresh_token")?,
            tokens,
        },
        "impersonated_service_account" if depth > 0 => {
            let from = file.get("source_credentials").unwrap_or(&Value::Null);
            Plan::Impersonated {
                from: Box::new(plan_of(from, environment, http, depth - 1)?),
                url: need("service_account_impersonation_url")?,
                delegates: file.get("delegates").cloned().unwrap_or_else(|| json!([])),
            }
        }
        "external_account" => Plan::Federated {
            audience: need("audience")?,
            kind: need("subject_token_type")?,
            subject: subject_of(file.get("credential_source").unwrap_or(&Value::Null), environment, http)?,
            tokens: need("token_url")?,
            impersonated: text(file, "service_account_impersonation_url"),
        },
        _ => {
            return Err(format!(
                "Google credentials of the type {:.60} are not supported; use service_account, authorized_user, \
                 external_account or impersonated_service_account (or pass api_key=...)",
                format!("{kind:?}")
            ));
        }
    })
}

fn subject_of(source: &Value, environment: &Environment, http: &Http) -> Result<Subject, String> {
    let format = source.get("format").unwrap_or(&Value::Null);
    let is_json = text(format, "type").is_some_and(|kind| kind == "json");
    let field = is_json.then(|| text(format, "subject_token_field_name")).flatten();
    if let Some(path) = text(source, "file") {
        return Ok(Subject::File { path: environment.expanded(&path), field });
    }
    if text(source, "environment_id").is_some_and(|id| id.starts_with("aws")) {
        let region = aws::region(environment).ok_or("Google credentials from AWS need AWS_REGION")?;
        let keys = Arc::new(aws::AwsSource::new(environment, &region, http.clone())?);
        let url = text(source, "regional_cred_verification_url")
            .unwrap_or_else(|| google_aws::VERIFICATION.to_owned())
            .replace("{region}", &region);
        return Ok(Subject::Aws { keys, region, url });
    }
    if let Some(url) = text(source, "url") {
        let headers = source.get("headers").and_then(Value::as_object).into_iter().flatten();
        let headers = headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect();
        return Ok(Subject::Url { url, headers, field });
    }
    match source.get("executable").and_then(|program| text(program, "command")) {
        // As Google's libraries: a file alone must not be able to run programs.
        Some(_) if environment.get("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES") != Some("1") => {
            Err("Google credentials run a program: set GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1 to allow it"
                .to_owned())
        }
        Some(command) => Ok(Subject::Program(command)),
        None => {
            Err("Google credentials of the type \"external_account\" have no supported credential_source".to_owned())
        }
    }
}

/// A token and its life.
type Fetched = Result<(String, Option<Duration>), Failure>;

async fn fetch(plan: &Plan, http: &Http) -> Fetched {
    const WHO: &str = "Google's token endpoint";
    match plan {
        Plan::ServiceAccount { email, key, key_id, tokens } => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let claims = json!({"iss": email, "scope": SCOPE, "aud": tokens, "iat": now, "exp": now + LIFE});
            let assertion = key.sign(&claims, key_id.as_deref()).map_err(Failure::away)?;
            let fields = [("grant_type", JWT), ("assertion", &assertion)];
            token::read(&http.json(&Request::form(WHO, tokens, &fields).hiding(&[&assertion])).await?, WHO)
        }
        Plan::Person { id, secret, refresh, tokens } => {
            let fields = [
                ("grant_type", "refresh_token"),
                ("client_id", id),
                ("client_secret", secret),
                ("refresh_token", refresh),
            ];
            token::read(&http.json(&Request::form(WHO, tokens, &fields).hiding(&[secret, refresh])).await?, WHO)
        }
        Plan::Federated { audience, kind, subject, tokens, impersonated } => {
            let subject = subject.token(audience, http).await?;
            let fields = [
                ("grant_type", EXCHANGE),
                ("audience", audience),
                ("scope", SCOPE),
                ("requested_token_type", ACCESS_TOKEN),
                ("subject_token_type", kind),
                ("subject_token", &subject),
            ];
            const STS: &str = "Google's security token service";
            let reply = http.json(&Request::form(STS, tokens, &fields).hiding(&[&subject])).await?;
            let found = token::read(&reply, STS)?;
            match impersonated {
                Some(url) => impersonate(&found.0, url, &json!([]), http).await,
                None => Ok(found),
            }
        }
        Plan::Impersonated { from, url, delegates } => {
            // In a box, for it may be one of its kind.
            let (text, _) = Box::pin(fetch(from, http)).await?;
            impersonate(&text, url, delegates, http).await
        }
        Plan::Machine { url } => {
            const MACHINE: &str = "the machine's metadata server";
            let request = Request::get(MACHINE, url).header("metadata-flavor", "Google");
            let none = |failure| Failure::rejected(format!("{NONE}. Also, {failure}"));
            token::read(&http.json(&request).await.map_err(none)?, MACHINE)
        }
    }
}

/// A token of another account.
async fn impersonate(text: &str, url: &str, delegates: &Value, http: &Http) -> Fetched {
    const WHO: &str = "Google's service for impersonation";
    let body = json!({"scope": [SCOPE], "lifetime": format!("{LIFE}s"), "delegates": delegates});
    let request = Request::json(WHO, url, &body).header("authorization", format!("Bearer {text}")).hiding(&[text]);
    let reply = http.json(&request).await?;
    let Some(found) = reply.get("accessToken").and_then(Value::as_str) else {
        return Err(Failure::away(format!("the reply of {WHO} has no accessToken")));
    };
    Ok((found.to_owned(), reply.get("expireTime").and_then(Value::as_str).and_then(aws::life)))
}

impl Subject {
    async fn token(&self, audience: &str, http: &Http) -> Result<String, Failure> {
        const WHO: &str = "the identity provider";
        match self {
            Self::File { path, field } => inside(&read(path.clone()).await?, field.as_deref()),
            Self::Url { url, headers, field } => {
                let mut request = Request::get(WHO, url);
                request.more = headers.clone();
                inside(&http.text(&request).await?, field.as_deref())
            }
            Self::Program(command) => {
                let wrong = || Failure::rejected("the program for Google credentials returned no token".to_owned());
                let reply: Value = serde_json::from_str(&process::output(command).await?).map_err(|_| wrong())?;
                text(&reply, "id_token").or_else(|| text(&reply, "saml_response")).ok_or_else(wrong)
            }
            Self::Aws { keys, region, url } => {
                let keys = Source::fetch(&**keys).await?.value;
                google_aws::subject(&keys, region, url, audience).map_err(Failure::rejected)
            }
        }
    }
}

/// A token that is a text, or a field of JSON.
fn inside(found: &str, field: Option<&str>) -> Result<String, Failure> {
    let Some(field) = field else { return Ok(found.trim().to_owned()) };
    let value: Value = serde_json::from_str(found).unwrap_or_default();
    text(&value, field).ok_or_else(|| Failure::rejected(format!("the identity provider returned no field {field:?}")))
}
