//! Programs: what Go and Rust write into them, and what they say of themselves.

#![no_main]

use std::sync::OnceLock;

use analyzers_fuzz::{family, read_as};
use libfuzzer_sys::fuzz_target;

static FAMILY: OnceLock<analyzers::Analyzers> = OnceLock::new();

const ANALYZERS: &[&str] = &["golang", "cargo", "software", "checksums"];

const PATHS: &[&str] = &[
    "usr/bin/a",
    "usr/bin/python3.11",
    "usr/bin/node",
    "usr/sbin/nginx",
    "usr/bin/redis-server",
    "usr/bin/vault",
    "usr/lib/libcrypto.so.3",
    "usr/bin/mysqld",
    "usr/bin/busybox",
];

fuzz_target!(|bytes: &[u8]| read_as(PATHS, bytes, family(ANALYZERS, &FAMILY)));
