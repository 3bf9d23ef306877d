//! Vendors' own feeds: CSAF, OVAL, and what else they write.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vulndb::{Shard, ShardAdvisory, VENDORS};

/// Statements that are put into one shard.
const KEPT_MAX: usize = 100;

fuzz_target!(|bytes: &[u8]| {
    for vendor in VENDORS {
        let mut kept: Vec<ShardAdvisory> = Vec::new();
        let said = vendor.read(bytes, &mut |_, advisory| {
            if kept.len() < KEPT_MAX {
                kept.push(advisory);
            }
        });
        if said.is_err() {
            continue;
        }
        let encoded = Shard::new(kept).encode();
        let decoded = Shard::decode(&encoded).expect("what was encoded is a shard");
        assert_eq!(decoded.encode(), encoded, "{}", vendor.feed());
    }
});
