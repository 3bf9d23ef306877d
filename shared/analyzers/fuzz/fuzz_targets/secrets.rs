//! Texts in which secrets are looked for, and archives of them.

#![no_main]

use std::sync::OnceLock;

use analyzers_fuzz::{family, read_as};
use libfuzzer_sys::fuzz_target;

static FAMILY: OnceLock<analyzers::Analyzers> = OnceLock::new();

const ANALYZERS: &[&str] = &["secrets"];

const PATHS: &[&str] = &[
    "srv/a.txt",
    "srv/.env",
    "srv/id_rsa",
    "root/.docker/config.json",
    "srv/a.zip",
    "srv/a.tar.gz",
];

fuzz_target!(|bytes: &[u8]| read_as(PATHS, bytes, family(ANALYZERS, &FAMILY)));
