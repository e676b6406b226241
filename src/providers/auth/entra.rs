//! Tokens of Microsoft Entra: of an application with a secret, of a workload identity, of the machine. Used by
//! [`signer`](super::signer).

use std::path::PathBuf;

use super::environment::{Environment, read};
use super::failure::Failure;
use super::http::{Http, Request};
use super::renewed::{Fetching, Fresh, Source};
use super::sigv4::encode;
use super::token::{self, Token};

const AUTHORITY: &str = "https://login.microsoftonline.com";
const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const JWT: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const MACHINE: &str = "http://169.254.169.254";
/// Statuses after which the machine's service is to be asked again.
const PASSING: &[u16] = &[404, 410];

/// Where tokens come from.
#[derive(Clone)]
enum Plan {
    Application { url: String, client: String, proof: Proof, scope: String },
    Machine { url: String, header: (&'static str, String) },
}

#[derive(Clone)]
enum Proof {
    Secret(String),
    /// A token of another authority, which changes.
    File(PathBuf),
}

/// See the module.
pub struct EntraSource {
    plan: Plan,
    http: Http,
}

/// Whether the environment names an identity at Entra.
pub fn is_named(environment: &Environment) -> bool {
    plan(environment).is_some()
}

impl EntraSource {
    /// Finds out where tokens come from; nothing is fetched.
    ///
    /// # Errors
    /// That there are none.
    pub fn new(environment: &Environment, http: Http) -> Result<Self, String> {
        let plan = plan(environment).ok_or("the environment names no identity at Microsoft Entra")?;
        Ok(Self { plan, http })
    }
}

fn plan(environment: &Environment) -> Option<Plan> {
    let scope = environment.get("AZURE_OPENAI_SCOPE").unwrap_or(SCOPE).to_owned();
    let wanted = environment.get("AZURE_TOKEN_CREDENTIALS").unwrap_or_default().to_ascii_lowercase();
    let may = |name: &str| matches!(wanted.as_str(), "" | "prod" | "dev") || wanted == name;
    if let (Some(tenant), Some(client)) = (environment.get("AZURE_TENANT_ID"), environment.get("AZURE_CLIENT_ID")) {
        let authority = environment.get("AZURE_AUTHORITY_HOST").unwrap_or(AUTHORITY);
        let scheme = if authority.contains("://") { "" } else { "https://" };
        let url = format!("{scheme}{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let secret = environment.get("AZURE_CLIENT_SECRET").filter(|_| may("environmentcredential"));
        let file = environment.get("AZURE_FEDERATED_TOKEN_FILE").filter(|_| may("workloadidentitycredential"));
        let proof = secret.map(|secret| Proof::Secret(secret.to_owned()));
        if let Some(proof) = proof.or_else(|| file.map(|file| Proof::File(environment.expanded(file)))) {
            return Some(Plan::Application { url, client: client.to_owned(), proof, scope });
        }
    }
    let is_asked_for = matches!(wanted.as_str(), "prod" | "managedidentitycredential");
    let mut query = String::from("&resource=");
    encode(scope.trim_end_matches("/.default"), false, &mut query);
    if let Some(client) = environment.get("AZURE_CLIENT_ID") {
        query.push_str("&client_id=");
        encode(client, false, &mut query);
    }
    match (environment.get("IDENTITY_ENDPOINT"), environment.get("IDENTITY_HEADER")) {
        // App Service and Functions.
        (Some(endpoint), Some(secret)) if is_asked_for || wanted.is_empty() => Some(Plan::Machine {
            url: format!("{endpoint}?api-version=2019-08-01{query}"),
            header: ("x-identity-header", secret.to_owned()),
        }),
        _ if is_asked_for => {
            let host = environment.get("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or(MACHINE).trim_end_matches('/');
            Some(Plan::Machine {
                url: format!("{host}/metadata/identity/oauth2/token?api-version=2018-02-01{query}"),
                header: ("metadata", "true".to_owned()),
            })
        }
        _ => None,
    }
}

impl Source<Token> for EntraSource {
    fn fetch(&self) -> Fetching<Token> {
        let (plan, http) = (self.plan.clone(), self.http.clone());
        Box::pin(async move { fetch(&plan, &http).await })
    }
}

async fn fetch(plan: &Plan, http: &Http) -> Result<Fresh<Token>, Failure> {
    const WHO: &str = "Microsoft Entra";
    let (reply, who) = match plan {
        Plan::Application { url, client, proof, scope } => {
            let secret = match proof {
                Proof::Secret(secret) => secret.clone(),
                Proof::File(path) => read(path.clone()).await?,
            };
            let mut fields = vec![("grant_type", "client_credentials"), ("client_id", client), ("scope", scope)];
            match proof {
                Proof::Secret(_) => fields.push(("client_secret", &secret)),
                Proof::File(_) => fields.extend([("client_assertion_type", JWT), ("client_assertion", &*secret)]),
            }
            (http.json(&Request::form(WHO, url, &fields).hiding(&[&secret])).await?, WHO)
        }
        Plan::Machine { url, header: (name, value) } => {
            const MACHINE: &str = "Azure's service for managed identities";
            let mut request = Request::get(MACHINE, url).header(name, value.as_str());
            if *name != "metadata" {
                request = request.hiding(&[value]);
            }
            request.passing = PASSING;
            (http.json(&request).await?, MACHINE)
        }
    };
    let (text, life) = token::read(&reply, who)?;
    // The machine's service tells the instant, too.
    let life = life.or_else(|| {
        let end = std::time::UNIX_EPOCH + token::seconds(reply.get("expires_on")?)?;
        end.duration_since(std::time::SystemTime::now()).ok()
    });
    token::token(&text, life, who)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<Plan> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        plan(&Environment::new(variables.collect()))
    }

    #[test]
    fn identities_are_found() {
        assert!(of(&[("AZURE_CLIENT_ID", "c")]).is_none());
        let known = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c")];
        let with = |more: &[(&'static str, &'static str)]| of(&[&known[..], more].concat());
        let Some(Plan::Application { url, proof: Proof::Secret(_), .. }) = with(&[("AZURE_CLIENT_SECRET", "s")]) else {
            panic!()
        };
        assert_eq!(url, "https://login.microsoftonline.com/t/oauth2/v2.0/token");
        let file = [("AZURE_FEDERATED_TOKEN_FILE", "/f"), ("AZURE_AUTHORITY_HOST", "login.x")];
        let Some(Plan::Application { url, proof: Proof::File(_), .. }) = with(&file) else { panic!() };
        assert_eq!(url, "https://login.x/t/oauth2/v2.0/token");
        let Some(Plan::Machine { url, .. }) = with(&[("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")]) else {
            panic!()
        };
        assert_eq!(
            url,
            "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
             &resource=https%3A%2F%2Fcognitiveservices.azure.com&client_id=c"
        );
        let service = [("IDENTITY_ENDPOINT", "http://localhost:1/t"), ("IDENTITY_HEADER", "h")];
        let Some(Plan::Machine { header, .. }) = of(&service) else { panic!() };
        assert_eq!(header.0, "x-identity-header");
    }
}
