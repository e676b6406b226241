//! Segments in a bucket: S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage.
//!
//! Credentials come from where the providers' own tools have them too: environment variables, and the roles of hosts and
//! containers. They are in no error.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::Runtime;
use url::Url;

use super::place::{Each, Listed, Place};
use crate::journal::error::JournalError;

/// Files that are read at the same time, so that each need not wait for the one before it.
const READS: usize = 32;
/// How long to wait between two tries to write. The client itself has tried a few times each.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest part of a server's words in an error, characters.
const LONGEST_WORDS: usize = 300;

/// A prefix in a bucket.
pub struct Bucket {
    url: String,
    /// Of the environment, for its provider.
    variables: &'static str,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Its own, for whoever calls has none, and is a thread that waits.
    runtime: Runtime,
}

impl Bucket {
    /// The place that a URL names. Nothing is sent yet.
    ///
    /// # Errors
    /// When the URL, or what the environment says of its provider, cannot be used.
    pub fn new(text: &str) -> Result<Self, JournalError> {
        let failed = |problem: String| JournalError::Bucket { url: shown(text), problem };
        let url = Url::parse(text).map_err(|error| failed(format!("is not a valid URL: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            let problem = "has more than a bucket and a prefix; credentials belong in the environment";
            return Err(failed(problem.to_owned()));
        }
        let prefix = Path::from_url_path(url.path()).map_err(|error| failed(format!("has a bad prefix: {error}")))?;
        // Whoever embeds us may have installed a provider already: then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let variables = variables(url.scheme());
        let store = connect(&url).map_err(|error| {
            failed(format!("cannot be used: {}; set {variables} in the environment", words(&error)))
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("batch-llm bucket")
            .enable_all()
            .build()
            .map_err(|error| failed(format!("cannot be used, because no thread could be started: {error}")))?;
        Ok(Self { url: shown(text), variables, store, prefix, runtime })
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    fn wait<T>(&self, action: &str, asking: impl Future<Output = object_store::Result<T>>) -> Result<T, JournalError> {
        self.runtime.block_on(asking).map_err(|error| JournalError::Bucket {
            url: self.url.clone(),
            problem: format!("{action} failed: {}; {}", words(&error), remedy(&error, self.variables)),
        })
    }
}

/// The client of a URL's provider.
fn connect(url: &Url) -> object_store::Result<Arc<dyn ObjectStore>> {
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: 5, retry_timeout: Duration::from_secs(30) };
    // For servers of one's own, which the environment names. A large segment on a slow line takes minutes.
    let client = [(ClientConfigKey::AllowHttp, "true"), (ClientConfigKey::Timeout, "300 seconds")];
    Ok(match url.scheme() {
        "gs" => Arc::new(GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_retry(retry).build()?),
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retry);
            let set =
                |builder: MicrosoftAzureBuilder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value);
            Arc::new(client.into_iter().fold(builder, set).build()?)
        }
        _ => {
            let builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry);
            let set =
                |builder: AmazonS3Builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(key), value);
            Arc::new(client.into_iter().fold(builder, set).build()?)
        }
    })
}

/// A URL without what may be a password or a token.
fn shown(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    match (text[..end].find("://"), text[..end].rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://{}", &text[..scheme], &text[at + 1..end]),
        _ => text[..end].to_owned(),
    }
}

/// What an error says, without a server's body and without the queries of URLs: these may have keys and signatures.
fn words(error: &object_store::Error) -> String {
    let mut last: &dyn Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let (all, deepest) = (error.to_string(), last.to_string());
    // The outer errors repeat the inner ones.
    let text = if all.contains(&deepest) { all } else { format!("{all}: {deepest}") };
    let tag = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(words, _)| words.to_owned())
    };
    let (before, _) = text.split_once('<').unwrap_or((&text, ""));
    let said = match (tag("Code"), tag("Message")) {
        (Some(code), Some(message)) => format!("{before} {code}: {message}"),
        _ => before.to_owned(),
    };
    let shown: Vec<_> = said.split_whitespace().map(|word| word.split('?').next().unwrap_or_default()).collect();
    shown.join(" ").chars().take(LONGEST_WORDS).collect()
}

/// The status of the answer that an error is about. Listing has no kinds of errors, only words.
fn status(error: &object_store::Error) -> Option<u16> {
    use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
    match error {
        NotFound { .. } => Some(404),
        PermissionDenied { .. } => Some(403),
        Unauthenticated { .. } => Some(401),
        _ => {
            let text = words(error);
            let (_, rest) = text.split_once("status code: ")?;
            rest.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
        }
    }
}

/// Names of variables that give access, for errors.
fn variables(scheme: &str) -> &'static str {
    match scheme {
        "gs" => "GOOGLE_APPLICATION_CREDENTIALS",
        "az" => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        _ => "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
    }
}

fn remedy(error: &object_store::Error, variables: &str) -> String {
    match status(error) {
        Some(404) => "create the bucket, or check its name and region".to_owned(),
        Some(401 | 403) => {
            format!(
                "check the credentials in the environment ({variables}): they must allow listing, reading and \
                     writing"
            )
        }
        Some(500..) => {
            "the service is down or overloaded: run again later; results already stored are not requested again".into()
        }
        _ => format!("check the network and the environment variables ({variables}; also the endpoint, if one is set)"),
    }
}

/// Whether an error may go by itself: an outage, or no answer.
fn may_pass(error: &object_store::Error) -> bool {
    status(error).is_none_or(|status| status >= 500 || status == 429)
        && matches!(error, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. })
}

impl Place for Bucket {
    fn list(&self, after: Option<&str>) -> Result<Vec<Listed>, JournalError> {
        let prefix = self.prefix.as_ref();
        let begin = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let within = (!prefix.is_empty()).then_some(&self.prefix);
        let pages = match after {
            Some(after) => self.store.list_with_offset(within, &self.path(after)),
            None => self.store.list(within),
        };
        let listing = pages.try_filter_map(|found| {
            let name = found.location.as_ref().strip_prefix(&begin).filter(|name| !name.contains('/'));
            let listed = name.map(|name| Listed { name: name.to_owned(), size: found.size });
            std::future::ready(Ok(listed))
        });
        self.wait("listing it", listing.try_collect())
    }

    fn read(&self, names: &[String], each: Each<'_>) -> Result<(), JournalError> {
        let get = |name: &String| {
            let (store, path) = (Arc::clone(&self.store), self.path(name));
            async move {
                match store.get(&path).await {
                    Ok(found) => found.bytes().await.map(Some),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        };
        let mut contents = futures_util::stream::iter(names.iter().map(get)).buffered(READS);
        for name in names {
            let content = self.wait("reading it", async { contents.next().await.unwrap_or(Ok(None)) })?;
            if let Some(content) = content {
                each(name, &content)?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, content: Vec<u8>, patience: Duration) -> Result<(), JournalError> {
        let (path, content) = (self.path(name), bytes::Bytes::from(content));
        let begun = Instant::now();
        self.wait("writing a segment", async {
            loop {
                match self.store.put(&path, content.clone().into()).await {
                    Err(error) if may_pass(&error) && begun.elapsed() < patience => tokio::time::sleep(PAUSE).await,
                    outcome => return outcome.map(drop),
                }
            }
        })
    }

    fn remove(&self, name: &str) -> Result<(), JournalError> {
        let path = self.path(name);
        self.wait("removing a segment", async {
            match self.store.delete(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                outcome => outcome,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        for text in ["s3://me:hunter2@bucket/a", "s3://bucket/a?sig=hunter2", "az://bucket/a#hunter2", "s3://hunter2@b"]
        {
            let error = Bucket::new(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!error.contains("hunter2") && error.contains("environment"), "{error}");
        }
    }

    #[test]
    fn bodies_of_servers_are_not_repeated() {
        let body =
            "403: <Error><Code>SignatureDoesNotMatch</Code><Message>no</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId>";
        let error = object_store::Error::Generic { store: "S3", source: body.into() };
        assert_eq!(words(&error), "Generic S3 error: 403: SignatureDoesNotMatch: no");
    }

    #[test]
    fn what_will_not_go_by_itself_is_not_tried_again() {
        let error = |text: &str| object_store::Error::Generic { store: "S3", source: text.into() };
        let answered = |status: &str| error(&format!("Server returned non-2xx status code: {status}: <Error></Error>"));
        for (status, may, remedies) in [
            ("404 Not Found", false, "create the bucket"),
            ("400 Bad Request", false, "AWS_REGION"),
            ("403 Forbidden", false, "credentials"),
            ("429 Too Many Requests", true, "network"),
            ("503 Slow Down", true, "run again later"),
        ] {
            let error = answered(status);
            assert_eq!(may_pass(&error), may, "{status}");
            assert!(remedy(&error, "AWS_REGION").contains(remedies), "{status}: {}", remedy(&error, ""));
        }
        assert!(may_pass(&error("connection refused")));
    }
}
