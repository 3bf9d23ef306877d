//! Debian's security tracker, as one JSON document: package → vulnerability → release.
//!
//! It says what OSV's records of it leave out: which issues will get no fix of their own, and which
//! nobody has looked at yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use model::{DEBIAN_TRACKER, FixState, Severity, ShardKey};
use serde::{
    Deserialize, Deserializer as _,
    de::{self, DeserializeSeed, MapAccess, Visitor},
};

use super::{MalformedVendor, STATEMENTS_MAX, Said, Take, Vendor, clip, is_name};
use crate::{
    os,
    shard::{ShardAdvisory, Window, WindowEnd},
};

/// Debian's security tracker (`security-tracker.debian.org/tracker/data/json`).
pub(super) struct Debian;

#[derive(Deserialize)]
struct Issue {
    #[serde(default)]
    description: String,
    #[serde(default)]
    releases: BTreeMap<String, Statement>,
}

#[derive(Deserialize)]
struct Statement {
    status: String,
    #[serde(default)]
    fixed_version: Option<String>,
    #[serde(default)]
    urgency: Option<String>,
    /// Why there is no advisory of its own; where it is there, it was decided.
    #[serde(default)]
    nodsa: Option<String>,
    #[serde(default)]
    nodsa_reason: Option<String>,
}

/// The document, package by package, so that it is never in memory as a whole.
struct Packages<'a> {
    count: usize,
    ids: BTreeSet<String>,
    take: Take<'a>,
}

/// The issues of one package.
struct Issues<'a, 'b> {
    name: String,
    packages: &'a mut Packages<'b>,
}

// === impl Debian ===

impl Vendor for Debian {
    fn feed(&self) -> &'static str {
        DEBIAN_TRACKER
    }

    fn ecosystems(&self) -> &'static [&'static str] {
        &["Debian"]
    }

    fn tells(&self) -> &'static str {
        "vulnerabilities with and without a fix, and those that get none"
    }

    fn extension(&self) -> &'static str {
        "json"
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn read(&self, bytes: &[u8], take: Take<'_>) -> Result<Said, MalformedVendor> {
        let malformed = |error| MalformedVendor::Json("Debian's tracker", error);
        let mut packages = Packages {
            count: 0,
            ids: BTreeSet::new(),
            take,
        };
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        reader.deserialize_map(&mut packages).map_err(malformed)?;
        reader.end().map_err(malformed)?;
        if packages.count == 0 {
            return Err(MalformedVendor::Empty("Debian"));
        }
        Ok(Said {
            ids: packages.ids.into_iter().collect(),
            ..Said::default()
        })
    }
}

// === impl Packages, Issues ===

impl<'de> Visitor<'de> for &mut Packages<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("packages with their issues")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            map.next_value_seed(Issues {
                name,
                packages: self,
            })?;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Issues<'_, '_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Issues<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("issues of a package")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((id, issue)) = map.next_entry::<String, Issue>()? {
            for (codename, statement) in &issue.releases {
                // `sid` and what is older than our list have no number.
                let Some(release) = os::debian_release(codename) else {
                    continue;
                };
                let Some(mut part) = statement.part(&id, &issue) else {
                    continue;
                };
                part.package.clone_from(&self.name);
                DEBIAN_TRACKER.clone_into(&mut part.feed);
                self.packages.count = self.packages.count.saturating_add(1);
                if self.packages.count > STATEMENTS_MAX {
                    return Err(de::Error::custom("it says more than allowed"));
                }
                let key = ShardKey::of(format!("Debian:{release}"), &self.name);
                (self.packages.take)(key, part);
                if !self.packages.ids.contains(&id) {
                    self.packages.ids.insert(id.clone());
                }
            }
        }
        Ok(())
    }
}

// === impl Statement ===

impl Statement {
    /// What it says, without the package's name; `None` where that is nothing.
    fn part(&self, id: &str, issue: &Issue) -> Option<ShardAdvisory> {
        if !is_name(id) {
            return None;
        }
        let fixed = self.fixed_version.as_ref().filter(|text| !text.is_empty());
        let (end, unfixed) = match (self.status.as_str(), fixed) {
            // Version 0: the release never had it.
            ("resolved", Some(fixed)) => (WindowEnd::Fixed(fixed.clone()), None),
            ("resolved", None) => return None,
            ("undetermined", _) => (WindowEnd::Open, Some(FixState::Investigating)),
            _ => (WindowEnd::Open, self.decision()),
        };
        let urgency = self.urgency.as_deref().unwrap_or_default();
        let rating = match urgency.trim_end_matches('*') {
            "unimportant" => Some(Severity::Negligible),
            word => word.parse().ok(),
        };
        Some(ShardAdvisory {
            id: id.to_owned(),
            windows: vec![Window {
                introduced: None,
                end,
            }],
            rating,
            unfixed,
            end_of_life: urgency == "end-of-life",
            title: clip(&issue.description),
            ..ShardAdvisory::default()
        })
    }

    /// What was decided about an open issue: no advisory, so no fix before the next release;
    /// or one that was put off.
    fn decision(&self) -> Option<FixState> {
        let is_decided = self.nodsa.is_some() || self.nodsa_reason.is_some();
        let is_put_off = self.nodsa_reason.as_deref() == Some("postponed");
        is_decided.then_some(if is_put_off {
            FixState::NotFixed
        } else {
            FixState::WontFix
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_says_its_own() {
        let document = br#"{
            "curl": {"CVE-2024-1": {"scope": "remote", "description": "d\nmore", "releases": {
                "bookworm": {"status": "open", "repositories": {"bookworm": "7.88"}, "urgency": "low**",
                    "nodsa": "Minor issue", "nodsa_reason": ""},
                "bullseye": {"status": "open", "urgency": "not yet assigned",
                    "nodsa": "later", "nodsa_reason": "postponed"},
                "trixie": {"status": "resolved", "fixed_version": "8.0-1", "urgency": "unimportant"},
                "buster": {"status": "undetermined", "urgency": "end-of-life"},
                "sid": {"status": "open", "urgency": "low"}}}},
            "zlib": {"TEMP-0000001-AAAAAA": {"releases": {
                "bookworm": {"status": "resolved", "fixed_version": "0"}}}}}"#;
        let mut lines = Vec::new();
        let said = Debian
            .read(document, &mut |key, part| {
                lines.push(format!(
                    "{} {} {} {:?} {:?} {:?} {}",
                    key.ecosystem,
                    part.package,
                    part.id,
                    part.windows[0].end,
                    part.rating,
                    part.unfixed,
                    part.end_of_life
                ));
            })
            .unwrap();
        assert_eq!(said.ids, ["CVE-2024-1", "TEMP-0000001-AAAAAA"]);
        assert_eq!(
            lines,
            [
                "Debian:12 curl CVE-2024-1 Open Some(Low) Some(WontFix) false",
                "Debian:11 curl CVE-2024-1 Open None Some(NotFixed) false",
                "Debian:10 curl CVE-2024-1 Open None Some(Investigating) true",
                "Debian:13 curl CVE-2024-1 Fixed(\"8.0-1\") Some(Negligible) None false",
                "Debian:12 zlib TEMP-0000001-AAAAAA Fixed(\"0\") None None false",
            ]
        );
        for wrong in [&b"[]"[..], b"{}", br#"{"a": {"CVE-1": 3}}"#, b"{} x"] {
            assert!(Debian.read(wrong, &mut |_, _| {}).is_err());
        }
    }
}
