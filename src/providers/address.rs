//! Base URLs: read, completed and compared.
//!
//! One parser decides where requests go and which origin a key may go to: the `url` crate, which the transport uses too.
//! To spellings that other parsers read differently nothing is sent, so that what a person or a proxy reads is what is
//! done.

use reqwest::Url;
use url::Host;

use super::table::{Language, Row};

/// Hosts whose names end like this belong to the provider as well: those of regions, and of the users' own resources.
const OWN_SUFFIXES: &[(&str, &[&str])] = &[
    ("openai", &[".api.openai.com"]),
    ("azure", &[".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"]),
    ("vertex", &["aiplatform.googleapis.com", ".rep.googleapis.com"]),
    ("bedrock", &[".amazonaws.com", ".amazonaws.com.cn"]),
];

/// How the first part of a host's name of AWS has to begin: its other services are for everybody's own servers.
const BEDROCK: &str = "bedrock-runtime";

/// Which of OpenAI's languages a base URL names, if it is the whole address of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// Chat Completions.
    Chat,
    /// Responses.
    Responses,
}

/// Where one provider is.
#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    row: &'static Row,
    url: Url,
    /// The language that the text named.
    pub named: Option<Named>,
    /// Why nothing may be sent there: other parsers read the text differently.
    pub problem: Option<&'static str>,
}

impl Address {
    /// Reads a base URL and completes it: the version is added if it is missing, and the path of an endpoint is removed,
    /// for the dialect adds it. `model` is the deployment in Azure's older addresses.
    ///
    /// # Errors
    /// A message that names `base_url` and the remedy, and never shows the URL, which may hold a password.
    pub fn new(row: &'static Row, text: &str, model: &str) -> Result<Self, String> {
        let problem = ambiguity(text);
        let mut url = read(text)?;
        if let Some(host) = url.host_str().and_then(|host| host.strip_suffix('.')).map(str::to_owned) {
            url.set_host(Some(&host)).map_err(|_| "base_url has an invalid host name".to_owned())?;
        }
        let mut address = Self { row, url, named: None, problem };
        address.complete(model);
        Ok(address)
    }

    /// The base URL, with its user, password and query.
    pub fn as_text(&self) -> String {
        let text = self.url.as_str();
        let is_root = self.url.path() == "/" && self.url.query().is_none();
        if is_root { text.trim_end_matches('/').to_owned() } else { text.to_owned() }
    }

    /// The base URL without what may be secret: user, password, query.
    pub fn shown(&self) -> String {
        let path = self.url.path();
        format!("{}{}", self.origin(), if path == "/" { "" } else { path })
    }

    /// Scheme, host and port, the port only if it is not the scheme's usual one.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The host's name, or its number without brackets.
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether the origin is the provider's own.
    pub fn is_own(&self) -> bool {
        if self.problem.is_some() {
            return false;
        }
        match self.own_url() {
            Some(own) if own.origin() == self.url.origin() => true,
            _ => self.is_own_subdomain() && self.url.scheme() == "https" && self.url.port().is_none(),
        }
    }

    /// Whether nobody on the way can read what is sent.
    pub fn is_encrypted(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether the host is this machine by its number, or by the one name that means nothing else.
    pub fn is_loopback(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(number)) => number.is_loopback(),
            Some(Host::Ipv6(number)) => number.to_canonical().is_loopback(),
            None => false,
        }
    }

    /// Whether the host is the provider's own, with any scheme and port.
    pub fn has_own_host(&self) -> bool {
        self.is_own_subdomain() || self.own_url().is_some_and(|own| own.host() == self.url.host())
    }

    /// What tells this provider from others in the identity of a request: its name, with the host if that is another.
    pub fn label(&self) -> String {
        let name = self.row.name;
        let at_home = self.own_url().is_some_and(|own| own.host() == self.url.host());
        if at_home { name.to_owned() } else { format!("{name} at {}", self.host()) }
    }

    fn own_url(&self) -> Option<Url> {
        self.row.base_url.and_then(|text| Url::parse(text).ok())
    }

    fn is_own_subdomain(&self) -> bool {
        let own = OWN_SUFFIXES.iter().find(|(name, _)| *name == self.row.name);
        let host = self.host();
        own.is_some_and(|(name, suffixes)| {
            let begins = match *name {
                "bedrock" => host.split('.').next().is_some_and(|first| first.trim_end_matches("-fips") == BEDROCK),
                "vertex" => host.split('.').next().is_some_and(|first| first.ends_with("aiplatform")),
                _ => true,
            };
            begins && suffixes.iter().any(|suffix| host.ends_with(suffix))
        })
    }

    fn complete(&mut self, model: &str) {
        let mut path = parts(self.url.path());
        self.drop_endpoint(&mut path);
        // The addresses of streams ask for events.
        if self.row.language == Language::Gemini && self.url.query().is_some_and(|query| query.contains("alt=sse")) {
            let others: Vec<(String, String)> =
                self.url.query_pairs().into_owned().filter(|(name, _)| name != "alt").collect();
            self.url.set_query(None);
            if !others.is_empty() {
                self.url.query_pairs_mut().extend_pairs(others);
            }
        }
        drop_repetition(&mut path);
        let is_azure = self.row.name == "azure";
        let dated = self.url.query_pairs().any(|(name, value)| {
            name.eq_ignore_ascii_case("api-version") && value.starts_with(|first: char| first.is_ascii_digit())
        });
        if is_azure && dated {
            // The older interface: dated versions, and the deployment in the path.
            if self.named != Some(Named::Responses) && (path.is_empty() || path == ["openai"]) {
                path = vec!["openai".to_owned(), "deployments".to_owned(), encoded(model)];
            }
        } else if !has_version(&path) && !is_azures_own(&path, is_azure) {
            self.add_version(&mut path);
        }
        self.url.set_path(&path.join("/"));
    }

    /// Removes the path of an endpoint, which portals show with the address.
    fn drop_endpoint(&mut self, path: &mut Vec<String>) {
        let ends = |path: &[String], with: &[&str]| {
            path.len() >= with.len()
                && path[path.len() - with.len()..].iter().zip(with).all(|(one, other)| one == other)
        };
        let dropped = match self.row.language {
            Language::Gemini if path.last().is_some_and(|last| last.contains(':')) => 2,
            Language::Anthropic if ends(path, &["messages"]) => 1,
            Language::Chat(_) if ends(path, &["chat", "completions"]) => {
                self.named = Some(Named::Chat);
                2
            }
            Language::Chat(_) if ends(path, &["responses"]) => {
                self.named = Some(Named::Responses);
                1
            }
            Language::Chat(_) if ends(path, &["embeddings"]) || ends(path, &["completions"]) => 1,
            _ => 0,
        };
        path.truncate(path.len().saturating_sub(dropped));
        if ends(path, &["models"]) && has_version(path) {
            path.pop(); // The list of models.
        }
    }

    fn add_version(&self, path: &mut Vec<String>) {
        let own = self.own_url().map_or_else(Vec::new, |own| parts(own.path()));
        // Servers of one's own have the same paths wherever they are.
        let has_own_paths = self.has_own_host() || (self.row.base_url.is_some() && !self.row.needs_key);
        if has_own_paths && !own.is_empty() && own.starts_with(path) {
            *path = own;
            return;
        }
        // Of Azure's `openai/v1` the first part may be there.
        let wanted = parts(self.row.version);
        let there = (0..=wanted.len()).rev().find(|count| path.ends_with(&wanted[..*count]));
        path.extend_from_slice(&wanted[there.unwrap_or(0)..]);
    }
}

fn parts(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Whether a path of Azure's names the deployment or the model by itself.
fn is_azures_own(path: &[String], is_azure: bool) -> bool {
    is_azure && (path.iter().any(|part| part == "deployments") || path.last().is_some_and(|last| last == "models"))
}

/// Whether a part of the path is a version: `v1`, `v1beta`, `v1alpha2`.
fn has_version(path: &[String]) -> bool {
    path.iter().any(|part| {
        let number = part.strip_prefix('v').unwrap_or_default();
        let rest = number.trim_start_matches(|digit: char| digit.is_ascii_digit());
        rest.len() < number.len() && (rest.is_empty() || rest.starts_with("alpha") || rest.starts_with("beta"))
    })
}

/// Removes what was written twice: `/v1/v1`, `/openai/v1/openai/v1`.
fn drop_repetition(path: &mut Vec<String>) {
    for count in [1, 2] {
        while path.len() >= 2 * count
            && path[path.len() - count..] == path[path.len() - 2 * count..path.len() - count]
            && has_version(&path[path.len() - count..])
        {
            path.truncate(path.len() - count);
        }
    }
}

/// A model's name as a part of a path.
fn encoded(model: &str) -> String {
    let mut url = Url::parse("http://host/").ok();
    if let Some(Ok(mut parts)) = url.as_mut().map(Url::path_segments_mut) {
        parts.clear().push(model);
    }
    url.map_or_else(String::new, |url| url.path().trim_start_matches('/').to_owned())
}

/// Why other parsers would read a base URL differently, if they would.
fn ambiguity(text: &str) -> Option<&'static str> {
    let query = text.split_once('?').map_or("", |(_, query)| query);
    if text.contains('\\') {
        Some("base_url has a backslash; write / instead")
    } else if text.contains('#') {
        Some("base_url has a fragment (#...); remove it, or write %23 in a password")
    } else if query.contains('@') {
        Some("base_url has an @ after the ?; write %40 there. A password goes before the host")
    } else {
        None
    }
}

/// Reads a base URL that all parsers read alike.
///
/// # Errors
/// A message that names `base_url` and the remedy, and never shows the URL, which may hold a password.
pub fn parse(text: &str) -> Result<Url, String> {
    match ambiguity(text) {
        Some(problem) => Err(problem.to_owned()),
        None => read(text),
    }
}

fn read(text: &str) -> Result<Url, String> {
    let text = text.trim();
    if text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return Err("base_url has spaces or control characters inside; remove them".to_owned());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err("base_url must begin with http:// or https://, such as 'https://host/v1'".to_owned());
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        let known = scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
        let not = if known { format!(", not {scheme}://") } else { String::new() };
        return Err(format!("base_url must begin with http:// or https://{not}"));
    }
    if rest.starts_with('/') {
        return Err("base_url has no host, or more than two slashes before it; write 'https://host/v1'".to_owned());
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if authority.matches('@').count() > 1 {
        return Err("base_url has more than one @ before its host; write %40 in a password".to_owned());
    }
    if authority.rsplit('@').next().is_some_and(|host| host.contains('%')) {
        return Err("base_url has a % in its host; write the host name without percent-encoding".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("base_url is not a valid URL: {error}"))?;
    match url.host() {
        None | Some(Host::Domain("" | ".")) => Err("base_url has no host; write 'https://host/v1'".to_owned()),
        Some(host) => misread(authority, &host).map_or(Ok(url.clone()), Err),
    }
}

/// Why a person or another parser would take a host for another one than it is: numbers that are written otherwise
/// (`2130706433`, `0x7f.1`, `0177.0.0.1`), and letters that become others (`\u{ff41}pi.openai.com`).
fn misread(authority: &str, host: &Host<&str>) -> Option<String> {
    let written = authority.rsplit('@').next().unwrap_or_default();
    match host {
        Host::Ipv4(number) => {
            let name = written.split(':').next().unwrap_or_default();
            let is_plain = name.trim_end_matches('.') == number.to_string();
            (!is_plain).then(|| format!("base_url has a host that is another spelling of {number}; write {number}"))
        }
        Host::Domain(name) if name.strip_suffix('.').unwrap_or(name).split('.').any(str::is_empty) => {
            Some("base_url has a host with a leading dot or two dots in a row; remove them".to_owned())
        }
        Host::Domain(name) if !written.is_ascii() && !name.contains("xn--") => {
            Some("base_url has a host with non-ASCII forms of ASCII letters; write the host in ASCII".to_owned())
        }
        _ => None,
    }
}

/// The address of requests: the base URL, the dialect's path, and the base URL's query.
///
/// # Errors
/// As [`parse`].
pub fn endpoint(base_url: &str, path: &str) -> Result<Url, String> {
    let mut url = parse(base_url)?;
    // A base URL that ends in the version already is meant with it.
    let base = url.path().trim_end_matches('/');
    let path = if base.ends_with("/v1") { path.strip_prefix("v1/").unwrap_or(path) } else { path };
    let whole = format!("{base}/{path}");
    url.set_path(&whole);
    Ok(url)
}

/// Where servers of one's own tell what they do: at their root, which is above the version. `None`: the URL cannot be used.
pub fn metrics_page(base_url: &str) -> Option<Url> {
    let mut url = parse(base_url).ok()?;
    let path = url.path().trim_end_matches('/');
    let path = format!("{}/metrics", path.strip_suffix("/v1").unwrap_or(path));
    url.set_path(&path);
    url.set_query(None);
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::table::row;
    use proptest::prelude::*;

    fn address(provider: &str, text: &str) -> Address {
        Address::new(row(provider).unwrap(), text, "m").unwrap()
    }

    #[test]
    fn the_page_of_metrics_is_at_the_root() {
        for (base, expected) in [
            ("http://h:8000/v1", "http://h:8000/metrics"),
            ("http://h:8000/v1/?a=b", "http://h:8000/metrics"),
            ("http://h/replica-2/v1", "http://h/replica-2/metrics"),
            ("http://h", "http://h/metrics"),
        ] {
            assert_eq!(metrics_page(base).unwrap().as_str(), expected);
        }
        assert_eq!(metrics_page("no address"), None);
    }

    #[test]
    fn addresses_are_put_together() {
        for (base, path, expected) in [
            ("http://h/v1", "chat/completions", "http://h/v1/chat/completions"),
            ("http://h/v1/", "chat/completions", "http://h/v1/chat/completions"),
            ("https://api.anthropic.com", "v1/messages", "https://api.anthropic.com/v1/messages"),
            ("https://proxy/v1", "v1/messages", "https://proxy/v1/messages"),
            (
                "https://r/openai/deployments/d?api-version=1",
                "chat/completions",
                "https://r/openai/deployments/d/chat/completions?api-version=1",
            ),
            ("http://h/v1beta", "models/m:generateContent", "http://h/v1beta/models/m:generateContent"),
        ] {
            assert_eq!(endpoint(base, path).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn what_is_missing_is_added_and_what_is_too_much_removed() {
        for (provider, given, expected) in [
            ("openai", "https://api.openai.com", "https://api.openai.com/v1"),
            ("openai", "HTTPS://API.OpenAI.com:443/v1/", "https://api.openai.com/v1"),
            ("openai", "https://api.openai.com./v1", "https://api.openai.com/v1"),
            ("openai", "https://api.openai.com/v1/v1", "https://api.openai.com/v1"),
            ("openai", "https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1"),
            ("openai", "https://api.openai.com/v1/responses/", "https://api.openai.com/v1"),
            ("openai", "https://api.openai.com/v1/embeddings", "https://api.openai.com/v1"),
            ("openai", "https://api.openai.com/v1/models", "https://api.openai.com/v1"),
            ("openai", " http://gateway:4000 \n", "http://gateway:4000"),
            ("openai", "http://gateway/openai//v1", "http://gateway/openai/v1"),
            ("openai", "http://gateway/v1?tenant=7", "http://gateway/v1?tenant=7"),
            ("openai", "http://user:word@gateway/v1/", "http://user:word@gateway/v1"),
            ("groq", "https://api.groq.com", "https://api.groq.com/openai/v1"),
            ("groq", "https://api.groq.com/openai", "https://api.groq.com/openai/v1"),
            ("deepseek", "https://api.deepseek.com/", "https://api.deepseek.com"),
            ("deepseek", "https://api.deepseek.com/v1", "https://api.deepseek.com/v1"),
            ("vllm", "http://gpu:8000", "http://gpu:8000/v1"),
            ("vllm", "http://gpu:8000/llm", "http://gpu:8000/llm"),
            ("ollama", "http://[::1]:11434/", "http://[::1]:11434/v1"),
            ("openai-compatible", "https://api.perplexity.ai", "https://api.perplexity.ai"),
            ("openai-compatible", "https://h/api/v2/chat/completions", "https://h/api/v2"),
            ("anthropic", "https://api.anthropic.com/v1/messages", "https://api.anthropic.com/v1"),
            ("anthropic", "https://r.services.ai.azure.com/anthropic", "https://r.services.ai.azure.com/anthropic"),
            ("gemini", "https://generativelanguage.googleapis.com", "https://generativelanguage.googleapis.com/v1beta"),
            ("gemini", "http://h/v1beta/", "http://h/v1beta"),
            ("gemini", "http://h/v1beta/v1beta", "http://h/v1beta"),
            ("gemini", "http://h/v1", "http://h/v1"),
            ("gemini", "http://gateway/google", "http://gateway/google/v1beta"),
            ("gemini", "http://h/v1beta/models/x:generateContent", "http://h/v1beta"),
            (
                "gemini",
                "https://h/v1/projects/p/locations/l/publishers/google/models/x:generateContent",
                "https://h/v1/projects/p/locations/l/publishers/google",
            ),
            ("azure", "https://r.openai.azure.com/", "https://r.openai.azure.com/openai/v1"),
            ("azure", "https://r.openai.azure.com/openai", "https://r.openai.azure.com/openai/v1"),
            ("azure", "https://r.openai.azure.com/openai/v1/", "https://r.openai.azure.com/openai/v1"),
            ("azure", "https://r.openai.azure.com/openai/v1/openai/v1", "https://r.openai.azure.com/openai/v1"),
            ("azure", "https://r.openai.azure.com/openai/v1/chat/completions", "https://r.openai.azure.com/openai/v1"),
            ("azure", "https://r.services.ai.azure.com", "https://r.services.ai.azure.com/openai/v1"),
            (
                "azure",
                "https://r.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
                "https://r.services.ai.azure.com/models?api-version=2024-05-01-preview",
            ),
            (
                "azure",
                "https://r.services.ai.azure.com/api/projects/p",
                "https://r.services.ai.azure.com/api/projects/p/openai/v1",
            ),
            (
                "azure",
                "https://r.openai.azure.com/openai/deployments/D/chat/completions?api-version=2025-01-01-preview",
                "https://r.openai.azure.com/openai/deployments/D?api-version=2025-01-01-preview",
            ),
            (
                "azure",
                "https://r.openai.azure.com/?api-version=2024-10-21",
                "https://r.openai.azure.com/openai/deployments/m?api-version=2024-10-21",
            ),
            (
                "azure",
                "https://r.openai.azure.com/openai/responses?api-version=2025-04-01-preview",
                "https://r.openai.azure.com/openai?api-version=2025-04-01-preview",
            ),
            (
                "azure",
                "https://r.openai.azure.com/?api-version=preview",
                "https://r.openai.azure.com/openai/v1?api-version=preview",
            ),
        ] {
            let found = address(provider, given);
            assert_eq!(found.as_text(), expected, "{provider} {given}");
            if found.named != Some(Named::Responses) {
                assert_eq!(address(provider, expected).as_text(), expected, "what is complete stays as it is");
            }
        }
        assert_eq!(address("azure", "https://r/openai/v1/responses").named, Some(Named::Responses));
        assert_eq!(address("openai", "https://r/v1/chat/completions").named, Some(Named::Chat));
        assert_eq!(encoded("a/b c"), "a%2Fb%20c");
    }

    #[test]
    fn origins_are_compared_not_spellings() {
        for (provider, given, own, own_host) in [
            ("openai", "https://api.openai.com/v1", true, true),
            ("openai", "https://API.openai.com.:443/other", true, true),
            ("openai", "https://user:word@api.openai.com/v1", true, true),
            ("openai", "https://eu.api.openai.com/v1", true, true),
            ("openai", "http://api.openai.com/v1", false, true),
            ("openai", "https://api.openai.com:8443/v1", false, true),
            ("openai", "https://api.openai.com@evil.example/v1", false, false),
            ("openai", "https://api.openai.com.evil.example/v1", false, false),
            ("openai", "https://evil-api.openai.com.example/v1", false, false),
            ("openai", "https://evil.example/https://api.openai.com/v1", false, false),
            ("azure", "https://r.openai.azure.com/", true, true),
            ("azure", "http://r.openai.azure.com/", false, true),
            ("azure", "https://openai.azure.com.evil.example/", false, false),
            ("vllm", "http://localhost:8000", true, true),
            ("openai-compatible", "https://h", false, false),
        ] {
            let found = address(provider, given);
            assert_eq!((found.is_own(), found.has_own_host()), (own, own_host), "{provider} {given}");
        }
        let found = address("openai", "https://user:word@gateway:8443/v1?key=secret");
        assert_eq!(found.shown(), "https://gateway:8443/v1");
        assert_eq!(found.label(), "openai at gateway");
        assert_eq!(address("openai", "https://api.openai.com:8443/v1").label(), "openai");
        assert_eq!(address("ollama", "http://[::1]:1/v1").label(), "ollama at ::1");
    }

    #[test]
    fn what_parsers_read_differently_is_rejected_without_being_shown() {
        for (text, says) in [
            ("http://127.0.0.1?@api.openai.com/v1", "%40"),
            ("http://127.0.0.1\\@api.openai.com/v1", "backslash"),
            ("http://127.0.0.1#@api.openai.com/v1", "fragment"),
            ("http://user:secret@one@two/v1", "more than one @"),
            ("https:api.openai.com/v1", "must begin with http:// or https://"),
            ("https:/api.openai.com/v1", "must begin with http:// or https://"),
            ("https:///api.openai.com/v1", "slashes"),
            ("//api.openai.com/v1", "must begin with http:// or https://"),
            ("api.openai.com/v1", "must begin with http:// or https://"),
            ("localhost:8000", "must begin with http:// or https://"),
            ("ftp://secret@host/v1", "not ftp://"),
            ("se cret://host", "spaces"),
            ("user:secret@host://x", "must begin with http:// or https://"),
            ("https://host/v1#secret", "fragment"),
            ("https://ho st/v1", "spaces"),
            ("https://host/v1\u{7f}", "control"),
            ("https://api.open\tai.com/v1", "control"),
            ("https://", "host"),
            ("https://?x=1", "not a valid URL"),
            ("https://:443/v1", "not a valid URL"),
            ("https://user:secret@/v1", "not a valid URL"),
            ("https://api%2eopenai.com/v1", "% in its host"),
            ("https://host:secret/v1", "not a valid URL"),
            ("https://./v1", "host"),
            ("https://.api.openai.com/v1", "dots"),
            ("https://api.openai.com../v1", "dots"),
            ("http://2130706433/v1", "127.0.0.1"),
            ("http://0x7f.1:80/v1", "127.0.0.1"),
            ("http://me:secret@0177.0.0.1/v1", "127.0.0.1"),
            ("https://\u{ff41}pi.openai.com/v1", "write the host in ASCII"),
            ("https://api\u{3002}openai.com/v1", "write the host in ASCII"),
            ("", "must begin with http:// or https://"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(says) && error.contains("base_url") && !error.contains("secret"), "{text}: {error}");
        }
        let found = address("openai", "https://api.openai.com#@h/v1");
        assert!(found.problem.is_some() && !found.is_own());
        assert!(parse("http://127.0.0.1.:80/v1").is_ok() && parse("https://b\u{fc}cher.example/v1").is_ok());
        let upper = parse("HTTP://host/V1").unwrap();
        assert_eq!(upper.as_str(), "http://host/V1");
    }

    proptest! {
        #[test]
        fn a_key_goes_only_where_the_transport_goes(text in "https?[:/\\\\@?#.a-z%0-9 ]{0,40}(@|\\.)api\\.openai\\.com[/a-z0-9?#:@]{0,9}") {
            if let Ok(found) = Address::new(row("openai").unwrap(), &text, "m")
                && found.has_own_host()
                && found.problem.is_none()
            {
                let target = endpoint(&found.as_text(), "responses").unwrap();
                let host = target.host_str().unwrap();
                prop_assert!(host == "api.openai.com" || host.ends_with(".api.openai.com"), "{}", host);
            }
        }
    }
}
