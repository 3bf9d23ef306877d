//! MD5 (RFC 1321): dpkg records its files' digests in no other way. It proves nothing against who
//! makes both files, and tells a changed one from an unchanged one.

use std::hint::black_box;

use crate::blocks::{Block, Blocks};

/// What each step adds: the integer parts of 2^32 times the sines of 1 to 64.
const SINES: [[u32; 16]; 4] = [
    [
        0xd76a_a478,
        0xe8c7_b756,
        0x2420_70db,
        0xc1bd_ceee,
        0xf57c_0faf,
        0x4787_c62a,
        0xa830_4613,
        0xfd46_9501,
        0x6980_98d8,
        0x8b44_f7af,
        0xffff_5bb1,
        0x895c_d7be,
        0x6b90_1122,
        0xfd98_7193,
        0xa679_438e,
        0x49b4_0821,
    ],
    [
        0xf61e_2562,
        0xc040_b340,
        0x265e_5a51,
        0xe9b6_c7aa,
        0xd62f_105d,
        0x0244_1453,
        0xd8a1_e681,
        0xe7d3_fbc8,
        0x21e1_cde6,
        0xc337_07d6,
        0xf4d5_0d87,
        0x455a_14ed,
        0xa9e3_e905,
        0xfcef_a3f8,
        0x676f_02d9,
        0x8d2a_4c8a,
    ],
    [
        0xfffa_3942,
        0x8771_f681,
        0x6d9d_6122,
        0xfde5_380c,
        0xa4be_ea44,
        0x4bde_cfa9,
        0xf6bb_4b60,
        0xbebf_bc70,
        0x289b_7ec6,
        0xeaa1_27fa,
        0xd4ef_3085,
        0x0488_1d05,
        0xd9d4_d039,
        0xe6db_99e5,
        0x1fa2_7cf8,
        0xc4ac_5665,
    ],
    [
        0xf429_2244,
        0x432a_ff97,
        0xab94_23a7,
        0xfc93_a039,
        0x655b_59c3,
        0x8f0c_cc92,
        0xffef_f47d,
        0x8584_5dd1,
        0x6fa8_7e4f,
        0xfe2c_e6e0,
        0xa301_4314,
        0x4e08_11a1,
        0xf753_7e82,
        0xbd3a_f235,
        0x2ad7_d2bb,
        0xeb86_d391,
    ],
];

/// A digest in the making.
#[derive(Clone, Debug)]
pub(crate) struct Md5 {
    pub(crate) state: [u32; 4],
    pub(crate) blocks: Blocks,
}

/// The four rounds of a block. The processor mostly waits in them for what a step needs: `meanwhile`
/// can do something else.
pub(crate) struct Steps {
    before: [u32; 4],
    mixed: [u32; 4],
    /// In the order of each round.
    words: [[u32; 16]; 4],
    sines: &'static [[u32; 16]; 4],
}

// === impl Md5 ===

impl Default for Md5 {
    fn default() -> Self {
        Self {
            state: [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476],
            blocks: Blocks::default(),
        }
    }
}

impl Md5 {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let Self { state, blocks } = self;
        blocks.add(bytes, |blocks| {
            for block in blocks {
                *state = compress(*state, block);
            }
        });
    }

    pub(crate) fn finish(self) -> [u8; 16] {
        let Self { mut state, blocks } = self;
        blocks.end(u64::to_le_bytes, |blocks| {
            for block in blocks {
                state = compress(state, block);
            }
        });
        let mut digest = [0; 16];
        for (to, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
            *to = word.to_le_bytes();
        }
        digest
    }
}

// === impl Steps ===

impl Steps {
    #[inline]
    pub(crate) fn new(before: [u32; 4], block: &Block) -> Self {
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let [
            w0,
            w1,
            w2,
            w3,
            w4,
            w5,
            w6,
            w7,
            w8,
            w9,
            wa,
            wb,
            wc,
            wd,
            we,
            wf,
        ] = words;
        Self {
            before,
            mixed: before,
            words: [
                words,
                [
                    w1, w6, wb, w0, w5, wa, wf, w4, w9, we, w3, w8, wd, w2, w7, wc,
                ],
                [
                    w5, w8, wb, we, w1, w4, w7, wa, wd, w0, w3, w6, w9, wc, wf, w2,
                ],
                [
                    w0, w7, we, w5, wc, w3, wa, w1, w8, wf, w6, wd, w4, wb, w2, w9,
                ],
            ],
            // As constants the compiler would add them last, behind what a step waits for.
            sines: black_box(&SINES),
        }
    }

    #[inline]
    pub(crate) fn first<T>(&mut self, with: [T; 4], meanwhile: impl FnMut(T)) {
        let mix = |sum: u32, b: u32, c: u32, d: u32| sum.wrapping_add(((c ^ d) & b) ^ d);
        self.round::<0, T>([7, 12, 17, 22], mix, (with, meanwhile));
    }

    #[inline]
    pub(crate) fn second<T>(&mut self, with: [T; 4], meanwhile: impl FnMut(T)) {
        // No bit is in both: adding them is the same as `or`, and only one waits for `b`.
        let mix = |sum: u32, b: u32, c: u32, d: u32| sum.wrapping_add(c & !d).wrapping_add(b & d);
        self.round::<1, T>([5, 9, 14, 20], mix, (with, meanwhile));
    }

    #[inline]
    pub(crate) fn third<T>(&mut self, with: [T; 4], meanwhile: impl FnMut(T)) {
        let mix = |sum: u32, b: u32, c: u32, d: u32| sum.wrapping_add((c ^ d) ^ b);
        self.round::<2, T>([4, 11, 16, 23], mix, (with, meanwhile));
    }

    /// The last round, and what comes of all four.
    #[inline]
    pub(crate) fn fourth<T>(mut self, with: [T; 4], meanwhile: impl FnMut(T)) -> [u32; 4] {
        let mix = |sum: u32, b: u32, c: u32, d: u32| sum.wrapping_add(c ^ (b | !d));
        self.round::<3, T>([6, 10, 15, 21], mix, (with, meanwhile));
        for (word, before) in self.mixed.iter_mut().zip(self.before) {
            *word = word.wrapping_add(before);
        }
        self.mixed
    }

    #[inline]
    fn round<const AT: usize, T>(
        &mut self,
        shifts: [u32; 4],
        mix: impl Fn(u32, u32, u32, u32) -> u32,
        meanwhile: ([T; 4], impl FnMut(T)),
    ) {
        if let (Some(words), Some(sines)) = (self.words.get(AT), self.sines.get(AT)) {
            round(&mut self.mixed, words, sines, shifts, mix, meanwhile);
        }
    }
}

fn compress(state: [u32; 4], block: &Block) -> [u32; 4] {
    let mut steps = Steps::new(state, block);
    steps.first([(); 4], |()| ());
    steps.second([(); 4], |()| ());
    steps.third([(); 4], |()| ());
    steps.fourth([(); 4], |()| ())
}

/// Sixteen steps; before each four of them, with one of these each, `meanwhile`. Each waits for the
/// `b` of the one before it, and that is all the time it takes: so what does not need it is added first.
#[inline]
fn round<T>(
    state: &mut [u32; 4],
    words: &[u32; 16],
    sines: &[u32; 16],
    shifts: [u32; 4],
    add_mixed: impl Fn(u32, u32, u32, u32) -> u32,
    (with, mut meanwhile): ([T; 4], impl FnMut(T)),
) {
    let mut four = |at: usize| {
        let (words, sines) = (words.as_chunks::<4>().0, sines.as_chunks::<4>().0);
        let (Some(words), Some(sines)) = (words.get(at), sines.get(at)) else {
            return;
        };
        let [mut a, mut b, mut c, mut d] = *state;
        for ((word, sine), shift) in words.iter().zip(sines).zip(shifts) {
            let known = word.wrapping_add(*sine).wrapping_add(a);
            let sum = add_mixed(known, b, c, d);
            (a, b, c, d) = (d, b.wrapping_add(sum.rotate_left(shift)), b, c);
        }
        *state = [a, b, c, d];
    };
    // Not a loop: each of these is to be its own code.
    let [first, second, third, fourth] = with;
    meanwhile(first);
    four(0);
    meanwhile(second);
    four(1);
    meanwhile(third);
    four(2);
    meanwhile(fourth);
    four(3);
}
#[cfg(test)]
mod tests {
    use model::hex;

    use super::*;

    fn md5(parts: &[&[u8]]) -> String {
        let mut md5 = Md5::default();
        for part in parts {
            md5.update(part);
        }
        hex(&md5.finish())
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        let check = |text: &str, expected: &str| assert_eq!(md5(&[text.as_bytes()]), expected);
        check("", "d41d8cd98f00b204e9800998ecf8427e");
        check("a", "0cc175b9c0f1b6a831c399e269772661");
        check("message digest", "f96b697d7cb7938d525a2f31aaf161d0");
        check(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            "d174ab98d277d9f5a5611c2c9f419d9f",
        );
        check(&"1234567890".repeat(8), "57edf4a22be3c955ac49da2e2107b67a");
    }

    #[test]
    fn pieces_give_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for length in [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 128, 1000] {
            let (bytes, _) = bytes.split_at(length);
            let whole = md5(&[bytes]);
            for at in [0, length / 3, length / 2, length] {
                let (head, tail) = bytes.split_at(at);
                assert_eq!(md5(&[head, tail]), whole, "{length} at {at}");
            }
        }
    }
}
