//! Every stream, bucket and consumer there is, with its settings: one list that is provisioned as
//! it stands here (sizes and ages: what an installation of some thousand images needs).

use std::time::Duration;

use model::{
    Digest, Partition,
    event::{
        ADVISORIES, ALERT_STATES, ALERTS, ATTEMPTS, CLAIM_OBJECTS, CONFIG, DLQ, EVENTS,
        EVIDENCE_OBJECTS, FEED_OBJECTS, INCIDENTS, JOBS, JSON, LAYER_OBJECTS, LEASES, NODES,
        Priority, REFS, REPORT_OBJECTS, RESULTS, images_bucket,
    },
    runtime::{FORENSIC_OBJECTS, RESPONSE_RECORDS, RESPONSES, RUNTIME, Shard},
};
use serde_json::{Value, json};

use crate::{config::Config, permissions::Role};

/// Header of a compare-and-set.
pub(crate) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// `JetStream`'s name of a bound in bytes.
pub(crate) const MAX_BYTES: &str = "max_bytes";

/// How many messages of an ordinary consumer may be out at once.
pub(crate) const ACK_PENDING: u32 = 1_000;

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);
/// How long the longest streams keep a message.
const NEWS_AGE: Duration = Duration::from_hours(30 * 24);
/// How long a server knows the ids of events, jobs and results again. It keeps them in memory, so a
/// long time costs at high rates; what comes again later is found to be done by who handles it.
const REPEATED: Duration = Duration::from_mins(2);
/// The same for what goes outside: who tells it again does so within this time.
const RETOLD: Duration = Duration::from_mins(10);
/// How long a claim lives: it is stored before the message that names it.
const CLAIM_AGE: Duration = Duration::from_hours(31 * 24);
/// Incidents that were opened or grew worse.
const INCIDENTS_OPENED: &str = "tw.res.*.container.incident_opened";
/// How long an incident is kept after its last change, with its evidence.
const INCIDENT_AGE: Duration = Duration::from_hours(365 * 24);

/// A stream as it shall be.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) name: String,
    /// The fields of `JetStream`'s configuration that we set and compare.
    pub(crate) settings: Value,
    /// The setting that its bound in bytes follows from, if any: that may change on a stream that
    /// exists.
    pub(crate) setting: Option<&'static str>,
    /// Whether the bound may be less than what is stored: what goes is made again.
    pub(crate) evicts: bool,
}

/// A durable pull consumer as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerSpec {
    /// The stream.
    pub stream: String,
    /// Its name.
    pub durable: String,
    /// The one subject it takes; empty takes all.
    pub filter: String,
    /// How many messages may be out at once.
    pub max_ack_pending: u32,
}

/// The streams.
pub(crate) fn streams(config: &Config) -> Vec<Stream> {
    let events = ["tw.evt.*.registry.>", "tw.evt.*.ci.>", "tw.evt.*.node.>"];
    let mut streams = vec![
        repeated(news(EVENTS, &events, 7 * DAY, 512 * 1024))
            .bound("events_bytes_max", config.events_bytes_max),
        jobs().bound("jobs_bytes_max", config.jobs_bytes_max),
        // What nodes tell in a day. A full one drops its oldest: the newest is what counts.
        repeated(news(RUNTIME, &["tw.evt.*.runtime.>"], DAY, 1024 * 1024))
            .bound("runtime_bytes_max", config.runtime_bytes_max),
        news(RESPONSES, &["tw.evt.*.response.>"], NEWS_AGE, 64 * 1024)
            .bound("responses_bytes_max", config.responses_bytes_max),
        repeated(news(RESULTS, &["tw.res.>"], NEWS_AGE, 512 * 1024))
            .bound("results_bytes_max", config.results_bytes_max),
        // A full one drops its oldest: a sink that is away for so long must not stop the others.
        // What it missed so is counted ([`crate::WentBy`]).
        news(ALERTS, &["tw.alert.>"], NEWS_AGE, 512 * 1024)
            .bound("alerts_bytes_max", config.alerts_bytes_max),
        // Empty unless the bridge is on. JSON is larger, and nobody claims it from elsewhere.
        news(JSON, &["tw.json.>"], 7 * DAY, -1).bound("json_bytes_max", config.json_bytes_max),
        // A dead letter holds a whole message, so it may be as large as the server allows.
        news(DLQ, &["tw.dlq.>"], NEWS_AGE, -1)
            .bound("dead_letters_bytes_max", config.dead_letters_bytes_max),
        bucket(REFS, None),
        bucket(ADVISORIES, None),
        bucket(CONFIG, None),
        bucket(LEASES, Some(config.lease())),
        bucket(ATTEMPTS, Some(30 * DAY)),
        bucket(ALERT_STATES, None),
        bucket(NODES, None),
        bucket(INCIDENTS, Some(INCIDENT_AGE)),
        bucket(RESPONSE_RECORDS, Some(INCIDENT_AGE)),
        objects(EVIDENCE_OBJECTS, Some(INCIDENT_AGE)),
        forensics().bound("forensics_bytes_max", config.forensics_bytes_max),
        objects(REPORT_OBJECTS, None),
        objects(FEED_OBJECTS, None),
        evictable(LAYER_OBJECTS).bound("layers_bytes_max", config.layers_bytes_max),
        objects(CLAIM_OBJECTS, Some(CLAIM_AGE)),
    ];
    streams.extend(Partition::all().map(|partition| bucket(&images_bucket(partition), None)));
    for stream in &mut streams {
        stream.set("num_replicas", json!(config.replicas));
    }
    streams
}

/// The consumers that belong to services. Those of alert sinks follow from configuration and are
/// added by [`crate::Bus::ensure_consumer`].
pub(crate) fn consumers() -> Vec<ConsumerSpec> {
    Role::ALL.into_iter().flat_map(consumers_of).collect()
}

/// The consumers that a role serves.
pub(crate) fn consumers_of(role: Role) -> Vec<ConsumerSpec> {
    match role {
        Role::Router => vec![ConsumerSpec::new(EVENTS, "router", "", 512)],
        // Waiting jobs hold their place: the server's default of 1,000, once full, stalls everybody.
        Role::Scanner => Priority::ALL
            .map(|priority| {
                let filter = format!("tw.job.image.{priority}.>");
                ConsumerSpec::new(JOBS, &format!("image_{priority}"), &filter, 20_000)
            })
            .to_vec(),
        Role::Matcher => Partition::all()
            .map(|partition| of_partition(partition, "matcher", "scanned"))
            .collect(),
        Role::Policy => Partition::all()
            .flat_map(|partition| {
                ["assessed", "known"]
                    .map(|what| of_partition(partition, &format!("policy_{what}"), what))
            })
            .chain([
                ConsumerSpec::new(RESULTS, "policy_incidents", INCIDENTS_OPENED, ACK_PENDING),
                ConsumerSpec::new(RESPONSES, "policy_responses", "", ACK_PENDING),
            ])
            .collect(),
        Role::Behavior => Shard::all()
            .map(|shard| {
                let filter = format!("tw.evt.*.runtime.{shard}.>");
                ConsumerSpec::new(RUNTIME, &format!("behavior_{shard}"), &filter, ACK_PENDING)
            })
            .collect(),
        Role::Alerting => vec![
            ConsumerSpec::new(EVENTS, "callbacks", "tw.evt.*.ci.>", ACK_PENDING),
            ConsumerSpec::new(RESULTS, "alerting", "", ACK_PENDING),
        ],
        Role::Gateway | Role::Inventory | Role::Provisioner | Role::Operator | Role::Subscriber => {
            Vec::new()
        }
    }
}

/// Whether every durable consumer of a stream is in this list. Sinks are configured, so theirs are
/// not.
pub(crate) fn names_all_consumers_of(stream: &str) -> bool {
    stream != ALERTS
}

/// A partition's consumer of one record of its images.
fn of_partition(partition: Partition, name: &str, what: &str) -> ConsumerSpec {
    let bucket = images_bucket(partition);
    let filter = format!("$KV.{bucket}.*.*.{what}");
    let durable = format!("{name}_{partition}");
    ConsumerSpec::new(&bucket_stream(&bucket), &durable, &filter, ACK_PENDING)
}

/// The stream behind a key-value bucket.
pub fn bucket_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// The stream behind a bucket of objects.
pub(crate) fn object_stream(bucket: &str) -> String {
    // The buckets of nodes lie in one stream.
    let (root, _) = bucket.split_once('.').unwrap_or((bucket, ""));
    format!("OBJ_{root}")
}

/// The subjects of all objects of a bucket.
pub(crate) fn object_subjects(bucket: &str) -> String {
    if bucket == FORENSIC_OBJECTS {
        return format!("tw.obj.{bucket}.*.*.*.*");
    }
    format!("tw.obj.{bucket}.*.*")
}

/// What a consumer takes: its filter, or all that its stream holds.
pub(crate) fn taken(spec: &ConsumerSpec) -> Vec<String> {
    if !spec.filter.is_empty() {
        return vec![spec.filter.clone()];
    }
    let streams = streams(&Config::default());
    let stream = streams.iter().find(|stream| stream.name == spec.stream);
    let subjects = stream.map(|stream| stream.subjects().map(str::to_owned));
    subjects.into_iter().flatten().collect()
}

/// The subject of an object without the chunk's number.
pub(crate) fn object_root(bucket: &str, digest: &Digest) -> String {
    format!("tw.obj.{bucket}.{}", digest.hex())
}

/// The subject of an object's chunk.
pub(crate) fn object_subject(bucket: &str, digest: &Digest, chunk: usize) -> String {
    format!("{}.{chunk}", object_root(bucket, digest))
}

/// The object whose first chunk a subject is.
pub(crate) fn object_of_first_chunk(bucket: &str, subject: &str) -> Option<Digest> {
    let rest = subject.strip_prefix("tw.obj.")?.strip_prefix(bucket)?;
    let hex = rest.strip_prefix('.')?.strip_suffix(".0")?;
    Digest::from_hex(hex)
}

// === impl Stream ===

impl Stream {
    fn new(name: &str, settings: Value) -> Self {
        let mut stream = Self {
            name: name.to_owned(),
            settings,
            setting: None,
            evicts: false,
        };
        stream.set("name", json!(name));
        stream.set("storage", json!("file"));
        // A limit that somebody else set would drop or refuse what nobody expects.
        stream.set("max_msgs", json!(-1));
        stream.set("max_consumers", json!(-1));
        stream.set("no_ack", json!(false));
        stream
    }

    /// The subjects that it stores.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &str> {
        let subjects = self.settings["subjects"].as_array();
        subjects.into_iter().flatten().filter_map(Value::as_str)
    }

    /// The same with a bound in bytes, from a setting.
    fn bound(mut self, setting: &'static str, bytes_max: u64) -> Self {
        self.set(MAX_BYTES, json!(bytes_max));
        self.setting = Some(setting);
        self
    }

    /// Its bound in bytes, where it has one.
    pub(crate) fn bytes_max(&self) -> Option<u64> {
        self.settings[MAX_BYTES].as_u64()
    }

    fn set(&mut self, field: &str, value: Value) {
        if let Some(fields) = self.settings.as_object_mut() {
            fields.insert(field.to_owned(), value);
        }
    }
}

// === impl ConsumerSpec ===

impl ConsumerSpec {
    /// A consumer.
    pub fn new(stream: &str, durable: &str, filter: &str, max_ack_pending: u32) -> Self {
        Self {
            stream: stream.to_owned(),
            durable: durable.to_owned(),
            filter: filter.to_owned(),
            max_ack_pending,
        }
    }

    /// The fields that we set and compare. `max_deliver` is unlimited: counting deliveries would
    /// condemn healthy work that ran beside a crash, and a message at the limit stays in a work
    /// queue for ever, invisible.
    pub(crate) fn settings(&self, config: &Config) -> Value {
        json!({
            "durable_name": self.durable,
            "filter_subject": self.filter,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": nanos(config.ack_wait()),
            "max_deliver": -1,
            "max_ack_pending": self.max_ack_pending,
            "max_waiting": 8_192,
            "replay_policy": "instant",
        })
    }
}

fn news(name: &str, subjects: &[&str], age: Duration, message: i64) -> Stream {
    Stream::new(
        name,
        json!({
            "subjects": subjects,
            "retention": "limits",
            "discard": "old",
            "max_age": nanos(age),
            "max_msg_size": message,
            "duplicate_window": nanos(RETOLD),
            "allow_direct": true,
        }),
    )
}

fn repeated(mut stream: Stream) -> Stream {
    stream.set("duplicate_window", json!(nanos(REPEATED)));
    stream
}

/// A full stream of jobs refuses, so that the pressure reaches who makes them. A server that was
/// killed may hold jobs again that were acknowledged and removed; they are not delivered again, and
/// the age limit clears them.
fn jobs() -> Stream {
    Stream::new(
        JOBS,
        json!({
            "subjects": ["tw.job.>"],
            "retention": "workqueue",
            "discard": "new",
            "max_age": nanos(7 * DAY),
            "max_msg_size": 64 * 1024,
            "duplicate_window": nanos(REPEATED),
            "allow_direct": true,
        }),
    )
}

/// Leases live in a file too: memory buckets are gone after a crash of the server.
fn bucket(name: &str, age: Option<Duration>) -> Stream {
    let window = age.map_or(2 * MINUTE, |age| age.min(2 * MINUTE));
    Stream::new(
        &bucket_stream(name),
        json!({
            "subjects": [format!("$KV.{name}.>")],
            "retention": "limits",
            "discard": "new",
            "max_age": nanos(age.unwrap_or_default()),
            "max_bytes": -1,
            "max_msgs_per_subject": 1,
            "duplicate_window": nanos(window),
            "allow_rollup_hdrs": true,
            "deny_delete": true,
            "allow_direct": true,
        }),
    )
}

fn objects(name: &str, age: Option<Duration>) -> Stream {
    Stream::new(
        &object_stream(name),
        json!({
            "subjects": [object_subjects(name)],
            "retention": "limits",
            "discard": "new",
            "max_age": nanos(age.unwrap_or_default()),
            "max_bytes": -1,
            "max_msgs_per_subject": 1,
            "duplicate_window": nanos(2 * MINUTE),
            "allow_direct": true,
        }),
    )
}

/// Objects that may be lost: a full stream drops its oldest messages.
fn evictable(name: &str) -> Stream {
    let mut stream = objects(name, None);
    stream.set("discard", json!("old"));
    stream.evicts = true;
    stream
}

/// What agents collect, each below its node's name ([`model::runtime::forensic_objects`]).
fn forensics() -> Stream {
    let mut stream = objects(FORENSIC_OBJECTS, Some(INCIDENT_AGE));
    stream.set("discard", json!("old"));
    stream.evicts = true;
    stream
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_is_whole() {
        let streams = streams(&Config::default());
        assert_eq!(streams.len(), 39);
        let consumers = consumers();
        assert_eq!(consumers.len(), 72);
        let of = |durable: &str| {
            consumers
                .iter()
                .find(|spec| spec.durable == durable)
                .unwrap()
        };
        assert_eq!(of("image_high").max_ack_pending, 20_000);
        insta::assert_snapshot!(of("policy_known_f").filter, @"$KV.tw_images_f.*.*.known");
        for spec in &consumers {
            assert!(
                streams.iter().any(|stream| stream.name == spec.stream),
                "{spec:?}"
            );
        }
    }

    #[test]
    fn every_stream_that_is_no_bucket_has_a_bound_with_a_setting_of_its_name() {
        let config = serde_json::to_value(Config::default()).unwrap();
        let mut settings = BTreeSet::new();
        for stream in streams(&Config::default()) {
            let is_bucket = stream.name.starts_with("KV_") || stream.name.starts_with("OBJ_");
            let Some(setting) = stream.setting else {
                assert!(is_bucket, "{} has no bound", stream.name);
                continue;
            };
            assert_eq!(stream.bytes_max(), config[setting].as_u64(), "{setting}");
            assert!(settings.insert(setting), "{setting} bounds two streams");
        }
        assert_eq!(settings.len(), 10);
    }

    #[test]
    fn an_object_is_found_by_its_first_chunk_alone() {
        let digest = Digest::of(b"object");
        let of =
            |bucket, chunk| object_of_first_chunk("a", &object_subject(bucket, &digest, chunk));
        assert_eq!(of("a", 0), Some(digest));
        assert_eq!((of("a", 10), of("b", 0), of("ab", 0)), (None, None, None));
    }

    #[test]
    fn claims_outlive_every_message_that_can_name_them() {
        for stream in streams(&Config::default()) {
            let plain = !stream.name.starts_with("KV_") && !stream.name.starts_with("OBJ_");
            let age = stream.settings["max_age"].as_u64().unwrap();
            if plain {
                assert!((1..nanos(CLAIM_AGE)).contains(&age), "{}", stream.name);
            }
        }
    }
}
