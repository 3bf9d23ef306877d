//! The allocator, and how long it keeps what is freed.

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_get, mi_option_set, mi_option_t};

/// A fifth of a churning fleet's processor time went into the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `purge_delay`: milliseconds until freed memory goes back to the system. Its bindings
/// name no constant for it.
const PURGE_DELAY: mi_option_t = 15;
/// What that is where nobody set it.
const PURGE_DELAY_MS: c_long = 1_000;

/// What it is for a scan. At once costs a scan of known layers a fifth more page faults, and one that
/// reads layers 3 % more processor time.
const PURGE_SOON_MS: c_long = 50;

/// Has freed memory go back soon, unless the user's environment says otherwise; says whether it
/// does now.
///
/// Each layer is read by threads of its own, and a scan is over before the allocator gives anything
/// back: one of twelve layers took twice the memory that it had in use, and is not slower so. A
/// server is: it allocates the same again and again.
#[expect(unsafe_code, reason = "the allocator has no other way to be told")]
pub(crate) fn give_back_soon() -> bool {
    // SAFETY: the functions read and write one number of a table that has more than 15 in every
    // version of mimalloc; they are not safe beside each other, and `main` calls this before there
    // are other threads.
    unsafe {
        let is_default = mi_option_get(PURGE_DELAY) == PURGE_DELAY_MS;
        if is_default {
            mi_option_set(PURGE_DELAY, PURGE_SOON_MS);
        }
        is_default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // Another version of mimalloc may have another default, or another option in its place.
        let is_set_outside = std::env::var_os("MIMALLOC_PURGE_DELAY").is_some();
        assert!(is_set_outside || give_back_soon());
    }
}
