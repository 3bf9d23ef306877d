//! Secrets for tests, made up when a test runs: nothing in the source looks like a secret.
//!
//! A template names classes of characters and how many of them: `token_{x:40}`.

use std::fmt::Write as _;

use super::check::base62;

/// Numbers that look random and are the same each time.
#[derive(Debug)]
pub(crate) struct Random(u64);

/// Kinds of private keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    Rsa,
    Pkcs8,
    Ec,
    OpenSsh,
    OpenSshEncrypted,
    Pkcs8Encrypted,
    RsaEncrypted,
    Pgp,
    PgpEncrypted,
}

const DIGITS: &str = "0123456789";
const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[3]).collect()
    }

    pub(crate) fn text(&mut self, letters: &str, count: usize) -> String {
        let letters: Vec<char> = letters.chars().collect();
        let one = |number: u64| letters[usize::try_from(number >> 33).unwrap() % letters.len()];
        (0..count).map(|_| one(self.next())).collect()
    }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut padded = [0; 3];
        padded[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..4 {
            let letter = LETTERS[((bits >> (18 - 6 * place)) & 63) as usize];
            text.push(if place <= group.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

fn base64url(bytes: &[u8]) -> String {
    base64(bytes)
        .trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_")
}

/// A key in its armour. The number in it is random, and no key at all.
pub(crate) fn pem(key: Key, seed: u64) -> String {
    let random = &mut Random::new(seed);
    let (kind, headers, body) = match key {
        Key::Rsa => (
            "RSA PRIVATE KEY",
            "",
            sequence(&[2, 1, 0, 2, 0x82, 1, 1, 0], 1188, random),
        ),
        Key::Pkcs8 => (
            "PRIVATE KEY",
            "",
            sequence(&[2, 1, 0, 0x30, 13], 1214, random),
        ),
        Key::Ec => (
            "EC PRIVATE KEY",
            "",
            [vec![0x30, 0x77, 2, 1, 1, 4, 32], random.bytes(0x77 - 5)].concat(),
        ),
        Key::OpenSsh => ("OPENSSH PRIVATE KEY", "", openssh("none", random)),
        Key::OpenSshEncrypted => ("OPENSSH PRIVATE KEY", "", openssh("aes256-ctr", random)),
        Key::Pkcs8Encrypted => (
            "ENCRYPTED PRIVATE KEY",
            "",
            sequence(&[0x30, 0x57], 1300, random),
        ),
        Key::RsaEncrypted => (
            "RSA PRIVATE KEY",
            "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\n",
            random.bytes(1200),
        ),
        Key::Pgp => ("PGP PRIVATE KEY BLOCK", "\n", pgp(0, random)),
        Key::PgpEncrypted => ("PGP PRIVATE KEY BLOCK", "\n", pgp(254, random)),
    };
    let body = base64(&body);
    let lines: Vec<_> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {kind}-----\n{headers}{}\n-----END {kind}-----\n",
        lines.join("\n")
    )
}

/// A DER sequence that starts so.
fn sequence(start: &[u8], length: usize, random: &mut Random) -> Vec<u8> {
    let [low, high, ..] = length.to_le_bytes();
    let rest = random.bytes(length - start.len());
    [[0x30, 0x82, high, low].as_slice(), start, &rest].concat()
}

fn openssh(cipher: &str, random: &mut Random) -> Vec<u8> {
    let length = u32::try_from(cipher.len()).unwrap().to_be_bytes();
    let rest = random.bytes(300);
    [
        b"openssh-key-v1\0".as_slice(),
        &length,
        cipher.as_bytes(),
        &rest,
    ]
    .concat()
}

/// A secret key packet; the octet says whether it is encrypted.
fn pgp(usage: u8, random: &mut Random) -> Vec<u8> {
    let mut number = |bits: u16| {
        let bytes = random.bytes(usize::from(bits).div_ceil(8));
        [bits.to_be_bytes().as_slice(), &bytes].concat()
    };
    let public = [vec![4, 1, 2, 3, 4, 1], number(2048), number(17)].concat();
    let body = [public, vec![usage], random.bytes(300)].concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [vec![0x95], length.to_vec(), body].concat()
}

/// A web token that ends at this second.
pub(crate) fn jwt(seed: u64, ends: i64) -> String {
    let random = &mut Random::new(seed);
    let header = base64url(br#"{"alg":"HS256","typ":"JWT"}"#);
    let subject = random.text(DIGITS, 8);
    let payload = base64url(format!(r#"{{"sub":"user-{subject}","exp":{ends}}}"#).as_bytes());
    format!("{header}.{payload}.{}", base64url(&random.bytes(32)))
}

/// Replaces each `{class:count}` of a template.
pub(crate) fn expand(template: &str, seed: u64) -> String {
    let random = &mut Random::new(seed);
    let mut text = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at(open);
        text.push_str(before);
        let end = after.find('}').unwrap_or(0);
        let inside = after.get(1..end).unwrap_or_default();
        let made = inside
            .split_once(':')
            .and_then(|(class, count)| made(class, count.parse().ok()?, random));
        if let Some(made) = made {
            text.push_str(&made);
            rest = &after[end + 1..];
        } else {
            text.push('{');
            rest = &after[1..];
        }
    }
    text.push_str(rest);
    text
}

fn made(class: &str, count: usize, random: &mut Random) -> Option<String> {
    let all = [UPPER, LOWER, DIGITS].concat();
    let number = count as u64;
    let mut of = |letters: &str| random.text(letters, count);
    Some(match class {
        "d" => of(DIGITS),
        "x" => of("0123456789abcdef"),
        "X" => of("0123456789ABCDEF"),
        "a" => of(LOWER),
        "A" => of(&[UPPER, LOWER].concat()),
        "l" => of(&[LOWER, DIGITS].concat()),
        "u" => of(&[UPPER, DIGITS].concat()),
        "w" => of(&all),
        // Neither ends with what separates words.
        "b" => format!(
            "{}{}",
            random.text(&format!("{all}-_"), count.saturating_sub(1)),
            random.text(&all, 1)
        ),
        "B" => format!(
            "{}{}",
            random.text(&format!("{all}+/"), count.saturating_sub(1)),
            random.text(&all, 1)
        ),
        "k32" => of("abcdefghijklmnopqrstuvwxyz234567"),
        "bech" => of("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
        "crc" => {
            let body = random.text(&all, count - 6);
            let sum = base62(crc32fast::hash(body.as_bytes()));
            format!("{body}{}", String::from_utf8_lossy(&sum))
        }
        "awsid" => format!(
            "AKIA{}{}",
            random.text("QRSTUV", 1),
            random.text("ABCDEFGHIJKLMNOP234567", count - 5)
        ),
        "jwt" => jwt(number, 1_700_000_000),
        "pem" => pem(key(count), number),
        "pemline" => pem(key(count), number).trim_end().replace('\n', "\\n"),
        "b64pem" => base64(pem(key(count), number).as_bytes()),
        "b64" => base64(random.text(&all, count).as_bytes()),
        "pair" => base64(format!("ada:{}", random.text(&all, count)).as_bytes()),
        _ => return None,
    })
}

fn key(number: usize) -> Key {
    // The tens only make it another one.
    match number % 10 {
        1 => Key::Rsa,
        2 => Key::Pkcs8,
        3 => Key::Ec,
        4 => Key::OpenSsh,
        5 => Key::Pkcs8Encrypted,
        6 => Key::RsaEncrypted,
        _ => Key::Pgp,
    }
}

/// Texts in which a secret would be told: as it is, in base 64 at each of three places, in hex, and as
/// a URL has it.
pub(crate) fn told(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    for shift in 0..3 {
        let shifted = [vec![b'x'; shift], secret.as_bytes().to_vec()].concat();
        let text = base64(&shifted);
        // What depends on the neighbours is cut off.
        let text = text.trim_end_matches('=');
        let inner = text.get(4 * usize::from(shift > 0)..text.len().saturating_sub(3));
        forms.extend(
            inner
                .filter(|inner| inner.len() >= 6)
                .map(ToOwned::to_owned),
        );
    }
    let hex = secret.bytes().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    forms.push(hex.to_ascii_uppercase());
    forms.push(hex);
    forms.push(secret.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").unwrap();
        }
        text
    }));
    forms
}
