//! Values that were used of late, within a bound on their bytes.

use std::{borrow::Borrow, collections::HashMap, fmt, hash::Hash};

/// Entries of one generation, however small they are.
const ENTRIES_MAX: usize = 4_096;

/// What was used of late, in two generations: when the young one is full, the old one is dropped.
/// So using a value keeps it, without an order to keep.
pub struct Recent<K, V> {
    young: HashMap<K, Weighed<V>>,
    young_bytes: usize,
    old: HashMap<K, Weighed<V>>,
    bytes_max: usize,
}

struct Weighed<V> {
    value: V,
    bytes: usize,
}

// === impl Recent ===

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Keeps values of about so many bytes together.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            young_bytes: 0,
            old: HashMap::new(),
            bytes_max,
        }
    }

    /// A value that is still here.
    pub fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(found) = self.young.get(key) {
            return Some(found.value.clone());
        }
        let (key, Weighed { value, bytes }) = self.old.remove_entry(key)?;
        self.put(key, value.clone(), bytes);
        Some(value)
    }

    /// Keeps a value, which takes so many bytes.
    pub fn put(&mut self, key: K, value: V, bytes: usize) {
        let new = Weighed { value, bytes };
        let before = self.young.insert(key, new).map_or(0, |old| old.bytes);
        self.grow(before, bytes);
    }

    /// Says what something takes that was put before it was known.
    pub fn weigh(&mut self, key: &K, bytes: usize) {
        if let Some(known) = self.young.get_mut(key) {
            let before = std::mem::replace(&mut known.bytes, bytes);
            self.grow(before, bytes);
        }
    }

    fn grow(&mut self, before: usize, bytes: usize) {
        self.young_bytes = self
            .young_bytes
            .saturating_sub(before)
            .saturating_add(bytes);
        if self.young_bytes > self.bytes_max / 2 || self.young.len() > ENTRIES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

impl<K, V> fmt::Debug for Recent<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent")
            .field("young", &self.young.len())
            .field("old", &self.old.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_what_is_used_stays() {
        let mut recent = Recent::new(20);
        recent.put(0, "used", 4);
        for key in 1..100 {
            recent.put(key, "once", 4);
            assert_eq!(recent.get(&0), Some("used"));
            let kept = recent.young.len() + recent.old.len();
            assert!(kept <= 7, "{kept} entries of 4 bytes");
        }
        assert_eq!(recent.get(&1), None);
        recent.weigh(&0, 1_000);
        assert_eq!(recent.get(&0), Some("used"));
    }

    #[test]
    fn entries_without_weight_are_bounded_too() {
        let mut recent = Recent::new(20);
        for key in 0..3 * ENTRIES_MAX {
            recent.put(key, (), 0);
        }
        assert!(recent.young.len() + recent.old.len() <= 2 * ENTRIES_MAX + 1);
    }
}
