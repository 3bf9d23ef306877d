//! What was detected in a container, and the incident that detections make together.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ExecutedFile, Listen, NetworkFlow, ProcessKey};
use crate::{Digest, Severity, Slug, schema::Time};

/// One thing that a container did and should not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Detection {
    /// Computed from the incident, the rule and what the rule is about, as a file or an address: the
    /// same thing detected again has the same id.
    pub id: String,
    /// The rule: `drift/added-executable`, `behavior/reverse-shell`.
    pub rule: String,
    /// Drift from the image, or a known behavior.
    pub kind: DetectionKind,
    /// How bad.
    pub severity: Severity,
    /// One sentence: what, with names.
    pub title: String,
    /// What to do about it.
    pub advice: String,
    /// MITRE ATT&CK techniques.
    #[serde(default)]
    pub techniques: Vec<Technique>,
    /// The node.
    pub node: Slug,
    /// The container.
    pub container: String,
    /// The container's name.
    #[serde(default)]
    pub container_name: String,
    /// The image, as the fabric knows it; `None` where it does not yet.
    #[serde(default)]
    pub image: Option<Digest>,
    /// The process.
    pub process: ProcessSeen,
    /// Its ancestors within the container, the parent first.
    #[serde(default)]
    pub ancestors: Vec<ProcessSeen>,
    /// What shows it.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// When it happened.
    #[schemars(with = "Time")]
    pub at: Timestamp,
}

/// How a detection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DetectionKind {
    /// What ran is not what the image holds.
    Drift,
    /// It looks like something attackers do.
    Behavior,
}

/// A technique of MITRE ATT&CK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Technique {
    /// `T1059.004`.
    pub id: String,
    /// `Unix Shell`.
    pub name: String,
    /// What attackers use it for: `execution`, `persistence`, `privilege-escalation`, ….
    #[serde(default)]
    pub tactic: String,
}

/// A process as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProcessSeen {
    /// Which.
    pub key: ProcessKey,
    /// What it ran.
    pub path: String,
    /// With which arguments; secrets among them are masked.
    pub args: Vec<String>,
    /// As which user of the container; 4294967295 where that is not known.
    pub uid: u32,
}

/// Something that shows what happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// A file that ran.
    File(ExecutedFile),
    /// A file that was opened.
    Opened {
        /// Its path.
        path: String,
        /// Whether to write.
        write: bool,
    },
    /// A connection.
    Flow(NetworkFlow),
    /// A system call, in words.
    Call {
        /// Its name and what matters of its arguments.
        text: String,
    },
    /// The digest that the image has for the path.
    Expected {
        /// The path.
        path: String,
        /// The digest.
        digest: Digest,
    },
}

/// Detections of one container that belong together. A value of [`crate::event::INCIDENTS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// Computed from the container and how many incidents it had before.
    pub id: String,
    /// Whether something can still be added.
    pub state: IncidentState,
    /// That of the gravest detection, raised where several tactics come together.
    pub severity: Severity,
    /// One sentence.
    pub title: String,
    /// The node.
    pub node: Slug,
    /// The container.
    pub container: String,
    /// The container's name.
    #[serde(default)]
    pub container_name: String,
    /// The name of the image that it runs.
    #[serde(default)]
    pub image_name: String,
    /// The image, as the fabric knows it.
    #[serde(default)]
    pub image: Option<Digest>,
    /// The orchestrator's namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The pod.
    #[serde(default)]
    pub pod: Option<String>,
    /// The host's name, operating system and kernel, in one line.
    #[serde(default)]
    pub host: String,
    /// Rules that fired.
    pub rules: Vec<String>,
    /// How many detections; what is detected once more is not counted again.
    pub detections: u32,
    /// How many more were left out, for an incident holds a limited number; the first one of each
    /// rule, and of each severity that is worse, never is. What is left out and seen again after a
    /// while is counted again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u32,
    /// Tactics that its detections serve, in the order of an attack.
    #[serde(default)]
    pub tactics: Vec<String>,
    /// The object with the timeline: [`Detection`]s in order.
    #[serde(default)]
    pub timeline: Option<Digest>,
    /// The object with what happened around them: [`Surroundings`].
    #[serde(default)]
    pub surroundings: Option<Digest>,
    /// The first detection's time.
    #[schemars(with = "Time")]
    pub first_at: Timestamp,
    /// The last detection's time.
    #[schemars(with = "Time")]
    pub last_at: Timestamp,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What a container did around the detections of an incident, whether suspicious or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Surroundings {
    /// The incident.
    pub incident: String,
    /// How many detections it had then.
    pub detections: u32,
    /// The processes that ran, parents first.
    pub processes: Vec<ProcessNode>,
    /// The connections that were opened last.
    pub flows: Vec<NetworkFlow>,
    /// The ports that are listened on.
    pub listens: Vec<Listen>,
    /// The watched files that were opened last.
    pub files: Vec<String>,
    /// Whether more happened than is shown.
    pub is_cut: bool,
}

/// A process in its tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProcessNode {
    /// The process.
    pub process: ProcessSeen,
    /// Who made it.
    pub parent: ProcessKey,
    /// Whether it ended.
    pub ended: bool,
}

/// Whether an incident can still grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// It can.
    Open,
    /// The container ended, or nothing happened for a while.
    Closed,
}

impl fmt::Display for IncidentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Closed => "closed",
        })
    }
}
