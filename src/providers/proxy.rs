//! Which addresses are asked without the environment's proxy: `NO_PROXY`, in all forms in which curl, Go and Python
//! take it; and which proxy the others go through, for messages.
//!
//! The HTTP client has a reading of its own, which knows neither `*` for numbers nor ports
//! (<https://github.com/seanmonstar/reqwest/issues/2579>). All requests of a strategy go to one origin, so that it can be
//! decided once, before the first.

use std::net::IpAddr;

use hyper_util::client::proxy::matcher::Matcher;
use ipnet::IpNet;
use reqwest::Url;
use url::Host;

/// The origin of the proxy for requests to this address, without user and password: `own`, or the environment's, unless
/// they are not for this server.
pub fn through(own: Option<&str>, direct: bool, url: &Url) -> Option<String> {
    let matcher = match own {
        Some(own) => Matcher::builder().all(own).build(),
        None if direct => return None,
        None => Matcher::from_system(),
    };
    let proxy = matcher.intercept(&url.as_str().parse().ok()?)?;
    let uri = proxy.uri();
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{}{port}", uri.scheme_str()?, uri.host()?))
}

/// Whether the environment wants requests to this address to go without a proxy.
pub fn is_direct(url: &Url) -> bool {
    ["no_proxy", "NO_PROXY"].iter().any(|name| std::env::var(name).is_ok_and(|list| excludes(&list, url)))
}

/// Whether a list of hosts has this address in it. Entries are separated by commas or spaces: `*`; a domain, with all
/// below it (`example.com`, `.example.com`, `*.example.com`); an IP address; a network (`10.0.0.0/8`); a port may
/// follow (`host:8080`, `[::1]:8080`).
pub fn excludes(list: &str, url: &Url) -> bool {
    let port = url.port_or_known_default();
    list.split(|letter: char| letter == ',' || letter.is_whitespace()).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.rsplit_once("://").map_or(entry, |(_, rest)| rest).trim_end_matches('/').to_ascii_lowercase();
        let (name, only_port) = split_port(&entry);
        only_port.is_none_or(|only| Some(only) == port) && has(name, url)
    })
}

/// An entry's host and port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some((host, rest)) = entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match entry.split_once(':') {
        // With more colons it is an IPv6 address.
        Some((host, port)) if !port.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

fn has(name: &str, url: &Url) -> bool {
    if name == "*" {
        return true;
    }
    match url.host() {
        None => false,
        Some(Host::Domain(host)) => {
            let name = name.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.');
            let host = host.trim_end_matches('.');
            !name.is_empty() && host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }
        Some(Host::Ipv4(number)) => has_number(name, IpAddr::V4(number)),
        Some(Host::Ipv6(number)) => has_number(name, number.to_canonical()),
    }
}

fn has_number(name: &str, number: IpAddr) -> bool {
    match (name.parse::<IpNet>(), name.parse::<IpAddr>()) {
        (Ok(network), _) => network.contains(&number),
        (_, Ok(known)) => known.to_canonical() == number,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_entry_is_understood() {
        for (list, url, expected) in [
            ("*", "http://127.0.0.1:8000", true),
            ("*", "https://api.openai.com", true),
            (" * ", "http://[::1]", true),
            ("", "http://localhost", false),
            (", ,", "http://localhost", false),
            ("localhost", "http://localhost:8000", true),
            ("localhost", "http://127.0.0.1", false),
            ("LOCALHOST", "http://LocalHost", true),
            ("example.com", "https://api.example.com", true),
            ("example.com", "https://example.com", true),
            ("example.com", "https://badexample.com", false),
            (".example.com", "https://api.example.com", true),
            (".example.com", "https://example.com", true),
            ("*.example.com", "https://api.example.com", true),
            ("*.example.com", "https://badexample.com", false),
            ("api.example.com", "https://example.com", false),
            ("example.com.", "https://api.example.com", true),
            ("one, two ,three", "http://two", true),
            ("one two", "http://two", true),
            ("host:8080", "http://host:8080", true),
            ("host:8080", "http://host:9090", false),
            ("host:443", "https://host", true),
            ("host:80", "https://host", false),
            ("127.0.0.1", "http://127.0.0.1:5000", true),
            ("127.0.0.1:5000", "http://127.0.0.1:5000", true),
            ("127.0.0.1:5001", "http://127.0.0.1:5000", false),
            ("127.0.0.0/8", "http://127.9.9.9", true),
            ("10.0.0.0/8,192.168.0.0/16", "http://192.168.3.4", true),
            ("10.0.0.0/8", "http://11.0.0.1", false),
            ("10.0.0.0/8", "http://host", false),
            ("::1", "http://[::1]:1", true),
            ("[::1]", "http://[::1]:1", true),
            ("[::1]:1", "http://[::1]:1", true),
            ("[::1]:2", "http://[::1]:1", false),
            ("fd00::/8", "http://[fd12::1]", true),
            ("127.0.0.1", "http://[::ffff:127.0.0.1]", true),
            ("http://host/", "http://host", true),
            ("0.0.1", "http://127.0.0.1", false),
        ] {
            assert_eq!(excludes(list, &url.parse().unwrap()), expected, "{list:?} {url}");
        }
    }
}
