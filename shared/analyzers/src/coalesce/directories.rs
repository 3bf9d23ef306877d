//! The directories of a layer: which entries lie below which.

use std::ops::Range;

use super::{
    HashMap,
    outline::{Name, hash},
    packed::{Pack, pack_number, unpack_number},
};

/// The directories that the paths of entries name, and those on the way to them. The root is the first,
/// and what lies below one follows it.
#[derive(Debug, Default)]
pub(super) struct Directories {
    /// The number behind the last directory below each.
    ends: Vec<u32>,
    /// Which directory the path of each entry names.
    of_entries: Vec<u32>,
    /// Where the entries of each directory begin in `entries`, and where the last end.
    starts: Vec<u32>,
    /// Entries by directory.
    entries: Vec<u32>,
}

/// Directories, while there are new ones.
#[derive(Debug)]
pub(super) struct NewDirectories {
    all: Vec<Directory>,
    /// Directory and name in it -> directory.
    within: HashMap<(u32, Name), u32>,
}

/// A directory's name, the name before it, and its number.
type Step = (Name, (Name, u32));

/// A directory, while there are new ones.
#[derive(Clone, Copy, Debug)]
struct Directory {
    name: Name,
    /// The one that it is in, which is never a later one. The root is in itself.
    parent: u32,
}

// === impl Directories ===

impl Directories {
    fn new(ends: Vec<u32>, of_entries: Vec<u32>) -> Self {
        // Counted first, so that each entry is put where it belongs.
        let mut starts = vec![0_u32; ends.len().saturating_add(1)];
        for directory in &of_entries {
            if let Some(next) = starts.get_mut((*directory as usize).saturating_add(1)) {
                *next = next.saturating_add(1);
            }
        }
        let mut all = 0_u32;
        for start in &mut starts {
            all = all.saturating_add(*start);
            *start = all;
        }
        let mut free = starts.clone();
        let mut entries = vec![0; of_entries.len()];
        for (number, directory) in (0..).zip(&of_entries) {
            let Some(next) = free.get_mut(*directory as usize) else {
                continue;
            };
            if let Some(place) = entries.get_mut(*next as usize) {
                *place = number;
            }
            *next = next.saturating_add(1);
        }
        Self {
            ends,
            of_entries,
            starts,
            entries,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The numbers of all entries.
    pub(super) fn all_entries(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.of_entries).map(|(number, _)| number)
    }

    /// Which one the path of an entry names.
    pub(super) fn of_entry(&self, number: u32) -> Option<u32> {
        self.of_entries.get(number as usize).copied()
    }

    /// The directory and all below it.
    pub(super) fn below(&self, directory: u32) -> Range<u32> {
        let end = self.ends.get(directory as usize).copied();
        directory..end.unwrap_or(directory)
    }

    /// The entries of some directories that follow each other.
    pub(super) fn entries(&self, directories: Range<u32>) -> &[u32] {
        let start = |of: u32| self.starts.get(of as usize).map(|start| *start as usize);
        let bounds = start(directories.start).zip(start(directories.end));
        let entries = bounds.and_then(|(start, end)| self.entries.get(start..end));
        entries.unwrap_or_default()
    }

    /// How many bytes they take in memory.
    pub(super) fn bytes(&self) -> usize {
        let directories = self.ends.len().saturating_add(self.starts.len());
        let entries = self.of_entries.len().saturating_add(self.entries.len());
        directories
            .saturating_add(entries)
            .saturating_mul(size_of::<u32>())
    }
}

impl Pack for Directories {
    /// Two counts.
    const BYTES_MIN: usize = 16;

    fn pack(&self, out: &mut Vec<u8>) {
        self.ends.pack(out);
        (self.of_entries.len() as u64).pack(out);
        // Most are in the same directory as the one before, or in one near that.
        let mut before = 0_u32;
        for directory in &self.of_entries {
            pack_number(zigzag(directory.wrapping_sub(before)), out);
            before = *directory;
        }
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let ends: Vec<u32> = Pack::unpack(bytes)?;
        let all = u32::try_from(ends.len()).ok()?;
        let mut numbered = (0_u32..).zip(&ends);
        let count = usize::try_from(u64::unpack(bytes)?).ok()?;
        if !numbered.all(|(number, end)| (number..all).contains(&end.saturating_sub(1))) {
            return None;
        }
        if count > bytes.len() {
            return None;
        }
        let mut of_entries = Vec::with_capacity(count);
        let mut before = 0_u32;
        for _ in 0..count {
            before = before.wrapping_add(unzigzag(unpack_number(bytes)?));
            if before >= all {
                return None;
            }
            of_entries.push(before);
        }
        Some(Self::new(ends, of_entries))
    }
}

// === impl NewDirectories ===

impl NewDirectories {
    /// The directory of a name in another one, and whether it is new.
    pub(super) fn within(&mut self, parent: u32, name: Name) -> (u32, bool) {
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let known = *self.within.entry((parent, name)).or_insert(number);
        let is_new = known == number;
        if is_new {
            self.all.push(Directory { name, parent });
        }
        (known, is_new)
    }

    /// The directories as they are kept, and the step to each but the root; given that each entry is in
    /// one of them.
    pub(super) fn finish(&self, of_entries: &[u32]) -> (Directories, Vec<Step>) {
        let (numbers, ends) = walk(&self.all);
        let name_of = |number: u32| {
            let directory = self.all.get(number as usize);
            directory.map_or_else(|| hash(""), |directory| directory.name)
        };
        let steps = self.all.iter().zip(&numbers).skip(1);
        let steps = steps.map(|(of, number)| (of.name, (name_of(of.parent), *number)));
        let of_entries = of_entries.iter();
        let of_entries = of_entries.filter_map(|of| numbers.get(*of as usize).copied());
        let directories = Directories::new(ends, of_entries.collect());
        (directories, steps.collect())
    }
}

impl Default for NewDirectories {
    fn default() -> Self {
        let root = Directory {
            name: hash(""),
            parent: 0,
        };
        Self {
            all: vec![root],
            within: HashMap::default(),
        }
    }
}

/// Small numbers of small differences in both directions.
fn zigzag(difference: u32) -> u32 {
    let sign = 0_u32.wrapping_sub(difference >> 31);
    (difference << 1) ^ sign
}

fn unzigzag(number: u32) -> u32 {
    (number >> 1) ^ 0_u32.wrapping_sub(number & 1)
}

/// The number of each directory in a walk that goes down first, and of each in this walk the number
/// behind the last one below it.
fn walk(directories: &[Directory]) -> (Vec<u32>, Vec<u32>) {
    let mut sizes = vec![1_u32; directories.len()];
    for (number, directory) in directories.iter().enumerate().skip(1).rev() {
        let size = sizes.get(number).copied().unwrap_or_default();
        if let Some(above) = sizes.get_mut(directory.parent as usize) {
            *above = above.saturating_add(size);
        }
    }
    let mut numbers = vec![0_u32; directories.len()];
    let mut ends = vec![0_u32; directories.len()];
    // Of each directory, the number of the next one in it.
    let mut next = vec![1_u32; directories.len()];
    for (at, directory) in directories.iter().enumerate() {
        let size = sizes.get(at).copied().unwrap_or_default();
        let mut number = 0;
        if at > 0
            && let Some(next) = next.get_mut(directory.parent as usize)
        {
            number = *next;
            *next = next.saturating_add(size);
        }
        let place = (
            numbers.get_mut(at),
            next.get_mut(at),
            ends.get_mut(number as usize),
        );
        if let (Some(of), Some(next), Some(end)) = place {
            *of = number;
            *next = number.saturating_add(1);
            *end = number.saturating_add(size);
        }
    }
    (numbers, ends)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_lies_below_a_directory_follows_it(
            paths in prop::collection::vec(prop::collection::vec(0_u64..3, 0..5), 0..30),
        ) {
            let mut new = NewDirectories::default();
            let of_entries: Vec<u32> = paths.iter().map(|path| {
                path.iter().fold(0, |at, name| new.within(at, *name).0)
            }).collect();
            let (made, steps) = new.finish(&of_entries);
            let mut bytes = Vec::new();
            made.pack(&mut bytes);
            let kept = Directories::unpack(&mut &bytes[..]).unwrap();
            for end in 0..bytes.len() {
                prop_assert!(Directories::unpack(&mut &bytes[..end]).is_none());
            }
            prop_assert_eq!(steps.len() + 1, made.len());
            for directories in [&made, &kept] {
                prop_assert_eq!(directories.all_entries().count(), paths.len());
                for (number, path) in (0..).zip(&paths) {
                    let directory = directories.of_entry(number).unwrap();
                    let mut below = directories.entries(directories.below(directory)).to_vec();
                    below.sort_unstable();
                    let expected = (0_u32..).zip(&paths);
                    let expected = expected.filter(|(_, other)| other.starts_with(path));
                    let expected: Vec<u32> = expected.map(|(number, _)| number).collect();
                    prop_assert_eq!(below, expected);
                }
            }
        }

        #[test]
        fn any_bytes_are_directories_or_damaged(
            mut bytes: Vec<u8>,
            ends in prop::collection::vec(0_u32..5, 0..5),
        ) {
            let mut packed = Vec::new();
            ends.pack(&mut packed);
            packed.append(&mut bytes);
            for directories in [Directories::unpack(&mut &packed[..])].into_iter().flatten() {
                for number in directories.all_entries() {
                    let directory = directories.of_entry(number).unwrap();
                    prop_assert!(directories.entries(directories.below(directory)).contains(&number));
                }
            }
        }

        #[test]
        fn differences_come_back_as_they_were(difference: u32) {
            prop_assert_eq!(unzigzag(zigzag(difference)), difference);
        }
    }
}
