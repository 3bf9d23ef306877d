//! Where listed names may lead: not to addresses that only this machine or its link can mean.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Refuses addresses that a listed name can never mean. A private address is the operator's
/// choice: he listed the host. One of this link, as that of a cloud's metadata, is somebody's
/// trick, unless it is listed as such; then it is no name and is not resolved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard;

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
