//! SUSE's CSAF VEX documents (`ftp.suse.com/pub/projects/security/csaf-vex`), one of each CVE.
//!
//! Platforms are called as OSV calls SUSE's and openSUSE's releases. Those of other lengths of
//! support (LTSS, ESPOS) and for other products have packages with versions of their own: they are
//! releases of other names, and no image is looked up in them.

use super::{
    MalformedVendor, Said, Take, Vendor,
    csaf::{self, Dialect, Product},
};

pub(super) struct Suse;

const DIALECT: Dialect = Dialect {
    feed: "SUSE VEX",
    what: "a VEX document of SUSE",
    ecosystem,
    release: |ecosystem| ecosystem,
};

/// How platforms of images begin.
const PLATFORMS: [&str; 5] = [
    "Linux Enterprise Desktop ",
    "Linux Enterprise Micro ",
    "Linux Enterprise Module for ",
    "Linux Enterprise Server ",
    "Linux Micro ",
];
/// What names of platforms of others hold.
const ELSEWHERE: [&str; 8] = [
    "BCL",
    "CHOST",
    "ESPOS",
    "LTSS",
    "SAP",
    "Teradata",
    "TERADATA",
    "for Rancher",
];

// === impl Suse ===

impl Vendor for Suse {
    fn feed(&self) -> &'static str {
        DIALECT.feed
    }

    fn ecosystems(&self) -> &'static [&'static str] {
        &["SUSE", "openSUSE"]
    }

    fn tells(&self) -> &'static str {
        "vulnerabilities with and without a fix, and those that a release never had; nothing of \
         extended support"
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

/// `SUSE:Linux Enterprise Server 15 SP5`, `openSUSE:Leap 15.6`.
fn ecosystem(platform: &Product<'_>) -> Option<String> {
    let name = platform.name.trim();
    if name.len() > 100 || name.contains(char::is_control) {
        return None;
    }
    if let Some(name) = name.strip_prefix("openSUSE ") {
        return Some(format!("openSUSE:{name}"));
    }
    let name = name.strip_prefix("SUSE ")?;
    let is_one = PLATFORMS.iter().any(|start| name.starts_with(start));
    let is_elsewhere = ELSEWHERE.iter().any(|word| name.contains(word));
    (is_one && !is_elsewhere).then(|| format!("SUSE:{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::tests::said;

    const DOCUMENT: &str = include_str!("../../testdata/vendors/suse.json");

    #[test]
    fn releases_are_those_of_images() {
        let (lines, found) = said(&Suse, DOCUMENT);
        assert_eq!(
            lines,
            [
                "SUSE:Linux Enterprise Module for Basesystem 15 SP5 widget CVE-2024-0002 <3.1-150500.2.1 High",
                "SUSE:Linux Enterprise Server 12 SP5 widget CVE-2024-0002 <0 High",
                "SUSE:Linux Enterprise Server 15 SP6 widget CVE-2024-0002 all NotFixed High",
                "openSUSE:Leap 15.5 widget CVE-2024-0002 <3.1-150500.2.1 High",
            ]
        );
        assert_eq!(found.ids, ["CVE-2024-0002"]);
    }
}
