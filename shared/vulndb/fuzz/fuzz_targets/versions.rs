//! Orders of versions: two lines are compared by every ecosystem.

#![no_main]

use std::cmp::Ordering;

use libfuzzer_sys::fuzz_target;
use vulndb::{compare, schemes};

fuzz_target!(|text: &str| {
    let (one, other) = text.split_once('\n').unwrap_or((text, text));
    for scheme in schemes() {
        let order = compare(scheme, one, other);
        let back = compare(scheme, other, one);
        assert_eq!(order.is_ok(), back.is_ok(), "{scheme}");
        if let (Ok(order), Ok(back)) = (order, back) {
            assert_eq!(order, back.reverse(), "{scheme}");
        }
        if let Ok(same) = compare(scheme, one, one) {
            assert_eq!(same, Ordering::Equal, "{scheme}");
        }
    }
});
