//! Databases of rpm, of all kinds.

#![no_main]

use std::sync::OnceLock;

use analyzers_fuzz::{family, read_as};
use libfuzzer_sys::fuzz_target;

static FAMILY: OnceLock<analyzers::Analyzers> = OnceLock::new();

const ANALYZERS: &[&str] = &["rpm"];

const PATHS: &[&str] = &[
    "var/lib/rpm/Packages",
    "var/lib/rpm/Packages.db",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/share/rpm/rpmdb.sqlite",
    "usr/share/rpm/rpmdb.sqlite-wal",
    "var/lib/rpmmanifest/container-manifest-2",
];

fuzz_target!(|bytes: &[u8]| read_as(PATHS, bytes, family(ANALYZERS, &FAMILY)));
