//! Keystores: files of Java (JKS, JCEKS) and PKCS #12 that hold private keys (the class documentation of
//! `sun.security.provider.JavaKeyStore`; RFC 7292). What stands in them is under a password, so a finding
//! is low; a file of certificates alone is none.
//!
//! Of a JKS the entries are counted. Of PKCS #12 the outline is read, and behind it the kinds of bags are
//! looked for by their object identifiers, which are never encrypted themselves where there are keys: so
//! it does not matter whether the rest is DER, or BER of any length.

use memchr::memmem;
use model::Severity;

/// The rule's name.
pub(super) const RULE: &str = "keystore-private-key";

/// Entries of a JKS that are looked at; of real ones the largest have some hundred.
const ENTRIES_MAX: u32 = 10_000;

const JKS: &[u8] = b"\xfe\xed\xfe\xed";
const JCEKS: &[u8] = b"\xce\xce\xce\xce";

/// The identifier of PKCS #7 data, 1.2.840.113549.1.7.1, and of signed data, 1.2.840.113549.1.7.2.
const PKCS7: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07";
/// A bag with a key in the clear, 1.2.840.113549.1.12.10.1.1.
const KEY_BAG: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x01";
/// A bag with an encrypted key, 1.2.840.113549.1.12.10.1.2.
const SHROUDED_KEY_BAG: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02";

/// A keystore that holds private keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keystore {
    /// What kind of file it is.
    pub(super) kind: &'static str,
    /// How many private or secret keys are in it, at least.
    pub(super) keys: u32,
    /// Whether one of them is not even under a password.
    pub(super) is_open: bool,
}

/// Bytes that are read from the front.
struct Front<'a>(&'a [u8]);

/// Whether a file may be a keystore, by its first bytes.
pub(super) fn looks_like(head: &[u8]) -> bool {
    head.starts_with(JKS) || head.starts_with(JCEKS) || is_outline(head)
}

/// What is in a file; `None` where there are no keys in it.
pub(super) fn read(bytes: &[u8]) -> Option<Keystore> {
    let (kind, keys, is_open) = if bytes.starts_with(JKS) {
        ("JKS", java(bytes), false)
    } else if bytes.starts_with(JCEKS) {
        ("JCEKS", java(bytes), false)
    } else if is_outline(bytes) {
        let count = |bag: &[u8]| {
            let found = memmem::find_iter(bytes, bag).count();
            u32::try_from(found).unwrap_or(u32::MAX)
        };
        let (open, shrouded) = (count(KEY_BAG), count(SHROUDED_KEY_BAG));
        ("PKCS #12", open.saturating_add(shrouded), open > 0)
    } else {
        return None;
    };
    (keys > 0).then_some(Keystore {
        kind,
        keys,
        is_open,
    })
}

/// How many keys are among the entries that can be read.
fn java(bytes: &[u8]) -> u32 {
    let mut front = Front(bytes);
    let mut keys = 0_u32;
    let Some((version, count)) = front.java_head() else {
        return 0;
    };
    for _ in 0..count.min(ENTRIES_MAX) {
        match front.java_entry(version) {
            Some(true) => keys = keys.saturating_add(1),
            Some(false) => {}
            None => break,
        }
    }
    keys
}

/// Whether the bytes begin as all files of PKCS #12 do: a sequence, version 3, and in it a sequence that
/// begins with the identifier of PKCS #7.
fn is_outline(bytes: &[u8]) -> bool {
    let mut front = Front(bytes);
    front.opens_sequence()
        && front.take(3) == Some(b"\x02\x01\x03".as_slice())
        && front.opens_sequence()
        && front.0.starts_with(PKCS7)
        && matches!(front.0.get(PKCS7.len()), Some(1 | 2))
}

// === impl Keystore ===

impl Keystore {
    /// A key that is encrypted is of use to who has the password alone.
    pub(super) const fn severity(self) -> Severity {
        if self.is_open {
            Severity::Critical
        } else {
            Severity::Low
        }
    }

    /// What a report shows: nothing of the file itself.
    pub(super) fn excerpt(self) -> String {
        let Self {
            kind,
            keys,
            is_open,
        } = self;
        let many = if keys == 1 { "key" } else { "keys" };
        let state = if is_open { "in the clear" } else { "encrypted" };
        format!("{kind} keystore with {keys} {many}, {state}: ****")
    }
}

// === impl Front ===

impl<'a> Front<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        bytes.try_into().ok().map(u32::from_be_bytes)
    }

    /// Skips a text whose length stands in two bytes.
    fn text(&mut self) -> Option<()> {
        let length = self.take(2)?.try_into().ok().map(u16::from_be_bytes)?;
        self.take(usize::from(length)).map(drop)
    }

    /// Skips bytes whose length stands in four.
    fn block(&mut self) -> Option<()> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length).map(drop)
    }

    /// The version of a Java keystore, and how many entries it says that it has.
    fn java_head(&mut self) -> Option<(u32, u32)> {
        self.take(4)?;
        let version = self.number().filter(|version| matches!(version, 1 | 2))?;
        Some((version, self.number()?))
    }

    /// Skips an entry; says whether it is a key.
    fn java_entry(&mut self, version: u32) -> Option<bool> {
        let tag = self.number()?;
        self.text()?;
        self.take(8)?;
        match tag {
            1 => {
                self.block()?;
                for _ in 0..self.number()?.min(ENTRIES_MAX) {
                    self.certificate(version)?;
                }
                Some(true)
            }
            2 => self.certificate(version).map(|()| false),
            // A secret key is an object of Java whose end nobody knows without it; it counts, and what
            // comes behind it is no tag.
            3 => Some(true),
            _ => None,
        }
    }

    fn certificate(&mut self, version: u32) -> Option<()> {
        if version == 2 {
            self.text()?;
        }
        self.block()
    }

    /// Goes into a sequence, whose length may be of any form.
    fn opens_sequence(&mut self) -> bool {
        let Some(&[0x30, length]) = self.take(2) else {
            return false;
        };
        let more = usize::from(length & 0x7f);
        length < 0x80 || (more <= 4 && self.take(more).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::{SecretsConfig, engine::Engine};

    fn number(number: usize) -> [u8; 4] {
        u32::try_from(number).unwrap().to_be_bytes()
    }

    fn block(bytes: &[u8]) -> Vec<u8> {
        [&number(bytes.len())[..], bytes].concat()
    }

    fn certificate() -> Vec<u8> {
        [b"\0\x05X.509".as_slice(), &block(&[7; 300])].concat()
    }

    fn entry(tag: usize, content: &[u8]) -> Vec<u8> {
        [&number(tag)[..], b"\0\x05alias", &[0; 8], content].concat()
    }

    fn key() -> Vec<u8> {
        entry(
            1,
            &[block(&[9; 600]), number(1).to_vec(), certificate()].concat(),
        )
    }

    fn jks(magic: &[u8], entries: &[Vec<u8>]) -> Vec<u8> {
        let head = [magic, &number(2), &number(entries.len())].concat();
        [head, entries.concat(), vec![1; 20]].concat()
    }

    /// A part of DER.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], content].concat()
    }

    fn pkcs12(bags: &[&[u8]]) -> Vec<u8> {
        let bags: Vec<u8> = bags
            .iter()
            .flat_map(|bag| der(0x30, &[*bag, &der(0xa0, &[5; 400])].concat()))
            .collect();
        let data = |content: &[u8]| [PKCS7, b"\x01", &der(0xa0, &der(4, content))].concat();
        let inner = der(0x30, &der(0x30, &data(&der(0x30, &bags))));
        der(
            0x30,
            &[b"\x02\x01\x03".as_slice(), &der(0x30, &data(&inner))].concat(),
        )
    }

    const CERT_BAG: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x03";

    #[test]
    fn keys_are_told_from_certificates() {
        let check = |bytes: &[u8], expected: Option<(&str, u32, Severity)>| {
            let found = read(bytes).map(|found| (found.kind, found.keys, found.severity()));
            assert_eq!(found, expected);
            assert!(expected.is_none() || looks_like(&bytes[..40]));
        };
        let trusted = entry(2, &certificate());
        check(
            &jks(JKS, &[trusted.clone(), key(), key()]),
            Some(("JKS", 2, Severity::Low)),
        );
        check(&jks(JKS, &[trusted.clone(), trusted.clone()]), None);
        let secret = entry(3, b"\xac\xed\0\x05sr\0\x33com.sun.crypto.provider");
        check(
            &jks(JCEKS, &[trusted, secret]),
            Some(("JCEKS", 1, Severity::Low)),
        );
        check(
            &pkcs12(&[CERT_BAG, SHROUDED_KEY_BAG]),
            Some(("PKCS #12", 1, Severity::Low)),
        );
        check(
            &pkcs12(&[KEY_BAG]),
            Some(("PKCS #12", 1, Severity::Critical)),
        );
        check(&pkcs12(&[CERT_BAG]), None);
        // The same outline with lengths that are only known at the end, as browsers write it.
        let mut open = vec![0x30, 0x80, 2, 1, 3, 0x30, 0x80];
        open.extend([PKCS7, b"\x01\xa0\x80\x24\x80\x04\x40", SHROUDED_KEY_BAG].concat());
        open.resize(200, 0);
        check(&open, Some(("PKCS #12", 1, Severity::Low)));
        // Other DER: a certificate, a key.
        check(&der(0x30, &der(0x30, &[0xa0, 3, 2, 1, 2])), None);
        check(&[&der(0x30, &[2, 1, 0])[..], KEY_BAG].concat(), None);
        check(b"", None);
    }

    #[test]
    fn what_is_cut_off_or_lies_is_read_as_far_as_it_goes() {
        let whole = jks(JKS, &[key(), key()]);
        let keys = |bytes: &[u8]| read(bytes).map_or(0, |found| found.keys);
        for length in 0..whole.len() {
            assert!(keys(&whole[..length]) <= 2, "{length}");
        }
        assert_eq!(keys(&whole[..900]), 0);
        assert_eq!(keys(&whole[..1100]), 1);
        let mut many = whole;
        many[8..12].copy_from_slice(&[0xff; 4]);
        assert_eq!(keys(&many), 2);
        let mut certificates = entry(1, &block(b"key"));
        certificates.extend([0xff; 4]);
        assert_eq!(keys(&jks(JKS, &[certificates])), 0);
    }

    #[test]
    fn more_entries_than_anybody_has_are_not_looked_at() {
        let count = usize::try_from(ENTRIES_MAX).unwrap();
        let small = entry(1, &[block(b"k"), number(0).to_vec()].concat());
        let keys = |count: usize| read(&jks(JKS, &vec![small.clone(); count])).unwrap().keys;
        assert_eq!(keys(count), ENTRIES_MAX);
        assert_eq!(keys(count + 1), ENTRIES_MAX);
    }

    #[test]
    fn a_keystore_is_a_finding_that_can_be_turned_off() {
        let found = |disable: &[&str]| {
            let config = SecretsConfig {
                disable: disable.iter().map(|id| (*id).to_owned()).collect(),
                ..SecretsConfig::default()
            };
            let file = jks(JKS, &[key()]);
            Engine::new(&config).findings("app/server.jks", &file).0
        };
        let [one] = found(&[]).try_into().unwrap();
        assert_eq!((one.rule.as_str(), one.severity), (RULE, Severity::Low));
        assert_eq!(one.masked, "JKS keystore with 1 key, encrypted: ****");
        assert!(found(&[RULE]).is_empty());
    }
}
