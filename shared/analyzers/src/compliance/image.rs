//! Checks of an image that is put together: its config, its packages, its secrets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{
    Assessment, Digest, ImageConfig, ImageReport, Misconfiguration, Os, PackageType, Secret,
};

use super::{
    build::{self, Origin, is_root, is_system_path, port_check},
    catalog::finding,
    instruction::{Instruction, parse},
};
use crate::secrets::{SecretsConfig, look_into_text};

/// Findings of one check that a report has one by one; the others are counted.
const OF_ONE_CHECK_MAX: usize = 50;

/// Package managers, by the packages that they come in.
const PACKAGE_MANAGERS: &[&str] = &[
    "apt",
    "apk-tools",
    "dnf",
    "dnf5",
    "yum",
    "microdnf",
    "tdnf",
    "zypper",
    "rpm",
    "pacman",
    "aptitude",
    "npm",
    "pip",
    "yarn",
    "pnpm",
    "composer",
    "gem",
];

/// Compilers and build tools, by the packages that they come in, without a version behind a dash.
const BUILD_TOOLS: &[&str] = &[
    "gcc",
    "g++",
    "clang",
    "make",
    "gmake",
    "cmake",
    "build-essential",
    "build-base",
    "gcc-c++",
    "golang",
    "golang-go",
    "go",
    "rustc",
    "rust",
    "cargo",
    "maven",
    "gradle",
    "ninja-build",
    "autoconf",
    "automake",
    "meson",
    "gdb",
    "bison",
    "flex",
    "default-jdk",
    "default-jdk-headless",
    "dotnet-sdk",
];

/// Adds what the config, the history and the packages of an image show. The config has its secrets
/// masked already; `secrets` are those. A directory has no config to be judged.
pub(crate) fn check_image(config: &ImageConfig, secrets: &[Secret], report: &mut ImageReport) {
    let mut found = Vec::new();
    let history = config.history.iter().enumerate();
    let instructions: Vec<Instruction> = history
        .map(|(number, step)| Instruction::of_history(number, &step.created_by))
        .collect();
    build::check(&instructions, Origin::History, &mut found);
    if !config.is_written {
        of_config(config, &mut found);
    }
    of_secrets(secrets, &mut found);
    of_packages(report, &mut found);
    let all = &mut report.findings.misconfigurations;
    all.append(&mut found);
    all.sort_by(|a, b| {
        (&a.id, &a.path, a.line, &a.evidence).cmp(&(&b.id, &b.path, b.line, &b.evidence))
    });
    all.dedup_by(|a, b| a.fingerprint == b.fingerprint);
    fold(all);
}

/// The same checks, and the search for secrets, over a Dockerfile that is not built yet.
pub fn check_dockerfile(
    path: &str,
    text: &str,
    settings: &SecretsConfig,
) -> (Vec<Misconfiguration>, Vec<Secret>) {
    let (masked, secrets) = look_into_text(path, text, Digest::of(text.as_bytes()), settings);
    let instructions = parse(&masked);
    let mut found = Vec::new();
    build::check(&instructions, Origin::Dockerfile(path), &mut found);
    build::check_outcome(&instructions, path, &mut found);
    for secret in &secrets {
        let evidence = format!("{}: {}", secret.title, secret.masked);
        found.extend(finding(
            "secret-in-build",
            evidence,
            Some(path),
            Some(secret.line),
        ));
    }
    found.sort_by(|a, b| (a.line, &a.id).cmp(&(b.line, &b.id)));
    found.dedup_by(|a, b| a.fingerprint == b.fingerprint);
    (found, secrets)
}

/// The finding of an operating system without security updates: known when the image is judged, since
/// the last day may come when nothing else changes.
pub fn end_of_life(assessment: &Assessment, now: Timestamp) -> Option<Misconfiguration> {
    let has_ended =
        |os: &&Os| os.eol == Some(true) || assessment.os_ends.is_some_and(|ends| ends <= now);
    let os = assessment.os.as_ref().filter(has_ended)?;
    let Os { id, version_id, .. } = os;
    finding("end-of-life-os", format!("{id} {version_id}"), None, None)
}

fn of_config(config: &ImageConfig, found: &mut Vec<Misconfiguration>) {
    let runtime = &config.runtime;
    let user = runtime.user.as_deref().unwrap_or_default();
    if is_root(user) {
        let evidence = match user {
            "" => "the config names no user".to_owned(),
            user => format!("the user is `{user}`"),
        };
        found.extend(finding("user-root", evidence, None, None));
    }
    let health = runtime.healthcheck.as_ref();
    let is_none = |words: &Vec<String>| words.first().is_none_or(|first| first == "NONE");
    if health.is_none_or(is_none) {
        found.extend(finding("no-healthcheck", "the config has none", None, None));
    }
    for port in &runtime.exposed_ports {
        if let Some(id) = port_check(port) {
            found.extend(finding(id, format!("port {port}"), None, None));
        }
    }
    for volume in runtime
        .volumes
        .iter()
        .filter(|volume| is_system_path(volume))
    {
        found.extend(finding(
            "volume-over-system-path",
            format!("volume `{volume}`"),
            None,
            None,
        ));
    }
}

fn of_secrets(secrets: &[Secret], found: &mut Vec<Misconfiguration>) {
    for secret in secrets {
        let place = secret
            .path
            .strip_prefix("image-config/")
            .unwrap_or(&secret.path);
        let id = if place.starts_with("env/") {
            "secret-in-environment"
        } else {
            "secret-in-build"
        };
        let evidence = format!("{} in {place}", secret.title);
        found.extend(finding(id, evidence, None, None));
    }
}

fn of_packages(report: &ImageReport, found: &mut Vec<Misconfiguration>) {
    let names = |is_one: &dyn Fn(PackageType, &str) -> bool| {
        let wanted = report
            .packages
            .iter()
            .filter(|package| is_one(package.kind, &package.name));
        let mut names: Vec<String> = wanted.map(|package| package.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    };
    let managers = names(&is_package_manager);
    let tools = names(&is_build_tool);
    for (id, names) in [("package-manager-left", managers), ("build-tools", tools)] {
        if !names.is_empty() {
            found.extend(finding(id, names.join(", "), None, None));
        }
    }
}

/// Whether packages of this kind are programs. Libraries of languages have names of their own: the crate
/// `cargo` and the gem `make` are neither.
const fn is_of_programs(kind: PackageType) -> bool {
    use PackageType::{Apk, Bitnami, Conda, Deb, Generic, Opkg, Rpm};
    matches!(kind, Apk | Bitnami | Conda | Deb | Generic | Opkg | Rpm)
}

fn is_package_manager(kind: PackageType, name: &str) -> bool {
    match kind {
        PackageType::Npm => matches!(name, "npm" | "pnpm" | "yarn"),
        PackageType::Pypi => name == "pip",
        kind => is_of_programs(kind) && PACKAGE_MANAGERS.contains(&name),
    }
}

/// `gcc`, `gcc-12`, `golang-1.22-go`, `openjdk-17-jdk`; not `gcc-12-base`, which all have.
fn is_build_tool(kind: PackageType, name: &str) -> bool {
    match kind {
        PackageType::Pypi => matches!(name, "cmake" | "meson"),
        kind => is_of_programs(kind) && is_name_of_build_tool(name),
    }
}

fn is_name_of_build_tool(name: &str) -> bool {
    let bare = name
        .split_once('-')
        .filter(|(_, rest)| rest.chars().all(|c| c.is_ascii_digit() || c == '.'));
    let bare = bare.map_or(name, |(bare, _)| bare);
    BUILD_TOOLS.contains(&bare)
        || BUILD_TOOLS.contains(&name)
        || (name.starts_with("openjdk-")
            && (name.ends_with("-jdk") || name.ends_with("-jdk-headless")))
        || (name.starts_with("golang-") && name.ends_with("-go"))
        || name.starts_with("dotnet-sdk-")
}

/// Of a check with very many findings the first ones, of which the last counts the others.
fn fold(all: &mut Vec<Misconfiguration>) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for one in all.iter() {
        let count = counts.entry(one.id.clone()).or_default();
        *count = count.saturating_add(1);
    }
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    all.retain_mut(|one| {
        let number = kept.entry(one.id.clone()).or_default();
        *number = number.saturating_add(1);
        let count = counts.get(&one.id).copied().unwrap_or_default();
        if *number == OF_ONE_CHECK_MAX && count > OF_ONE_CHECK_MAX {
            let more = count.saturating_sub(OF_ONE_CHECK_MAX);
            one.evidence = format!("{}, and {more} more like it", one.evidence);
        }
        *number <= OF_ONE_CHECK_MAX
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_tools_are_told_from_their_libraries() {
        for name in [
            "gcc",
            "gcc-12",
            "g++",
            "golang-1.22-go",
            "openjdk-17-jdk",
            "cmake",
            "dotnet-sdk-8.0",
        ] {
            assert!(is_build_tool(PackageType::Deb, name), "{name}");
        }
        for name in [
            "gcc-12-base",
            "libgcc-s1",
            "make-guile-doc",
            "openjdk-17-jre",
            "golang-docs",
            "go-md2man",
        ] {
            assert!(!is_build_tool(PackageType::Deb, name), "{name}");
        }
    }

    #[test]
    fn a_library_is_no_program_of_the_same_name() {
        for (kind, name) in [
            (PackageType::Cargo, "cargo"),
            (PackageType::Cargo, "cmake"),
            (PackageType::Cargo, "rpm"),
            (PackageType::Cran, "flex"),
            (PackageType::Gem, "make"),
            (PackageType::Npm, "gradle"),
            (PackageType::Npm, "pip"),
            (PackageType::Pypi, "rpm"),
            (PackageType::Pypi, "npm"),
        ] {
            assert!(!is_build_tool(kind, name), "{name}");
            assert!(!is_package_manager(kind, name), "{name}");
        }
        for (kind, name) in [
            (PackageType::Npm, "npm"),
            (PackageType::Npm, "yarn"),
            (PackageType::Pypi, "pip"),
            (PackageType::Rpm, "rpm"),
            (PackageType::Deb, "npm"),
            (PackageType::Conda, "pip"),
        ] {
            assert!(is_package_manager(kind, name), "{name}");
        }
        for (kind, name) in [
            (PackageType::Deb, "cargo"),
            (PackageType::Pypi, "cmake"),
            (PackageType::Conda, "make"),
            (PackageType::Generic, "go"),
        ] {
            assert!(is_build_tool(kind, name), "{name}");
        }
    }

    #[test]
    fn very_many_findings_of_one_check_are_counted() {
        let of = |number: usize| {
            finding(
                "world-writable-file",
                "mode 0666",
                Some(&format!("a/{number}")),
                None,
            )
            .unwrap()
        };
        let mut all: Vec<_> = (0..60).map(of).collect();
        fold(&mut all);
        assert_eq!(all.len(), OF_ONE_CHECK_MAX);
        assert_eq!(
            all.last().unwrap().evidence,
            "mode 0666, and 10 more like it"
        );
        let mut few: Vec<_> = (0..50).map(of).collect();
        fold(&mut few);
        assert_eq!(few.last().unwrap().evidence, "mode 0666");
    }
}
