//! The nouns and the events: everything that crosses a crate, the wire or a disk.
//!
//! The decision that shapes it: types are plain data that cannot be wrong. Text is parsed once, at
//! the border, into [`Digest`], [`Slug`], [`ImageRef`] and the like; everything is serialized by
//! field name (MessagePack on the wire and on disks, JSON for people), so that a field can be added
//! with a default and never breaks an older reader. The price is a little size on the wire.
//!
//! It does no I/O, reads no clock and knows no other crate of this workspace.
//!
//! To add an event: a type in [`event`] with its subject and message id, and a golden file in
//! `testdata/events/`; news that subscribers get need a line in `event::NEWS` too, from which their
//! JSON Schema and the AsyncAPI document are made. To add a field: give it a default, and add a
//! golden file.

mod advisory;
pub mod answer;
mod digest;
pub mod event;
mod finding;
mod gap;
mod image;
mod layer;
mod package;
mod record;
mod reference;
mod report;
pub mod runtime;
pub mod schema;
mod signature;
mod slug;
mod verdict;

pub use self::{
    advisory::{
        AdvisoryHead, AdvisoryInbox, AdvisoryManifest, AdvisoryStamp, DEBIAN_TRACKER, EPSS, Feed,
        KEV, PastRevision, ShardKey, ShardKeyError, SweptMark,
    },
    digest::{Digest, DigestError, Hasher, Partition, hex, unhex},
    finding::{
        Cvss, Fingerprint, FixState, License, LicenseCategory, Malware, Match, Misconfiguration,
        Secret, Severity, Tampered, Vex, Vulnerability, Waived,
    },
    gap::{Gap, GapCode, Hides},
    image::{
        Environment, Findings, HistoryStep, ImageConfig, ImageRef, ImageRefError, ImageReport, Os,
        Platform, PlatformError, RuntimeConfig, Target, TargetLayer,
    },
    layer::{
        AnalyzerId, Diversion, Entries, EntryKind, FileSums, FoundFinding, FoundLicenses,
        FoundMalware, FoundOs, FoundPackage, FoundSecret, LayerEntry, LayerReport, Owned, Section,
        SectionKey,
    },
    package::{Confidence, Package, PackageId, PackageType, Purl, RemovedPackage},
    record::{
        AlertRecord, AlertState, Assessed, AssessedContents, Catalog, CheckRecord, CrawlCursor,
        CrawlPass, CrawlRecord, Judged, Known, PolicyRecord, ProcessRecord, QueueState, Record,
        RecordKey, RecordKeyError, RefKind, RefRecord, ScanRequestRecord, Scanned, ScannedConfig,
        ScannedContents, ScannedFindings, ScannedPackages, Scope, SeenReference, SpoolState,
        TagRecord, TokenRecord, Told, What,
    },
    report::{REPORT_SCHEMA, REPORTS_SCHEMA, Report, ReportAnalyzer, Reports, Tool},
    signature::{KeyError, Signature, SignatureError, SigningKey, VerifyingKey},
    slug::{Slug, SlugError},
    verdict::{Assessment, Counts, Decision, Facts, Reason, Verdict, valid_until},
};
