//! Digests of a file in which something was found, in the algorithms of package managers: what is as
//! its package made it holds nobody's secret. MD5 and SHA-1 name files here and protect nothing.

use aws_lc_rs::digest;
use model::hex;

/// The digests of a file, as package managers record them.
pub(super) fn digests(bytes: &[u8]) -> Vec<String> {
    let of = |algorithm| hex(digest::digest(algorithm, bytes).as_ref());
    vec![
        format!("md5:{}", hex(&md5(bytes))),
        format!("sha1:{}", of(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
        format!("sha256:{}", of(&digest::SHA256)),
    ]
}

/// RFC 1321.
fn md5(bytes: &[u8]) -> [u8; 16] {
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let (blocks, rest) = bytes.as_chunks::<64>();
    for block in blocks {
        md5_block(&mut state, block);
    }
    let mut tail = rest.to_vec();
    tail.push(0x80);
    while tail.len() % 64 != 56 {
        tail.push(0);
    }
    let bits = (bytes.len() as u64).wrapping_mul(8);
    tail.extend_from_slice(&bits.to_le_bytes());
    for block in tail.as_chunks::<64>().0 {
        md5_block(&mut state, block);
    }
    let mut digest = [0; 16];
    let words = state.iter().flat_map(|word| word.to_le_bytes());
    digest
        .iter_mut()
        .zip(words)
        .for_each(|(place, byte)| *place = byte);
    digest
}

fn md5_block(state: &mut [u32; 4], block: &[u8; 64]) {
    const SHIFTS: [[u32; 4]; 4] = [
        [7, 12, 17, 22],
        [5, 9, 14, 20],
        [4, 11, 16, 23],
        [6, 10, 15, 21],
    ];
    let words: Vec<u32> = block
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect();
    let [mut a, mut b, mut c, mut d] = *state;
    for step in 0_u32..64 {
        let (mixed, place) = match step / 16 {
            0 => ((b & c) | (!b & d), step),
            1 => ((d & b) | (!d & c), step.wrapping_mul(5).wrapping_add(1)),
            2 => (b ^ c ^ d, step.wrapping_mul(3).wrapping_add(5)),
            _ => (c ^ (b | !d), step.wrapping_mul(7)),
        };
        let word = words
            .get((place % 16) as usize)
            .copied()
            .unwrap_or_default();
        let shifts = SHIFTS
            .get((step / 16) as usize)
            .copied()
            .unwrap_or_default();
        let shift = shifts.get((step % 4) as usize).copied().unwrap_or_default();
        let sum = a
            .wrapping_add(mixed)
            .wrapping_add(sine(step))
            .wrapping_add(word);
        (a, d, c) = (d, c, b);
        b = b.wrapping_add(sum.rotate_left(shift));
    }
    for (place, word) in state.iter_mut().zip([a, b, c, d]) {
        *place = place.wrapping_add(word);
    }
}

/// The constant of a step: `abs(sin(step + 1)) * 2^32`.
fn sine(step: u32) -> u32 {
    let value = f64::from(step.wrapping_add(1)).sin().abs() * 4_294_967_296.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 0 and 2^32"
    )]
    let word = value as u32;
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        let check = |text: &str, md5: &str| {
            assert_eq!(digests(text.as_bytes())[0], format!("md5:{md5}"), "{text}");
        };
        check("", "d41d8cd98f00b204e9800998ecf8427e");
        check("abc", "900150983cd24fb0d6963f7d28e17f72");
        check(&"1234567890".repeat(8), "57edf4a22be3c955ac49da2e2107b67a");
        check(&"a".repeat(56), "3b0c8ac703f828b04c6c197006d17218");
        let of_abc = digests(b"abc");
        assert_eq!(of_abc[1], "sha1:a9993e364706816aba3e25717850c26c9cd0d89d");
        assert!(of_abc[2].starts_with("sha256:ba7816bf"));
    }
}
