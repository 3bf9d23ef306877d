//! What was decided about a container, by whom, and how it ended.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, ActionKind, EvidenceObject, Mode, Phase, ResponseId};
use crate::{Digest, Slug, runtime::Incident, schema::Time};

/// Bucket of what was decided on each incident ([`ResponseRecord`]), and of what counts against
/// limits ([`ResponseLedger`]).
pub const RESPONSE_RECORDS: &str = "tw_responses";

/// The answer to an incident: every response that was proposed, decided or done. A value of
/// [`RESPONSE_RECORDS`] by [`ResponseRecord::key`]; written by policy alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseRecord {
    /// The incident, or [`ResponseRecord::by_hand`] of a container that has none.
    pub incident: String,
    /// The node.
    pub node: Slug,
    /// The container.
    pub container: String,
    /// Its name.
    #[serde(default)]
    pub container_name: String,
    /// The name of its image.
    #[serde(default)]
    pub image_name: String,
    /// Its image.
    #[serde(default)]
    pub image: Option<Digest>,
    /// What there is in response, oldest first.
    #[serde(default)]
    pub responses: Vec<ProposedResponse>,
    /// The orders that were carried out last, and what became of those that were not.
    #[serde(default)]
    pub orders: Vec<Step>,
    /// When it changed last.
    #[schemars(with = "Time")]
    pub updated_at: Timestamp,
}

/// A response from the first thought of it to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProposedResponse {
    /// Its id.
    pub id: ResponseId,
    /// The rule that asks for it, as `policy/rule`; `None`: somebody ordered it.
    #[serde(default)]
    pub rule: Option<String>,
    /// What is done.
    pub action: Action,
    /// Whether it is carried out.
    pub mode: Mode,
    /// When the container that it is for was started.
    #[serde(default)]
    #[schemars(with = "Option<Time>")]
    pub container_started_at: Option<Timestamp>,
    /// How far it is.
    pub stage: Stage,
    /// Why: the detection, in one sentence.
    #[serde(default)]
    pub reason: String,
    /// What held it back, or would have.
    #[serde(default)]
    pub guards: Vec<Guard>,
    /// Who decided it.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// When it was proposed.
    #[schemars(with = "Time")]
    pub proposed_at: Timestamp,
    /// For how long it is in force once it is decided, seconds.
    pub valid_for_s: u64,
    /// How often it may still be renewed, each time for as long again, while its incident is open.
    #[serde(default)]
    pub renewals_left: u32,
    /// When it is over. Of one that waits for somebody: when it waits no longer.
    #[serde(default)]
    #[schemars(with = "Option<Time>")]
    pub expires_at: Option<Timestamp>,
    /// What was collected.
    #[serde(default)]
    pub evidence: Vec<EvidenceObject>,
    /// What was there before, as the agent says.
    #[serde(default)]
    pub before: Option<String>,
    /// What is there since.
    #[serde(default)]
    pub after: Option<String>,
    /// How often the same was released before.
    #[serde(default)]
    pub round: u32,
    /// What happened to it, oldest first.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// How far a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A rule asks for it and only observes.
    Observed,
    /// It waits for somebody's approval.
    Proposed,
    /// A guard holds it; somebody may approve it nevertheless.
    Held,
    /// Nobody decided while it waited; somebody may approve it nevertheless.
    Lapsed,
    /// Somebody does not want it.
    Denied,
    /// It stands in the node's desired state.
    Ordered,
    /// The agent has begun.
    Started,
    /// A dry run: the agent would have done it.
    WouldHave,
    /// It is in force.
    Done,
    /// It did not work.
    Failed,
    /// The agent does not do it.
    Refused,
    /// Somebody took it back; the agent did not answer yet.
    Released,
    /// It is over; the agent did not answer yet.
    Expired,
    /// It was in force and is no more.
    Lifted,
}

/// What holds a response back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// Too few would be left that serve.
    #[error("{running} of `{group}` run besides it and serve, {needed} must")]
    LastInstance {
        /// The owner or image whose instances are counted.
        group: String,
        /// How many are left.
        running: u32,
        /// How many must be.
        needed: u32,
    },
    /// Nothing is done to such containers unless somebody says so.
    #[error("it is protected: {why}")]
    Protected {
        /// Why.
        why: String,
    },
    /// There were many already.
    #[error("{limit} responses in {window_s} seconds for {scope} were reached")]
    RateLimit {
        /// Of what: the rule, the image, the node, the fleet.
        scope: String,
        /// How many may be.
        limit: u32,
        /// Within which time, seconds.
        window_s: u64,
    },
    /// The same was done to the same a short while ago.
    #[error("the same was done until {until}: it cools down")]
    CoolDown {
        /// Until when.
        #[schemars(with = "Time")]
        until: Timestamp,
    },
    /// Its owner had it replaced too often: it is put in quarantine instead.
    #[error("`{group}` had {limit} containers replaced within an hour: quarantine instead")]
    ReplacedTooOften {
        /// The owner.
        group: String,
        /// How many may be.
        limit: u32,
    },
    /// No node reports the container: what protects it is not known, and what would be left cannot be
    /// counted.
    #[error("no node reports the container")]
    Unknown,
    /// The node has as many responses as it may.
    #[error("the node has as many responses as it may")]
    NodeFull,
    /// This installation signs no commands: `policy.signing_key_file` is not set.
    #[error("`policy.signing_key_file` is not set, so that no agent would believe it")]
    NoKey,
}

/// Who decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approval {
    /// A person's name, or the rule's.
    pub by: String,
    /// When.
    #[schemars(with = "Time")]
    pub at: Timestamp,
    /// Why, as that person says.
    #[serde(default)]
    pub reason: String,
    /// Whether guards were overruled.
    #[serde(default)]
    pub forced: bool,
}

/// Something that happened to a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Names the message behind it, so that one that comes twice is one step.
    pub id: String,
    /// How far the response was then.
    pub stage: Stage,
    /// When.
    #[schemars(with = "Time")]
    pub at: Timestamp,
    /// Who: a person, a rule, a node.
    #[serde(default)]
    pub by: String,
    /// What there is to say.
    #[serde(default)]
    pub detail: String,
}

/// What was ordered of late in a tenant: limits count it, and it says what is out of service. A
/// value of [`RESPONSE_RECORDS`] by [`ResponseLedger::key`]. Decisions write it by
/// compare-and-set, so two of them never count the same place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseLedger {
    /// Oldest first.
    #[serde(default)]
    pub entries: Vec<LedgerEntry>,
}

/// A response that was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Which.
    pub response: ResponseId,
    /// The rule; empty where somebody ordered it.
    #[serde(default)]
    pub rule: String,
    /// What is done.
    pub action: ActionKind,
    /// The node.
    pub node: Slug,
    /// The container.
    pub container: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its image.
    #[serde(default)]
    pub image: Option<Digest>,
    /// What it is an instance of.
    pub group: String,
    /// When it was ordered.
    pub at: Timestamp,
    /// Until when the container is out of service; `None`: it never was.
    #[serde(default)]
    pub out_until: Option<Timestamp>,
}

// === impl ResponseRecord ===

impl ResponseRecord {
    /// Responses of one incident. What would be more is not taken.
    pub const RESPONSES_MAX: usize = 64;
    /// Steps that are kept of a response, and orders of a record; the oldest go first. Of long ones
    /// fewer are kept, so that the record can be written.
    pub const STEPS_MAX: usize = 64;

    /// That of an incident, with nothing in it yet.
    pub fn of(incident: &Incident, updated_at: Timestamp) -> Self {
        Self {
            incident: incident.id.clone(),
            node: incident.node.clone(),
            container: incident.container.clone(),
            container_name: incident.container_name.clone(),
            image_name: incident.image_name.clone(),
            image: incident.image,
            responses: Vec::new(),
            orders: Vec::new(),
            updated_at,
        }
    }

    /// That of a container which has no incident, or of a node, with nothing in it yet.
    pub fn named(name: String, node: Slug, container: String, updated_at: Timestamp) -> Self {
        Self {
            incident: name,
            node,
            container,
            container_name: String::new(),
            image_name: String::new(),
            image: None,
            responses: Vec::new(),
            orders: Vec::new(),
            updated_at,
        }
    }

    /// The key of the answer to an incident.
    pub fn key(tenant: &Slug, incident: &str) -> String {
        format!("{tenant}.{incident}")
    }

    /// The name under which stands what is done to a container that has no incident.
    pub fn by_hand(container: &str) -> String {
        let digest = Digest::of(container.as_bytes()).hex();
        let (name, _) = digest.split_at(24);
        format!("hand-{name}")
    }

    /// A response by its id.
    pub fn response(&self, id: &ResponseId) -> Option<&ProposedResponse> {
        self.responses.iter().find(|one| one.id == *id)
    }
}

// === impl Stage ===

impl Stage {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Proposed => "proposed",
            Self::Held => "held",
            Self::Lapsed => "lapsed",
            Self::Denied => "denied",
            Self::Ordered => "ordered",
            Self::Started => "started",
            Self::WouldHave => "would_have",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Lifted => "lifted",
        }
    }

    /// Whether somebody can still approve or deny it.
    pub const fn is_open(self) -> bool {
        matches!(
            self,
            Self::Observed | Self::Proposed | Self::Held | Self::Lapsed
        )
    }

    /// Whether it waits for somebody, who can approve or deny it.
    pub const fn waits(self) -> bool {
        matches!(self, Self::Proposed | Self::Held)
    }

    /// Whether the node shall do it.
    pub const fn is_desired(self) -> bool {
        matches!(
            self,
            Self::Ordered | Self::Started | Self::WouldHave | Self::Done | Self::Failed
        )
    }
}

impl From<Phase> for Stage {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Refused => Self::Refused,
            Phase::WouldHave => Self::WouldHave,
            Phase::Started => Self::Started,
            Phase::Done => Self::Done,
            Phase::Failed => Self::Failed,
            Phase::Lifted => Self::Lifted,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl ResponseLedger ===

impl ResponseLedger {
    /// How many entries are kept at most. Limits count no further; of more those go first that keep
    /// nothing out of service.
    pub const ENTRIES_MAX: usize = 2_000;

    /// The key of a tenant's ledger.
    pub fn key(tenant: &Slug) -> String {
        // No tenant is called so: it would not be a slug.
        format!("LEDGER.{tenant}")
    }
}
