//! Addresses of a container's network, as the kernel lists them for its first process: whatever
//! network the engine, or who comes after it, made.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use chassis::files::read_text_bounded;

/// Addresses of one container that are told.
const ADDRESSES_MAX: usize = 16;
const BYTES_MAX: u64 = 1 << 20;
/// The scope of an address that leads anywhere (`net/ipv6.h`).
const GLOBAL: &str = "00";

/// The addresses of the network that a process is in, but those that lead to itself.
pub(crate) fn of(pid: u32) -> Vec<IpAddr> {
    let read = |name: &str| {
        let path = PathBuf::from(format!("/proc/{pid}/net/{name}"));
        read_text_bounded(&path, BYTES_MAX).unwrap_or_default()
    };
    parse(&read("fib_trie"), &read("if_inet6"))
}

fn parse(fib_trie: &str, if_inet6: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in fib_trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last.map(IpAddr::from));
        }
    }
    for line in if_inet6.lines() {
        let mut fields = line.split_whitespace();
        let (address, scope) = (fields.next(), fields.nth(2));
        let bits = address.and_then(|hex| u128::from_str_radix(hex, 16).ok());
        if let (Some(bits), Some(GLOBAL)) = (bits, scope) {
            found.push(Ipv6Addr::from(bits).into());
        }
    }
    found.retain(|address| !address.is_loopback());
    found.sort_unstable();
    // Tables of rules list an address once each.
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIB_TRIE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.88.0.0/16 2 0 2
        |-- 10.88.0.0
           /16 link UNICAST
        |-- 10.88.0.7
           /32 host LOCAL
Local:
  +-- 0.0.0.0/0 3 0 5
        |-- 10.88.0.7
           /32 host LOCAL
        |-- 10.88.255.255
           /32 link BROADCAST
        |-- 127.0.0.1
           /32 host LOCAL
";
    const IF_INET6: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000c5d1efffe0a4bb0 02 40 20 80     eth0
fd000000000000000000000000000007 02 40 00 80     eth0
";

    #[test]
    fn addresses_that_others_can_reach_are_told_once() {
        let told = parse(FIB_TRIE, IF_INET6);
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["10.88.0.7", "fd00::7"]);
        assert_eq!(parse("", "no address"), [] as [IpAddr; 0]);
    }

    #[test]
    fn no_more_addresses_are_told_than_the_limit() {
        let line = |n: u32| format!("|-- 10.0.0.{n}\n/32 host LOCAL\n");
        let of = |count: u32| parse(&(0..count).map(line).collect::<String>(), "").len();
        assert_eq!((of(16), of(17)), (16, 16));
    }
}
