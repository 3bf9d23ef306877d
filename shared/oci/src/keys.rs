//! Keys of JSON documents that two readers would understand differently.
//!
//! Registries, builders and runtimes read manifests and configs with Go's `encoding/json`, which
//! takes `Layers` for `layers` and of several such keys the last one. A reader that compares keys
//! exactly sees another image in the same bytes, and the digest fits both. No builder writes such a
//! document, so it is refused.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};

/// The keys that readers look for in an object, and those in the objects below each. What they hold
/// in lists is looked at item by item.
#[derive(Debug)]
pub(crate) struct Keys(pub(crate) &'static [(&'static str, &'static Keys)]);

/// Nothing below is looked at.
pub(crate) const ANY: &Keys = &Keys(&[]);

/// Fails where a key would be read differently by readers that fold case, or stands twice.
pub(crate) fn check(bytes: &[u8], keys: &Keys) -> Result<(), serde_json::Error> {
    let mut document = serde_json::Deserializer::from_slice(bytes);
    Level(keys).deserialize(&mut document)?;
    document.end()
}

/// A value and the keys that matter in it.
#[derive(Clone, Copy)]
struct Level<'k>(&'k Keys);

// === impl Level ===

impl Level<'_> {
    /// The known key that a reader could take this one for, by its number.
    fn find(self, key: &str) -> Option<(usize, &'static str, &'static Keys)> {
        let mut known = self.0.0.iter().enumerate();
        known
            .find(|(_, (name, _))| folds_to(key, name))
            .map(|(at, (name, below))| (at, *name, *below))
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        if self.0.0.is_empty() {
            return value.deserialize_ignored_any(IgnoredAny).map(|_| ());
        }
        value.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = vec![false; self.0.0.len()];
        while let Some(key) = map.next_key::<String>()? {
            let Some((at, name, below)) = self.find(&key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if key != name {
                let detail = format!("some readers take the key `{key}` for `{name}`");
                return Err(de::Error::custom(detail));
            }
            if seen.get(at).copied().unwrap_or_default() {
                return Err(de::Error::custom(format!("the key `{key}` stands twice")));
            }
            if let Some(seen) = seen.get_mut(at) {
                *seen = true;
            }
            map.next_value_seed(Level(below))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// Whether Go takes the key for this name, which is ASCII: two letters outside of it fold to it.
fn folds_to(key: &str, name: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => letter.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ITEM: Keys = Keys(&[("digest", ANY), ("diskSize", ANY)]);
    const KEYS: Keys = Keys(&[("items", &ITEM), ("name", ANY)]);

    fn refused(text: &str) -> Option<String> {
        check(text.as_bytes(), &KEYS)
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn a_key_that_folds_to_another_or_stands_twice_is_refused_at_every_level() {
        for fine in [
            "{}",
            r#"{"name": {"NAME": 1, "Name": 2}, "other": 1, "OTHER": 2}"#,
            r#"{"items": [{"digest": "x"}, {"digest": "y"}, [], null, 1, -1, 0.5, true]}"#,
            r#"{"items": "text"}"#,
        ] {
            assert_eq!(refused(fine), None, "{fine}");
        }
        for (lie, why) in [
            (r#"{"items": [], "Items": []}"#, "`Items` for `items`"),
            (r#"{"NAME": 1}"#, "`NAME` for `name`"),
            (r#"{"name": 1, "name": 2}"#, "`name` stands twice"),
            (r#"{"na\u006de": 1, "name": 2}"#, "`name` stands twice"),
            (
                r#"{"items": [{}, {"Digest": "x"}]}"#,
                "`Digest` for `digest`",
            ),
            (r#"{"items": {"di\u017fk\u017fize": 1}}"#, "for `diskSize`"),
            (r#"{"items": {"dis\u212aSize": 1}}"#, "for `diskSize`"),
            (
                r#"{"items": [[{"digest": 1, "digest": 2}]]}"#,
                "stands twice",
            ),
            (r#"{"name": 1} {}"#, "trailing"),
        ] {
            let text = refused(lie).unwrap_or_default();
            assert!(text.contains(why), "{lie}: {text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in r#"[{}\[\]",:a-zA-Z0-9 ]{0,40}"#) {
            let _checked = check(text.as_bytes(), &KEYS);
        }
    }
}
