//! Credentials of AWS: from the environment, profiles, web identities, containers and instances, in the order of AWS's own
//! SDKs. Used by [`signer`](super::signer).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::environment::{Environment, read, read_now, sections};
use super::failure::Failure;
use super::http::{Http, Request, tag};
use super::process;
use super::renewed::{Fetching, Fresh, Source};
use super::sigv4::{AwsKeys, Scope, ToSign, encode, sha256};

/// How deep profiles may refer to others.
const DEPTH: usize = 5;
/// How long a session of a role is to live.
const SESSION_SECONDS: &str = "3600";
const INSTANCE: &str = "http://169.254.169.254";
const CONTAINER: &str = "http://169.254.170.2";
const NONE: &str = "no AWS credentials: set AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                    or AWS_PROFILE (or pass api_key=...)";

type Section = BTreeMap<String, String>;

/// Where credentials come from.
#[derive(Clone)]
enum Plan {
    Fixed {
        id: String,
        secret: SecretString,
        session: Option<SecretString>,
    },
    WebIdentity {
        role: String,
        session_name: String,
        token_file: PathBuf,
        sts: String,
    },
    Role {
        from: Box<Plan>,
        role: String,
        session_name: String,
        external_id: Option<String>,
        region: String,
        sts: String,
    },
    Process(String),
    Sso {
        cache: PathBuf,
        url: String,
    },
    Container {
        url: String,
        token: Option<String>,
        token_file: Option<PathBuf>,
    },
    Instance {
        url: String,
    },
}

/// See the module.
pub struct AwsSource {
    plan: Plan,
    http: Http,
}

impl AwsSource {
    /// Finds out where credentials come from; nothing is fetched.
    ///
    /// # Errors
    /// That there are none, or what is wrong with a profile.
    pub fn new(environment: &Environment, region: &str, http: Http) -> Result<Self, String> {
        let found = Finding { environment, region };
        Ok(Self { plan: found.plan()?, http })
    }
}

impl Source<AwsKeys> for AwsSource {
    fn fetch(&self) -> Fetching<AwsKeys> {
        let (plan, http) = (self.plan.clone(), self.http.clone());
        Box::pin(async move { fetch(&plan, &http).await })
    }
}

/// The region that the environment or the profile names.
pub fn region(environment: &Environment) -> Option<String> {
    let named = environment.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).map(str::to_owned);
    named.or_else(|| {
        let finding = Finding { environment, region: "" };
        let profile = finding.profile(finding.profile_name()).ok()??;
        profile.get("region").cloned()
    })
}

struct Finding<'a> {
    environment: &'a Environment,
    region: &'a str,
}

impl Finding<'_> {
    fn plan(&self) -> Result<Plan, String> {
        let environment = self.environment;
        if let Some(fixed) = self.fixed() {
            return Ok(fixed);
        }
        if let Some(profile) = self.profile(self.profile_name())? {
            if let Some(plan) = self.of_profile(&profile, DEPTH)? {
                return Ok(plan);
            }
        } else if let Some(name) = environment.get("AWS_PROFILE") {
            return Err(format!("AWS_PROFILE names the profile {name:?}, which is in neither of AWS's files"));
        }
        if let (Some(role), Some(file)) =
            (environment.get("AWS_ROLE_ARN"), environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"))
        {
            return Ok(self.web_identity(role, file, environment.get("AWS_ROLE_SESSION_NAME")));
        }
        let full = environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI").map(str::to_owned);
        let relative =
            environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{CONTAINER}{path}"));
        if let Some(url) = relative.or(full) {
            let token = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(str::to_owned);
            let token_file = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from);
            return Ok(Plan::Container { url, token, token_file });
        }
        if environment.is_true("AWS_EC2_METADATA_DISABLED") {
            return Err(NONE.to_owned());
        }
        let url = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(INSTANCE);
        Ok(Plan::Instance { url: url.trim_end_matches('/').to_owned() })
    }

    fn fixed(&self) -> Option<Plan> {
        let environment = self.environment;
        Some(Plan::Fixed {
            id: environment.get("AWS_ACCESS_KEY_ID")?.to_owned(),
            secret: environment.get("AWS_SECRET_ACCESS_KEY")?.into(),
            session: environment.get("AWS_SESSION_TOKEN").map(SecretString::from),
        })
    }

    fn profile_name(&self) -> &str {
        self.environment.first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]).unwrap_or("default")
    }

    /// The settings of a profile in both files; those with credentials count more.
    fn profile(&self, name: &str) -> Result<Option<Section>, String> {
        let config = self.sections("AWS_CONFIG_FILE", "config")?;
        let credentials = self.sections("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let called = if name == "default" { "default".to_owned() } else { format!("profile {name}") };
        let mut found = config.get(&called).cloned();
        if let Some(more) = credentials.get(name) {
            found.get_or_insert_default().extend(more.clone());
        }
        Ok(found)
    }

    fn sections(&self, variable: &str, file: &str) -> Result<BTreeMap<String, Section>, String> {
        let Some(path) = self.environment.path(variable, &[".aws", file]) else { return Ok(BTreeMap::new()) };
        let text = read_now(&path).map_err(|failure| failure.to_string())?;
        Ok(text.map(|text| sections(&text)).unwrap_or_default())
    }

    /// What a profile says of credentials, if it does.
    fn of_profile(&self, profile: &Section, depth: usize) -> Result<Option<Plan>, String> {
        let get = |name: &str| profile.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if let Some(role) = get("role_arn") {
            if let Some(file) = get("web_identity_token_file") {
                return Ok(Some(self.web_identity(role, file, get("role_session_name"))));
            }
            let from = match (get("source_profile"), get("credential_source")) {
                (Some(_), _) if depth == 0 => return Err("AWS profiles refer to each other in a circle".to_owned()),
                (Some(name), _) => {
                    let missing = || format!("the AWS profile {name:?}, a source_profile, has no credentials");
                    let source = self.profile(name)?.ok_or_else(missing)?;
                    // A profile may be its own source: its keys then, not its role.
                    let is_own = source.get("role_arn") == profile.get("role_arn");
                    let keys = if is_own { fixed_of(&source) } else { self.of_profile(&source, depth - 1)? };
                    keys.ok_or_else(missing)?
                }
                (None, Some("Environment")) => self.fixed().ok_or(NONE)?,
                (None, Some("Ec2InstanceMetadata")) => Plan::Instance { url: INSTANCE.to_owned() },
                (None, Some("EcsContainer")) => {
                    let path = self.environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").unwrap_or_default();
                    Plan::Container { url: format!("{CONTAINER}{path}"), token: None, token_file: None }
                }
                _ => return Err("an AWS profile has role_arn, but no source_profile or credential_source".to_owned()),
            };
            let region = get("region").unwrap_or(self.region).to_owned();
            return Ok(Some(Plan::Role {
                from: Box::new(from),
                role: role.to_owned(),
                session_name: get("role_session_name").unwrap_or("batch-llm").to_owned(),
                external_id: get("external_id").map(str::to_owned),
                sts: self.sts(&region),
                region,
            }));
        }
        if let Some(fixed) = fixed_of(profile) {
            return Ok(Some(fixed));
        }
        if let Some(command) = get("credential_process") {
            return Ok(Some(Plan::Process(command.to_owned())));
        }
        self.sso(profile)
    }

    /// The session of a person who has signed in with `aws sso login`.
    fn sso(&self, profile: &Section) -> Result<Option<Plan>, String> {
        let get = |name: &str| profile.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let (Some(account), Some(role)) = (get("sso_account_id"), get("sso_role_name")) else { return Ok(None) };
        let config = self.sections("AWS_CONFIG_FILE", "config")?;
        let session = get("sso_session").and_then(|name| config.get(&format!("sso-session {name}")));
        let of_session = |name: &str| session.and_then(|session| session.get(name)).map(String::as_str);
        let region = of_session("sso_region").or(get("sso_region")).unwrap_or(self.region);
        // The file is named by the session, else by the address where one signs in.
        let Some(named) = get("sso_session").or(get("sso_start_url")) else { return Ok(None) };
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, named.as_bytes());
        let name: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{name}.json");
        let cache = self.environment.path("", &[".aws", "sso", "cache", &name]).ok_or(NONE)?;
        let mut url = format!("https://portal.sso.{region}.amazonaws.com/federation/credentials?role_name=");
        encode(role, false, &mut url);
        url.push_str("&account_id=");
        encode(account, false, &mut url);
        Ok(Some(Plan::Sso { cache, url }))
    }

    fn web_identity(&self, role: &str, file: &str, session_name: Option<&str>) -> Plan {
        Plan::WebIdentity {
            role: role.to_owned(),
            session_name: session_name.unwrap_or("batch-llm").to_owned(),
            token_file: self.environment.expanded(file),
            sts: self.sts(self.region),
        }
    }

    fn sts(&self, region: &str) -> String {
        let named = self.environment.get("AWS_ENDPOINT_URL_STS").map(str::to_owned);
        named.unwrap_or_else(|| {
            let ending = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://sts.{region}.amazonaws.com{ending}/")
        })
    }
}

fn fixed_of(profile: &Section) -> Option<Plan> {
    Some(Plan::Fixed {
        id: profile.get("aws_access_key_id")?.clone(),
        secret: profile.get("aws_secret_access_key")?.as_str().into(),
        session: profile.get("aws_session_token").map(|token| token.as_str().into()),
    })
}

async fn fetch(plan: &Plan, http: &Http) -> Result<Fresh<AwsKeys>, Failure> {
    match plan {
        Plan::Fixed { id, secret, session } => {
            Ok(Fresh { value: AwsKeys::new(id.clone(), secret.clone(), session.clone()), life: None })
        }
        Plan::WebIdentity { role, session_name, token_file, sts } => {
            let token = read(token_file.clone()).await?;
            let fields = [
                ("Action", "AssumeRoleWithWebIdentity"),
                ("Version", "2011-06-15"),
                ("RoleArn", role),
                ("RoleSessionName", session_name),
                ("WebIdentityToken", &token),
                ("DurationSeconds", SESSION_SECONDS),
            ];
            of_sts(&http.text(&Request::form("AWS STS", sts, &fields).hiding(&[&token])).await?)
        }
        Plan::Role { from, role, session_name, external_id, region, sts } => {
            // In a box, for it may be one of its kind.
            let keys = Box::pin(fetch(from, http)).await?.value;
            let mut fields = vec![
                ("Action", "AssumeRole"),
                ("Version", "2011-06-15"),
                ("RoleArn", role),
                ("RoleSessionName", session_name),
                ("DurationSeconds", SESSION_SECONDS),
            ];
            fields.extend(external_id.as_deref().map(|id| ("ExternalId", id)));
            let secret = keys.secret().expose_secret();
            let session = keys.session.as_ref().map(ExposeSecret::expose_secret);
            let mut request = Request::form("AWS STS", sts, &fields).hiding(&[secret, session.unwrap_or_default()]);
            let url = Url::parse(sts)
                .map_err(|_| Failure::rejected("the address of AWS STS is not a valid URL".to_owned()))?;
            let payload = sha256([request.body.as_deref().unwrap_or_default().as_bytes()]);
            let headers = [("content-type", "application/x-www-form-urlencoded")];
            let to_sign = ToSign { method: "POST", url: &url, headers: &headers, payload: &payload };
            let scope = Scope { region: region.clone(), service: "sts" };
            let signature = keys.sign(&to_sign, &scope, SystemTime::now());
            request = request.header("authorization", signature.authorization).header("x-amz-date", signature.date);
            if let Some(session) = session {
                request = request.header("x-amz-security-token", session);
            }
            of_sts(&http.text(&request).await?)
        }
        Plan::Process(command) => {
            let text = process::output(command).await?;
            let value = serde_json::from_str(&text)
                .map_err(|_| Failure::rejected("credential_process did not print JSON".to_owned()))?;
            of_json(&value, ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"], "credential_process")
        }
        Plan::Sso { cache, url } => {
            const AGAIN: &str = "the session of AWS SSO has ended, or there is none: run aws sso login";
            let text = read(cache.clone()).await.map_err(|_| Failure::rejected(AGAIN.to_owned()))?;
            let cached: Value = serde_json::from_str(&text).unwrap_or_default();
            let token = cached.get("accessToken").and_then(Value::as_str).unwrap_or_default();
            let is_over =
                cached.get("expiresAt").and_then(Value::as_str).and_then(life).is_none_or(|left| left.is_zero());
            if token.is_empty() || is_over {
                return Err(Failure::rejected(AGAIN.to_owned()));
            }
            let request = Request::get("AWS SSO", url).header("x-amz-sso_bearer_token", token).hiding(&[token]);
            let reply = http.json(&request).await?;
            let keys = reply.get("roleCredentials").unwrap_or(&Value::Null);
            of_json(keys, ["accessKeyId", "secretAccessKey", "sessionToken", "expiration"], "AWS SSO")
        }
        Plan::Container { url, token, token_file } => {
            let token = match token_file {
                Some(file) => Some(read(file.clone()).await?),
                None => token.clone(),
            };
            let mut request = Request::get("the container's credentials service", url);
            if let Some(token) = &token {
                request = request.header("authorization", token).hiding(&[token]);
            }
            of_json(&http.json(&request).await?, OF_SERVICES, "the container's credentials service")
        }
        Plan::Instance { url } => of_instance(url, http).await,
    }
}

const OF_SERVICES: [&str; 4] = ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"];

/// Those of the role of an instance, by the second version of its metadata service.
async fn of_instance(url: &str, http: &Http) -> Result<Fresh<AwsKeys>, Failure> {
    const WHO: &str = "the instance's metadata service";
    let none = |_| Failure::rejected(format!("{NONE}. {WHO} of EC2 did not answer either"));
    let token_url = format!("{url}/latest/api/token");
    let mut request = Request::get(WHO, &token_url).header("x-aws-ec2-metadata-token-ttl-seconds", "21600");
    request.method = Method::PUT;
    let token = http.text(&request).await.map_err(none)?;
    let roles = format!("{url}/latest/meta-data/iam/security-credentials/");
    let with_token = |url| Request::get(WHO, url).header("x-aws-ec2-metadata-token", token.as_str()).hiding(&[&token]);
    let role = http.text(&with_token(&roles)).await?;
    let role = role.lines().next().unwrap_or_default().trim().to_owned();
    if role.is_empty() {
        return Err(Failure::rejected(format!("{NONE}. The instance has no role")));
    }
    let place = format!("{roles}{role}");
    of_json(&http.json(&with_token(&place)).await?, OF_SERVICES, WHO)
}

/// Credentials in JSON, with these names of key, secret, token and end.
fn of_json(value: &Value, names: [&str; 4], who: &str) -> Result<Fresh<AwsKeys>, Failure> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let [id, secret, session, end] = names;
    let (Some(id), Some(secret)) = (text(id), text(secret)) else {
        return Err(Failure::away(format!("the reply of {who} has no credentials")));
    };
    let life = match value.get(end) {
        Some(Value::String(end)) => life(end),
        // Milliseconds since 1970.
        Some(Value::Number(end)) => end.as_i64().and_then(|end| left(jiff::Timestamp::from_millisecond(end).ok()?)),
        _ => None,
    };
    let keys = AwsKeys::new(id.to_owned(), secret.into(), text(session).map(SecretString::from));
    Ok(Fresh { value: keys, life })
}

fn of_sts(xml: &str) -> Result<Fresh<AwsKeys>, Failure> {
    let text = |name| tag(xml, name).filter(|text| !text.is_empty());
    let (Some(id), Some(secret)) = (text("AccessKeyId"), text("SecretAccessKey")) else {
        return Err(Failure::away("the reply of AWS STS has no credentials".to_owned()));
    };
    let keys = AwsKeys::new(id.to_owned(), secret.into(), text("SessionToken").map(SecretString::from));
    Ok(Fresh { value: keys, life: text("Expiration").and_then(life) })
}

/// How long it is until an instant (RFC 3339).
pub fn life(until: &str) -> Option<Duration> {
    left(until.parse().ok()?)
}

fn left(until: jiff::Timestamp) -> Option<Duration> {
    let until = SystemTime::from(until);
    Some(until.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn plan(environment: &Environment) -> Result<Plan, String> {
        Finding { environment, region: "eu-west-1" }.plan()
    }

    #[test]
    fn sources_are_tried_in_order() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".aws")).unwrap();
        let home = folder.path().to_str().unwrap();
        let file = |name: &str, text: &str| std::fs::write(folder.path().join(".aws").join(name), text).unwrap();
        let of = |more: &[(&str, &str)]| plan(&environment(&[&[("HOME", home)], more].concat()));
        assert!(of(&[("AWS_EC2_METADATA_DISABLED", "true")]).err().unwrap().contains("AWS_BEARER_TOKEN_BEDROCK"));
        assert!(matches!(of(&[]), Ok(Plan::Instance { .. })));
        let web = [("AWS_ROLE_ARN", "r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")];
        let Ok(Plan::WebIdentity { sts, .. }) = of(&web) else { panic!() };
        assert_eq!(sts, "https://sts.eu-west-1.amazonaws.com/");
        let Ok(Plan::Container { url, .. }) = of(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")]) else {
            panic!()
        };
        assert_eq!(url, "http://169.254.170.2/v2/x");
        file("credentials", "[default]\naws_access_key_id = A\naws_secret_access_key = S\n");
        file(
            "config",
            "[default]\nregion = us-west-2\n[profile work]\nrole_arn = arn\nsource_profile = default\n\
             [profile loop]\nrole_arn = a\nsource_profile = pool\n[profile pool]\nrole_arn = b\nsource_profile = loop\n\
             [profile sso]\nsso_session = s\nsso_account_id = 1\nsso_role_name = R\n[sso-session s]\nsso_region = r\n\
             [profile program]\ncredential_process = /bin/x\n",
        );
        assert!(matches!(of(&web), Ok(Plan::Fixed { .. })));
        assert_eq!(region(&environment(&[("HOME", home)])).as_deref(), Some("us-west-2"));
        let Ok(Plan::Role { from, .. }) = of(&[("AWS_PROFILE", "work")]) else { panic!() };
        assert!(matches!(*from, Plan::Fixed { .. }));
        assert!(of(&[("AWS_PROFILE", "loop")]).err().unwrap().contains("circle"));
        assert!(of(&[("AWS_PROFILE", "absent")]).err().unwrap().contains("absent"));
        assert!(matches!(of(&[("AWS_PROFILE", "program")]), Ok(Plan::Process(_))));
        let Ok(Plan::Sso { url, cache }) = of(&[("AWS_PROFILE", "sso")]) else { panic!() };
        assert_eq!(url, "https://portal.sso.r.amazonaws.com/federation/credentials?role_name=R&account_id=1");
        assert!(cache.ends_with("a0f1490a20d0211c997b44bc357e1972deab8ae3.json"), "{cache:?}");
    }

    #[test]
    fn replies_are_read() {
        let soon = (jiff::Timestamp::now() + Duration::from_secs(600)).to_string();
        let xml = format!(
            "<R><Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>S</SecretAccessKey>\
             <SessionToken>T</SessionToken><Expiration>{soon}</Expiration></Credentials></R>"
        );
        let Ok(Fresh { value, life: Some(life) }) = of_sts(&xml) else { panic!() };
        assert!(value.id == "A" && value.session.is_some() && life > Duration::from_secs(500));
        assert!(of_sts("<R/>").is_err());
        let json = serde_json::json!({"AccessKeyId": "A", "SecretAccessKey": "S", "Expiration": "nonsense"});
        assert!(of_json(&json, OF_SERVICES, "it").unwrap().life.is_none());
    }
}
