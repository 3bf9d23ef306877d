//! What people order, what agents answer, and the news of it.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, ActionKind, Mode, Refusal, ResponseId, Stage};
use crate::{
    Digest, Fingerprint, Slug,
    event::{Event, RESULTS},
    schema::Time,
};

/// Stream of what people order and agents answer.
pub const RESPONSES: &str = "RESPONSES";
/// Objects: evidence that agents collect, below [`forensic_objects`] of their node.
///
/// All nodes share its bytes, and the oldest goes first. An agent stores so much in an hour and no
/// more (`response.evidence_bytes_per_hour_max`), but that is the agent's own word: a broker bounds a
/// stream, a subject and a message, and each piece of evidence has subjects of its own. So whoever
/// has a node's key can push out the evidence of other nodes. What an incident needs for longer is
/// to be fetched when it is told of.
pub const FORENSIC_OBJECTS: &str = "tw_forensics";

/// The largest piece of evidence that an agent stores, and that anybody reads.
pub const FORENSIC_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The bucket of the evidence of one node: its agent may write there and nowhere else.
pub fn forensic_objects(tenant: &Slug, node: &Slug) -> String {
    format!("{FORENSIC_OBJECTS}.{tenant}.{node}")
}

/// An agent's answer: how far it is with a response, or that it refuses its desired state, or that
/// it did not let a container start. From a node, and so hostile: policy reads it with bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseReported {
    /// The node; that of the subject counts.
    pub node: Slug,
    /// The response; `None` where the desired state as a whole is refused.
    #[serde(default)]
    pub response: Option<ResponseId>,
    /// The incident that it answers; empty for the start gate and for a refused document.
    #[serde(default)]
    pub incident: String,
    /// The container; empty for a refused document.
    #[serde(default)]
    pub container: String,
    /// What it is about; `None` for a refused document.
    #[serde(default)]
    pub action: Option<ActionKind>,
    /// How the response was to be carried out.
    pub mode: Mode,
    /// How far it is.
    pub phase: Phase,
    /// Why it is refused.
    #[serde(default)]
    pub refusal: Option<Refusal>,
    /// The generation of the desired state that it stood in, or that is refused.
    pub generation: u64,
    /// How often it was tried before: after a failure the agent tries again.
    #[serde(default)]
    pub attempt: u32,
    /// What was collected.
    #[serde(default)]
    pub evidence: Option<EvidenceObject>,
    /// What was there before, in words: `running`, `connected`.
    #[serde(default)]
    pub before: Option<String>,
    /// What is there now: `frozen`, the new container's id.
    #[serde(default)]
    pub after: Option<String>,
    /// What else there is to say: why it failed, what is not enforced on this node.
    #[serde(default)]
    pub detail: Option<String>,
    /// The image that was not let start.
    #[serde(default)]
    pub image: Option<Digest>,
    /// Files that did not run since the last time, while a block is in force; of many some are not
    /// named, and `detail` has how often it was in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<DeniedFile>,
    /// When.
    #[schemars(with = "Time")]
    pub at: Timestamp,
}

/// A file that a blocked container did not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeniedFile {
    /// Where it lay, within the container; of a content that lay at several places one of them.
    pub path: String,
    /// Its content; `None` where that was not known in time.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// How often, since that was told last.
    pub count: u64,
}

/// How far an agent is with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It does not do it.
    Refused,
    /// It would have done it: a dry run.
    WouldHave,
    /// It has begun.
    Started,
    /// It is in force; for the start gate, the container was stopped.
    Done,
    /// It did not work; it is tried again while the response lasts.
    Failed,
    /// It was in force and is no more.
    Lifted,
}

/// Evidence that an agent stored in [`forensic_objects`] of its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceObject {
    /// The digest of its bytes, which names it.
    pub digest: Digest,
    /// How many bytes.
    pub bytes: u64,
    /// What it is: `application/x-tar+zstd`, `application/json`.
    #[serde(default)]
    pub media_type: String,
}

/// Somebody decides about a response, or orders one. From the API; policy carries it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseOrdered {
    /// Names the order: the same one twice changes nothing.
    pub id: String,
    /// The incident; `None` for a container that has none.
    #[serde(default)]
    pub incident: Option<String>,
    /// The node of the container.
    pub node: Slug,
    /// The container.
    pub container: String,
    /// What is ordered.
    pub order: Order,
    /// Whether what guards against too much is overruled: the last healthy instance, protected
    /// namespaces, limits.
    #[serde(default)]
    pub force: bool,
    /// Who orders it.
    pub by: String,
    /// Why, as that person says.
    #[serde(default)]
    pub reason: String,
    /// When.
    #[schemars(with = "Time")]
    pub at: Timestamp,
}

/// What somebody orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// A proposed response is carried out.
    Approve {
        /// Which.
        response: ResponseId,
    },
    /// A proposed response is not.
    Deny {
        /// Which.
        response: ResponseId,
    },
    /// Something is done that no rule proposed.
    Act {
        /// What.
        action: Action,
        /// For how long, seconds.
        valid_for_s: u64,
        /// Whether it is only tried.
        #[serde(default)]
        dry_run: bool,
    },
    /// A response is taken back.
    Release {
        /// Which; `None`: all of the container.
        #[serde(default)]
        response: Option<ResponseId>,
    },
}

/// News: a response was proposed, held back, decided, begun, or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerResponded {
    /// The response; where a node refused its desired state or a start, a name made for that.
    pub response: ResponseId,
    /// The incident; empty where there is none.
    #[serde(default)]
    pub incident: String,
    /// The node.
    pub node: Slug,
    /// The container.
    #[serde(default)]
    pub container: String,
    /// The container's name.
    #[serde(default)]
    pub container_name: String,
    /// The image that it runs.
    #[serde(default)]
    pub image: Option<Digest>,
    /// What is done; `None` where a node refused its desired state.
    #[serde(default)]
    pub action: Option<ActionKind>,
    /// Whether it is carried out.
    pub mode: Mode,
    /// How far it is.
    pub stage: Stage,
    /// The rule or the person behind it.
    #[serde(default)]
    pub by: String,
    /// What there is to say: why it was proposed, what held it, how it ended.
    #[serde(default)]
    pub detail: String,
    /// What was collected.
    #[serde(default)]
    pub evidence: Option<EvidenceObject>,
    /// When.
    #[schemars(with = "Time")]
    pub at: Timestamp,
}

// === impl ResponseReported ===

impl ResponseReported {
    /// What the answer is about, so that the same answer has the same id.
    fn fingerprint(&self) -> Fingerprint {
        let response = self.response.as_ref().map(|id| &*id.0);
        let refusal = self.refusal.as_ref();
        let refusal = refusal.map(|refusal| serde_json::to_string(refusal).unwrap_or_default());
        let evidence = self.evidence.as_ref().map(|object| object.digest.hex());
        // A refused document has no response: its generation and the reason tell it from others.
        let generation = match response {
            Some(_) => String::new(),
            None => self.generation.to_string(),
        };
        let (mode, attempt) = (self.mode.to_string(), self.attempt.to_string());
        let (refusal, evidence) = (refusal.unwrap_or_default(), evidence.unwrap_or_default());
        let mut fields = vec![
            response.unwrap_or_default(),
            &mode,
            self.phase.as_str(),
            &attempt,
            &generation,
            &refusal,
            &evidence,
        ];
        // What did not run is news each time, and told once: the time tells one from the other.
        let at = self.at.as_microsecond().to_string();
        if !self.denied.is_empty() {
            fields.push(&at);
        }
        Fingerprint::of(&fields)
    }
}

// === impl Phase ===

impl Phase {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::WouldHave => "would_have",
            Self::Started => "started",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Lifted => "lifted",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Event ===

impl Event for ResponseReported {
    const TYPE: &'static str = "io.tidewaiter.response.reported.v1";
    const STREAM: &'static str = RESPONSES;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.evt.{tenant}.response.reported.{}", self.node)
    }

    fn message_id(&self, tenant: &Slug) -> String {
        format!("reported:{tenant}:{}:{}", self.node, self.fingerprint())
    }

    fn origin(&self) -> String {
        format!("/nodes/{}", self.node)
    }
}

impl Event for ResponseOrdered {
    const TYPE: &'static str = "io.tidewaiter.response.ordered.v1";
    const STREAM: &'static str = RESPONSES;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.evt.{tenant}.response.ordered.{}", self.node)
    }

    fn message_id(&self, tenant: &Slug) -> String {
        format!("ordered:{tenant}:{}", self.id)
    }

    fn origin(&self) -> String {
        "/inventory".to_owned()
    }
}

impl Event for ContainerResponded {
    const TYPE: &'static str = "io.tidewaiter.container.responded.v1";
    const STREAM: &'static str = RESULTS;

    fn subject(&self, tenant: &Slug) -> String {
        format!("tw.res.{tenant}.container.responded")
    }

    fn message_id(&self, tenant: &Slug) -> String {
        let Self {
            response,
            mode,
            stage,
            at,
            ..
        } = self;
        let at = at.as_microsecond();
        format!("responded:{tenant}:{response}:{mode}:{stage}:{at}")
    }

    fn origin(&self) -> String {
        format!("/nodes/{}", self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(phase: Phase) -> ResponseReported {
        ResponseReported {
            node: "node-1".parse().unwrap(),
            response: Some(ResponseId("00ff".to_owned())),
            incident: "i".to_owned(),
            container: "c".to_owned(),
            action: Some(ActionKind::Pause),
            mode: Mode::Enforced,
            phase,
            refusal: None,
            generation: 1,
            attempt: 0,
            evidence: None,
            before: None,
            after: None,
            detail: None,
            image: None,
            denied: Vec::new(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_did_not_run_is_news_each_time() {
        let tenant = Slug::default_tenant();
        let denied = |second| ResponseReported {
            denied: vec![DeniedFile {
                path: "tmp/x".to_owned(),
                digest: None,
                count: 1,
            }],
            at: Timestamp::from_second(second).unwrap(),
            ..reported(Phase::Done)
        };
        let first = denied(1).message_id(&tenant);
        assert_eq!(first, denied(1).message_id(&tenant));
        for other in [reported(Phase::Done), denied(2)] {
            assert_ne!(first, other.message_id(&tenant));
        }
    }

    #[test]
    fn the_same_answer_has_the_same_id_whenever_it_is_given() {
        let tenant = Slug::default_tenant();
        let first = reported(Phase::Done);
        let again = ResponseReported {
            generation: 2,
            at: Timestamp::from_second(9).unwrap(),
            ..first.clone()
        };
        assert_eq!(first.message_id(&tenant), again.message_id(&tenant));
        let retried = ResponseReported {
            attempt: 1,
            ..first.clone()
        };
        let refused = |generation| ResponseReported {
            response: None,
            phase: Phase::Refused,
            refusal: Some(Refusal::Replayed {
                generation,
                seen: 9,
            }),
            generation,
            ..first.clone()
        };
        for other in [reported(Phase::Lifted), retried, refused(1), refused(2)] {
            assert_ne!(first.message_id(&tenant), other.message_id(&tenant));
        }
        assert_ne!(
            refused(1).message_id(&tenant),
            refused(2).message_id(&tenant)
        );
    }
}
