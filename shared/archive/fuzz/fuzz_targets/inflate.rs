//! A compressed stream, of whatever kind it says it is.

#![no_main]

use archive::{Inflate, Limits};
use libfuzzer_sys::fuzz_target;

/// Small enough that a bomb ends soon.
fn limits() -> Limits {
    Limits {
        uncompressed_bytes_max: 8 << 20,
        ratio_free_bytes: 1 << 20,
        zstd_window_log_max: 20,
        ..Limits::default()
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = limits();
    let Ok(mut inflate) = Inflate::open(bytes, &limits) else {
        return;
    };
    let mut buffer = vec![0; 64 << 10];
    let mut sum = 0_u64;
    while let Ok(length) = inflate.fill(&mut buffer) {
        if length == 0 {
            break;
        }
        sum += length as u64;
        assert_eq!(inflate.uncompressed_bytes(), sum);
        assert!(sum <= limits.uncompressed_bytes_max);
    }
    assert!(inflate.compressed_bytes() <= bytes.len() as u64);
});
