//! What the files of a layer prove: the one pass over a layer, the analyzers, and [`coalesce()`].
//!
//! What it is for: [`read_layer`] turns a blob into a report of sections, one per analyzer, that
//! depends on nothing but the blob's bytes, the analyzers' versions and the limits; so it can be
//! kept and used for every image that has this layer. [`coalesce()`] turns the reports of an image's
//! layers into the report of the image.
//!
//! The decision that shapes it: a layer is read once, as a stream, by three threads. One inflates,
//! one walks the archive and hands files to the analyzers that asked for them, one makes the digests
//! of files. No layer is ever written to disk. The price is that an analyzer sees one file of one
//! layer and nothing else: what a file means in the image (deleted later, replaced, reached by a
//! link, owned by a package) is known by `coalesce` alone.
//!
//! Memory of one [`read_layer`], whatever the layer's size:
//!
//! ```text
//!   256 KiB input + 10 x 256 KiB buffers + decoder window (32 KiB, or 2^zstd_window_log_max)
//! + held_bytes_max / 2 for files that wait for others + held_bytes_max / 4 for hard links
//! + held_bytes_max / 4 for files that wait for an analyzer that waits
//! + file_memory_bytes_max for the file that passes
//! + one extended header (pax_bytes_max) + name_bytes_max + entries_max x about 300 bytes
//! + 4 x result_bytes_max per analyzer that fills it
//! ```
//!
//! and of all that a process reads side by side, together:
//!
//! ```text
//!   16 MiB per thread of the pool (at most held_bytes_max / 2) for files that it analyzes
//! + per file that is parsed at this moment (one per layer, and one per thread of the pool): its
//!   text, up to 64 MiB, three times where it is not UTF-8, and about 100 MB of a parser's own
//! ```
//!
//! These are bounds for what was made to reach them. An ordinary layer has no file that waits and
//! none that is kept, and its largest one is a program of a few MiB: its share is 3 MiB of buffers,
//! its window, its entries and results, and a file.
//!
//! | analyzer | reads | finds |
//! |---|---|---|
//! | `os-release` | `etc/os-release`, `usr/lib/os-release`; else `etc/redhat-release` and twenty others | the operating system |
//! | `dpkg` | `var/lib/dpkg/status`, `status.d/*`; `info/*.list`, `*.md5sums`; `diversions` | Debian packages, their files, and which of these stand elsewhere |
//! | `copyright` | `usr/share/doc/NAME/copyright` | licences of Debian packages |
//! | `apk` | `lib/apk/db/installed`, `usr/lib/apk/db/installed` | Alpine packages, their files |
//! | `rpm` | `Packages`, `Packages.db`, `rpmdb.sqlite` in `var/lib/rpm`, `usr/lib/sysimage/rpm`, `usr/share/rpm`; `var/lib/rpmmanifest/container-manifest-2` | RPM packages, their files |
//! | `opkg` | `status`, `info/*.list` in `usr/lib/opkg`, `var/lib/opkg` | packages of embedded distributions, their files |
//! | `python` | `*.dist-info/METADATA`, `*.egg-info/PKG-INFO`, `*.egg-info`, `*.egg` and in it `EGG-INFO/PKG-INFO`; never in `_vendor` or a cache of conda | Python packages |
//! | `npm` | `…/node_modules/NAME/package.json`, `…/node_modules/@SCOPE/NAME/package.json`, the same in `usr/share/nodejs`, `usr/lib/nodejs`, `usr/lib/TRIPLET/nodejs` | npm packages |
//! | `gem` | `specifications/*.gemspec`, `specifications/default/*.gemspec` | Ruby gems |
//! | `composer` | `composer/installed.json` | PHP packages |
//! | `dotnet` | `*.deps.json` | .NET packages |
//! | `cran` | `library/NAME/DESCRIPTION`, `site-library/NAME/DESCRIPTION` | R packages |
//! | `erlang` | `ebin/NAME.app` | Erlang and Elixir applications |
//! | `conda` | `conda-meta/*.json` | Conda packages: read from records that micromamba and Rattler wrote; no environment was compared with what `conda list` says |
//! | `jar` | `*.jar`, `*.war`, `*.ear` and the like, and those inside of them | Java artifacts |
//! | `golang` | programs that Go built: ELF, PE, Mach-O | their modules, and the standard library |
//! | `cargo` | programs that `cargo auditable` built | their crates |
//! | `php` | `.registry/*.reg`; names of extensions in `php/INTERFACE`, `php/extensions/*-INTERFACE` | what PECL and PEAR installed; extensions that come with PHP |
//! | `wordpress` | `wp-includes/version.php`, `wp-content/plugins/*/*.php`, `wp-content/themes/*/style.css` | `WordPress`, its plugins and themes |
//! | `jdk` | `release` of a Java installation | run times and development kits of Java |
//! | `software` | programs and libraries of known names | what no package manager installed, by what its content says |
//! | `sbom` | `*.spdx`, `*.spdx.json`, `*.cdx`, `*.cdx.json`, `*.cdx.xml`, `*.cyclonedx.json` | what Bitnami and others say that they installed |
//! | `setuid` | the mode of each file | setuid and setgid files |
//! | `checksums` | what runs or is loaded, where packages put it | its digests as package managers record them |
//! | `secrets` | texts that no package brought, and files whose names promise a secret | secrets, masked |
//! | `compliance` | the mode of each file and directory; `etc/passwd`, `shadow`, `sudoers` | rights and accounts that benchmarks refuse |
//!
//! For directories also lock files ([`LOCKS`]), which say what will be installed there:
//!
//! | analyzer | reads | finds |
//! |---|---|---|
//! | `package-lock` | `package-lock.json`, `npm-shrinkwrap.json` | npm packages |
//! | `yarn-lock` | `yarn.lock` | npm packages |
//! | `pnpm-lock` | `pnpm-lock.yaml` | npm packages |
//! | `bun-lock` | `bun.lock` | npm packages |
//! | `requirements` | `*requirements*.txt`, `*constraints*.txt` | Python packages that are pinned |
//! | `pipfile-lock` | `Pipfile.lock` | Python packages |
//! | `poetry-lock` | `poetry.lock` | Python packages |
//! | `uv-lock` | `uv.lock` | Python packages |
//! | `pdm-lock` | `pdm.lock` | Python packages |
//! | `pylock` | `pylock.toml`, `pylock.*.toml` | Python packages |
//! | `go-mod` | `go.mod`, `go.sum` | Go modules, and the standard library |
//! | `cargo-lock` | `Cargo.lock` | crates |
//! | `gemfile-lock` | `Gemfile.lock`, `gems.locked`, `Gemfile.next.lock` | Ruby gems |
//! | `composer-lock` | `composer.lock` | PHP packages |
//! | `pom` | `pom.xml` | Java artifacts that a project asks for |
//! | `gradle-lock` | `*gradle.lockfile`, `dependency-locks/*.lockfile` | Java artifacts |
//! | `nuget-lock` | `packages.lock.json`, `packages.*.lock.json` | .NET packages |
//! | `mix-lock` | `mix.lock` | Erlang and Elixir packages |
//! | `pubspec-lock` | `pubspec.lock` | Dart packages |
//! | `podfile-lock` | `Podfile.lock` | pods |
//! | `package-resolved` | `Package.resolved` | Swift packages |
//! | `conan-lock` | `conan.lock` | Conan packages |
//!
//! What it does not do: it knows no advisory and no policy, resolves no name over the network, and
//! is never asynchronous. Files that an image only *could* install (lock files) are not read in it, nor is
//! a package that `node_modules` reaches only by a link to a directory elsewhere, as npm's workspaces
//! do with the code of the image itself. A record that is a link and was not read is a gap. What
//! [`Skip`] names is listed and not looked into.
//!
//! Whom a file is shown to is decided by its path, for all analyzers at once: each says which pieces
//! of paths it is after, and they are one automaton. One more analyzer costs a few of its states.
//!
//! To add a kind of lock file: a file in `lock/`, one line in [`LOCKS`], a row and testdata as below.
//! To add an analyzer: a file with a unit-like struct and `EachFile`, or [`Analyzer`] where it needs
//! several files or an input of its own; one line in [`ANALYZERS`],
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
mod archives;
mod blocks;
mod cargo;
mod checksums;
mod coalesce;
mod compliance;
mod composer;
mod conda;
#[cfg(test)]
mod conformance;
mod copyright;
mod cran;
mod dotnet;
mod dpkg;
mod each;
mod erlang;
mod executable;
mod file;
mod filter;
mod gem;
mod golang;
mod image;
mod jar;
mod jdk;
pub mod licenses;
mod links;
mod lock;
mod md5;
#[cfg(test)]
mod mutations;
mod npm;
mod opkg;
mod os_release;
mod php;
mod python;
mod read;
#[cfg(test)]
mod real_images;
mod rpm;
mod sbom;
mod secrets;
mod setuid;
mod sha256;
mod signature;
mod skip;
mod stanza;
mod unpack;
mod wordpress;
mod xml;
mod zip;

use archive::Limits;

use self::each::each;

pub(crate) use self::analyzer::malformed;

pub use self::{
    analyzer::{
        Analyzer, Analyzers, Config, Found, Malformed, Wanted, Without, analyzer_id, entries_id,
        own_id,
    },
    archives::Archives,
    coalesce::{
        EntryList, EntryRef, KeptEntries, KeptSection, PreparedLayer, Subject, coalesce,
        coalesce_prepared,
    },
    compliance::{Benchmark, Outcome, Status, check_dockerfile, end_of_life, is_check},
    file::File,
    image::{image_report, masked_labels},
    read::{LayerBlob, LayerRead, read_layer},
    sbom::{SBOM_BYTES_MAX, SbomError, read_sbom},
    secrets::{
        Assigned, Example, FingerprintKey, FingerprintKeyError, SecretCheck, SecretRule,
        SecretRuleError, SecretsConfig, Token, built_in_rules, holds_secret, prepare_secrets,
    },
    skip::{PathGlob, PathGlobError, Skip},
};

/// Makes an analyzer for a configuration and limits.
pub type MakeAnalyzer = fn(&Config, &Limits) -> Box<dyn Analyzer>;

/// Every analyzer, in the order of its section in a report. What is not in the list does not exist.
pub static ANALYZERS: &[MakeAnalyzer] = &[
    os_release::OsRelease::boxed,
    dpkg::Dpkg::boxed,
    copyright::Copyright::boxed,
    apk::Apk::boxed,
    rpm::Rpm::boxed,
    each::<opkg::Opkg>,
    python::Python::boxed,
    npm::Npm::boxed,
    each::<gem::Gem>,
    each::<composer::Composer>,
    each::<dotnet::Dotnet>,
    each::<cran::Cran>,
    each::<erlang::Erlang>,
    each::<conda::Conda>,
    jar::Jar::boxed,
    each::<golang::Golang>,
    each::<cargo::Cargo>,
    php::Php::boxed,
    wordpress::Wordpress::boxed,
    each::<jdk::Jdk>,
    signature::Software::boxed,
    sbom::Sbom::boxed,
    setuid::Setuid::boxed,
    checksums::Checksums::boxed,
    secrets::Secrets::boxed,
    compliance::Compliance::boxed,
];

/// Every kind of lock file. They are read where a directory is scanned, and never in an image.
pub(crate) static LOCKS: &[&lock::Format] = &[
    &lock::npm::FORMAT,
    &lock::yarn::FORMAT,
    &lock::pnpm::FORMAT,
    &lock::bun::FORMAT,
    &lock::requirements::FORMAT,
    &lock::pipfile::FORMAT,
    &lock::poetry::FORMAT,
    &lock::uv::FORMAT,
    &lock::pdm::FORMAT,
    &lock::pylock::FORMAT,
    &lock::golang::FORMAT,
    &lock::cargo::FORMAT,
    &lock::gem::FORMAT,
    &lock::composer::FORMAT,
    &lock::maven::FORMAT,
    &lock::gradle::FORMAT,
    &lock::nuget::FORMAT,
    &lock::mix::FORMAT,
    &lock::pubspec::FORMAT,
    &lock::podfile::FORMAT,
    &lock::swift::FORMAT,
    &lock::conan::FORMAT,
];
