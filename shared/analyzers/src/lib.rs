//! What the files of a layer prove: the one pass over a layer, the analyzers, and [`coalesce()`].
//!
//! What it is for: [`read_layer`] turns a blob into a report of sections, one per analyzer, that
//! depends on nothing but the blob's bytes, the analyzers' versions and the limits; so it can be
//! kept and used for every image that has this layer. [`coalesce()`] turns the reports of an image's
//! layers into the report of the image.
//!
//! The decision that shapes it: a layer is read once, as a stream, by two threads. One inflates,
//! the other hashes, walks the archive and hands files to the analyzers that asked for them. No
//! layer is ever written to disk. The price is that an analyzer sees one file of one layer and
//! nothing else: what a file means in the image (deleted later, replaced, reached by a link, owned
//! by a package) is known by `coalesce` alone.
//!
//! Memory of one [`read_layer`], whatever the layer's size:
//!
//! ```text
//!   256 KiB input + 6 x 256 KiB buffers + decoder window (32 KiB, or 2^zstd_window_log_max)
//! + held_bytes_max + held_bytes_max / 4 for hard links + 2 x file_memory_bytes_max
//! + one extended header (pax_bytes_max) + name_bytes_max + entries_max x about 200 bytes
//! + 4 x result_bytes_max per analyzer that fills it
//! + per file that is parsed at this moment (two, and one per thread of the pool): its text, up to
//!   64 MiB, three times where it is not UTF-8, and about 100 MB of a parser's own
//! ```
//!
//! | analyzer | reads | finds |
//! |---|---|---|
//! | `os-release` | `etc/os-release`, `usr/lib/os-release`; else `etc/alpine-release`, `etc/debian_version` | the operating system |
//! | `dpkg` | `var/lib/dpkg/status`, `status.d/*`; `info/*.list`, `*.md5sums` | Debian packages, their files |
//! | `apk` | `lib/apk/db/installed`, `usr/lib/apk/db/installed` | Alpine packages, their files |
//! | `python` | `*.dist-info/METADATA`, `*.egg-info/PKG-INFO`, `*.egg-info`; never in `_vendor` | Python packages |
//! | `npm` | `…/node_modules/NAME/package.json`, `…/node_modules/@SCOPE/NAME/package.json` | npm packages |
//! | `setuid` | the mode of each file | setuid and setgid files |
//!
//! What it does not do: it knows no advisory and no policy, resolves no name over the network, and
//! is never asynchronous. Files that an image only *could* install (lock files) are not read, nor is
//! a package that `node_modules` reaches only by a link to a directory elsewhere, as npm's workspaces
//! do with the code of the image itself. A record that is a link and was not read is a gap. What
//! [`Skip`] names is listed and not looked into.
//!
//! To add an analyzer: a file with a unit-like struct and [`Analyzer`], one line in [`ANALYZERS`],
//! a row above, `testdata/NAME/` with a good and a broken case, and a line in `testdata/versions`.
//! To change what one finds: raise its version.

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

mod analyzer;
mod apk;
mod coalesce;
#[cfg(test)]
mod conformance;
mod dpkg;
mod file;
mod links;
mod npm;
mod os_release;
mod python;
mod read;
#[cfg(test)]
mod real_images;
mod setuid;
mod skip;
mod stanza;

use archive::Limits;

pub use self::{
    analyzer::{Analyzer, Analyzers, Config, Found, Malformed, Wanted, analyzer_id, entries_id},
    coalesce::{PreparedLayer, Subject, coalesce, coalesce_prepared},
    file::File,
    read::{LayerBlob, LayerRead, read_layer},
    skip::{PathGlob, PathGlobError, Skip},
};

/// Makes an analyzer for a configuration and limits.
pub type MakeAnalyzer = fn(&Config, &Limits) -> Box<dyn Analyzer>;

/// Every analyzer, in the order of its section in a report. What is not in the list does not exist.
pub static ANALYZERS: &[MakeAnalyzer] = &[
    os_release::OsRelease::boxed,
    dpkg::Dpkg::boxed,
    apk::Apk::boxed,
    python::Python::boxed,
    npm::Npm::boxed,
    setuid::Setuid::boxed,
];
