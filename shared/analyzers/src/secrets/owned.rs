//! Digests of a file in which something was found, in the algorithms of package managers: what is as
//! its package made it holds nobody's secret. MD5 and SHA-1 name files here and protect nothing.

use aws_lc_rs::digest;
use model::hex;

use crate::md5::Md5;

/// The digests of a file, as package managers record them.
pub(super) fn digests(bytes: &[u8]) -> Vec<String> {
    let mut md5 = Md5::default();
    md5.update(bytes);
    let of = |algorithm| hex(digest::digest(algorithm, bytes).as_ref());
    vec![
        format!("md5:{}", hex(&md5.finish())),
        format!("sha1:{}", of(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
        format!("sha256:{}", of(&digest::SHA256)),
    ]
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
