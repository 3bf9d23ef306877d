//! Which addresses a registry, its token server and its redirects may lead to.

use std::{
    error::Error as StdError,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::OciError;

/// Signed URLs of clouds have up to two thousand bytes.
const LOCATION_BYTES_MAX: usize = 8 << 10;

/// Refuses addresses that the operator did not mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    /// How far a registry, its token server and its redirects may lead.
    pub(super) reach: Reach,
}

/// Which addresses may be contacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those of the open Internet.
    Public,
    /// Those and this machine's own, for a registry on this machine.
    ThisMachine,
    /// All.
    Anywhere,
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
        if self.allows(address) {
            return Ok(());
        }
        Err(Refused::Private {
            host: address.to_string(),
            address: address.to_string(),
        })
    }

    /// Where a redirect leads: never to an address that is refused, never from TLS to none.
    pub(super) fn follow(self, from: &Url, location: &[u8]) -> Result<Url, Refused> {
        let refused = |target: &str, why| Err(Refused::Redirect(target.to_owned(), why));
        let text = str::from_utf8(location).ok();
        let text = text.filter(|text| text.len() <= LOCATION_BYTES_MAX);
        let Some(target) = text.and_then(|text| from.join(text).ok()) else {
            return refused("an address that is none", "its `Location` is malformed");
        };
        let host = target.host_str().unwrap_or_default();
        match (from.scheme(), target.scheme()) {
            (_, "https") | ("http", "http") => {}
            ("https", "http") => return refused(host, "it leads from TLS to plain HTTP"),
            _ => return refused(host, "it leads away from HTTP"),
        }
        if !target.username().is_empty() || target.password().is_some() {
            return refused(host, "it carries a name or a password");
        }
        self.check(&target)?;
        Ok(target)
    }

    fn allows(self, address: IpAddr) -> bool {
        match self.reach {
            Reach::Anywhere => true,
            Reach::ThisMachine => is_public(address) || address.to_canonical().is_loopback(),
            Reach::Public => is_public(address),
        }
    }

    /// Those of a name's addresses that may be contacted; an error where there are only others.
    fn usable(self, host: String, found: &[SocketAddr]) -> Result<Vec<SocketAddr>, Refused> {
        let allowed = |address: &&SocketAddr| self.allows(address.ip());
        let usable: Vec<_> = found.iter().filter(allowed).copied().collect();
        if let (true, Some(address)) = (usable.is_empty(), found.first()) {
            let address = address.ip().to_string();
            return Err(Refused::Private { host, address });
        }
        Ok(usable)
    }
}

impl Resolve for Guard {
    /// The addresses that are checked are those that are connected to: a name that leads elsewhere
    /// the next time it is asked for gains nothing.
    fn resolve(&self, name: Name) -> Resolving {
        let guard = *self;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<_> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let usable = guard.usable(host, &found)?;
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

    const PUBLIC: Guard = Guard {
        reach: Reach::Public,
    };
    const THIS_MACHINE: Guard = Guard {
        reach: Reach::ThisMachine,
    };
    const ANYWHERE: Guard = Guard {
        reach: Reach::Anywhere,
    };

    #[test]
    fn addresses_in_urls_are_checked() {
        let check = |guard: Guard, url: &str| guard.check(&url.parse().unwrap()).is_ok();
        for url in ["https://registry.example/", "https://1.1.1.1/"] {
            assert!(check(PUBLIC, url) && check(THIS_MACHINE, url), "{url}");
        }
        // Other spellings of 127.0.0.1 are the same address once parsed.
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            assert!(!check(PUBLIC, url) && check(THIS_MACHINE, url), "{url}");
        }
        for url in [
            "http://169.254.169.254/latest",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://[::ffff:169.254.169.254]/",
            "http://10.0.0.1/",
            "http://0.0.0.0/",
        ] {
            assert!(!check(PUBLIC, url) && !check(THIS_MACHINE, url), "{url}");
            assert!(check(ANYWHERE, url), "{url}");
        }
    }

    #[test]
    fn a_name_that_leads_inside_is_refused_and_one_with_both_kinds_leads_outside_only() {
        let usable = |guard: Guard, addresses: &[&str]| {
            let found: Vec<SocketAddr> = addresses
                .iter()
                .map(|address| SocketAddr::new(address.parse().unwrap(), 0))
                .collect();
            guard.usable("r.example".to_owned(), &found).map(|usable| {
                let text: Vec<_> = usable
                    .iter()
                    .map(|usable| usable.ip().to_string())
                    .collect();
                text.join(" ")
            })
        };
        for address in [
            "127.0.0.1",
            "::1",
            "10.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
        ] {
            let error = usable(PUBLIC, &[address]).unwrap_err();
            assert!(
                matches!(error, Refused::Private { .. }),
                "{address}: {error}"
            );
            assert_eq!(usable(PUBLIC, &[address, "8.8.8.8"]).unwrap(), "8.8.8.8");
            assert_eq!(usable(ANYWHERE, &[address]).unwrap(), address);
        }
        assert_eq!(usable(THIS_MACHINE, &["10.0.0.1", "::1"]).unwrap(), "::1");
        assert_eq!(usable(PUBLIC, &[]).unwrap(), "", "not found is not refused");
    }

    #[test]
    fn redirects_lead_neither_inside_nor_out_of_tls() {
        let from: Url = "https://r.example/v2/a/blobs/x".parse().unwrap();
        let follow = |location: &[u8]| {
            let followed = PUBLIC.follow(&from, location);
            followed
                .map(|url| url.to_string())
                .map_err(|refused| refused.to_string())
        };
        for (location, expected) in [
            ("https://cdn.example/x?sig=1", "https://cdn.example/x?sig=1"),
            ("/other", "https://r.example/other"),
            ("//cdn.example/x", "https://cdn.example/x"),
        ] {
            assert_eq!(follow(location.as_bytes()).unwrap(), expected);
        }
        for (location, why) in [
            ("http://cdn.example/x", "from TLS to plain HTTP"),
            ("ftp://cdn.example/x", "away from HTTP"),
            ("file:///etc/passwd", "away from HTTP"),
            ("https://user:word@cdn.example/x", "carries a name"),
            ("https://169.254.169.254/latest", "private address"),
            ("//[::ffff:7f00:1]/", "private address"),
            ("https://", "malformed"),
        ] {
            let error = follow(location.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{location}: {error}");
        }
        assert!(follow(b"https://\xff/").is_err());
        assert!(follow("x".repeat(9000).as_bytes()).is_err());
    }
}
