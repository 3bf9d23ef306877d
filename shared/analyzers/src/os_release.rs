//! The operating system, from os-release (freedesktop.org, "os-release") and what came before it.

use archive::{Entry, Limits};
use model::{AnalyzerId, FoundOs};

use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id};

/// A real one has some hundred bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// A line that names a system is shorter.
const LINE_BYTES_MAX: usize = 200;

/// Reads os-release files.
pub(crate) struct OsRelease(AnalyzerId);

/// What a file says; `None` where it names no system that we know.
type Read = fn(&str) -> Option<FoundOs>;

/// Where the operating system is looked for where there is no os-release, best first: a system that
/// is made of another one keeps that one's file, too.
const OTHERS: &[(&str, Read)] = &[
    ("etc/openwrt_release", lsb),
    ("etc/oracle-release", named),
    ("etc/rocky-release", named),
    ("etc/almalinux-release", named),
    ("etc/centos-release", named),
    ("etc/fedora-release", named),
    ("etc/openEuler-release", named),
    ("etc/mageia-release", named),
    ("etc/photon-release", named),
    ("etc/mariner-release", named),
    ("etc/azurelinux-release", named),
    ("etc/alpaquita-release", named),
    ("etc/SuSE-release", suse),
    ("etc/system-release", named),
    ("etc/redhat-release", named),
    ("etc/gentoo-release", named),
    ("etc/slackware-version", named),
    ("etc/lsb-release", lsb),
    ("etc/alpine-release", |text| {
        Some(release("alpine", text.trim()))
    }),
    // It has no versions, and the file is empty.
    ("etc/arch-release", |_| Some(release("arch", ""))),
    ("etc/debian_version", |text| Some(debian(text))),
];

/// Systems by the beginning of the line that names them, and as os-release calls them.
const NAMES: &[(&str, &str)] = &[
    ("AlmaLinux", "almalinux"),
    ("Alpaquita", "alpaquita"),
    ("Amazon Linux", "amzn"),
    ("Anolis OS", "anolis"),
    ("Azure Linux", "azurelinux"),
    ("CBL-Mariner", "mariner"),
    ("CentOS", "centos"),
    ("CloudLinux", "cloudlinux"),
    ("Enterprise Linux Enterprise Linux", "ol"),
    ("Fedora", "fedora"),
    ("Gentoo", "gentoo"),
    ("Mageia", "mageia"),
    ("Microsoft Azure Linux", "azurelinux"),
    ("Oracle Linux", "ol"),
    ("Red Hat Enterprise Linux", "rhel"),
    ("Rocky Linux", "rocky"),
    ("SUSE Linux Enterprise Desktop", "sled"),
    ("SUSE Linux Enterprise Server", "sles"),
    ("Scientific Linux", "scientific"),
    ("Slackware", "slackware"),
    ("VMware Photon", "photon"),
    ("openEuler", "openeuler"),
    ("openSUSE", "opensuse"),
];

/// Where os-release is; what is said there counts.
const PLACES: &[&str] = &["etc/os-release", "usr/lib/os-release"];

/// Where the operating system is looked for, best first.
pub(crate) fn places() -> impl Iterator<Item = &'static str> {
    let others = OTHERS.iter().map(|(place, _)| *place);
    PLACES.iter().copied().chain(others)
}

// === impl OsRelease ===

impl OsRelease {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("os-release", 3, config, limits)))
    }
}

impl Analyzer for OsRelease {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn pieces(&self) -> Vec<&str> {
        let others = OTHERS.iter().map(|(place, _)| *place);
        others.chain(["/os-release"]).collect()
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        // The usual places are often links, as to `usr/lib/os.release.d/os-release-NAME`.
        let is_named = entry.name().starts_with("os-release")
            && ["etc/", "usr/lib/"]
                .iter()
                .any(|at| entry.path.starts_with(at));
        if is_named || places().any(|place| place == entry.path) {
            Wanted::Alone
        } else {
            Wanted::No
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            let text = file.text(BYTES_MAX)?;
            let other = OTHERS.iter().find(|(place, _)| *place == file.path());
            let os = match other {
                Some((_, read)) => read(&text),
                None => Some(parse(&text)?),
            };
            if let Some(os) = os {
                found.add_os(FoundOs {
                    path: file.path().to_owned(),
                    ..os
                });
            }
        }
        Ok(())
    }
}

/// Testing and unstable say `trixie/sid`: a name, and no version.
fn debian(text: &str) -> FoundOs {
    let major = text.trim().split('.').next().unwrap_or_default();
    let major = major.parse::<u32>().map_or("", |_| major);
    release("debian", major)
}

/// A line like `CentOS release 6.10 (Final)`.
fn named(text: &str) -> Option<FoundOs> {
    let line = text.lines().next().unwrap_or_default().trim();
    let known = NAMES.iter().find(|(name, _)| line.starts_with(name));
    let (name, id) = known.filter(|_| line.len() <= LINE_BYTES_MAX)?;
    let rest = line.strip_prefix(name)?;
    let mut words = rest.split_whitespace();
    let version = words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let parts: Vec<&str> = version.unwrap_or_default().split('.').collect();
    // What follows is the day of a build, which os-release does not tell; Amazon's since 2022 has
    // it behind the minor number.
    let kept = match (*id, parts.len()) {
        ("amzn", 3..) => 1,
        _ => 2,
    };
    let parts: Vec<&str> = parts.into_iter().take(kept).collect();
    Some(FoundOs {
        pretty_name: Some(line.to_owned()),
        ..release(id, &parts.join("."))
    })
}

/// The same, with `VERSION = 11` and `PATCHLEVEL = 4` below.
fn suse(text: &str) -> Option<FoundOs> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        let (_, value) = lines.find(|(name, _)| name.trim() == key)?;
        Some(value.trim()).filter(|value| !value.is_empty() && value.len() <= LINE_BYTES_MAX)
    };
    let os = named(text)?;
    let version_id = match (value("VERSION"), value("PATCHLEVEL")) {
        (Some(version), Some(level)) if level != "0" => format!("{version}.{level}"),
        (Some(version), _) => version.to_owned(),
        (None, _) => os.version_id.clone(),
    };
    Some(FoundOs { version_id, ..os })
}

/// Lines like those of os-release, with other names (Linux Standard Base, "`lsb_release`").
fn lsb(text: &str) -> Option<FoundOs> {
    let id = value(text, "DISTRIB_ID")?;
    let version_id = value(text, "DISTRIB_RELEASE").unwrap_or_default();
    Some(FoundOs {
        codename: value(text, "DISTRIB_CODENAME"),
        pretty_name: value(text, "DISTRIB_DESCRIPTION"),
        ..release(&id.to_ascii_lowercase(), &version_id)
    })
}

fn release(id: &str, version_id: &str) -> FoundOs {
    FoundOs {
        path: String::new(),
        id: id.to_owned(),
        version_id: version_id.to_owned(),
        codename: None,
        pretty_name: None,
        id_like: Vec::new(),
    }
}

/// What the last line of a name says.
pub(crate) fn value(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
    let last = lines.rfind(|(name, _)| *name == key)?;
    Some(unquote(last.1)).filter(|value| !value.is_empty())
}

fn parse(text: &str) -> Result<FoundOs, Malformed> {
    let value = |key: &str| value(text, key);
    let id = value("ID").ok_or_else(|| Malformed::Format("there is no `ID` line".to_owned()))?;
    Ok(FoundOs {
        codename: value("VERSION_CODENAME"),
        pretty_name: value("PRETTY_NAME"),
        id_like: value("ID_LIKE")
            .map(|ids| ids.split_whitespace().map(ToOwned::to_owned).collect())
            .unwrap_or_default(),
        ..release(
            &id.to_ascii_lowercase(),
            &value("VERSION_ID").unwrap_or_default(),
        )
    })
}

/// A value without its quotes and escapes, as a shell would read it.
fn unquote(value: &str) -> String {
    let value = value.trim();
    let inner = |quote: char| {
        value
            .strip_prefix(quote)
            .and_then(|v| v.strip_suffix(quote))
    };
    if let Some(literal) = inner('\'') {
        return literal.to_owned();
    }
    let value = inner('"').unwrap_or(value);
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place, what stands there, and the system that it names.
    const SAMPLES: &[(&str, &str, &str)] = &[
        (
            "etc/redhat-release",
            "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n",
            "rhel 6.10",
        ),
        (
            "etc/redhat-release",
            "CentOS Linux release 7.9.2009 (Core)\n",
            "centos 7.9",
        ),
        (
            "etc/centos-release",
            "CentOS Stream release 8\n",
            "centos 8",
        ),
        (
            "etc/oracle-release",
            "Oracle Linux Server release 6.10\n",
            "ol 6.10",
        ),
        (
            "etc/rocky-release",
            "Rocky Linux release 8.6 (Green Obsidian)\n",
            "rocky 8.6",
        ),
        (
            "etc/almalinux-release",
            "AlmaLinux release 9.2 (Turquoise Kodkod)\n",
            "almalinux 9.2",
        ),
        (
            "etc/fedora-release",
            "Fedora release 38 (Thirty Eight)\n",
            "fedora 38",
        ),
        (
            "etc/system-release",
            "Amazon Linux AMI release 2018.03\n",
            "amzn 2018.03",
        ),
        (
            "etc/system-release",
            "Amazon Linux release 2 (Karoo)\n",
            "amzn 2",
        ),
        (
            "etc/system-release",
            "Amazon Linux release 2023.3.20231218 (Amazon Linux)\n",
            "amzn 2023",
        ),
        (
            "etc/photon-release",
            "VMware Photon Linux 1.0\nPHOTON_BUILD_NUMBER=62c543d\n",
            "photon 1.0",
        ),
        (
            "etc/mariner-release",
            "CBL-Mariner 2.0.20220226\n",
            "mariner 2.0",
        ),
        (
            "etc/openEuler-release",
            "openEuler release 22.03 (LTS-SP1)\n",
            "openeuler 22.03",
        ),
        (
            "etc/mageia-release",
            "Mageia release 8 (Official) for x86_64\n",
            "mageia 8",
        ),
        (
            "etc/SuSE-release",
            "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n",
            "sles 11.4",
        ),
        (
            "etc/SuSE-release",
            "openSUSE 13.1 (x86_64)\nVERSION = 13.1\nCODENAME = Bottle\n",
            "opensuse 13.1",
        ),
        (
            "etc/lsb-release",
            "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=12.04\n",
            "ubuntu 12.04",
        ),
        ("etc/lsb-release", "LSB_VERSION=base-4.0-amd64\n", ""),
        (
            "etc/openwrt_release",
            "DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='19.07.3'\n",
            "openwrt 19.07.3",
        ),
        (
            "etc/gentoo-release",
            "Gentoo Base System release 2.14\n",
            "gentoo 2.14",
        ),
        (
            "etc/slackware-version",
            "Slackware 14.2\n",
            "slackware 14.2",
        ),
        ("etc/arch-release", "", "arch "),
        ("etc/redhat-release", "Nobody knows release 1\n", ""),
    ];

    #[test]
    fn systems_are_told_by_what_they_had_before_os_release() {
        for (path, text, expected) in SAMPLES {
            let (_, read) = OTHERS.iter().find(|(place, _)| place == path).unwrap();
            let os = read(text).map(|os| format!("{} {}", os.id, os.version_id));
            assert_eq!(os.unwrap_or_default(), *expected, "{path}: {text}");
        }
    }

    #[test]
    fn a_line_that_is_no_name_is_none() {
        let long = |length: usize| format!("CentOS release 6{}", " ".repeat(length));
        let fits = LINE_BYTES_MAX - long(0).len();
        assert!(named(&format!("{}x", long(fits - 1))).is_some());
        assert!(named(&format!("{}x", long(fits))).is_none());
    }
}
