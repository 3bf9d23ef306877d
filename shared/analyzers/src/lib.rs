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
//! | `rpm` | `Packages`, `Packages.db`, `rpmdb.sqlite` in `var/lib/rpm`, `usr/lib/sysimage/rpm`, `usr/share/rpm`; `var/lib/rpmmanifest/container-manifest-2` | RPM packages, their files |
//! | `python` | `*.dist-info/METADATA`, `*.egg-info/PKG-INFO`, `*.egg-info`; never in `_vendor` | Python packages |
//! | `npm` | `…/node_modules/NAME/package.json`, `…/node_modules/@SCOPE/NAME/package.json` | npm packages |
//! | `gem` | `specifications/*.gemspec`, `specifications/default/*.gemspec` | Ruby gems |
//! | `composer` | `composer/installed.json` | PHP packages |
//! | `dotnet` | `*.deps.json` | .NET packages |
//! | `cran` | `library/NAME/DESCRIPTION`, `site-library/NAME/DESCRIPTION` | R packages |
//! | `erlang` | `ebin/NAME.app` | Erlang and Elixir applications |
//! | `conda` | `conda-meta/*.json` | Conda packages |
//! | `jar` | `*.jar`, `*.war`, `*.ear` and the like, and those inside of them | Java artifacts |
//! | `golang` | programs that Go built: ELF, PE, Mach-O | their modules, and the standard library |
//! | `cargo` | programs that `cargo auditable` built | their crates |
//! | `setuid` | the mode of each file | setuid and setgid files |
//! | `secrets` | texts that no package brought, and files whose names promise a secret | secrets, masked |
//! | `compliance` | the mode of each file and directory; `etc/passwd`, `shadow`, `sudoers` | rights and accounts that benchmarks refuse |
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
mod cargo;
mod coalesce;
mod compliance;
mod composer;
mod conda;
#[cfg(test)]
mod conformance;
mod cran;
mod dotnet;
mod dpkg;
mod erlang;
mod executable;
mod file;
mod gem;
mod golang;
mod image;
mod jar;
mod links;
mod npm;
mod os_release;
mod python;
mod read;
#[cfg(test)]
mod real_images;
mod rpm;
mod secrets;
mod setuid;
mod skip;
mod stanza;
mod zip;

use archive::Limits;

pub(crate) use self::analyzer::malformed;

pub use self::{
    analyzer::{Analyzer, Analyzers, Config, Found, Malformed, Wanted, analyzer_id, entries_id},
    coalesce::{PreparedLayer, Subject, coalesce, coalesce_prepared},
    compliance::{Benchmark, Outcome, Status, check_dockerfile, end_of_life},
    file::File,
    image::image_report,
    read::{LayerBlob, LayerRead, read_layer},
    secrets::{
        Assigned, Example, FingerprintKey, FingerprintKeyError, SecretCheck, SecretRule,
        SecretRuleError, SecretsConfig, Token, built_in_rules,
    },
    skip::{PathGlob, PathGlobError, Skip},
};

/// Makes an analyzer for a configuration and limits.
pub type MakeAnalyzer = fn(&Config, &Limits) -> Box<dyn Analyzer>;

/// Every analyzer, in the order of its section in a report. What is not in the list does not exist.
pub static ANALYZERS: &[MakeAnalyzer] = &[
    os_release::OsRelease::boxed,
    dpkg::Dpkg::boxed,
    apk::Apk::boxed,
    rpm::Rpm::boxed,
    python::Python::boxed,
    npm::Npm::boxed,
    gem::Gem::boxed,
    composer::Composer::boxed,
    dotnet::Dotnet::boxed,
    cran::Cran::boxed,
    erlang::Erlang::boxed,
    conda::Conda::boxed,
    jar::Jar::boxed,
    golang::Golang::boxed,
    cargo::Cargo::boxed,
    setuid::Setuid::boxed,
    secrets::Secrets::boxed,
    compliance::Compliance::boxed,
];
