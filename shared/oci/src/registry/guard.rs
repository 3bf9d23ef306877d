//! Which addresses a registry, its token server and its redirects may lead to.

use std::{
    error::Error as StdError,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::{
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use url::{Host, Url};

use crate::OciError;

/// Refuses addresses inside our own network where the operator did not name the registry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    /// Whether every address will do.
    pub(super) allow_private: bool,
}

/// Why a connection or redirect was not made; travels through the client's errors.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Refused {
    /// A private address.
    #[error("`{host}` leads to the private address `{address}`")]
    Private {
        /// The host.
        host: String,
        /// Its address.
        address: String,
    },
    /// A redirect that we do not follow.
    #[error("a redirect to `{0}` was not followed: {1}")]
    Redirect(String, &'static str),
}

// === impl Guard ===

impl Guard {
    /// Checks a URL whose host is an address; names are checked when they are resolved.
    pub(super) fn check(self, url: &Url) -> Result<(), Refused> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            _ => return Ok(()),
        };
        if self.allow_private || is_public(address) {
            return Ok(());
        }
        Err(Refused::Private {
            host: address.to_string(),
            address: address.to_string(),
        })
    }

    /// Follows a bounded number of redirects, never to a private address, never from TLS to none.
    pub(super) fn redirects(self, redirects_max: usize) -> redirect::Policy {
        redirect::Policy::custom(move |attempt| {
            let target = attempt.url().host_str().unwrap_or_default().to_owned();
            let from = attempt.previous().last();
            let downgrade = from.is_some_and(|from| from.scheme() == "https")
                && attempt.url().scheme() != "https";
            if attempt.previous().len() > redirects_max {
                return attempt.error(Refused::Redirect(target, "there are too many"));
            }
            if downgrade {
                return attempt.error(Refused::Redirect(target, "it leads from TLS to plain HTTP"));
            }
            match self.check(attempt.url()) {
                Ok(()) => attempt.follow(),
                Err(refused) => attempt.error(refused),
            }
        })
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<_> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let usable: Vec<SocketAddr> = found
                .iter()
                .copied()
                .filter(|address| allow_private || is_public(address.ip()))
                .collect();
            if let (true, Some(address)) = (usable.is_empty(), found.first()) {
                let address = address.ip().to_string();
                return Err(Box::new(Refused::Private { host, address }) as _);
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

// === impl Refused ===

impl Refused {
    /// Ours among the causes of an error.
    pub(super) fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refused) = error.downcast_ref() {
                return Some(refused);
            }
            next = error.source();
        }
        None
    }
}

impl From<Refused> for OciError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Private { host, address } => Self::PrivateAddress { host, address },
            Refused::Redirect(target, why) => {
                Self::unsupported(format!("a redirect to `{target}`"), why)
            }
        }
    }
}

/// Whether a registry's host is this machine, which Docker takes to speak plain HTTP.
pub(super) fn is_this_machine(host: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{host}/")) else {
        return false;
    };
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether an address is one of the open Internet (IANA special-purpose address registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [0 | 10 | 127 | 240..=255, ..]
        | [169, 254, ..]
        | [192, 168, ..]
        | [192, 0, 0 | 2, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [100, 64..=127, ..]
        | [172, 16..=31, ..] => true,
        [first, ..] => (224..240).contains(&first),
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // IPv4-mapped, NAT64 and 6to4 addresses are what the IPv4 address in them is.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => embedded(high, low),
        // Global unicast is 2000::/3; of it, protocol assignments and documentation are special.
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_open_internet_are_public() {
        for text in [
            "8.8.8.8",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "100.128.0.1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a00:1::",
            "ff02::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn loopback_hosts_are_this_machine() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
            "a.localhost",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "docker.io",
            "localhost.example",
            "10.0.0.1",
            "",
            "127.0.0.1.example:5000",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn addresses_in_urls_are_checked() {
        let guard = Guard {
            allow_private: false,
        };
        let check = |url: &str| guard.check(&url.parse().unwrap()).is_ok();
        assert!(check("https://registry.example/") && check("https://1.1.1.1/"));
        assert!(!check("http://169.254.169.254/latest") && !check("http://[fe80::1]/"));
        // Other spellings of 127.0.0.1 are the same address once parsed.
        assert!(!check("http://2130706433/") && !check("http://0x7f.1/"));
    }
}
