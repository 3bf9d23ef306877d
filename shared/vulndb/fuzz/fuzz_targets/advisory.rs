//! What feeds hold: advisories, and who exploits what; and shards as they are kept.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vulndb::{Advisory, Shard, read_epss, read_kev};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(advisory) = Advisory::parse(bytes) {
        for (_, of_package) in advisory.split("fuzz") {
            let shard = Shard::new(vec![of_package]);
            let encoded = shard.encode();
            let decoded = Shard::decode(&encoded).expect("what was encoded is a shard");
            assert_eq!(decoded.encode(), encoded);
        }
    }
    let _shard = Shard::decode(bytes);
    let _exploited = (read_epss("fuzz", bytes), read_kev("fuzz", bytes));
});
