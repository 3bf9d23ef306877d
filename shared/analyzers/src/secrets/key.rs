//! Private keys in their armours: whether one is in there, and whether it is encrypted (RFC 7468,
//! RFC 1421, RFC 9580, OpenSSH's PROTOCOL.key, `PuTTY`'s PPK).

use super::check::base64;

/// Bytes of the smallest key: Ed25519 in PKCS #8.
const KEY_BYTES_MIN: usize = 40;

/// Whether the key in an armour is encrypted; `None` where there is no key in it.
pub(super) fn is_encrypted(armour: &[u8]) -> Option<bool> {
    let text = String::from_utf8_lossy(armour);
    let text = text.replace("\\r", "").replace("\\n", "\n");
    if text.starts_with("PuTTY-User-Key-File") {
        return Some(!text.contains("Encryption: none"));
    }
    let (begin, rest) = text
        .trim_start()
        .strip_prefix("-----BEGIN ")?
        .split_once("-----")?;
    let (inner, _) = rest.split_once("-----END")?;
    let body = base64(letters(inner).as_bytes())?;
    if body.len() < KEY_BYTES_MIN {
        return None;
    }
    match begin {
        "OPENSSH PRIVATE KEY" => openssh(&body),
        "PGP PRIVATE KEY BLOCK" => pgp(&body),
        "ENCRYPTED PRIVATE KEY" => is_sequence(&body).then_some(true),
        // What is encrypted has no form that could be looked at, but whole blocks.
        _ if inner.contains("ENCRYPTED") => (body.len() % 8 == 0).then_some(true),
        _ => is_sequence(&body).then_some(false),
    }
}

/// The lines of base 64, without headers, checksums, and the quotes of source code around them.
fn letters(inner: &str) -> String {
    let lines = inner.lines().map(str::trim);
    let lines = lines.filter(|line| !line.contains(':') && !line.starts_with('='));
    let is_letter = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    // `"…" +` and the like: what stands behind a quote belongs to the language.
    let bare = lines.map(|line| {
        line.rfind(['"', '\''])
            .and_then(|end| line.get(..end))
            .unwrap_or(line)
    });
    bare.flat_map(str::chars).filter(is_letter).collect()
}

/// Whether the bytes are one DER sequence that begins with a small number, as all keys do.
fn is_sequence(der: &[u8]) -> bool {
    let Some((&0x30, rest)) = der.split_first() else {
        return false;
    };
    let Some((length, body)) = der_length(rest) else {
        return false;
    };
    // Real ones end with the sequence; one or two bytes more come of sloppy padding.
    let is_whole = body.len() >= length && body.len().saturating_sub(length) <= 2;
    // A version, or (PKCS #8 encrypted) a sequence of the algorithm.
    is_whole && matches!(body.first(), Some(0x02 | 0x30))
}

fn der_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0x80 {
        return Some((usize::from(*first), rest));
    }
    let count = usize::from(first & 0x7f);
    let (digits, rest) = rest.split_at_checked(count).filter(|_| count <= 4)?;
    let length = digits
        .iter()
        .fold(0_usize, |sum, digit| (sum << 8) | usize::from(*digit));
    Some((length, rest))
}

fn openssh(body: &[u8]) -> Option<bool> {
    let rest = body.strip_prefix(b"openssh-key-v1\0")?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let cipher = rest.get(..length)?;
    Some(cipher != b"none")
}

/// Looks at the first packet: a secret key of version 4 or 6, whose public half is skipped.
fn pgp(body: &[u8]) -> Option<bool> {
    let (tag, rest) = body.split_first()?;
    let (tag, packet) = if tag & 0x40 == 0 {
        let skip = match tag & 0x03 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => 0,
        };
        ((tag >> 2) & 0x0f, rest.get(skip..)?)
    } else {
        let skip = match rest.first()? {
            0..=191 => 1,
            192..=223 => 2,
            _ => 5,
        };
        (tag & 0x3f, rest.get(skip..)?)
    };
    if tag != 5 {
        return None;
    }
    let version = *packet.first()?;
    let algorithm = *packet.get(5)?;
    let mut public = packet.get(6..)?;
    if version != 4 {
        // The public half of version 6 says its own length.
        let (length, rest) = public.split_first_chunk::<4>()?;
        let skip = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        return Some(*rest.get(skip)? != 0);
    }
    let (has_curve, numbers) = match algorithm {
        1..=3 => (false, 2),
        16 => (false, 3),
        17 => (false, 4),
        18 | 19 | 22 => (true, 1),
        _ => return Some(false),
    };
    if has_curve {
        let length = usize::from(*public.first()?);
        public = public.get(length.saturating_add(1)..)?;
    }
    for _ in 0..numbers {
        let (bits, rest) = public.split_first_chunk::<2>()?;
        let bytes = usize::from(u16::from_be_bytes(*bits)).div_ceil(8);
        public = rest.get(bytes..)?;
    }
    Some(*public.first()? != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::samples::{self, Key};

    #[test]
    fn keys_are_told_from_what_only_looks_so() {
        for (key, expected) in [
            (Key::Rsa, Some(false)),
            (Key::Pkcs8, Some(false)),
            (Key::Ec, Some(false)),
            (Key::OpenSsh, Some(false)),
            (Key::OpenSshEncrypted, Some(true)),
            (Key::Pkcs8Encrypted, Some(true)),
            (Key::RsaEncrypted, Some(true)),
            (Key::Pgp, Some(false)),
            (Key::PgpEncrypted, Some(true)),
        ] {
            let text = samples::pem(key, 1);
            assert_eq!(is_encrypted(text.as_bytes()), expected, "{key:?}");
            // As JSON and YAML write it on one line.
            let line = text.replace('\n', "\\n");
            assert_eq!(is_encrypted(line.as_bytes()), expected, "{key:?}");
        }
        let no_key = samples::pem(Key::Rsa, 1).replace("MII", "AAA");
        assert_eq!(is_encrypted(no_key.as_bytes()), None);
        assert_eq!(is_encrypted(b"-----BEGIN PRIVATE KEY-----"), None);
        assert_eq!(is_encrypted(b""), None);
    }
}
