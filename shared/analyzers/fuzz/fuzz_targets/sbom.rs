//! Bills of materials, of all kinds.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = analyzers::read_sbom(bytes, "sbom:fuzz") {
        let mut ids: Vec<_> = report.packages.iter().map(|package| &package.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), report.packages.len());
    }
});
