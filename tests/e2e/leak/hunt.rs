//! Looks for values in whatever form they may have got out: as they are, in base 64 at any offset and of
//! either alphabet, in hexadecimal, URL-encoded, escaped as JSON does, in UTF-16, and in all of these
//! behind zstd or gzip.

use std::{collections::BTreeSet, io::Read as _};

use aho_corasick::AhoCorasick;
use archive::{Inflate, Limits};

/// Compressed data in compressed data in a piece: a section in a value, in an object.
const DEPTH_MAX: u32 = 3;

/// Bytes that one compressed part may take.
const PART_BYTES_MAX: u64 = 256 << 20;

/// A value that must be found nowhere.
#[derive(Clone, Debug)]
pub(super) struct Planted {
    /// What it is, for who reads that it got out.
    pub(super) name: String,
    pub(super) value: String,
}

/// All values, in all forms.
pub(super) struct Hunt {
    forms: AhoCorasick,
    /// Of each form: whose it is, and which one.
    names: Vec<String>,
}

// === impl Hunt ===

impl Hunt {
    pub(super) fn new(planted: &[Planted]) -> Self {
        let (mut patterns, mut names) = (Vec::new(), Vec::new());
        for Planted { name, value } in planted {
            for (form, bytes) in forms(core(value)) {
                patterns.push(bytes);
                names.push(format!("{name}, {form}"));
            }
        }
        Self {
            forms: AhoCorasick::new(&patterns).expect("some hundred patterns"),
            names,
        }
    }

    /// What of them is in a piece of data.
    pub(super) fn leaks(&self, data: &[u8]) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        self.look(data, DEPTH_MAX, &mut found);
        found
    }

    fn look<'a>(&'a self, data: &[u8], depth: u32, found: &mut BTreeSet<&'a str>) {
        for hit in self.forms.find_overlapping_iter(data) {
            found.insert(&self.names[hit.pattern().as_usize()]);
        }
        if depth == 0 {
            return;
        }
        for part in unpacked(data) {
            self.look(&part, depth - 1, found);
        }
    }
}

/// Of a value what no excerpt may show: all but a quarter at either end.
fn core(value: &str) -> &[u8] {
    let bytes = value.as_bytes();
    let quarter = bytes.len() / 4;
    if bytes.len() < 16 {
        bytes
    } else {
        &bytes[quarter..bytes.len() - quarter]
    }
}

/// What is compressed in a piece of data, wherever in it.
fn unpacked(data: &[u8]) -> Vec<Vec<u8>> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];
    let magics = AhoCorasick::new([&ZSTD[..], &GZIP[..]]).expect("two patterns");
    let limits = Limits::default();
    let mut parts = Vec::new();
    for hit in magics.find_iter(data) {
        let Ok(inflate) = Inflate::open(&data[hit.start()..], &limits) else {
            continue;
        };
        let mut part = Vec::new();
        // Behind the part stands something else, which is an error, or it was none at all.
        drop(inflate.take(PART_BYTES_MAX).read_to_end(&mut part));
        if !part.is_empty() {
            parts.push(part);
        }
    }
    parts
}

/// A value in every form.
fn forms(value: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const OF_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        let units = value.iter().map(|byte| u16::from(*byte));
        units.flat_map(order).collect()
    };
    let all = [
        ("as it is", value.to_vec()),
        ("in hexadecimal", each(value, |byte| format!("{byte:02x}"))),
        (
            "in large hexadecimal",
            each(value, |byte| format!("{byte:02X}")),
        ),
        (
            "URL-encoded",
            each(value, |byte| match byte {
                byte if is_plain(byte) => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            }),
        ),
        (
            "URL-encoded in small letters",
            each(value, |byte| match byte {
                byte if is_plain(byte) => char::from(byte).to_string(),
                byte => format!("%{byte:02x}"),
            }),
        ),
        (
            "URL-encoded to the last byte",
            each(value, |byte| format!("%{byte:02X}")),
        ),
        (
            "escaped as JSON",
            each(value, |byte| match byte {
                b'/' => "\\/".to_owned(),
                b'+' | b'=' | b'&' | b'<' | b'>' => format!("\\u{byte:04x}"),
                byte => char::from(byte).to_string(),
            }),
        ),
        ("in UTF-16, small end first", utf16(u16::to_le_bytes)),
        ("in UTF-16, large end first", utf16(u16::to_be_bytes)),
    ];
    let mut all = Vec::from(all);
    for offset in 0..3 {
        all.push(("in base 64", base64(value, offset, STANDARD)));
        all.push(("in base 64 of URLs", base64(value, offset, OF_URLS)));
    }
    all
}

fn each(value: &[u8], form: impl Fn(u8) -> String) -> Vec<u8> {
    value
        .iter()
        .flat_map(|byte| form(*byte).into_bytes())
        .collect()
}

/// What base 64 makes of a value that stands so many bytes behind a group's start: the letters that
/// depend on nothing around it.
fn base64(value: &[u8], offset: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let padded = [&vec![0; offset][..], value].concat();
    let groups = padded.chunks_exact(3);
    let letters: Vec<u8> = groups
        .flat_map(|group| {
            let bits =
                (u32::from(group[0]) << 16) | (u32::from(group[1]) << 8) | u32::from(group[2]);
            [18, 12, 6, 0].map(|shift| alphabet[(bits >> shift & 63) as usize])
        })
        .collect();
    // The letters of the first group hold bits of what stands before.
    letters[if offset == 0 { 0 } else { 4 }..].to_vec()
}

#[cfg(test)]
mod tests {
    use testkit::{Compression, LayerBuilder};

    use super::*;

    const VALUE: &str = "kX7+pQ/z2wVb=Rt9Lm4Yc8Jd";

    fn hunt() -> Hunt {
        Hunt::new(&[Planted {
            name: "key".to_owned(),
            value: VALUE.to_owned(),
        }])
    }

    fn check(data: &[u8], expected: &str) {
        let hunt = hunt();
        let found = hunt.leaks(data);
        let expected = format!("key, {expected}");
        assert!(found.contains(expected.as_str()), "{expected}: {found:?}");
    }

    #[test]
    fn a_value_is_found_in_every_form() {
        check(format!("a {VALUE} b").as_bytes(), "as it is");
        // Written down as other programs encode it, so that this file's own encoders are looked at, too.
        check(
            b"6b58372b70512f7a327756623d5274394c6d345963384a64",
            "in hexadecimal",
        );
        check(
            b"6B58372B70512F7A327756623D5274394C6D345963384A64",
            "in large hexadecimal",
        );
        check(b"?k=kX7%2BpQ%2Fz2wVb%3DRt9Lm4Yc8Jd", "URL-encoded");
        check(
            b"?k=kX7%2bpQ%2fz2wVb%3dRt9Lm4Yc8Jd",
            "URL-encoded in small letters",
        );
        check(
            b"%6B%58%37%2B%70%51%2F%7A%32%77%56%62%3D%52%74%39%4C%6D%34%59%63%38%4A%64",
            "URL-encoded to the last byte",
        );
        check(
            br#"{"k": "kX7\u002bpQ\/z2wVb\u003dRt9Lm4Yc8Jd"}"#,
            "escaped as JSON",
        );
        let wide: Vec<u8> = VALUE.bytes().flat_map(|byte| [byte, 0]).collect();
        check(&wide, "in UTF-16, small end first");
        let wide: Vec<u8> = VALUE.bytes().flat_map(|byte| [0, byte]).collect();
        check(&wide, "in UTF-16, large end first");
        // With nothing, `x` and `xy` before it.
        for text in [
            "a1g3K3BRL3oyd1ZiPVJ0OUxtNFljOEpk",
            "eGtYNytwUS96MndWYj1SdDlMbTRZYzhKZA==",
            "eHlrWDcrcFEvejJ3VmI9UnQ5TG00WWM4SmQ=",
        ] {
            check(text.as_bytes(), "in base 64");
        }
    }

    #[test]
    fn a_value_is_found_behind_compression() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let layer = LayerBuilder::new().compression(compression);
            let layer = layer.file("app/key", VALUE).build();
            let data = [b"some bytes before ", &layer.blob[..], b" and behind"].concat();
            check(&data, "as it is");
        }
    }

    #[test]
    fn an_excerpt_and_other_values_are_no_leak() {
        let hunt = hunt();
        for text in ["kX7+****8Jd", "kX7+pQ****Yc8Jd", "Rt9Lm4Yc8JdkX7+pQ/z2wVb"] {
            assert!(hunt.leaks(text.as_bytes()).is_empty(), "{text}");
        }
    }
}
