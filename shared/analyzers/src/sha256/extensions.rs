//! The processor's own instructions for SHA-256 (Intel, "Intel SHA Extensions", 2013).

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::blocks::Block;

/// That this processor has what is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extensions(Found);

#[cfg(target_arch = "x86_64")]
type Found = ();

/// Nothing: other processors are left to the library.
#[cfg(not(target_arch = "x86_64"))]
type Found = std::convert::Infallible;

// === impl Extensions ===

#[cfg(target_arch = "x86_64")]
impl Extensions {
    /// Looks whether they are there.
    pub(super) fn find() -> Option<Self> {
        let has_all = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        has_all.then_some(Self(()))
    }

    /// Adds the same blocks to each of the states, and to MD5's where there is one.
    #[expect(
        unsafe_code,
        reason = "the compiler cannot see that the processor was asked; two digests for the time \
                  of one are worth it"
    )]
    pub(super) fn compress<const N: usize>(
        self,
        states: &mut [[u32; 8]; N],
        md5: Option<&mut [u32; 4]>,
        blocks: &[Block],
    ) {
        let Self(()) = self;
        // SAFETY: both need a processor with these instructions and nothing else; there is a value
        // of this type only where `find` has found them.
        unsafe {
            match md5 {
                Some(md5) => x86::compress_with_md5(states, md5, blocks),
                None => x86::compress(states, blocks),
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Extensions {
    /// Looks whether they are there.
    pub(super) const fn find() -> Option<Self> {
        None
    }

    /// Never called.
    pub(super) fn compress<const N: usize>(
        self,
        _: &mut [[u32; 8]; N],
        _: Option<&mut [u32; 4]>,
        _: &[Block],
    ) {
        match self.0 {}
    }
}
