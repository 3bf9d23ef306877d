//! Reading what strangers packed: inflate, walk, spill, and never believe a number.
//!
//! What it is for: a layer arrives as compressed bytes; it leaves as tar entries with their
//! content, in one pass, in bounded memory.
//!
//! The decision that shapes it: [`Walk`] is our own tar reader, because two readers that disagree
//! about one header hide files from a scanner. It reads headers as the runtimes do that unpack
//! images (they share one implementation, Go's `archive/tar`): the same precedence of PAX, GNU and
//! plain names, the same idea of which entries have content, the same end of the archive. The
//! price is a few hundred lines that we test ourselves, against another implementation.
//! [`Inflate`] works buffer to buffer, so that a layer needs no thread pool and no async runtime.
//!
//! | part | does |
//! |---|---|
//! | [`Limits`] | every bound, in one place; its digest is part of a section's key |
//! | [`Inflate`] | gzip of one or many members, zstd of one or many frames, or plain, by magic |
//! | [`Walk`] | tar entries: PAX, GNU long names, hard links, whiteouts labelled; unsafe paths ignored and reported |
//! | [`Spill`] | content too large for memory, in a file without a name, alone or in parts |
//! | [`ArchiveError`] | one variant per way to lie, each with its gap |
//!
//! What it does not do: it writes no file of an archive anywhere and follows no link. What
//! whiteouts *mean* is for `analyzers::coalesce`.
//!
//! To add a compression: a variant of [`Format`] with its magic and media types, and a decoder in
//! `inflate/`.

#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice
    )
)]

mod entry;
mod error;
mod inflate;
mod limits;
mod path;
mod spill;
mod walk;

pub use self::{
    entry::Entry,
    error::ArchiveError,
    inflate::{Format, Inflate},
    limits::Limits,
    path::escape,
    spill::{ReadAt, Reader, Spill},
    walk::{Walk, Walked},
};
