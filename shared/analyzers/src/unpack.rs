//! What the archives in an image may be unpacked to.
//!
//! What is in an archive is packed already and counts again at each level, so one file may be
//! unpacked to so many times its own bytes. And all files that one analyzer opens in a layer share
//! [`archive::Limits::unpacked_bytes_max`], in the order in which the layer has them: from the file
//! on with which they exceed it, none is opened. So all archives of an image cost no more than so
//! many times what the image has, and no more than one budget for each layer, whatever they promise.
//! It is for each layer and not for the image since a layer is read once for all images that have it.

use std::collections::BTreeMap;

use crate::Malformed;

/// What one file may be unpacked to, per byte that it has.
const RATIO_MAX: u64 = 16;

/// Bytes that any file may be unpacked to: text that says the same again and again packs well.
const FREE_BYTES: u64 = 16 << 20;

/// Bytes that no file may be unpacked to.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Bytes that one file may be unpacked to, at all depths together.
#[derive(Debug)]
pub(crate) struct Room {
    all: u64,
    left: u64,
}

/// What the files of a layer were unpacked to, by one analyzer, whatever the order in which they
/// were opened.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    /// By the number of the file, as far as it decides.
    bytes: BTreeMap<usize, u64>,
    all: u64,
    /// The number from which on nothing is opened any more.
    end: Option<usize>,
}

// === impl Room ===

impl Room {
    /// The room that a file of this size has.
    pub(crate) fn of(size: u64) -> Self {
        let room = size.saturating_mul(RATIO_MAX).saturating_add(FREE_BYTES);
        Self::new(room.min(FILE_BYTES_MAX))
    }

    pub(crate) const fn new(bytes: u64) -> Self {
        Self {
            all: bytes,
            left: bytes,
        }
    }

    /// Bytes that may still be unpacked.
    pub(crate) const fn left(&self) -> u64 {
        self.left
    }

    /// Bytes that were unpacked.
    pub(crate) const fn taken(&self) -> u64 {
        self.all.saturating_sub(self.left)
    }

    /// Notes that so many bytes were unpacked, whether or not they are of use.
    pub(crate) const fn take(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// The error of a file that would take more.
    pub(crate) const fn exceeded(&self) -> Malformed {
        Malformed::Unpacked(self.all)
    }
}

// === impl Spent ===

impl Spent {
    /// Whether the files before this one have taken more than all may.
    pub(crate) fn is_over_before(&self, number: usize) -> bool {
        self.end.is_some_and(|end| number >= end)
    }

    /// Notes what a file was unpacked to.
    pub(crate) fn add(&mut self, number: usize, bytes: u64, bytes_max: u64) {
        if bytes == 0 || self.is_over_before(number) {
            return;
        }
        let of_file = self.bytes.entry(number).or_default();
        *of_file = of_file.saturating_add(bytes);
        self.all = self.all.saturating_add(bytes);
        if self.all <= bytes_max {
            return;
        }
        // From here on this is done for the few files that are open already, and no others.
        let mut sum = 0_u64;
        let last = self.bytes.iter().find(|(_, bytes)| {
            sum = sum.saturating_add(**bytes);
            sum > bytes_max
        });
        let Some((last, _)) = last.map(|(number, bytes)| (*number, *bytes)) else {
            return;
        };
        let end = last.saturating_add(1);
        self.end = Some(end);
        self.bytes.split_off(&end);
        self.all = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_follows_the_size_of_the_file() {
        assert_eq!(Room::of(0).left(), FREE_BYTES);
        assert_eq!(Room::of(100).left(), FREE_BYTES + 100 * RATIO_MAX);
        assert_eq!(Room::of(u64::MAX).left(), FILE_BYTES_MAX);
        let mut room = Room::new(10);
        room.take(4);
        assert_eq!((room.left(), room.taken()), (6, 4));
        room.take(7);
        assert_eq!((room.left(), room.taken()), (0, 10));
    }

    #[test]
    fn the_budget_ends_behind_the_same_file_in_every_order() {
        let files = [(2, 40), (5, 40), (7, 40), (8, 40), (9, 1)];
        let orders = [
            [0, 1, 2, 3, 4],
            [4, 3, 2, 1, 0],
            [2, 0, 4, 1, 3],
            [3, 2, 4, 0, 1],
        ];
        for order in orders {
            for (bytes_max, end) in [(0, Some(3)), (79, Some(6)), (80, Some(8)), (160, Some(10))] {
                let mut spent = Spent::default();
                for at in order {
                    let (number, bytes) = files[at];
                    if !spent.is_over_before(number) {
                        spent.add(number, bytes, bytes_max);
                    }
                }
                assert_eq!(spent.end, end, "{order:?} {bytes_max}");
            }
            let mut spent = Spent::default();
            for at in order {
                spent.add(files[at].0, files[at].1, 161);
            }
            assert_eq!(spent.end, None);
        }
    }
}
