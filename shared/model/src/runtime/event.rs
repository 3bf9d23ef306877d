//! The messages about nodes and their containers.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Container, Detection, Drop, HostFacts, ImageAtRest, Incident, IncidentState, RuntimeEvent,
    SensorMatrix,
};
use crate::{
    Digest, Partition, Slug,
    event::{EVENTS, Event, RESULTS},
    schema::Time,
};

/// Stream of what nodes tell.
pub const RUNTIME: &str = "RUNTIME";

/// A share of runtime events: the same node always leads to the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(u8);

/// Everything that a node holds, now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReported {
    /// The node.
    pub node: Slug,
    /// The kernel's boot id.
    pub boot: String,
    /// Counts the messages of the agent since the boot; shared with [`RuntimeBatch::sequence`], and
    /// continued by an agent that starts again.
    pub sequence: u64,
    /// When the picture was taken.
    pub at: Timestamp,
    /// The agent's version.
    pub agent: String,
    /// The host.
    pub host: HostFacts,
    /// What the agent can see and enforce.
    pub sensors: SensorMatrix,
    /// Containers, running or not.
    pub containers: Vec<Container>,
    /// Images on disk.
    pub images: Vec<ImageAtRest>,
    /// How many containers and images are left out, for the message would be too large.
    #[serde(default)]
    pub left_out: u32,
}

/// What containers of a node did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeBatch {
    /// The node.
    pub node: Slug,
    /// The kernel's boot id.
    pub boot: String,
    /// Counts the messages of the agent since the boot.
    pub sequence: u64,
    /// When the node booted: events count from here.
    pub booted_at: Timestamp,
    /// The ids of the containers that the events name by index.
    pub containers: Vec<String>,
    /// The events, in the order the kernel gave them.
    pub events: Vec<RuntimeEvent>,
    /// What was counted and not sent since the batch before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drops: Vec<Drop>,
}

/// A node holds an image that the fabric has not scanned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageSighted {
    /// The node.
    pub node: Slug,
    /// The digest by which the node's runtime knows it: of an index, a manifest or a config.
    pub image: Digest,
    /// Names of the image on the node, as `registry/repository:tag` or `repository@digest`.
    pub references: Vec<String>,
    /// Whether a container of it runs, or it only lies on the disk.
    pub running: bool,
    /// When.
    #[schemars(with = "Time")]
    pub sighted_at: Timestamp,
}

/// News: a container did what it should not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerDetected {
    /// What was detected.
    pub detection: Detection,
    /// The incident it belongs to.
    pub incident: String,
}

/// News: an incident was opened, grew worse, or was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentChanged {
    /// The incident as it is now, without its timeline.
    pub incident: Incident,
    /// When.
    #[schemars(with = "Time")]
    pub changed_at: Timestamp,
}

// === impl Shard ===

impl Shard {
    /// How many there are. Fixed: it is part of subjects and consumer names.
    pub const COUNT: u8 = 16;

    /// The shard of a node.
    pub fn of(node: &Slug) -> Self {
        let [first, ..] = *Digest::of(node.as_str().as_bytes()).as_bytes();
        Self(first % Self::COUNT)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl From<Partition> for Shard {
    /// There is a shard for each partition, so that both are shared among processes by one code.
    fn from(partition: Partition) -> Self {
        const { assert!(Shard::COUNT == Partition::COUNT, "each has its other") };
        Self(partition.number())
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

// === impl Event ===

impl Event for NodeReported {
    const TYPE: &'static str = "io.tidewaiter.node.reported.v1";
    const STREAM: &'static str = RUNTIME;

    fn subject(&self, tenant: &Slug) -> String {
        runtime_subject(tenant, &self.node)
    }

    fn message_id(&self, tenant: &Slug) -> String {
        runtime_id(tenant, &self.node, &self.boot, self.sequence)
    }

    fn origin(&self) -> String {
        format!("/nodes/{}", self.node)
    }
}

impl Event for RuntimeBatch {
    const TYPE: &'static str = "io.tidewaiter.runtime.batch.v1";
    const STREAM: &'static str = RUNTIME;

    fn subject(&self, tenant: &Slug) -> String {
        runtime_subject(tenant, &self.node)
    }

    fn message_id(&self, tenant: &Slug) -> String {
        runtime_id(tenant, &self.node, &self.boot, self.sequence)
    }

    fn origin(&self) -> String {
        format!("/nodes/{}", self.node)
    }
}

impl Event for ImageSighted {
    const TYPE: &'static str = "io.tidewaiter.image.sighted.v1";
    const STREAM: &'static str = EVENTS;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.evt.{tenant}.node.sighted.{}", self.node)
    }

    fn message_id(&self, tenant: &Slug) -> String {
        format!("sighted:{tenant}:{}:{}", self.node, self.image.hex())
    }

    fn origin(&self) -> String {
        format!("/nodes/{}", self.node)
    }
}

impl Event for ContainerDetected {
    const TYPE: &'static str = "io.tidewaiter.container.detected.v1";
    const STREAM: &'static str = RESULTS;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.res.{tenant}.container.detected")
    }

    fn message_id(&self, tenant: &Slug) -> String {
        format!("detected:{tenant}:{}", self.detection.id)
    }

    fn origin(&self) -> String {
        format!("/nodes/{}", self.detection.node)
    }
}

impl Event for IncidentChanged {
    const TYPE: &'static str = "io.tidewaiter.incident.changed.v1";
    const STREAM: &'static str = RESULTS;

    fn subject(&self, tenant: &Slug) -> String {
        let state = match self.incident.state {
            IncidentState::Open => "opened",
            IncidentState::Closed => "closed",
        };
        format!("tw.res.{tenant}.container.incident_{state}")
    }

    fn message_id(&self, tenant: &Slug) -> String {
        let Incident {
            id,
            state,
            severity,
            detections,
            ..
        } = &self.incident;
        format!("incident:{tenant}:{id}:{state}:{severity}:{detections}")
    }

    fn origin(&self) -> String {
        format!("/nodes/{}", self.incident.node)
    }
}

fn runtime_subject(tenant: &Slug, node: &Slug) -> String {
    format!("tw.evt.{tenant}.runtime.{}.{node}", Shard::of(node))
}

fn runtime_id(tenant: &Slug, node: &Slug, boot: &str, sequence: u64) -> String {
    format!("runtime:{tenant}:{node}:{boot}:{sequence}")
}
