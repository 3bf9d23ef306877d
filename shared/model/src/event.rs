//! Events, commands and news: everything that travels on a stream, with the names of streams,
//! buckets and subjects. They stand here and nowhere else.

mod asyncapi;
mod catalog;

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    AlertState, Counts, Decision, Digest, Fingerprint, Partition, Severity, Slug, Vulnerability,
    schema::Time,
};

pub use self::{
    asyncapi::{asyncapi, bridge_subject},
    catalog::{Kind, NEWS, NEWS_STREAMS},
};

/// Stream of what the outside world told us.
pub const EVENTS: &str = "EVENTS";
/// Stream of work.
pub const JOBS: &str = "JOBS";
/// Stream of news.
pub const RESULTS: &str = "RESULTS";
/// Stream of alerts.
pub const ALERTS: &str = "ALERTS";
/// Stream of news as JSON, for subscribers that want no MessagePack; filled where that is asked for.
pub const JSON: &str = "JSON";
/// Stream of dead letters.
pub const DLQ: &str = "DLQ";

/// Bucket of index digests, config digests and scan requests.
pub const REFS: &str = "tw_refs";
/// Bucket of advisory head, inbox and sweep marks.
pub const ADVISORIES: &str = "tw_advisories";
/// Bucket of policies and tokens.
pub const CONFIG: &str = "tw_config";
/// Bucket of leases.
pub const LEASES: &str = "tw_leases";
/// Bucket of attempts: what became of messages that were delivered more than once.
pub const ATTEMPTS: &str = "tw_attempts";
/// Bucket of alert states.
pub const ALERT_STATES: &str = "tw_alerts";
/// Bucket of nodes: what each reported last, and what it should do.
pub const NODES: &str = "tw_nodes";
/// Bucket of incidents.
pub const INCIDENTS: &str = "tw_incidents";
/// Objects: timelines and evidence of incidents.
pub const EVIDENCE_OBJECTS: &str = "tw_evidence";
/// Objects: packages, findings and assessments of images.
pub const REPORT_OBJECTS: &str = "tw_reports";
/// Objects: what is known of layers, shared by all scanners; the oldest go when it is full.
pub const LAYER_OBJECTS: &str = "tw_layers";
/// Objects: advisory manifests, shards and inbox.
pub const FEED_OBJECTS: &str = "tw_feeds";
/// Objects: bodies of messages that are too large for them.
pub const CLAIM_OBJECTS: &str = "tw_claims";

/// The bucket of a partition's image records.
pub fn images_bucket(partition: Partition) -> String {
    format!("tw_images_{partition}")
}

/// Something that travels on a stream.
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The `ce-type`, with the version of the body.
    const TYPE: &'static str;
    /// The stream that stores it.
    const STREAM: &'static str;
    /// The subject it is published on.
    fn subject(&self, tenant: &Slug) -> String;
    /// The message id: computed from content, so that doing it again changes nothing.
    fn message_id(&self, tenant: &Slug) -> String;
    /// The CloudEvents `source`.
    fn origin(&self) -> String;
}

/// Order of work. Each has a consumer of its own.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Somebody waits.
    High,
    /// A push.
    #[default]
    Norm,
    /// Upkeep.
    Low,
}

/// A registry says that something was pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImagePushed {
    /// The source whose registry it is; its host comes from the source's record.
    pub source: Slug,
    /// The repository.
    pub repository: String,
    /// The tag; absent for pushes by digest.
    #[serde(default)]
    pub tag: Option<String>,
    /// The digest of the manifest or index.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// The sender's id of the event, if it has one.
    #[serde(default)]
    pub sender_id: Option<String>,
    /// When it happened, by the sender's clock; by ours where it does not say.
    #[schemars(with = "Time")]
    pub occurred_at: Timestamp,
    /// How urgent its scan is: a push that was told of goes before what a look around found.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
}

/// A registry says that something was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageDeleted {
    /// The source.
    pub source: Slug,
    /// The repository.
    pub repository: String,
    /// The tag, if a tag was deleted.
    #[serde(default)]
    pub tag: Option<String>,
    /// The digest, if a manifest was deleted.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// The sender's id of the event.
    #[serde(default)]
    pub sender_id: Option<String>,
    /// When it happened.
    #[schemars(with = "Time")]
    pub occurred_at: Timestamp,
}

/// Somebody asked for a scan over the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScanRequested {
    /// The request's id, computed from its idempotency key or its content.
    pub id: String,
    /// The image, as asked for.
    pub reference: crate::ImageRef,
    /// The source that serves the reference's registry.
    pub source: Slug,
    /// The CI system or client that asks.
    pub system: Slug,
    /// How urgent.
    pub priority: Priority,
    /// Whether to scan again what is scanned already.
    #[serde(default)]
    pub force: bool,
    /// When.
    #[schemars(with = "Time")]
    pub requested_at: Timestamp,
    /// Where to send the answer when it is there: a URL on a host that the configuration lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// The fingerprint of all that was asked for, where the client gave an idempotency key: the same
    /// key with something else is a mistake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Fingerprint>,
}

/// A command: scan an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageScan {
    /// The image.
    pub image: Digest,
    /// The source to read it from.
    pub source: Slug,
    /// The repository there.
    pub repository: String,
    /// The name by which it was asked for, for reports.
    pub reference: String,
    /// The index that led to it.
    #[serde(default)]
    pub index: Option<Digest>,
    /// The id of the event that led here.
    pub cause: String,
    /// How urgent.
    pub priority: Priority,
    /// Whether to scan again what is scanned already.
    #[serde(default)]
    pub force: bool,
    /// The image's manifest, where the router has just read it and it is small. Who gets it verifies
    /// it by its digest, so that it need not be read from the source again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// Where the image is, if only a node has it; `source` is then
    /// [`Slug::node_source`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_node: Option<crate::runtime::OnNode>,
}

/// The bytes of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "String")]
pub struct Manifest(#[serde(with = "bytes_field")] pub Vec<u8>);

/// News: an image has its first verdict, or another decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageJudged {
    /// The image.
    pub image: Digest,
    /// The policy.
    pub policy: Slug,
    /// What it says now.
    pub decision: Decision,
    /// What it said before.
    #[serde(default)]
    pub previous: Option<Decision>,
    /// Why, one sentence per rule.
    pub reasons: Vec<String>,
    /// How many vulnerabilities count.
    pub counts: Counts,
    /// Names of the image.
    pub references: Vec<String>,
    /// The `assessed` revision behind it.
    pub assessed: u64,
    /// The policy's revision.
    pub policy_revision: u64,
    /// When the decision was made.
    #[schemars(with = "Time")]
    pub judged_at: Timestamp,
}

/// News: a vulnerability appeared in or left an image that was assessed before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VulnerabilityChanged {
    /// The image.
    pub image: Digest,
    /// Whether it appeared or is gone.
    pub change: Change,
    /// The vulnerability.
    pub vulnerability: Vulnerability,
    /// The advisory revision that made the difference.
    pub advisory: u64,
    /// When.
    #[schemars(with = "Time")]
    pub changed_at: Timestamp,
}

/// What became of a vulnerability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there before.
    Appeared,
    /// It is gone.
    Resolved,
}

/// An alert, raised or resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// The same cause has the same fingerprint.
    pub fingerprint: Fingerprint,
    /// Raised or resolved.
    pub state: AlertState,
    /// How bad.
    pub severity: Severity,
    /// One line.
    pub title: String,
    /// A few sentences: what, where, what to do.
    pub text: String,
    /// The image it is about.
    pub image: Option<Digest>,
    /// Names of the image.
    #[serde(default)]
    pub references: Vec<String>,
    /// The event that led here.
    pub event: String,
    /// When.
    #[schemars(with = "Time")]
    pub at: Timestamp,
    /// The policy whose verdict it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Slug>,
    /// 0 when it is told for the first time, then the number of the reminder.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reminder: u32,
}

/// A message that could not be handled, as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The stream it came from.
    pub stream: String,
    /// Its sequence there.
    pub sequence: u64,
    /// The consumer that gave up.
    pub consumer: String,
    /// The subject.
    pub subject: String,
    /// Why.
    pub cause: String,
    /// Headers as they were.
    pub headers: Vec<(String, String)>,
    /// The body as it was.
    #[serde(with = "bytes_field")]
    pub body: Vec<u8>,
    /// When.
    pub at: Timestamp,
    /// The trace that the message belongs to.
    #[serde(default)]
    pub trace: Option<String>,
    /// What was tried.
    #[serde(default)]
    pub attempts: AttemptCounts,
}

/// How often a message was tried, and how that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttemptCounts {
    /// How often it was delivered.
    pub delivered: u64,
    /// How often its process died.
    pub crashes: u32,
    /// How often something was away that should come back.
    pub transient: u32,
}

/// What became of the attempts at a message that was delivered more than once. A value of
/// [`ATTEMPTS`], by stream, consumer and sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempts {
    /// How often its process died.
    pub crashes: u32,
    /// How often something was away that should come back.
    pub transient: u32,
    /// When it failed so for the first time.
    pub since: Option<Timestamp>,
    /// The handler that runs now, or died.
    pub open: Option<OpenAttempt>,
    /// Whether it killed too many processes, the last one alone: it is not tried again.
    pub condemned: bool,
}

/// A handler that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAttempt {
    /// The process that runs it, by the name of its lease.
    pub holder: String,
    /// Whether no other handler runs in that process.
    #[serde(default)]
    pub alone: bool,
}

// === impl DeadLetter ===

impl DeadLetter {
    /// The `ce-type` of its message.
    pub const KIND: &'static str = "io.tidewaiter.dead-letter.v1";
}

// === impl Event ===

impl Event for ImagePushed {
    const TYPE: &'static str = "io.tidewaiter.image.pushed.v1";
    const STREAM: &'static str = EVENTS;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.evt.{tenant}.registry.pushed.{}", self.source)
    }

    fn message_id(&self, tenant: &Slug) -> String {
        registry_id(
            tenant,
            &self.source,
            self.sender_id.as_deref(),
            &[
                "pushed",
                &self.repository,
                self.tag.as_deref().unwrap_or_default(),
                &self
                    .digest
                    .map(|digest| digest.to_string())
                    .unwrap_or_default(),
            ],
        )
    }

    fn origin(&self) -> String {
        format!("/registries/{}", self.source)
    }
}

impl Event for ImageDeleted {
    const TYPE: &'static str = "io.tidewaiter.image.deleted.v1";
    const STREAM: &'static str = EVENTS;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.evt.{tenant}.registry.deleted.{}", self.source)
    }

    fn message_id(&self, tenant: &Slug) -> String {
        registry_id(
            tenant,
            &self.source,
            self.sender_id.as_deref(),
            &[
                "deleted",
                &self.repository,
                self.tag.as_deref().unwrap_or_default(),
                &self
                    .digest
                    .map(|digest| digest.to_string())
                    .unwrap_or_default(),
            ],
        )
    }

    fn origin(&self) -> String {
        format!("/registries/{}", self.source)
    }
}

impl Event for ScanRequested {
    const TYPE: &'static str = "io.tidewaiter.scan.requested.v1";
    const STREAM: &'static str = EVENTS;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.evt.{tenant}.ci.scan_requested.{}", self.system)
    }

    fn message_id(&self, tenant: &Slug) -> String {
        format!("ci:{tenant}:{}", self.id)
    }

    fn origin(&self) -> String {
        format!("/ci/{}", self.system)
    }
}

impl Event for ImageScan {
    const TYPE: &'static str = "io.tidewaiter.image.scan.v1";
    const STREAM: &'static str = JOBS;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.job.image.{}.{tenant}", self.priority)
    }

    fn message_id(&self, tenant: &Slug) -> String {
        format!("scan:{tenant}:{}:{}", self.cause, self.image.hex())
    }

    fn origin(&self) -> String {
        "/router".to_owned()
    }
}

impl Event for ImageJudged {
    const TYPE: &'static str = "io.tidewaiter.image.judged.v1";
    const STREAM: &'static str = RESULTS;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.res.{tenant}.image.judged")
    }

    fn message_id(&self, tenant: &Slug) -> String {
        let Self {
            policy,
            assessed,
            policy_revision,
            decision,
            judged_at,
            ..
        } = self;
        // The decision and its time, since waivers run out and names come and go while both
        // revisions stay: each change is a piece of news of its own.
        format!(
            "judged:{tenant}:{}:{policy}:{assessed}:{policy_revision}:{decision}:{}",
            self.image.hex(),
            judged_at.as_microsecond()
        )
    }

    fn origin(&self) -> String {
        format!("/policies/{}", self.policy)
    }
}

impl Event for VulnerabilityChanged {
    const TYPE: &'static str = "io.tidewaiter.vulnerability.changed.v1";
    const STREAM: &'static str = RESULTS;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.res.{tenant}.vulnerability.{}", self.change)
    }

    fn message_id(&self, tenant: &Slug) -> String {
        let Self {
            image,
            change,
            vulnerability,
            advisory,
            ..
        } = self;
        format!(
            "vuln:{tenant}:{}:{}:{change}:{advisory}",
            image.hex(),
            vulnerability.fingerprint
        )
    }

    fn origin(&self) -> String {
        "/matcher".to_owned()
    }
}

impl Event for Alert {
    const TYPE: &'static str = "io.tidewaiter.alert.v1";
    const STREAM: &'static str = ALERTS;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.alert.{tenant}.{}", self.severity)
    }

    fn message_id(&self, tenant: &Slug) -> String {
        let state = match self.state {
            AlertState::Raised => "raised",
            AlertState::Resolved => "resolved",
        };
        let Self {
            fingerprint,
            event,
            reminder,
            ..
        } = self;
        let id = format!("alert:{tenant}:{fingerprint}:{state}:{event}");
        match reminder {
            0 => id,
            number => format!("{id}:{number}"),
        }
    }

    fn origin(&self) -> String {
        "/alerting".to_owned()
    }
}

// === impl Priority, Change ===

impl Priority {
    /// All of them, most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Norm, Self::Low];

    /// As in subjects.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Norm => "norm",
            Self::Low => "low",
        }
    }

    /// Whether it is that of work of which nobody said how urgent it is.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands over a reference"
    )]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Appeared => "appeared",
            Self::Resolved => "resolved",
        })
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn registry_id(tenant: &Slug, source: &Slug, sender_id: Option<&str>, fields: &[&str]) -> String {
    match sender_id {
        // The sender's text may be anything; its digest fits a header.
        Some(id) => format!("reg:{tenant}:{source}:{}", Digest::of(id.as_bytes()).hex()),
        None => format!("reg:{tenant}:{source}:{}", Fingerprint::of(fields)),
    }
}

pub(crate) mod bytes_field {
    use serde::{Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        d.deserialize_byte_buf(Visitor)
    }
}
