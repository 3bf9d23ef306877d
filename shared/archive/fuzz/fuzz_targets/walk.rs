//! A tar archive: every entry, and every byte of its content.

#![no_main]

use archive::{Limits, Walk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        entries_max: 1000,
        name_bytes_max: 64 << 10,
        pax_bytes_max: 16 << 10,
        ..Limits::default()
    };
    let mut walk = Walk::new(bytes, &limits);
    let mut entries = 0;
    while let Ok(Some(_)) = walk.next_entry() {
        entries += 1;
        let mut content = 0_u64;
        while let Ok(Some(chunk)) = walk.chunk() {
            content += chunk.len() as u64;
            // A sparse file says where its holes are, and is not larger than it says.
            assert!(content <= limits.uncompressed_bytes_max);
            if content > 16 << 20 {
                return;
            }
        }
    }
    assert!(entries <= limits.entries_max);
});
