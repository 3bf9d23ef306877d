//! ZIP archives: those of Java, and eggs of Python's.

#![no_main]

use std::sync::OnceLock;

use analyzers_fuzz::{family, read_as};
use libfuzzer_sys::fuzz_target;

static FAMILY: OnceLock<analyzers::Analyzers> = OnceLock::new();

const ANALYZERS: &[&str] = &["jar", "python"];

const PATHS: &[&str] = &["a/a-1.0.jar", "a/a-1.0.egg"];

fuzz_target!(|bytes: &[u8]| read_as(PATHS, bytes, family(ANALYZERS, &FAMILY)));
