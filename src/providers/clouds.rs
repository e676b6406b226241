//! Where the clouds are: the addresses of regions, projects and locations. Used by the bridge, which then makes a client
//! for the address.

use super::auth::{Environment, Kind, project, region};

/// Locations of Vertex AI that are several regions.
const MULTI_REGIONS: &[&str] = &["us", "eu"];

/// The base URL of a cloud for a model, at its own origin or at another (with a path).
///
/// # Errors
/// A message that says which variable is missing.
pub fn base_url(kind: Kind, environment: &Environment, model: &str, origin: Option<&str>) -> Result<String, String> {
    let origin = origin.map(|origin| origin.trim_end_matches('/').to_owned());
    match kind {
        Kind::Aws => match origin {
            Some(origin) => Ok(origin),
            None => {
                let region = region_of(environment, model, None)?;
                let ending = if region.starts_with("cn-") { ".cn" } else { "" };
                let fips = if environment.is_true("AWS_USE_FIPS_ENDPOINT") { "-fips" } else { "" };
                Ok(format!("https://bedrock-runtime{fips}.{region}.amazonaws.com{ending}"))
            }
        },
        Kind::Google => {
            if let Some(origin) = origin.as_ref().filter(|origin| origin.contains("/projects/")) {
                return Ok(origin.clone());
            }
            let project = project(environment)
                .filter(|name| is_name(name))
                .ok_or("vertex needs a project: set GOOGLE_CLOUD_PROJECT (or pass base_url=...)")?;
            let named = environment.first(&["GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_REGION", "CLOUD_ML_REGION"]);
            let place = named.unwrap_or("global");
            if !is_name(place) {
                return Err("GOOGLE_CLOUD_LOCATION is not the name of a location, such as 'us-central1'".to_owned());
            }
            let origin = origin.unwrap_or_else(|| match place {
                "global" => "https://aiplatform.googleapis.com".to_owned(),
                place if MULTI_REGIONS.contains(&place) => format!("https://aiplatform.{place}.rep.googleapis.com"),
                place => format!("https://{place}-aiplatform.googleapis.com"),
            });
            let version = if has_version(&origin) { "" } else { "/v1" };
            Ok(format!("{origin}{version}/projects/{project}/locations/{place}"))
        }
        Kind::Entra => origin.ok_or_else(|| "azure needs base_url".to_owned()),
    }
}

/// The region whose requests a signature is for: that of the host, else of the model's ARN, else of the environment.
///
/// # Errors
/// That none is named.
pub fn region_of(environment: &Environment, model: &str, host: Option<&str>) -> Result<String, String> {
    let of_host = host.and_then(|host| {
        let mut parts = host.split('.');
        let is_own = parts.next().is_some_and(|first| first.starts_with("bedrock-runtime"));
        parts.next().filter(|_| is_own && host.contains(".amazonaws.com"))
    });
    let of_model = model.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2));
    let found = of_host.or(of_model).filter(|region| !region.is_empty()).map(str::to_owned);
    let region = found.or_else(|| region(environment)).ok_or("bedrock needs a region: set AWS_REGION")?;
    if is_name(&region) {
        Ok(region)
    } else {
        Err("AWS_REGION is not the name of a region, such as 'us-east-1'".to_owned())
    }
}

/// Whether a text can be a part of a host's name and of a path, and nothing else.
fn is_name(text: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | ':');
    !text.is_empty() && text.len() <= 100 && text.chars().all(is_part) && !text.starts_with('.')
}

fn has_version(origin: &str) -> bool {
    origin.ends_with("/v1") || origin.ends_with("/v1beta1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind, variables: &[(&str, &str)], model: &str, origin: Option<&str>) -> Result<String, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        base_url(kind, &Environment::new(variables.collect()), model, origin)
    }

    #[test]
    fn bedrock_is_in_a_region() {
        let aws = |variables: &[(&str, &str)], model| of(Kind::Aws, variables, model, None);
        let region = [("AWS_REGION", "eu-west-1")];
        assert_eq!(aws(&region, "m").unwrap(), "https://bedrock-runtime.eu-west-1.amazonaws.com");
        let arn = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc";
        assert_eq!(aws(&region, arn).unwrap(), "https://bedrock-runtime.us-west-2.amazonaws.com");
        let china = [("AWS_REGION", "cn-north-1")];
        assert_eq!(aws(&china, "m").unwrap(), "https://bedrock-runtime.cn-north-1.amazonaws.com.cn");
        assert!(aws(&[], "m").unwrap_err().contains("AWS_REGION"));
        for evil in ["x.evil.com/", "us-east-1@evil", "a b"] {
            let region = [("AWS_REGION", evil)];
            assert!(of(Kind::Aws, &region, "m", None).is_err(), "{evil}");
        }
        let environment = Environment::default();
        let host = Some("bedrock-runtime.ap-south-1.amazonaws.com");
        assert_eq!(region_of(&environment, "m", host).unwrap(), "ap-south-1");
        assert!(region_of(&environment, "m", Some("bedrock-runtime.x.evil.com")).is_err());
    }

    #[test]
    fn vertex_is_in_a_location_of_a_project() {
        let vertex = |place: &'static str, origin| {
            let variables = [("GOOGLE_CLOUD_PROJECT", "p"), ("GOOGLE_CLOUD_LOCATION", place)];
            of(Kind::Google, &variables, "m", origin).unwrap()
        };
        assert_eq!(vertex("", None), "https://aiplatform.googleapis.com/v1/projects/p/locations/global");
        assert_eq!(vertex("eu", None), "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu");
        assert_eq!(
            vertex("us-central1", None),
            "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1"
        );
        assert_eq!(vertex("eu", Some("http://h/v1/")), "http://h/v1/projects/p/locations/eu");
        let whole = "http://h/v1/projects/q/locations/x";
        assert_eq!(vertex("eu", Some(whole)), whole);
        assert!(of(Kind::Google, &[], "m", None).unwrap_err().contains("GOOGLE_CLOUD_PROJECT"));
    }
}
