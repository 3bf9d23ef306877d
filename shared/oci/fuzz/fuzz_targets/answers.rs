//! What registries and token servers answer.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| oci::fuzz::answer(bytes));
