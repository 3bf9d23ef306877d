//! A sorted list that is looked into very often.

use super::{outline::Name, packed::Pack};

/// Items by the hash of a name. Hashes are spread evenly, so their first bits say nearly where an item
/// stands: most names that are asked for are in no list, and are known not to be by two numbers.
#[derive(Debug)]
pub(super) struct Index<T> {
    items: Vec<(Name, T)>,
    /// Where the items begin whose names have the same first bits, and where the last end.
    starts: Vec<u32>,
    /// By how many bits a name is longer than its first bits.
    shift: u32,
}

// === impl Index ===

impl<T: Ord> Index<T> {
    pub(super) fn new(mut items: Vec<(Name, T)>) -> Self {
        items.sort_unstable();
        Self::of_sorted(items)
    }
}

impl<T> Index<T> {
    /// Of items that are sorted by their names.
    pub(super) fn of_sorted(items: Vec<(Name, T)>) -> Self {
        // About two items to a place.
        let bits = (items.len() / 2).checked_ilog2().unwrap_or_default();
        let shift = Name::BITS.saturating_sub(bits);
        let places = 1_usize.checked_shl(bits).unwrap_or(1);
        let mut starts = Vec::with_capacity(places.saturating_add(1));
        for (number, (name, _)) in (0_u32..).zip(&items) {
            let place = place(*name, shift);
            while starts.len() <= place {
                starts.push(number);
            }
        }
        let all = u32::try_from(items.len()).unwrap_or(u32::MAX);
        starts.resize(places.saturating_add(1), all);
        Self {
            items,
            starts,
            shift,
        }
    }

    /// The items of a name.
    pub(super) fn named(&self, name: Name) -> impl Iterator<Item = &T> {
        let place = place(name, self.shift);
        let bounds = self.starts.get(place..).unwrap_or_default();
        let (start, end) = match bounds {
            [start, end, ..] => (*start as usize, *end as usize),
            _ => (0, 0),
        };
        let same = self.items.get(start..end).unwrap_or_default();
        let before = same.partition_point(|(other, _)| *other < name);
        let same = same.get(before..).unwrap_or_default().iter();
        same.take_while(move |(other, _)| *other == name)
            .map(|(_, item)| item)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Name, T)> {
        self.items.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// How many bytes it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let items = self.items.capacity().saturating_mul(size_of::<(Name, T)>());
        let starts = self.starts.capacity().saturating_mul(size_of::<u32>());
        items.saturating_add(starts)
    }
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self::of_sorted(Vec::new())
    }
}

impl<T: Pack + Ord> Pack for Index<T> {
    const BYTES_MIN: usize = 8;

    fn pack(&self, out: &mut Vec<u8>) {
        self.items.pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let items: Vec<(Name, T)> = Pack::unpack(bytes)?;
        items.is_sorted().then(|| Self::of_sorted(items))
    }
}

/// A name's first bits.
fn place(name: Name, shift: u32) -> usize {
    let first = name.checked_shr(shift).unwrap_or_default();
    usize::try_from(first).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_items_of_a_name_are_found_and_no_others(
            // Some with the same first bits, some far apart.
            items in prop::collection::vec((prop_oneof![0_u64..40, any::<u64>()], 0_u32..4), 0..200),
            others: Vec<u64>,
        ) {
            let index = Index::new(items.clone());
            let mut bytes = Vec::new();
            index.pack(&mut bytes);
            let again = Index::<u32>::unpack(&mut &bytes[..]).unwrap();
            for name in items.iter().map(|(name, _)| *name).chain(others) {
                let same = items.iter().filter(|(other, _)| *other == name);
                let mut expected: Vec<u32> = same.map(|(_, item)| *item).collect();
                expected.sort_unstable();
                for index in [&index, &again] {
                    let found: Vec<u32> = index.named(name).copied().collect();
                    prop_assert_eq!(&found, &expected);
                }
            }
        }
    }
}
