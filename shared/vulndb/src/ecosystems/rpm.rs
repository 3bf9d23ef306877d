//! RPM distributions: rpm's order, packages by their own name and by that of their source package.
//!
//! Databases differ in which name they use, some use both; so both are asked, and a finding says
//! which one it was. A package without epoch has epoch 0.
//!
//! What is built in a module (Fedora Modularity) and what is not are different packages of one name:
//! an advisory about a module's build speaks of packages of the same module and stream only. OSV has
//! no field for it: that a fix is a module's is in its release, which stream it is in the title.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query};
use crate::version::{Key, Version, digits, run};

/// Red Hat, SUSE and everybody else with rpm.
pub(super) struct Rpm;

/// What may stand at one place of a version, lowest first.
const TILDE: u8 = 1;
const END: u8 = 2;
const CARET: u8 = 3;
const WORD: u8 = 4;
const NUMBER: u8 = 5;

/// The products that SUSE's base images are made from, beside the server itself.
const SUSE_MODULES: &[&str] = &[
    "Basesystem",
    "Containers",
    "Desktop Applications",
    "Development Tools",
    "Legacy",
    "Public Cloud",
    "Python 3",
    "Server Applications",
    "Web and Scripting",
];

// === impl Rpm ===

impl Ecosystem for Rpm {
    fn package_type(&self) -> PackageType {
        PackageType::Rpm
    }

    fn names(&self) -> &'static [&'static str] {
        &[
            "AlmaLinux",
            "Amazon Linux",
            "Azure Linux",
            "Mageia",
            "Oracle Linux",
            "Photon OS",
            "Red Hat",
            "Rocky Linux",
            "SUSE",
            "openEuler",
            "openSUSE",
        ]
    }

    /// `[epoch:]version[-release]`; a version without release is before the same with one.
    fn parse(&self, text: &str) -> Option<Version> {
        if text.contains(char::is_whitespace) {
            return None;
        }
        let (number, tail) = digits(text);
        let (epoch, rest) = match tail.strip_prefix(':') {
            Some(rest) => (number, rest),
            None => ("", text),
        };
        let (version, release) = match rest.rsplit_once('-') {
            Some((version, release)) => (version, Some(release)),
            None => (rest, None),
        };
        if version.is_empty() {
            return None;
        }
        let mut key = Key::default();
        key.number(epoch);
        part(version, &mut key);
        key.byte(u8::from(release.is_some()));
        part(release.unwrap_or_default(), &mut key);
        Some(key.finish())
    }

    /// Debugging data, headers of the kernel for compilers, and keys, which rpm keeps as packages.
    fn is_exempt(&self, package: &Package) -> bool {
        let Package { name, .. } = package;
        name.ends_with("-debuginfo")
            || name.ends_with("-debugsource")
            || matches!(name.as_str(), "gpg-pubkey" | "kernel-headers")
    }

    fn releases(&self, os: &Os) -> Vec<String> {
        let id = os.version_id.as_str();
        let major = id.split('.').next().unwrap_or_default();
        if major.is_empty() && os.id != "opensuse-tumbleweed" {
            return Vec::new();
        }
        match os.id.as_str() {
            "almalinux" => vec![format!("AlmaLinux:{major}")],
            // Amazon Linux 1 is named by a date.
            "amzn" if major == "2018" => vec!["Amazon Linux:1".to_owned()],
            "amzn" => vec![format!("Amazon Linux:{major}")],
            "azurelinux" | "mariner" => vec![format!("Azure Linux:{major}")],
            "centos" if !is_stream(os) => red_hat(major),
            "mageia" => vec![format!("Mageia:{major}")],
            "ol" => vec![format!("Oracle Linux:{major}")],
            "openEuler" => open_euler(os),
            "photon" => vec![format!("Photon OS:{id}")],
            "rhel" => red_hat(major),
            "rocky" => vec![format!("Rocky Linux:{major}")],
            "sles" | "sled" | "sle-micro" | "sl-micro" | "sle_hpc" => suse(os),
            name if name.starts_with("opensuse") => open_suse(os),
            _ => Vec::new(),
        }
    }

    fn queries(&self, package: &Package, os: Option<&Os>) -> Vec<Query> {
        let releases = os.map(|os| self.releases(os)).unwrap_or_default();
        let mut queries = Vec::new();
        for release in &releases {
            let name = package.name.clone();
            queries.push(query(release, name, &package.version, "package"));
            if let Some(source) = package.source_name.as_ref().filter(|s| **s != package.name) {
                let version = package.source_version.as_ref().unwrap_or(&package.version);
                queries.push(query(release, source.clone(), version, "source_package"));
            }
        }
        queries
    }
}

/// Runs of digits and of letters, whatever separates them; `~` sorts before the end, `^` right
/// after it.
fn part(text: &str, key: &mut Key) {
    let mut rest = text;
    loop {
        let is_separator = |c: char| !c.is_ascii_alphanumeric() && c != '~' && c != '^';
        rest = rest.trim_start_matches(is_separator);
        let (number, tail) = digits(rest);
        if !number.is_empty() {
            key.byte(NUMBER);
            key.number(number);
            rest = tail;
            continue;
        }
        let (word, tail) = run(rest, |c| c.is_ascii_alphabetic());
        if !word.is_empty() {
            key.byte(WORD);
            key.text(word);
            rest = tail;
            continue;
        }
        let mut chars = rest.chars();
        match chars.next() {
            Some('~') => key.byte(TILDE),
            Some(_caret) => key.byte(CARET),
            None => break,
        }
        rest = chars.as_str();
    }
    key.byte(END);
}

/// `CentOS` Stream is ahead of Red Hat's releases and has other versions.
fn is_stream(os: &Os) -> bool {
    let name = os.pretty_name.as_deref().unwrap_or_default();
    name.contains("Stream") || !matches!(os.version_id.as_str(), "6" | "7" | "8")
}

/// What every subscription of a major release has, and none of the extended ones. What is not fixed is
/// said of the release as a whole.
fn red_hat(major: &str) -> Vec<String> {
    let named = |tail: &str| format!("Red Hat:enterprise_linux:{major}{tail}");
    let mut found = match major.parse() {
        Ok(0..=7_u32) => ["::server", "::client", "::computenode", "::workstation"]
            .map(named)
            .to_vec(),
        Ok(8..=9) => ["::baseos", "::appstream", "::crb"].map(named).to_vec(),
        // A fix is published for the minor release that is current: any may have one.
        Ok(_) => (0..=10).map(|minor| named(&format!(".{minor}"))).collect(),
        Err(_) => return Vec::new(),
    };
    found.push(named(""));
    found
}

/// `SUSE:Linux Enterprise Server 15 SP5`: as its pretty name says; and its modules.
fn suse(os: &Os) -> Vec<String> {
    let pretty = os.pretty_name.as_deref().unwrap_or_default();
    let Some(product) = pretty.strip_prefix("SUSE ") else {
        return Vec::new();
    };
    let mut found = vec![format!("SUSE:{product}")];
    if let Some((_, release)) = product.split_once("15 SP") {
        let module =
            |name: &&str| format!("SUSE:Linux Enterprise Module for {name} 15 SP{release}");
        found.extend(SUSE_MODULES.iter().map(module));
    }
    found
}

/// `openSUSE:Leap 15.5`.
fn open_suse(os: &Os) -> Vec<String> {
    let pretty = os.pretty_name.as_deref().unwrap_or_default();
    let product = pretty.strip_prefix("openSUSE ");
    product
        .map(|product| format!("openSUSE:{product}"))
        .into_iter()
        .collect()
}

/// `openEuler:24.03-LTS-SP1` of `openEuler 24.03 (LTS-SP1)`.
fn open_euler(os: &Os) -> Vec<String> {
    let pretty = os.pretty_name.as_deref().unwrap_or_default();
    let release = pretty.strip_prefix("openEuler ").unwrap_or(&os.version_id);
    let release = release.replace(" (", "-").replace(')', "");
    vec![format!("openEuler:{release}")]
}
