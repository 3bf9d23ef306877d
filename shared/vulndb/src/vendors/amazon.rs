//! Amazon's lists of updates: `updateinfo.xml`, one of each release, in its core repository.
//!
//! They tell what was fixed and nothing else. Updates of other repositories (extras, live patches of
//! kernels) have ids of their own and are passed over: their packages have the names of core's.

use std::collections::{BTreeMap, BTreeSet};

use model::{Severity, ShardKey};

use super::{
    MalformedVendor, STATEMENTS_MAX, Said, Take, Vendor, clip, evr, is_debugging, is_name, rating,
    time,
    xml::{self, Attributes, Step},
};
use crate::shard::{ShardAdvisory, Window, WindowEnd};

pub(super) struct Amazon;

const FEED: &str = "Amazon updates";
/// How ids of updates of core repositories begin, and of which release that is.
const RELEASES: [(&str, &str); 3] = [
    ("ALAS-", "Amazon Linux:1"),
    ("ALAS2-", "Amazon Linux:2"),
    ("ALAS2023-", "Amazon Linux:2023"),
];

/// An update.
#[derive(Default)]
struct Update {
    id: String,
    is_security: bool,
    title: String,
    issued: String,
    updated: String,
    rating: Option<Severity>,
    cves: BTreeSet<String>,
    /// The fixed versions of each package; architectures have the same.
    packages: BTreeMap<String, BTreeSet<String>>,
}

// === impl Amazon ===

impl Vendor for Amazon {
    fn feed(&self) -> &'static str {
        FEED
    }

    fn ecosystems(&self) -> &'static [&'static str] {
        &["Amazon Linux"]
    }

    fn tells(&self) -> &'static str {
        "vulnerabilities with a fix only, of core repositories only: what has none yet, and packages of \
         extras, are not in it"
    }

    fn extension(&self) -> &'static str {
        "xml"
    }

    fn is_whole(&self) -> bool {
        false
    }

    fn read(&self, bytes: &[u8], take: Take<'_>) -> Result<Said, MalformedVendor> {
        let mut said = Said::default();
        let mut update = Update::default();
        let mut count = 0_usize;
        xml::walk("Amazon's updates", bytes, &mut |step| match step {
            Step::Open("update", attributes) => {
                update = Update {
                    is_security: attributes.get("type") == "security",
                    ..Update::default()
                };
            }
            Step::Open(name, attributes) => update.open(name, &attributes),
            Step::Close("update", _) => {
                let update = std::mem::take(&mut update);
                count = count.saturating_add(update.packages.len());
                if count <= STATEMENTS_MAX {
                    update.give(&mut said, take);
                }
            }
            Step::Close(name, text) => update.close(name, text),
        })?;
        if count > STATEMENTS_MAX {
            return Err(MalformedVendor::TooMuch);
        }
        if said.ids.is_empty() {
            return Err(MalformedVendor::Empty("Amazon Linux"));
        }
        Ok(said)
    }
}

// === impl Update ===

impl Update {
    fn open(&mut self, name: &str, attributes: &Attributes<'_>) {
        match name {
            "issued" => self.issued = attributes.get("date"),
            "updated" => self.updated = attributes.get("date"),
            "reference" if attributes.get("type") == "cve" => {
                let cve = attributes.get("id");
                if is_name(&cve) {
                    self.cves.insert(cve);
                }
            }
            "package" => {
                let version = format!(
                    "{}-{}",
                    attributes.get("version"),
                    attributes.get("release")
                );
                let fixed = evr(&attributes.get("epoch"), &version);
                let package = attributes.get("name");
                self.packages.entry(package).or_default().insert(fixed);
            }
            _ => {}
        }
    }

    fn close(&mut self, name: &str, text: &str) {
        match name {
            "id" => text.clone_into(&mut self.id),
            "title" => self.title = clip(text),
            "severity" => self.rating = rating(text),
            _ => {}
        }
    }

    fn give(self, said: &mut Said, take: Take<'_>) {
        if !is_name(&self.id) {
            said.refuse(&self.id, "an update has no usable id");
            return;
        }
        let mut releases = RELEASES.iter();
        let Some((_, release)) = releases.find(|(start, _)| self.id.starts_with(start)) else {
            return;
        };
        if self.cves.is_empty() && !self.is_security {
            said.ids.push(self.id);
            return;
        }
        let is_version = |text: &String| is_name(text) && !text.starts_with('-');
        let unusable = self
            .packages
            .iter()
            .find(|(package, versions)| !is_name(package) || !versions.iter().all(is_version));
        if unusable.is_some() || self.packages.is_empty() {
            said.refuse(
                &self.id,
                "it names no packages and versions that can be used",
            );
            return;
        }
        said.ids.push(self.id.clone());
        let common = ShardAdvisory {
            feed: FEED.to_owned(),
            upstream: self.cves.into_iter().collect(),
            rating: self.rating,
            title: self.title,
            published: time(&self.issued),
            modified: time(&self.updated),
            id: self.id,
            ..ShardAdvisory::default()
        };
        for (package, versions) in self.packages {
            if is_debugging(&package) {
                continue;
            }
            let window = |version| Window {
                introduced: None,
                end: WindowEnd::Fixed(version),
            };
            let part = ShardAdvisory {
                windows: versions.into_iter().map(window).collect(),
                package,
                ..common.clone()
            };
            take(ShardKey::of(*release, &part.package), part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::tests::said;

    const UPDATES: &str = r#"<?xml version="1.0" ?><updates>
<update author="linux-security@amazon.com" from="a@b" status="final" type="security" version="1.4">
  <id>ALAS2023-2024-001</id><title>Amazon Linux 2023 - ALAS2023-2024-001: Important priority</title>
  <issued date="2024-02-17 20:41"/><updated date="2024-02-22 23:22"/><severity>Important</severity>
  <description>CVE-2024-0003: &lt;x&gt;</description>
  <references><reference href="https://x" id="CVE-2024-0003" title="" type="cve"/>
    <reference href="https://y" id="RHSA-1" title="" type="redhat"/></references>
  <pkglist><collection short="amazon-linux-2023"><name>Amazon Linux 2023</name>
    <package arch="x86_64" epoch="1" name="widget" release="3.amzn2023.0.2" version="3.1"><filename>w.rpm</filename></package>
    <package arch="aarch64" epoch="1" name="widget" release="3.amzn2023.0.2" version="3.1"/>
    <package arch="x86_64" epoch="1" name="widget-debuginfo" release="3.amzn2023.0.2" version="3.1"/>
    <package arch="noarch" epoch="0" name="widget-doc" release="3.amzn2023.0.2" version="3.1"/>
  </collection></pkglist></update>
<update type="security"><id>ALAS2-2024-7</id><severity>medium</severity>
  <references><reference id="CVE-2024-0004" type="cve"/></references>
  <pkglist><collection><package name="widget" epoch="0" version="3.0"  release="1.amzn2"/></collection></pkglist></update>
<update type="security"><id>ALAS2GADGET3-2024-1</id>
  <pkglist><collection><package name="widget" epoch="0" version="9" release="1"/></collection></pkglist></update>
<update type="bugfix"><id>ALAS2-2024-8</id>
  <pkglist><collection><package name="widget" epoch="0" version="9" release="1"/></collection></pkglist></update>
<update type="security"><id>ALAS2-2024-9</id>
  <pkglist><collection><package name="widget" epoch="0"/></collection></pkglist></update>
</updates>"#;

    #[test]
    fn updates_of_core_repositories_are_bulletins() {
        let (lines, found) = said(&Amazon, UPDATES);
        assert_eq!(
            lines,
            [
                "Amazon Linux:2 widget ALAS2-2024-7 <3.0-1.amzn2 Medium of CVE-2024-0004",
                "Amazon Linux:2023 widget ALAS2023-2024-001 <1:3.1-3.amzn2023.0.2 High of CVE-2024-0003",
                "Amazon Linux:2023 widget-doc ALAS2023-2024-001 <3.1-3.amzn2023.0.2 High of CVE-2024-0003",
            ]
        );
        assert_eq!(
            found.ids,
            ["ALAS2023-2024-001", "ALAS2-2024-7", "ALAS2-2024-8"]
        );
        // One that cannot be used is named and stops no other.
        assert_eq!(found.unreadable, ["ALAS2-2024-9"]);
        assert!(
            found.problems[0].contains("ALAS2-2024-9"),
            "{:?}",
            found.problems
        );
        assert!(Amazon.read(b"<updates/>", &mut |_, _| {}).is_err());
    }
}
