//! Debian and Ubuntu: dpkg's order (deb-version(7)), packages by source name and source version.

use model::{Os, Package, PackageType};

use super::{Ecosystem, FOR_SUBSCRIBERS, Query, query};
use crate::{
    os,
    version::{Key, Version, digits, run},
};

/// Debian and derivatives.
pub(super) struct Deb;

/// Sorts before letters and after `~`: the end of a part that is not digits.
const END: u8 = 2;

// === impl Deb ===

impl Ecosystem for Deb {
    fn package_type(&self) -> PackageType {
        PackageType::Deb
    }

    fn names(&self) -> &'static [&'static str] {
        &["Debian", "Echo", "Ubuntu"]
    }

    fn parse(&self, text: &str) -> Option<Version> {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let (upstream, revision) = match rest.rsplit_once('-') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (rest, ""),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".+-~:_".contains(&byte);
        let is_epoch = !epoch.is_empty() && epoch.bytes().all(|b| b.is_ascii_digit());
        if !is_epoch || upstream.is_empty() || !rest.bytes().all(allowed) {
            return None;
        }
        let mut key = Key::default();
        key.number(epoch);
        part(upstream, &mut key);
        part(revision, &mut key);
        Some(key.finish())
    }

    /// Kernel headers for compilers: a kernel's vulnerabilities are not in them.
    fn is_exempt(&self, package: &Package) -> bool {
        package.name == "linux-libc-dev"
    }

    fn releases(&self, os: &Os) -> Vec<String> {
        match os.id.as_str() {
            // It has no releases.
            "echo" => vec!["Echo".to_owned()],
            _ => os::deb_releases(os),
        }
    }

    fn queries(&self, package: &Package, os: Option<&Os>) -> Vec<Query> {
        let name = package.source_name.as_ref().unwrap_or(&package.name);
        let version = package.source_version.as_ref().unwrap_or(&package.version);
        let releases = os.map(|os| self.releases(os)).unwrap_or_default();
        let ask = |release: &String| query(release, name.clone(), version, "source_package");
        let mut queries: Vec<Query> = releases.iter().map(ask).collect();
        if let Some(pro) = os.and_then(os::ubuntu_pro) {
            let is_subscribers = ["+esm", "~esm", "+fips"]
                .iter()
                .any(|mark| version.contains(mark));
            // Others have what subscribers have a fix for, and no fix.
            let method = if is_subscribers {
                "source_package"
            } else {
                FOR_SUBSCRIBERS
            };
            queries.push(query(&pro, name.clone(), version, method));
        }
        queries
    }
}

/// Pairs of (not digits, digits), compared one after the other. A missing part counts as empty and
/// as 0; `~` sorts before the end, letters before everything else.
fn part(text: &str, key: &mut Key) {
    let mut rest = text;
    loop {
        let (other, tail) = run(rest, |c| !c.is_ascii_digit());
        let (number, tail) = digits(tail);
        for byte in other.bytes() {
            key.byte(match byte {
                b'~' => 1,
                letter if letter.is_ascii_alphabetic() => letter,
                sign => sign | 0x80,
            });
        }
        key.byte(END);
        key.number(number);
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    key.byte(END);
}
