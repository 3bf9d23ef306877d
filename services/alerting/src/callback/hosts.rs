//! Where answers may be sent: to hosts that the operator listed, and to nobody else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, bail, ensure};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

/// Bytes of a callback URL.
const URL_BYTES_MAX: usize = 2048;

/// The list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts(Vec<Place>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// Refuses addresses that a listed name can never mean. A private address is the operator's
/// choice: he listed the host. One of this link, as that of a cloud's metadata, is somebody's
/// trick, unless it is listed as such; then it is no name and is not resolved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard;

// === impl Hosts ===

impl Hosts {
    /// Reads the list as it is configured: `host`, `host:port`, or `http://host:port`.
    pub(crate) fn new(listed: &[String]) -> anyhow::Result<Self> {
        let places = listed.iter().map(|text| {
            place(text).with_context(|| {
                format!("`{text}` is not a host like `ci.example:8443` or `http://ci.example`")
            })
        });
        places.collect::<anyhow::Result<_>>().map(Self)
    }

    /// A callback's place and URL, as it will be used.
    pub(crate) fn check(&self, text: &str) -> anyhow::Result<(String, Url)> {
        ensure!(text.len() <= URL_BYTES_MAX, "its URL is too long");
        let url: Url = text.parse().context("its URL is none")?;
        let bare = url.username().is_empty() && url.password().is_none();
        ensure!(bare, "its URL holds a user or password");
        let Some(place) = Place::of(&url) else {
            bail!("its URL begins with neither `https` nor `http`");
        };
        let shown = place.to_string();
        ensure!(
            self.0.contains(&place),
            "`{shown}` is not listed in `gateway.callback_hosts`"
        );
        Ok((shown, url))
    }
}

// === impl Place ===

impl Place {
    fn of(url: &Url) -> Option<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.trim_end_matches('.').to_owned(),
            port: url.port_or_known_default(),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
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
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    match Place::of(&url) {
        Some(place) if is_bare && !place.host.is_empty() => Ok(place),
        _ => bail!("it is more or less than a host"),
    }
}

// === impl Guard ===

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let usable: Vec<SocketAddr> = found
                .filter(|address| is_meant_by_a_name(address.ip()))
                .collect();
            if usable.is_empty() {
                let why = format!("`{host}` leads to no address that a host may have");
                return Err(why.into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

fn is_meant_by_a_name(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let special = address.is_link_local()
                || address.is_multicast()
                || address.is_broadcast()
                || address.octets()[0] == 0;
            !special
        }
        IpAddr::V6(address) => {
            // The metadata of a cloud has an address of the unique local range too.
            let metadata = address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
            // NAT64 and 6to4 addresses are what the IPv4 address in them is.
            let embedded = match address.segments() {
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
                    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                    is_meant_by_a_name(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
                }
                _ => true,
            };
            let special = address.is_unicast_link_local()
                || address.is_multicast()
                || address.is_unspecified()
                || metadata;
            embedded && !special
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_hosts_are_posted_to() {
        let listed = ["ci.example", "ci.example:8443", "http://10.0.0.7:8080"].map(str::to_owned);
        let hosts = Hosts::new(&listed).unwrap();
        for url in [
            "https://ci.example/hook?x=1",
            "https://CI.example:443/",
            "https://ci.example:8443/a",
            "http://10.0.0.7:8080/a",
        ] {
            assert!(hosts.check(url).is_ok(), "{url}");
        }
        for url in [
            "http://ci.example/",
            "https://ci.example:444/",
            "https://ci.example.evil.example/",
            "https://ci.example@evil.example/",
            "https://user:word@ci.example/",
            "http://169.254.169.254/latest/meta-data",
            "https://10.0.0.7:8080/",
            "file:///etc/passwd",
            "ci.example",
        ] {
            assert!(hosts.check(url).is_err(), "{url}");
        }
        for wrong in ["ftp://a.example", "a.example/path", "", "u@a.example"] {
            assert!(Hosts::new(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_lead_to_no_address_of_this_link() {
        for text in ["10.1.2.3", "127.0.0.1", "8.8.8.8", "::1", "2606:4700::1111"] {
            assert!(is_meant_by_a_name(text.parse().unwrap()), "{text}");
        }
        for text in [
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "::",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(!is_meant_by_a_name(text.parse().unwrap()), "{text}");
        }
    }
}
