//! Who may do what on a fleet's NATS: one credential for each role, with the rights that its work
//! needs and no others.
//!
//! The decision that shapes it: rights are derived from what [`crate::topology`] declares, by the
//! verbs that this crate has (serve a consumer, read a bucket, write its keys, take leases), so a
//! new partition, priority or stream brings its rights along. What a role does with which stream
//! stands in [`Grants::of`] and nowhere else; `tests/tidy` compares it with the sources of the role's
//! crate, and the end-to-end tests run every role under its own credential.
//!
//! What it cannot do: within one account of NATS, subjects are no border against a hostile client. Who
//! may ask for a message may name any subject for the answer, and the server stores the message
//! there. So these rights limit accidents and stolen credentials, and agents, which run where the
//! attacker is, live in accounts of their own and have no rights on `JetStream` at all.
//!
//! To add a right: a line in [`Grants::of`].

mod accounts;
mod needs;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, str::FromStr};

use model::event::{ATTEMPTS, CLAIM_OBJECTS, DLQ, LEASES};

use crate::{
    Config, subject,
    topology::{self, ConsumerSpec},
};

pub(crate) use self::accounts::inbox;
pub use self::accounts::{Holder, User, accounts};

/// Who holds a credential: the roles of the control plane, and those who look after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes events from the outside.
    Gateway,
    /// Turns events into jobs, and crawls.
    Router,
    /// Reads images.
    Scanner,
    /// Matches packages with advisories.
    Matcher,
    /// Judges.
    Policy,
    /// Compares what containers do with what they are.
    Behavior,
    /// Delivers alerts.
    Alerting,
    /// Answers questions.
    Inventory,
    /// Makes streams, buckets and consumers, and the first admin token: `tidewaiter nats provision`.
    Provisioner,
    /// Handles dead letters: `tidewaiter dlq`.
    Operator,
    /// Reads the news.
    Subscriber,
}

/// The text is not a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role of NATS: one of {names}", names = names())]
pub struct RoleError(String);

/// What one credential may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Subjects that it may publish on.
    publish: BTreeSet<String>,
    /// Subjects among them that it may not publish on.
    deny: BTreeSet<String>,
    /// Subjects that it may subscribe to, beside its inbox.
    subscribe: BTreeSet<String>,
    /// Whether it may answer what it is asked on subjects that it subscribes to.
    answers: bool,
    /// Streams that it uses, and so compares with what is needed.
    streams: BTreeSet<String>,
    /// Streams that it reads by consumers of its own making.
    read: BTreeSet<String>,
    /// Consumers of the topology that it serves.
    serves: Vec<ConsumerSpec>,
}

// === impl Role ===

impl Role {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Gateway,
        Self::Router,
        Self::Scanner,
        Self::Matcher,
        Self::Policy,
        Self::Behavior,
        Self::Alerting,
        Self::Inventory,
        Self::Provisioner,
        Self::Operator,
        Self::Subscriber,
    ];

    /// Its name, as in the names of credential files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Router => "router",
            Self::Scanner => "scanner",
            Self::Matcher => "matcher",
            Self::Policy => "policy",
            Self::Behavior => "behavior",
            Self::Alerting => "alerting",
            Self::Inventory => "inventory",
            Self::Provisioner => "provisioner",
            Self::Operator => "operator",
            Self::Subscriber => "subscriber",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| RoleError(text.chars().take(64).collect()))
    }
}

fn names() -> String {
    Role::ALL.map(Role::as_str).join(", ")
}

// === impl Grants ===

impl Grants {
    /// What a process with these roles may do: the rights of each, and of all of them together no
    /// more. Who reads a stream may make consumers, take from them and delete them; those of others
    /// are denied. Where the others are not known here, nobody may delete any.
    pub fn of(roles: impl IntoIterator<Item = Role>) -> Self {
        let mut grants = Self::default();
        for role in roles {
            grants.add(role);
        }
        let served = |spec: &ConsumerSpec| grants.serves.contains(spec);
        let mut deny = BTreeSet::new();
        for spec in topology::consumers() {
            if !grants.read.contains(&spec.stream) {
                continue;
            }
            let ConsumerSpec {
                stream, durable, ..
            } = &spec;
            deny.insert(format!("$JS.API.CONSUMER.DELETE.{stream}.{durable}"));
            if !served(&spec) {
                deny.insert(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"));
            }
        }
        grants.deny = deny;
        grants.publish = pruned(&grants.publish);
        grants
    }

    /// Whether it may publish on a subject.
    pub fn may_publish(&self, subject: &str) -> bool {
        let fits = |filters: &BTreeSet<String>| {
            let mut filters = filters.iter();
            filters.any(|filter| subject::matches(filter, subject))
        };
        fits(&self.publish) && !fits(&self.deny)
    }

    /// Whether it may send a request to the `JetStream` API.
    pub(crate) fn may_ask(&self, request: &str) -> bool {
        self.may_publish(&format!("$JS.API.{request}"))
    }

    /// Whether it may subscribe to a subject beside its inbox.
    pub fn may_subscribe(&self, subject: &str) -> bool {
        let mut filters = self.subscribe.iter();
        filters.any(|filter| covers(filter, subject))
    }

    /// Subjects that it may publish on, in order.
    pub fn publish(&self) -> impl Iterator<Item = &str> {
        self.publish.iter().map(String::as_str)
    }

    /// Subjects that it may not publish on, although [`Self::publish`] has them.
    pub fn deny(&self) -> impl Iterator<Item = &str> {
        self.deny.iter().map(String::as_str)
    }

    /// Subjects that it may subscribe to beside its inbox, in order.
    pub fn subscribe(&self) -> impl Iterator<Item = &str> {
        self.subscribe.iter().map(String::as_str)
    }

    /// Whether it may answer whoever asks it.
    pub const fn answers(&self) -> bool {
        self.answers
    }

    /// Whether it uses a stream in any way.
    pub fn uses(&self, stream: &str) -> bool {
        self.streams.contains(stream)
    }

    /// The streams that it uses.
    pub(crate) fn streams(&self) -> &BTreeSet<String> {
        &self.streams
    }

    /// The consumers of the topology that it serves.
    pub(crate) fn serves(&self) -> &[ConsumerSpec] {
        &self.serves
    }

    fn api(&mut self, request: &str) {
        self.publish.insert(format!("$JS.API.{request}"));
    }

    /// Looks at a stream: settings, state, names of subjects.
    fn looks_at(&mut self, stream: &str) {
        self.api(&format!("STREAM.INFO.{stream}"));
        self.streams.insert(stream.to_owned());
    }

    /// Takes and acknowledges messages of a consumer, which may be `*`.
    fn takes(&mut self, stream: &str, durable: &str) {
        self.looks_at(stream);
        self.api(&format!("CONSUMER.INFO.{stream}.{durable}"));
        self.api(&format!("CONSUMER.MSG.NEXT.{stream}.{durable}"));
        // A message by its sequence: how old the oldest that waits is.
        self.api(&format!("DIRECT.GET.{stream}"));
        // Newer servers put domain and account before the stream.
        for place in ["", "*.*."] {
            let acks = format!("$JS.ACK.{place}{stream}.{durable}.>");
            self.publish.insert(acks);
        }
        let attempts = format!("{stream}.{durable}.*");
        self.reads_keys(ATTEMPTS, &attempts);
        self.writes(ATTEMPTS, &attempts);
        self.looks_at(&topology::bucket_stream(ATTEMPTS));
        self.publish.insert(format!("tw.dlq.{stream}.{durable}"));
        self.looks_at(DLQ);
    }

    /// Serves the consumers of the topology that are a role's, and lets others see that it lives.
    fn serves_those_of(&mut self, role: Role) {
        for spec in topology::consumers_of(role) {
            self.takes(&spec.stream, &spec.durable);
            self.serves.push(spec);
        }
        self.leases("process.*");
        self.claims();
    }

    /// Publishes events; a body that is too large goes beside them.
    fn publishes(&mut self, subjects: &str) {
        self.publish.insert(subjects.to_owned());
        for stream in topology::streams(&Config::default()) {
            if stream.subjects().any(|filter| covers(filter, subjects)) {
                self.looks_at(&stream.name);
            }
        }
        self.publish
            .insert(topology::object_subjects(CLAIM_OBJECTS));
        self.looks_at(&topology::object_stream(CLAIM_OBJECTS));
    }

    /// Reads the bodies that are too large for their message, and keeps those of dead letters.
    fn claims(&mut self) {
        self.writes_objects(CLAIM_OBJECTS);
    }

    /// Reads some keys of a bucket, each by its name.
    fn reads_keys(&mut self, bucket: &str, keys: &str) {
        let stream = topology::bucket_stream(bucket);
        let keys = subject::of_key(bucket, keys);
        self.api(&format!("DIRECT.GET.{stream}.{keys}"));
    }

    /// Reads every key of a bucket, and finds those with a prefix.
    fn reads(&mut self, bucket: &str) {
        self.looks_at(&topology::bucket_stream(bucket));
        self.reads_keys(bucket, ">");
    }

    /// Writes some keys of a bucket.
    fn writes(&mut self, bucket: &str, keys: &str) {
        self.publish.insert(subject::of_key(bucket, keys));
    }

    /// Reads a bucket in order, or whole.
    fn follows(&mut self, bucket: &str) {
        self.reads(bucket);
        self.reads_in_order(&topology::bucket_stream(bucket));
    }

    /// Reads a stream in order, by a consumer of its own.
    fn reads_in_order(&mut self, stream: &str) {
        self.looks_at(stream);
        self.api(&format!("CONSUMER.CREATE.{stream}"));
        self.api(&format!("CONSUMER.MSG.NEXT.{stream}.*"));
        if topology::names_all_consumers_of(stream) {
            self.api(&format!("CONSUMER.DELETE.{stream}.*"));
        }
        self.read.insert(stream.to_owned());
    }

    /// Takes away what is left of deleted keys. A server knows no right to less than everything.
    fn sweeps(&mut self, bucket: &str) {
        self.api(&format!("STREAM.PURGE.{}", topology::bucket_stream(bucket)));
    }

    /// Is woken when a key of a bucket changes.
    fn waits_for(&mut self, bucket: &str) {
        self.reads(bucket);
        self.subscribe.insert(subject::of_key(bucket, ">"));
    }

    /// Takes leases with these names, and sees which are taken.
    fn leases(&mut self, names: &str) {
        self.reads(LEASES);
        self.writes(LEASES, names);
    }

    /// Asks nodes for what they hold.
    fn asks_nodes(&mut self) {
        self.publish.insert(accounts::blobs("*", "*"));
    }

    fn reads_objects(&mut self, bucket: &str) {
        let (stream, objects) = (
            topology::object_stream(bucket),
            topology::object_subjects(bucket),
        );
        self.looks_at(&stream);
        self.api(&format!("DIRECT.GET.{stream}.{objects}"));
    }

    /// Writes objects; what is there already is not written again.
    fn writes_objects(&mut self, bucket: &str) {
        self.reads_objects(bucket);
        self.publish.insert(topology::object_subjects(bucket));
    }

    fn deletes_objects(&mut self, bucket: &str) {
        self.api(&format!("STREAM.PURGE.{}", topology::object_stream(bucket)));
    }
}

/// Whether everything that fits `pattern` fits `filter`.
fn covers(filter: &str, pattern: &str) -> bool {
    subject::matches(filter, pattern) && (filter.ends_with('>') || !pattern.ends_with('>'))
}

/// Without what another one covers.
fn pruned(filters: &BTreeSet<String>) -> BTreeSet<String> {
    let needed = |one: &&String| {
        let mut others = filters.iter().filter(|other| other != one);
        !others.any(|other| covers(other, one))
    };
    filters.iter().filter(needed).cloned().collect()
}
