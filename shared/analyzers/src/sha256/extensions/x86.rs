//! The rounds, four at a time, for one state or several.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
    _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
    _mm_shuffle_epi8, _mm_shuffle_epi32,
};

use crate::{blocks::Block, md5::Steps};

/// What each round adds (FIPS 180-4, 4.2.2), four rounds in a row.
const ADDED: [[[u32; 4]; 4]; 4] = [
    [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    ],
    [
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    ],
    [
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    ],
    [
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ],
];

/// A state as the instructions want it: the words `a`, `b`, `e`, `f` and `c`, `d`, `g`, `h`, the
/// first one highest.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

/// The rounds of a block.
struct Rounds<const N: usize> {
    before: [State; N],
    states: [State; N],
    /// The next sixteen words.
    words: [__m128i; 4],
}

/// Adds the same blocks to each of the states.
#[target_feature(enable = "sha,ssse3,sse4.1")]
pub(super) fn compress<const N: usize>(states: &mut [[u32; 8]; N], blocks: &[Block]) {
    let mut all = states.map(|state| pack(state));
    for block in blocks {
        let mut rounds = begin(all, block);
        for [first, second, third, fourth] in ADDED {
            four(&mut rounds, first);
            four(&mut rounds, second);
            four(&mut rounds, third);
            four(&mut rounds, fourth);
        }
        all = end(&rounds);
    }
    *states = all.map(|state| unpack(state));
}

/// The same, and MD5 of them: its steps wait for each other longer than all of this takes.
#[target_feature(enable = "sha,ssse3,sse4.1")]
pub(super) fn compress_with_md5<const N: usize>(
    states: &mut [[u32; 8]; N],
    md5: &mut [u32; 4],
    blocks: &[Block],
) {
    let [first, second, third, fourth] = ADDED;
    let mut all = states.map(|state| pack(state));
    for block in blocks {
        let mut rounds = begin(all, block);
        let mut steps = Steps::new(*md5, block);
        steps.first(first, |added| four(&mut rounds, added));
        steps.second(second, |added| four(&mut rounds, added));
        steps.third(third, |added| four(&mut rounds, added));
        *md5 = steps.fourth(fourth, |added| four(&mut rounds, added));
        all = end(&rounds);
    }
    *states = all.map(|state| unpack(state));
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn begin<const N: usize>(states: [State; N], block: &Block) -> Rounds<N> {
    let mut words = [_mm_setzero_si128(); 4];
    let halves = block.as_chunks::<8>().0.as_chunks::<2>().0;
    for (words, [low, high]) in words.iter_mut().zip(halves) {
        let bytes = _mm_set_epi64x(i64::from_le_bytes(*high), i64::from_le_bytes(*low));
        // A word's highest byte comes first.
        let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        *words = _mm_shuffle_epi8(bytes, order);
    }
    Rounds {
        before: states,
        states,
        words,
    }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn end<const N: usize>(rounds: &Rounds<N>) -> [State; N] {
    let mut states = rounds.states;
    for (state, before) in states.iter_mut().zip(&rounds.before) {
        state.abef = _mm_add_epi32(state.abef, before.abef);
        state.cdgh = _mm_add_epi32(state.cdgh, before.cdgh);
    }
    states
}

/// Four rounds. The states do not wait for each other.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn four<const N: usize>(rounds: &mut Rounds<N>, added: [u32; 4]) {
    let [a, b, c, d] = rounds.words;
    let [k0, k1, k2, k3] = added.map(u32::cast_signed);
    let first = _mm_add_epi32(a, _mm_set_epi32(k3, k2, k1, k0));
    for State { abef, cdgh } in &mut rounds.states {
        *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, first);
    }
    let second = _mm_shuffle_epi32::<0b00_00_11_10>(first);
    for State { abef, cdgh } in &mut rounds.states {
        *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, second);
    }
    // The four words after these sixteen.
    let between = _mm_alignr_epi8::<4>(d, c);
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(a, b), between);
    rounds.words = [b, c, d, _mm_sha256msg2_epu32(sum, d)];
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn pack(state: [u32; 8]) -> State {
    let [of_a, of_b, of_c, of_d, of_e, of_f, of_g, of_h] = state.map(u32::cast_signed);
    State {
        abef: _mm_set_epi32(of_a, of_b, of_e, of_f),
        cdgh: _mm_set_epi32(of_c, of_d, of_g, of_h),
    }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn unpack(State { abef, cdgh }: State) -> [u32; 8] {
    [
        _mm_extract_epi32::<3>(abef),
        _mm_extract_epi32::<2>(abef),
        _mm_extract_epi32::<3>(cdgh),
        _mm_extract_epi32::<2>(cdgh),
        _mm_extract_epi32::<1>(abef),
        _mm_extract_epi32::<0>(abef),
        _mm_extract_epi32::<1>(cdgh),
        _mm_extract_epi32::<0>(cdgh),
    ]
    .map(i32::cast_unsigned)
}
