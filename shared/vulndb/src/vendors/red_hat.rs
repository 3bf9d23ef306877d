//! Red Hat's CSAF VEX documents (`security.access.redhat.com/data/csaf/v2/vex`), one of each CVE.
//!
//! Kept is what is said of Red Hat Enterprise Linux as every subscription has it: extended releases
//! and layered products have packages of the same names with versions of their own, and no image is
//! looked up in them.

use super::{
    MalformedVendor, Said, Take, Vendor,
    csaf::{self, Dialect, Product},
};

pub(super) struct RedHat;

const DIALECT: Dialect = Dialect {
    feed: "Red Hat VEX",
    what: "a VEX document of Red Hat",
    ecosystem,
    release,
};

// === impl RedHat ===

impl Vendor for RedHat {
    fn feed(&self) -> &'static str {
        DIALECT.feed
    }

    fn ecosystems(&self) -> &'static [&'static str] {
        &["Red Hat"]
    }

    fn tells(&self) -> &'static str {
        "vulnerabilities of Red Hat Enterprise Linux with and without a fix, those that get none, and \
         those that it never had; nothing of extended releases and layered products"
    }

    fn extension(&self) -> &'static str {
        "json"
    }

    fn is_whole(&self) -> bool {
        false
    }

    fn read(&self, bytes: &[u8], take: Take<'_>) -> Result<Said, MalformedVendor> {
        csaf::read(&DIALECT, bytes, take)
    }
}

/// `Red Hat:enterprise_linux:9::appstream` of `cpe:/a:redhat:enterprise_linux:9::appstream`. What is
/// not fixed is said of the release as a whole, without a repository.
fn ecosystem(platform: &Product<'_>) -> Option<String> {
    let tail = platform.helper.cpe.strip_prefix("cpe:/")?;
    let (_, tail) = tail.split_once(":redhat:")?;
    let is_main = tail.starts_with("enterprise_linux:");
    let fits = tail
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b));
    (is_main && fits && tail.len() <= 100).then(|| format!("Red Hat:{tail}"))
}

/// `Red Hat:enterprise_linux:9` of `Red Hat:enterprise_linux:9::appstream`, and of
/// `Red Hat:enterprise_linux:9.4`.
fn release(ecosystem: &str) -> &str {
    let mut parts = ecosystem.match_indices([':', '.']).skip(2);
    let end = parts.next().map_or(ecosystem.len(), |(at, _)| at);
    ecosystem.get(..end).unwrap_or(ecosystem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::tests::said;

    /// A document of three packages: fixed in an ordinary and a modular build, without a fix, and
    /// never affected.
    const DOCUMENT: &str = include_str!("../../testdata/vendors/red-hat.json");

    #[test]
    fn every_state_of_a_document_is_read() {
        let (lines, found) = said(&RedHat, DOCUMENT);
        assert_eq!(
            lines,
            [
                "Red Hat:enterprise_linux:7 widget CVE-2024-0001 all EndOfLife Medium",
                "Red Hat:enterprise_linux:8 widget CVE-2024-0001 all NotFixed High in gadget:2",
                "Red Hat:enterprise_linux:8 widget CVE-2024-0001 all WontFix Low",
                "Red Hat:enterprise_linux:8::appstream widget CVE-2024-0001 <1:3.1-2.module+el8 Medium in gadget:3",
                "Red Hat:enterprise_linux:9 sprocket CVE-2024-0001 all Investigating Medium",
                "Red Hat:enterprise_linux:9 untouched CVE-2024-0001 <0 Medium",
                "Red Hat:enterprise_linux:9::appstream widget CVE-2024-0001 <1:3.1-2.el9 Medium",
                "Red Hat:enterprise_linux:9::appstream widget-libs CVE-2024-0001 <1:3.1-2.el9 Medium",
            ]
        );
        assert_eq!(found.ids, ["CVE-2024-0001"]);
        assert!(found.unreadable.is_empty());
    }

    #[test]
    fn a_release_is_what_its_repositories_have_in_common() {
        assert_eq!(
            release("Red Hat:enterprise_linux:9::appstream"),
            "Red Hat:enterprise_linux:9"
        );
        assert_eq!(
            release("Red Hat:enterprise_linux:10.0"),
            "Red Hat:enterprise_linux:10"
        );
        assert_eq!(
            release("Red Hat:enterprise_linux:9"),
            "Red Hat:enterprise_linux:9"
        );
    }
}
