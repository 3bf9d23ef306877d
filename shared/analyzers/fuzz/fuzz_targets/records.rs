//! Records of package managers that are texts or JSON.

#![no_main]

use std::sync::OnceLock;

use analyzers_fuzz::{family, read_as};
use libfuzzer_sys::fuzz_target;

static FAMILY: OnceLock<analyzers::Analyzers> = OnceLock::new();

const ANALYZERS: &[&str] = &[
    "os-release",
    "dpkg",
    "apk",
    "opkg",
    "python",
    "npm",
    "gem",
    "composer",
    "dotnet",
    "cran",
    "erlang",
    "conda",
    "php",
    "wordpress",
    "jdk",
    "compliance",
];

const PATHS: &[&str] = &[
    "etc/os-release",
    "etc/redhat-release",
    "etc/debian_version",
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d/a",
    "var/lib/dpkg/info/a.list",
    "var/lib/dpkg/info/a.md5sums",
    "var/lib/dpkg/diversions",
    "lib/apk/db/installed",
    "usr/lib/opkg/status",
    "usr/lib/opkg/info/a.list",
    "a/a.dist-info/METADATA",
    "a/a.egg-info",
    "node_modules/a/package.json",
    "a/specifications/a.gemspec",
    "a/composer/installed.json",
    "a/a.deps.json",
    "library/a/DESCRIPTION",
    "a/ebin/a.app",
    "conda-meta/a.json",
    "a/.registry/a.reg",
    "wp-includes/version.php",
    "wp-content/plugins/a/a.php",
    "wp-content/themes/a/style.css",
    "a/release",
    "etc/passwd",
    "etc/shadow",
    "etc/sudoers",
];

fuzz_target!(|bytes: &[u8]| read_as(PATHS, bytes, family(ANALYZERS, &FAMILY)));
