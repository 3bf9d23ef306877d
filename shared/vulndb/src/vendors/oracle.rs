//! Oracle's errata as OVAL definitions (`linux.oracle.com/security/oval`).
//!
//! They tell what was fixed and nothing else. What an erratum is about stands in the comments of its
//! criteria: the release, the module stream, and for each package the version that fixes it; so the
//! tests and states that say the same in other words are not read. Where builds for two architectures
//! differ, the newer version counts for both.
//!
//! Builds that were certified (`_fips`) or are patched while they run (`.ksplice`) are versions beside
//! the ordinary ones, and say nothing about those.

use std::collections::{BTreeMap, BTreeSet};

use model::{Severity, ShardKey};

use super::{
    MalformedVendor, STATEMENTS_MAX, Said, Take, Vendor, clip, is_debugging, is_name, rating, time,
    xml::{self, Attributes, Step},
};
use crate::shard::{ShardAdvisory, Window, WindowEnd};

pub(super) struct Oracle;

const FEED: &str = "Oracle OVAL";
/// Builds beside the ordinary ones.
const OTHER_BUILDS: [&str; 2] = ["_fips", ".ksplice"];

/// Release, package, module stream.
type Subject = (String, String, Option<String>);

/// An erratum.
#[derive(Default)]
struct Definition {
    id: String,
    title: String,
    issued: String,
    rating: Option<Severity>,
    cves: BTreeSet<String>,
    /// What holds in the open criteria, outermost first.
    scopes: Vec<Scope>,
    fixed: BTreeMap<Subject, BTreeSet<String>>,
    /// Whether it names versions without a release.
    is_unusable: bool,
}

/// What a group of criteria asks for.
#[derive(Default)]
struct Scope {
    release: Option<String>,
    module: Option<String>,
}

// === impl Oracle ===

impl Vendor for Oracle {
    fn feed(&self) -> &'static str {
        FEED
    }

    fn ecosystems(&self) -> &'static [&'static str] {
        &["Oracle Linux"]
    }

    fn tells(&self) -> &'static str {
        "vulnerabilities with a fix only: what has none yet is not in it"
    }

    fn extension(&self) -> &'static str {
        "xml"
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn read(&self, bytes: &[u8], take: Take<'_>) -> Result<Said, MalformedVendor> {
        let mut said = Said::default();
        let mut definition: Option<Definition> = None;
        let mut count = 0_usize;
        xml::walk("Oracle's OVAL", bytes, &mut |step| match step {
            Step::Open("definition", _) => definition = Some(Definition::default()),
            Step::Close("definition", _) => {
                let Some(definition) = definition.take() else {
                    return;
                };
                count = count.saturating_add(definition.fixed.len());
                if count <= STATEMENTS_MAX {
                    definition.give(&mut said, take);
                }
            }
            Step::Open(name, attributes) => {
                if let Some(definition) = &mut definition {
                    definition.open(name, &attributes);
                }
            }
            Step::Close(name, text) => {
                if let Some(definition) = &mut definition {
                    definition.close(name, text);
                }
            }
        })?;
        if count > STATEMENTS_MAX {
            return Err(MalformedVendor::TooMuch);
        }
        if said.ids.is_empty() {
            return Err(MalformedVendor::Empty("Oracle Linux"));
        }
        Ok(said)
    }
}

// === impl Definition ===

impl Definition {
    fn open(&mut self, name: &str, attributes: &Attributes<'_>) {
        match name {
            "reference" => {
                let id = attributes.get("ref_id");
                match attributes.get("source").to_ascii_lowercase().as_str() {
                    "elsa" => self.id = id,
                    "cve" if is_name(&id) => {
                        self.cves.insert(id);
                    }
                    _ => {}
                }
            }
            "issued" => self.issued = attributes.get("date"),
            "criteria" => self.scopes.push(Scope::default()),
            "criterion" => self.criterion(attributes.get("comment").trim()),
            _ => {}
        }
    }

    fn close(&mut self, name: &str, text: &str) {
        match name {
            "title" => self.title = clip(text),
            "severity" => self.rating = rating(text),
            "cve" if is_name(text) => {
                self.cves.insert(text.to_owned());
            }
            "criteria" => {
                self.scopes.pop();
            }
            _ => {}
        }
    }

    fn criterion(&mut self, comment: &str) {
        let release = comment.strip_prefix("Oracle Linux ");
        if let Some(release) = release.and_then(|rest| rest.strip_suffix(" is installed")) {
            if let Some(scope) = self.scopes.last_mut() {
                scope.release = is_number(release).then(|| format!("Oracle Linux:{release}"));
            }
            return;
        }
        let module = comment.strip_prefix("Module ");
        if let Some(module) = module.and_then(|rest| rest.strip_suffix(" is enabled")) {
            if let Some(scope) = self.scopes.last_mut() {
                scope.module = Some(module.to_owned()).filter(|module| is_name(module));
            }
            return;
        }
        let Some((package, version)) = comment.split_once(" is earlier than ") else {
            return;
        };
        if OTHER_BUILDS.iter().any(|mark| version.contains(mark)) || is_debugging(package) {
            return;
        }
        let scopes = || self.scopes.iter().rev();
        let release = scopes().find_map(|scope| scope.release.clone());
        let module = scopes().find_map(|scope| scope.module.clone());
        match release {
            Some(release) if is_name(package) && is_name(version) => {
                let subject = (release, package.to_owned(), module);
                let version = version.strip_prefix("0:").unwrap_or(version).to_owned();
                self.fixed.entry(subject).or_default().insert(version);
            }
            _ => self.is_unusable = true,
        }
    }

    fn give(self, said: &mut Said, take: Take<'_>) {
        if !is_name(&self.id) {
            said.refuse(&self.title, "a definition has no usable id");
            return;
        }
        if self.is_unusable {
            said.refuse(&self.id, "it names versions of no release that is known");
            return;
        }
        said.ids.push(self.id.clone());
        let common = ShardAdvisory {
            feed: FEED.to_owned(),
            upstream: self.cves.into_iter().collect(),
            rating: self.rating,
            title: self.title,
            published: time(&self.issued),
            id: self.id,
            ..ShardAdvisory::default()
        };
        // Errata about bugs name no vulnerability.
        if common.upstream.is_empty() {
            return;
        }
        for ((release, package, module), versions) in self.fixed {
            let window = |version| Window {
                introduced: None,
                end: WindowEnd::Fixed(version),
            };
            let part = ShardAdvisory {
                windows: versions.into_iter().map(window).collect(),
                modules: module.into_iter().collect(),
                package,
                ..common.clone()
            };
            take(ShardKey::of(release, &part.package), part);
        }
    }
}

fn is_number(text: &str) -> bool {
    (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::tests::said;

    const OVAL: &str = r#"<oval_definitions xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5"><definitions>
<definition id="oval:com.oracle.elsa:def:20240001" version="501" class="patch"><metadata>
<title>
ELSA-2024-0001:  Moderate: widget security update  (MODERATE)
</title>
<affected family="unix"><platform>Oracle Linux 8</platform></affected>
<reference source="elsa" ref_id="ELSA-2024-0001" ref_url="http://x"/>
<reference source="CVE" ref_id="CVE-2024-0005" ref_url="http://y"/>
<description>[3.1-2] - fix</description>
<advisory><severity>IMPORTANT</severity><issued date="2024-06-26"/>
<cve href="http://y">CVE-2024-0005</cve><cve href="http://z">CVE-2024-0006</cve></advisory></metadata>
<criteria operator="AND"><criterion test_ref="t:1" comment="Oracle Linux 8 is installed"/>
<criteria operator="OR">
 <criteria operator="AND"><criterion test_ref="t:2" comment="Oracle Linux arch is x86_64"/>
  <criteria operator="OR">
   <criteria operator="AND"><criterion test_ref="t:3" comment="widget is earlier than 1:3.1-2.el8"/>
    <criterion test_ref="t:4" comment="widget is signed with the Oracle Linux 8 key"/></criteria>
   <criteria operator="AND"><criterion test_ref="t:5" comment="widget-libs is earlier than 0:3.1-2.el8"/></criteria>
   <criteria operator="AND"><criterion test_ref="t:6" comment="widget is earlier than 10:3.1-2.el8_fips"/></criteria>
  </criteria></criteria>
 <criteria operator="AND"><criterion test_ref="t:7" comment="Module gadget:3 is enabled"/>
  <criterion test_ref="t:8" comment="widget is earlier than 0:4-1.module+el8"/></criteria>
</criteria></criteria></definition>
<definition><metadata><title>ELSA-2024-0002: bug</title><reference source="elsa" ref_id="ELSA-2024-0002"/></metadata>
 <criteria><criterion comment="Oracle Linux 8 is installed"/><criterion comment="widget is earlier than 0:5-1"/></criteria></definition>
<definition><metadata><title>ELSA-2024-0003: x</title><reference source="elsa" ref_id="ELSA-2024-0003"/>
 <reference source="CVE" ref_id="CVE-2024-0007"/></metadata>
 <criteria><criterion comment="widget is earlier than 0:5-1"/></criteria></definition>
</definitions><tests/></oval_definitions>"#;

    #[test]
    fn errata_are_read_by_their_criteria() {
        let (lines, found) = said(&Oracle, OVAL);
        assert_eq!(
            lines,
            [
                "Oracle Linux:8 widget ELSA-2024-0001 <1:3.1-2.el8 High of CVE-2024-0005,CVE-2024-0006",
                "Oracle Linux:8 widget ELSA-2024-0001 <4-1.module+el8 High in gadget:3 of CVE-2024-0005,CVE-2024-0006",
                "Oracle Linux:8 widget-libs ELSA-2024-0001 <3.1-2.el8 High of CVE-2024-0005,CVE-2024-0006",
            ]
        );
        assert_eq!(found.ids, ["ELSA-2024-0001", "ELSA-2024-0002"]);
        assert_eq!(found.unreadable, ["ELSA-2024-0003"]);
        assert!(
            found.problems[0].contains("ELSA-2024-0003"),
            "{:?}",
            found.problems
        );
    }
}
