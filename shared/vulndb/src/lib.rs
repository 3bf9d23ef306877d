//! Advisories, version order, ranges and matching: which known vulnerabilities an image's packages
//! have, and how sure that is.
//!
//! The decision that shapes it: every version is turned into a key of bytes, once, and versions of
//! an ecosystem are compared as bytes. So an order is total by construction, equality is the
//! ecosystem's and not that of texts, and what cannot be turned into a key is *undecided*, with a
//! gap, and never silently "not affected". It costs a few bytes per version while matching.
//!
//! An advisory is cut at the border into one [`ShardAdvisory`] per package and ecosystem; windows
//! are paired in file order and united (OSV's own sorted walk is wrong where windows touch or
//! overlap). Equal shards have equal bytes, so that a shard's digest says whether it changed.
//!
//! Findings are per package and vulnerability. Advisories that are aliases of each other join to
//! one finding; an advisory that *contains* several vulnerabilities (`upstream`, as in a DSA) is
//! evidence for one finding each, and never joins them. In a distribution the record of the
//! vulnerability itself outranks such a bulletin.
//!
//! Results of single packages are remembered where whoever calls keeps a [`Memo`] beside the shards.
//!
//! What a record says beyond ranges is kept where it changes a result: ratings of distributions,
//! module streams of RPM, platforms, Ubuntu's lists of binary packages, Go's own ranges, remarks
//! that are no vulnerabilities ([`ShardAdvisory`]). [`explain`] tells why a finding is there, or why
//! not; [`risk`] is the order in which findings come.
//!
//! Vendors' own feeds ([`VENDORS`]) say what OSV's records of their packages leave out, in the same
//! ecosystems and under the CVE: so a finding is one, the vendor's record of the CVE decides where it
//! and a bulletin differ, and who knows of a fix speaks for it.
//!
//! | feed | format | says beside what has a fix |
//! |---|---|---|
//! | `Red Hat VEX` | CSAF VEX | what has none, gets none, is looked at, never was affected |
//! | `SUSE VEX` | CSAF VEX | the same |
//! | `Debian tracker` | JSON of its own | what has none, gets none, is looked at, never was affected |
//! | `Amazon updates` | `updateinfo.xml` | nothing; OSV.dev has no records of it |
//! | `Oracle OVAL` | OVAL | nothing; OSV.dev has no records of it |
//!
//! Ubuntu's OSV records are its own and whole. What only subscribers get a fix for (ESM, Pro) is in
//! ecosystems of its own: it affects everybody, and the fix is told and counts for subscribers only.
//!
//! It does no I/O and reads no clock; whoever calls brings the shards ([`Shards`]) and the date.
//! It reads no VEX documents but those of its feeds: others are statements about findings.
//!
//! | ecosystem | versions | packages |
//! |---|---|---|
//! | `deb` | dpkg's order | by source package; `Debian:12`, `Ubuntu:22.04:LTS` |
//! | `apk` | apk 3's order | by origin; `Alpine:v3.15`, `Wolfi`, `Alpaquita:23` |
//! | `rpm` | rpm's order | by name and source package; `AlmaLinux:9`, `Red Hat:enterprise_linux:9::appstream`, `SUSE:…` |
//! | `pypi` | PEP 440 | by PEP 503 name |
//! | `npm` | `SemVer` precedence, read leniently | by name |
//! | `maven` | `ComparableVersion`, without its contradictions | by `group:artifact` |
//! | `golang` | `SemVer` precedence, and `go1.21rc2` | by module path; `stdlib` |
//! | `cargo` | `SemVer` precedence | by name |
//! | `gem` | `Gem::Version`, without the platform | by name |
//! | `composer` | Composer's normal form, PHP's `version_compare` | by lower-case name |
//! | `nuget` | `NuGetVersion` | by lower-case name |
//! | `cran` | `compareVersion` | by name |
//! | `hex` | `SemVer` precedence | by name |
//! | `dart` | `SemVer` with build metadata (`pub_semver`) | by name |
//! | `hackage` | `Data.Version` | by name |
//! | `julia` | `VersionNumber` | by name |
//! | `swift` | `SemVer` precedence | by repository |
//! | `actions` | `SemVer` precedence | by `owner/repository` |
//! | `conan` | item by item, numbers before words | by name |
//! | `bitnami` | `SemVer` precedence, without the revision | by name |
//!
//! To add an ecosystem: a file in `ecosystems/` that implements [`Ecosystem`], a line in
//! [`ECOSYSTEMS`], and its upstream's version vectors in the tests. Whatever makes another result of the
//! same packages and advisories raises [`RULES`]: what was found by others is then found anew. To add a vendor's feed: a file in
//! `vendors/` that implements [`Vendor`], a line in [`VENDORS`], and a file of it in the tests.
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

mod ecosystems;
mod evaluate;
mod explain;
mod exploitation;
mod finding;
mod matching;
mod memo;
mod names;
mod os;
mod osv;
mod risk;
mod shard;
mod subscription;
mod support;
mod vendors;
mod version;

pub use self::{
    ecosystems::{
        ECOSYSTEMS, Ecosystem, Incomparable, Lookup, Query, compare, family, lookups, newest,
        schemes,
    },
    explain::{
        ExplainedAdvisory, ExplainedFinding, ExplainedPackage, ExplainedRange, Explanation, explain,
    },
    exploitation::{MalformedExploitation, read_epss, read_kev},
    matching::{Limits, RULES, SeverityBy, match_packages},
    memo::Memo,
    names::canonical,
    osv::{Advisory, MalformedAdvisory, RECORD_BYTES_MAX},
    risk::risk,
    shard::{
        Exploitation, MalformedShard, Shard, ShardAdvisory, ShardError, Shards, Window, WindowEnd,
    },
    support::end_of_life,
    vendors::{MalformedVendor, Said, Take, VENDORS, Vendor, vendor},
    version::{VERSION_BYTES_MAX, Version},
};
