//! Hosts that an operator listed, and nobody else: where we send what somebody asked us to send.
//!
//! Who names a URL and gets a request of ours sent there has a way into our own network, unless its
//! host is on a list. What is compared is what is used: the URL as it was parsed here. Who sends must
//! not follow redirects, for they would lead past the list.

use reqwest::Url;

/// Bytes of a URL.
const URL_BYTES_MAX: usize = 2048;

/// The list.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Vec<Place>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// An entry of the list that is no host.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a host like `ci.example:8443` or `http://ci.example`")]
pub struct BadHost(String);

/// Why a URL is none that we would send to.
#[derive(Debug, thiserror::Error)]
pub enum BadUrl {
    /// It is none, or none of this kind.
    #[error("it is not a URL like `https://ci.example/hooks/scan`")]
    Form,
    /// Over the limit.
    #[error("it is longer than {URL_BYTES_MAX} bytes")]
    Long,
    /// A secret in it.
    #[error("it holds a user or password, and it is kept where many can read it")]
    Secret,
    /// Not on the list.
    #[error("it leads to `{0}`, which is not among the configured hosts")]
    Host(String),
}

// === impl Hosts ===

impl Hosts {
    /// Reads the list as it is configured: `host`, `host:port`, or `http://host:port`. Without a
    /// scheme it is `https`.
    pub fn new(listed: &[String]) -> Result<Self, BadHost> {
        let places = listed
            .iter()
            .map(|text| Place::listed(text).ok_or_else(|| BadHost(text.clone())));
        places.collect::<Result<_, _>>().map(Self)
    }

    /// Whether nothing is listed.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A URL as it will be used, and its place: scheme, host and port.
    pub fn check(&self, text: &str) -> Result<(String, Url), BadUrl> {
        if text.len() > URL_BYTES_MAX {
            return Err(BadUrl::Long);
        }
        let url: Url = text.parse().map_err(|_| BadUrl::Form)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadUrl::Secret);
        }
        let place = Place::of(&url).ok_or(BadUrl::Form)?;
        let shown = place.to_string();
        if self.0.contains(&place) {
            Ok((shown, url))
        } else {
            Err(BadUrl::Host(shown))
        }
    }
}

// === impl Place ===

impl Place {
    fn of(url: &Url) -> Option<Self> {
        if !matches!(url.scheme(), "http" | "https") || url.fragment().is_some() {
            return None;
        }
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.trim_end_matches('.').to_owned(),
            port: url.port_or_known_default(),
        })
    }

    /// An entry of the list: a host and nothing more.
    fn listed(text: &str) -> Option<Self> {
        let url: Url = if text.contains("://") {
            text.parse().ok()?
        } else {
            format!("https://{text}").parse().ok()?
        };
        let is_bare = url.path() == "/"
            && url.query().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        Self::of(&url).filter(|place| is_bare && !place.host.is_empty())
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listed: &[&str], url: &str) -> Result<String, String> {
        let listed: Vec<_> = listed.iter().map(|&host| host.to_owned()).collect();
        let hosts = Hosts::new(&listed).unwrap();
        let checked = hosts.check(url).map(|(place, _)| place);
        checked.map_err(|error| error.to_string())
    }

    #[test]
    fn only_listed_hosts_are_sent_to() {
        let listed = ["ci.example", "ci.example:8443", "http://10.0.0.7:8080"];
        for (url, place) in [
            ("https://ci.example/hooks/1?x=y", "https://ci.example:443"),
            ("https://ci.example:443/", "https://ci.example:443"),
            ("https://CI.example./", "https://ci.example:443"),
            ("https://ci.example:8443/a", "https://ci.example:8443"),
            ("http://10.0.0.7:8080/a", "http://10.0.0.7:8080"),
        ] {
            assert_eq!(check(&listed, url).as_deref(), Ok(place), "{url}");
        }
        for url in [
            "http://ci.example/",
            "https://ci.example:444/",
            "https://10.0.0.7:8080/",
            "https://ci.example.evil.example/",
            "https://evil.example/?https://ci.example/",
            "https://ci.example@evil.example/",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]:8080/",
            "https://evil.example\\@ci.example/",
            "file:///etc/passwd",
            "gopher://ci.example/",
            "//ci.example/",
            "ci.example",
        ] {
            assert!(check(&listed, url).is_err(), "{url}");
        }
        assert!(check(&[], "https://ci.example/").is_err());
    }

    #[test]
    fn secrets_and_fragments_have_no_place_in_it() {
        let secret = check(&["ci.example"], "https://user:hunter2@ci.example/").unwrap_err();
        assert!(
            secret.contains("user or password") && !secret.contains("hunter2"),
            "{secret}"
        );
        assert!(check(&["ci.example"], "https://ci.example/#a").is_err());
        let long = |length| format!("https://ci.example/{}", "a".repeat(length));
        assert!(check(&["ci.example"], &long(2029)).is_ok());
        assert!(check(&["ci.example"], &long(2030)).is_err());
    }

    #[test]
    fn what_is_listed_is_a_host_and_nothing_more() {
        for text in [
            "",
            "https://",
            "ci.example/path",
            "a@ci.example",
            "ftp://ci.example",
            "a b",
        ] {
            let error = Hosts::new(&[text.to_owned()]).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is not a host")),
                "{error}"
            );
        }
    }
}
