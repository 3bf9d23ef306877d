//! Records: the current state of an image, in KV. A record's write is the event that others take
//! (architecture, section 6).

mod key;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    AnalyzerId, Counts, Digest, Fingerprint, Gap, Misconfiguration, Platform, Severity, Slug,
    Verdict, Waived,
};

pub use self::key::{RecordKey, RecordKeyError, What};

/// The body of a record.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The `ce-type` of its writes.
    const TYPE: &'static str;
}

/// That an image exists, and under which names. Written by the router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Where it was seen.
    pub references: Vec<SeenReference>,
    /// The indexes that hold it.
    #[serde(default)]
    pub indexes: Vec<Digest>,
    /// The config's digest: what runtimes call the image id.
    pub config: Option<Digest>,
    /// The platform, where an index says it. What the config says is in [`Scanned::config`].
    pub platform: Platform,
    /// The config's labels in records of earlier versions; [`Scanned::config`] has them now.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A name under which an image was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct SeenReference {
    /// The source.
    pub source: Slug,
    /// The registry's host, as in references.
    pub registry: String,
    /// The repository.
    pub repository: String,
    /// The tag; `None` where it was named by digest only.
    pub tag: Option<String>,
    /// Since when.
    #[schemars(with = "crate::schema::Time")]
    pub since: Timestamp,
    /// Since when the name leads elsewhere or is deleted.
    #[serde(default)]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub gone_at: Option<Timestamp>,
}

/// That an image's layers were read. Written by the scanner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// Who looked: decides whether a scan is still good.
    pub analyzers: Vec<AnalyzerId>,
    /// The object with the [`crate::ImageReport`]'s packages ([`ScannedPackages`]).
    pub packages: Digest,
    /// The object with everything else ([`ScannedFindings`]).
    pub findings: Digest,
    /// How many packages.
    pub package_count: u32,
    /// How many gaps.
    pub gap_count: u32,
    /// When the scan ended.
    pub scanned_at: Timestamp,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// How many layers were read, and not taken from a cache.
    pub layers_read: u32,
    /// The event that led to the scan; a job that comes again finds its own work by it.
    #[serde(default)]
    pub cause: String,
    /// Whether something stood in the way that may be gone the next time, as a source that refused
    /// or a deadline: the next event about the image scans it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
    /// What the objects hold, by content.
    #[serde(default)]
    pub contents: ScannedContents,
    /// The object with the files that can run ([`crate::runtime::LayerFiles`]) of each layer, base
    /// layer first; `None` for a layer that has nothing of it. Empty in records of earlier versions,
    /// and of an image whose layers are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Option<Digest>>,
    /// What the image's config says; empty in records of earlier versions.
    #[serde(default)]
    pub config: ScannedConfig,
}

/// What an image's config says and lists of images show. Written by who reads the config anyway, so
/// that it is fetched once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScannedConfig {
    /// The platform, or what its index says where the config does not.
    #[serde(default)]
    pub platform: Platform,
    /// The labels, as far as there is room for them, without secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The digests of what is in the objects of a scan and may be the same for many images, without the
/// fields that are of one image alone: who knows it already need not read the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScannedContents {
    /// Of [`ScannedPackages`]: all but the image.
    #[serde(default)]
    pub packages: Option<Digest>,
    /// Of [`ScannedFindings`]: the findings.
    #[serde(default)]
    pub findings: Option<Digest>,
}

/// An object: what the matcher needs of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScannedPackages {
    /// The image.
    pub image: Digest,
    /// The operating system.
    pub os: Option<crate::Os>,
    /// Packages.
    pub packages: Vec<crate::Package>,
    /// Gaps of the scan.
    pub gaps: Vec<Gap>,
}

/// An object: what the matcher does not need of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScannedFindings {
    /// The image.
    pub image: Digest,
    /// What was scanned.
    pub target: crate::Target,
    /// Findings that need no advisories.
    pub findings: crate::Findings,
}

/// That an image was matched with advisories. Written by the matcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assessed {
    /// The scan it rests on: the KV revision of the `scanned` record.
    pub scan: u64,
    /// The advisory revision it rests on.
    pub advisory: u64,
    /// The object with the [`crate::Assessment`].
    pub assessment: Digest,
    /// The scan's findings object, so that policy needs no third record.
    pub findings: Digest,
    /// The assessment before this one, for the news that follow from the difference.
    #[serde(default)]
    pub previous: Option<Digest>,
    /// How many vulnerabilities.
    pub counts: Counts,
    /// When.
    pub assessed_at: Timestamp,
    /// What the objects hold, by content.
    #[serde(default)]
    pub contents: AssessedContents,
}

/// The digests of what is in the objects of an assessment and may be the same for many images, as
/// [`ScannedContents`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssessedContents {
    /// Of [`crate::Assessment`]: all but image and scan.
    #[serde(default)]
    pub assessment: Option<Digest>,
    /// Of [`ScannedFindings`]: the findings.
    #[serde(default)]
    pub findings: Option<Digest>,
}

/// That an image was judged under a policy. Written by policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The KV revision of the `assessed` record it rests on.
    pub assessed: u64,
    /// The scan under it.
    pub scan: u64,
    /// What policy says.
    pub verdict: Verdict,
    /// The decision before this one; `None` for the first verdict.
    #[serde(default)]
    pub previous: Option<crate::Decision>,
    /// When this decision was made; judging again with the same result leaves it as it is. Absent
    /// in records of earlier versions: then the verdict's own time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// How many vulnerabilities count after waivers.
    pub counts: Counts,
    /// When the first waiver in force ends.
    #[serde(default)]
    pub waivers_end: Option<Timestamp>,
    /// When the operating system's security updates end, if they had not when it was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_ends: Option<Timestamp>,
    /// When the image gets as old as a rule asks about, if it was not when it was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ages_at: Option<Timestamp>,
    /// The greatest age of advisory data that the policy allows, seconds.
    #[serde(default)]
    pub data_age_s_max: Option<i64>,
    /// The names the image had, for news and alerts; at most a few.
    #[serde(default)]
    pub references: Vec<String>,
    /// The names that select the policy, as `registry/repository`.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// The findings that waivers accept, with what to mark them with in reports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waived: BTreeMap<Fingerprint, Waived>,
    /// Failed checks that nobody knows before an image is judged: the policy's own, and that its
    /// operating system has ended. Reports show them beside those of the scan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Misconfiguration>,
}

/// KV `tw_refs`: where an index digest or a config digest leads, key `<tenant>.<hex>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefRecord {
    /// What the digest names.
    pub kind: RefKind,
    /// The images behind it.
    pub images: Vec<Digest>,
}

/// What a digest that is not an image's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefKind {
    /// An index.
    #[default]
    Index,
    /// An image config: what runtimes call the image id.
    Config,
}

/// KV `tw_refs`: what became of a scan request, key `<tenant>.scan.<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanRequestRecord {
    /// The reference that was asked for.
    pub reference: String,
    /// The images it led to; empty with an `error`.
    pub images: Vec<Digest>,
    /// The index between, if any.
    #[serde(default)]
    pub index: Option<Digest>,
    /// Why it led nowhere.
    #[serde(default)]
    pub error: Option<String>,
    /// When it was resolved.
    pub resolved_at: Timestamp,
    /// Images that are scanned because of it: an answer must rest on a later scan than the one
    /// that stood when the request was resolved (its KV revision; 0 for none).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waits_for: BTreeMap<Digest, u64>,
    /// The request's [`content`](crate::event::ScanRequested::content).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Fingerprint>,
}

/// KV `tw_refs`: where a tag leads, key [`TagRecord::key`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The source that says so.
    pub source: Slug,
    /// `registry/repository:tag`.
    pub reference: String,
    /// The manifest or index that it names; `None` after the tag was deleted.
    pub digest: Option<Digest>,
    /// The images behind it.
    pub images: Vec<Digest>,
    /// When the source saw it move there; what is older is not believed.
    pub since: Timestamp,
}

/// KV `tw_refs`: how far the look around a source got, key [`CrawlRecord::key`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrawlRecord {
    /// The source.
    pub source: Slug,
    /// What its catalog says.
    pub catalog: Catalog,
    /// The pass that runs, or that ran last.
    pub pass: CrawlPass,
    /// The last pass that came to its end.
    #[serde(default)]
    pub last_pass: Option<CrawlPass>,
    /// Where the pass goes on; `None` after its end.
    #[serde(default)]
    pub cursor: Option<CrawlCursor>,
    /// What went wrong last, in the pass that runs or ran last.
    #[serde(default)]
    pub last_error: Option<String>,
}

/// One look around a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CrawlPass {
    /// Which one, from 1 on.
    pub number: u64,
    /// When it began.
    #[schemars(with = "crate::schema::Time")]
    pub started_at: Timestamp,
    /// When it came to its end.
    #[serde(default)]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub ended_at: Option<Timestamp>,
    /// Repositories looked at.
    #[serde(default)]
    pub repositories: u64,
    /// Tags looked at.
    #[serde(default)]
    pub tags: u64,
    /// Tags that nobody had told of, that had moved, or whose image had to be scanned again.
    #[serde(default)]
    pub found: u64,
    /// Tags that were gone.
    #[serde(default)]
    pub gone: u64,
    /// Repositories and tags that could not be looked at.
    #[serde(default)]
    pub errors: u64,
}

/// Where a look around goes on after an interruption.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrawlCursor {
    /// The page of the catalog; `None` is the first.
    #[serde(default)]
    pub page: Option<String>,
    /// Whether the configured repositories are done.
    #[serde(default)]
    pub in_catalog: bool,
    /// The repository that was looked at last.
    #[serde(default)]
    pub after: Option<String>,
}

/// What a source's catalog says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Catalog {
    /// It was not asked: configured repositories are looked at alone.
    #[default]
    Unasked,
    /// It lists its repositories.
    Listed,
    /// It does not: configured repositories are looked at alone.
    Refused {
        /// What it answered, and what to do.
        detail: String,
    },
}

/// KV `tw_refs`: when a repository of a source was looked at, key [`CheckRecord::key`].
///
/// It is the last check of every image that a tag of the repository leads to: the source still has
/// the tag, and a scan by other analyzers than today's was asked for again. Whether the assessment
/// holds for the advisories of today is what the partitions' marks say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// The source.
    pub source: Slug,
    /// `registry/repository`.
    pub repository: String,
    /// When.
    pub checked_at: Timestamp,
    /// How many tags it had.
    pub tags: u64,
    /// How many of them could not be looked at.
    #[serde(default)]
    pub errors: u64,
}

/// KV `tw_config`: a bearer token, key `tokens.<sha256 of the token in hex>`. The token itself is
/// stored nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Who uses it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Whose images.
    pub tenant: Slug,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it holds.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// The token that it was made with; absent for the first of an installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Read everything of its tenant.
    Read,
    /// Ask for scans.
    Scan,
    /// Decide about responses to incidents, and order them.
    Respond,
    /// Change advisories, policies and tokens; decide about responses.
    Admin,
}

/// KV `tw_leases`: how a process of ours does, key [`ProcessRecord::key`]. It is gone a lease's life
/// after the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessRecord {
    /// Unlike a process id, it is never used again.
    pub id: String,
    /// The roles that run in it.
    pub roles: Vec<String>,
    /// Its version.
    pub version: String,
    /// Where it runs: the host's name.
    #[serde(default)]
    pub host: String,
    /// Since when it runs.
    #[schemars(with = "crate::schema::Time")]
    pub started_at: Timestamp,
    /// When it said all this.
    #[schemars(with = "crate::schema::Time")]
    pub seen_at: Timestamp,
    /// Parts of it that are not ready.
    #[serde(default)]
    pub unready: Vec<String>,
    /// What works with less than it should have.
    #[serde(default)]
    pub notes: BTreeMap<String, String>,
    /// Where it wants to publish and cannot, because the stream is full: templates of subjects.
    #[serde(default)]
    pub full: Vec<String>,
    /// What it has accepted and not yet published; null where it accepts nothing.
    #[serde(default)]
    pub spool: Option<SpoolState>,
    /// The queues that it serves.
    #[serde(default)]
    pub queues: Vec<QueueState>,
}

/// What waits in a spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpoolState {
    /// How many events wait.
    pub events: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// How many they may be; then events are refused.
    pub bytes_max: u64,
}

/// What waits in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueState {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub consumer: String,
    /// Messages that wait.
    pub pending: u64,
    /// Messages that are being handled, by any process.
    pub in_flight: u64,
    /// How long the oldest of them all is there, seconds; null where there is none.
    #[serde(default)]
    pub oldest_age_seconds: Option<u64>,
}

/// KV `tw_alerts`: the state of an alert, key `<tenant>.<fingerprint>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRecord {
    /// Raised or resolved.
    pub state: AlertState,
    /// The event that led to it.
    pub event: String,
    /// Since when.
    pub since: Timestamp,
    /// How bad it was when it was told last that it stands; worse raises it again.
    #[serde(default)]
    pub severity: Severity,
    /// When it was told last that it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<Timestamp>,
    /// Whether its state was told.
    #[serde(default, skip_serializing_if = "Told::is_default")]
    pub told: Told,
    /// The number of the last reminder.
    #[serde(default)]
    pub reminders: u32,
    /// Whether nobody is reminded of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// What it says, while it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Box<crate::event::Alert>>,
}

/// Whether the state of an alert was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// It was, with the change itself.
    #[default]
    Yes,
    /// It was not: it came back so soon that it waits to see whether it stays.
    No,
    /// It is being told; who finds this does it again.
    Now,
}

/// Whether an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// It stands.
    Raised,
    /// Its cause is gone.
    Resolved,
}

/// KV `tw_config`: a policy document, key `policies.<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// The YAML as its author wrote it.
    pub yaml: String,
    /// When it was put.
    pub changed_at: Timestamp,
}

impl Scanned {
    /// Whether it needs no second look: exactly these analyzers looked, and nothing stood in the
    /// way.
    pub fn is_good(&self, analyzers: &BTreeSet<AnalyzerId>) -> bool {
        !self.unfinished
            && self.analyzers.len() == analyzers.len()
            && self.analyzers.iter().all(|id| analyzers.contains(id))
    }
}

impl Record for Known {
    const TYPE: &'static str = "io.tidewaiter.image.known.v1";
}
impl Record for Scanned {
    const TYPE: &'static str = "io.tidewaiter.image.scanned.v1";
}
impl Record for Assessed {
    const TYPE: &'static str = "io.tidewaiter.image.assessed.v1";
}
impl Record for Judged {
    const TYPE: &'static str = "io.tidewaiter.image.verdict.v1";
}

// === impl Told ===

impl Told {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands over a reference"
    )]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Known ===

impl Known {
    /// Adds what another sighting tells. Nothing that is known is lost, and the order of sightings
    /// does not matter.
    pub fn merge(&mut self, other: Self) {
        for seen in other.references {
            let same = |known: &&mut SeenReference| {
                (
                    &known.source,
                    &known.registry,
                    &known.repository,
                    &known.tag,
                ) == (&seen.source, &seen.registry, &seen.repository, &seen.tag)
            };
            match self.references.iter_mut().find(same) {
                Some(known) => {
                    known.since = known.since.min(seen.since);
                    known.gone_at = seen.gone_at;
                }
                None => self.references.push(seen),
            }
        }
        self.references.sort();
        self.indexes.extend(other.indexes);
        self.indexes.sort();
        self.indexes.dedup();
        self.config = self.config.or(other.config);
        if self.platform == Platform::default() {
            self.platform = other.platform;
        }
        self.labels.extend(other.labels);
    }

    /// Names that lead to the image now, as `registry/repository[:tag]`.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.references
            .iter()
            .filter(|seen| seen.gone_at.is_none())
            .map(SeenReference::name)
    }
}

// === impl ScanRequestRecord, RefRecord, TagRecord, CrawlRecord, CheckRecord, ProcessRecord ===

impl ScanRequestRecord {
    /// The key of a request.
    pub fn key(tenant: &Slug, id: &str) -> String {
        format!("{tenant}.scan.{id}")
    }

    /// Whether something else was asked for, as far as the records tell.
    pub fn is_another_than(&self, other: &Self) -> bool {
        match (&self.content, &other.content) {
            (Some(one), Some(two)) => one != two,
            _ => self.reference != other.reference,
        }
    }
}

impl RefRecord {
    /// The key of an index or config.
    pub fn key(tenant: &Slug, digest: Digest) -> String {
        format!("{tenant}.{}", digest.hex())
    }
}

impl TagRecord {
    /// The key of a tag. Names may be anything, so their fingerprints stand in it.
    pub fn key(tenant: &Slug, registry: &str, repository: &str, tag: &str) -> String {
        format!(
            "{}{}",
            Self::keys_of(tenant, registry, repository),
            Fingerprint::of(&[tag])
        )
    }

    /// What the keys of all tags of a repository begin with.
    pub fn keys_of(tenant: &Slug, registry: &str, repository: &str) -> String {
        format!("{tenant}.tag.{}.", Fingerprint::of(&[registry, repository]))
    }
}

impl CrawlRecord {
    /// The key of a source.
    pub fn key(tenant: &Slug, source: &Slug) -> String {
        format!("{}{source}", Self::keys_of(tenant))
    }

    /// What the keys of all sources of a tenant begin with.
    pub fn keys_of(tenant: &Slug) -> String {
        format!("{tenant}.crawl.")
    }
}

impl CheckRecord {
    /// The key of a repository, which is as in references: without the registry's host.
    pub fn key(tenant: &Slug, source: &Slug, repository: &str) -> String {
        format!(
            "{tenant}.checked.{source}.{}",
            Fingerprint::of(&[repository])
        )
    }
}

impl ProcessRecord {
    /// What the keys of all processes begin with.
    pub const KEYS: &'static str = "process.status.";

    /// The key of a process.
    pub fn key(id: &str) -> String {
        format!("{}{id}", Self::KEYS)
    }
}

impl SeenReference {
    /// `registry/repository[:tag]`.
    pub fn name(&self) -> String {
        let tag = self
            .tag
            .as_ref()
            .map(|tag| format!(":{tag}"))
            .unwrap_or_default();
        format!("{}/{}{tag}", self.registry, self.repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        let tenant = Slug::default_tenant();
        let image = Digest::of(b"image");
        for what in [
            What::Known,
            What::Scanned,
            What::Assessed,
            What::Judged("default".parse().unwrap()),
        ] {
            let key = RecordKey::new(&tenant, image, what);
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        assert!("default.zz.known".parse::<RecordKey>().is_err());
    }

    #[test]
    fn sightings_merge_in_any_order() {
        let seen = |tag: &str, since: i64| Known {
            references: vec![SeenReference {
                source: "main".parse().unwrap(),
                registry: "r.example".to_owned(),
                repository: "app".to_owned(),
                tag: Some(tag.to_owned()),
                since: Timestamp::from_second(since).unwrap(),
                gone_at: None,
            }],
            ..Known::default()
        };
        let mut one = seen("a", 2);
        one.merge(seen("b", 1));
        one.merge(seen("a", 1));
        let mut two = seen("a", 1);
        two.merge(seen("b", 1));
        two.merge(seen("a", 2));
        assert_eq!(one, two);
        assert_eq!(one.references.len(), 2);
    }
}
