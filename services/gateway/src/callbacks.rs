//! Where answers may be sent: only to hosts that the operator listed.
//!
//! Who asks for a scan names a URL, and we would send a request there: without a list that would
//! be a way into our own network. What is compared is what is used later: the URL as it was parsed
//! here. The answer's sender must not follow redirects, for they would lead past the list.

use anyhow::{Context as _, bail};
use url::Url;

/// Bytes of a callback URL.
const URL_BYTES_MAX: usize = 2048;

/// The hosts that answers may be sent to.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallbackHosts(Vec<Place>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// Why a URL is none that we would send to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadCallback {
    #[error("`callback` is not a URL like `https://ci.example/hooks/scan`")]
    Form,
    #[error("`callback` is longer than {URL_BYTES_MAX} bytes")]
    Long,
    #[error("`callback` holds a user or password, and it is kept where many can read it")]
    Secret,
    #[error("`callback` leads to `{0}`, which is not among the configured hosts")]
    Host(String),
}

// === impl CallbackHosts ===

impl CallbackHosts {
    /// Reads a list as it is configured.
    pub(crate) fn new(listed: &[String]) -> anyhow::Result<Self> {
        let places = listed.iter().map(|text| {
            place(text).with_context(|| {
                format!("`{text}` is not a host like `ci.example:8443` or `http://ci.example`")
            })
        });
        places.collect::<anyhow::Result<_>>().map(Self)
    }

    /// A URL to send an answer to, as it will be used; an error tells the client what is wrong.
    pub(crate) fn check(&self, text: &str) -> Result<String, BadCallback> {
        if text.len() > URL_BYTES_MAX {
            return Err(BadCallback::Long);
        }
        let url: Url = text.parse().map_err(|_| BadCallback::Form)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadCallback::Secret);
        }
        let place = Place::of(&url).ok_or(BadCallback::Form)?;
        if !self.0.contains(&place) {
            let port = place.port.map(|port| format!(":{port}"));
            let shown = format!(
                "{}://{}{}",
                place.scheme,
                place.host,
                port.unwrap_or_default()
            );
            return Err(BadCallback::Host(shown));
        }
        Ok(url.into())
    }

    /// What a client can do about a URL that was refused.
    pub(crate) fn hint(&self) -> &'static str {
        if self.0.is_empty() {
            "no host is configured: the operator lists them in `gateway.callback_hosts`"
        } else {
            "the operator lists hosts in `gateway.callback_hosts`, with their port; they are \
             reached by https unless they are listed with `http://`"
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
}

fn place(text: &str) -> anyhow::Result<Place> {
    let text = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url: Url = text.parse()?;
    let is_bare = url.path() == "/"
        && url.query().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    match Place::of(&url) {
        Some(place) if is_bare && !place.host.is_empty() => Ok(place),
        _ => bail!("it is more or less than a host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listed: &[&str], url: &str) -> Result<String, String> {
        let listed: Vec<_> = listed.iter().map(|&host| host.to_owned()).collect();
        let hosts = CallbackHosts::new(&listed).unwrap();
        hosts.check(url).map_err(|error| error.to_string())
    }

    #[test]
    fn only_listed_hosts_are_sent_to() {
        let listed = ["ci.example", "ci.example:8443", "http://ci.internal:8080"];
        for url in [
            "https://ci.example/hooks/1?x=y",
            "https://ci.example:443/",
            "https://CI.example/",
            "https://ci.example:8443/a",
            "http://ci.internal:8080/a",
        ] {
            assert!(check(&listed, url).is_ok(), "{url}");
        }
        for url in [
            "http://ci.example/",
            "https://ci.example:444/",
            "https://ci.internal:8080/",
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
        let long = format!("https://ci.example/{}", "a".repeat(3000));
        assert!(check(&["ci.example"], &long).is_err());
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
            assert!(CallbackHosts::new(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
