//! What a node shall do, signed.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, ActionKind, Mode};
use crate::{
    Decision, Digest, Fingerprint, Signature, SignatureError, SigningKey, Slug, VerifyingKey,
    schema::Time,
};

/// What a signature of desired state is about.
const CONTEXT: &[u8] = b"tidewaiter desired state/1\n";

/// Everything that a node shall do beyond running its containers. A response that is not in it, is
/// released or is over, is lifted; a container that ended and came back is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Whose node.
    pub tenant: Slug,
    /// The node.
    pub node: Slug,
    /// Rises with every write. An agent takes no document that is older than one it took.
    pub generation: u64,
    /// When it was written.
    pub issued_at: Timestamp,
    /// From when on nobody takes it any more. What an agent took before goes on until it is over
    /// itself.
    pub expires_at: Timestamp,
    /// What is done to containers, oldest first.
    #[serde(default)]
    pub responses: Vec<Response>,
    /// Which containers may not start; `None`: all may.
    #[serde(default)]
    pub start_gate: Option<StartGate>,
}

/// One thing that is done to one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Response {
    /// Computed, so that who decides the same twice changes nothing.
    pub id: ResponseId,
    /// The incident that it answers; of one that answers none, a name that no incident has.
    pub incident: String,
    /// What is done.
    pub action: Action,
    /// To which container.
    pub container: String,
    /// Its name, for people.
    #[serde(default)]
    pub container_name: String,
    /// When that was started. A container with another start is not touched; `None`: it was not
    /// known, and the container is meant however old.
    #[serde(default)]
    #[schemars(with = "Option<Time>")]
    pub container_started_at: Option<Timestamp>,
    /// Whether it is carried out.
    pub mode: Mode,
    /// When it was decided.
    #[schemars(with = "Time")]
    pub issued_at: Timestamp,
    /// When it is over.
    #[schemars(with = "Time")]
    pub expires_at: Timestamp,
    /// Who decided it: a rule's name, or a person's.
    pub approved_by: String,
    /// Why, in one sentence.
    #[serde(default)]
    pub reason: String,
    /// That it was taken back. It stays listed for a while, so that who reads the document sees it.
    #[serde(default)]
    pub released: Option<Released>,
}

/// Names a response: 32 hex digits.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct ResponseId(pub String);

/// That a response was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// When.
    #[schemars(with = "Time")]
    pub at: Timestamp,
    /// By whom.
    pub by: String,
}

/// Which containers may not start on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartGate {
    /// Whether a container is stopped, or it is only told.
    pub mode: Mode,
    /// Images that may not start.
    #[serde(default)]
    pub denied: Vec<DeniedImage>,
    /// Whether an image that is in neither list may not start either: nobody judged it.
    #[serde(default)]
    pub refuses_unknown: bool,
    /// Images of the node that may start, by the digests that its runtimes know them by; listed
    /// where [`Self::refuses_unknown`].
    #[serde(default)]
    pub allowed: Vec<Digest>,
}

/// An image that may not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedImage {
    /// A digest that the node's runtimes know it by: of an index, a manifest or a config. An image
    /// has an entry for each.
    pub digest: Digest,
    /// The verdict.
    pub decision: Decision,
    /// The policy's reason, for the node's log.
    #[serde(default)]
    pub reason: String,
}

/// A value of [`crate::event::NODES`] by [`Desired::key`]: the bytes of a [`Desired`] as they were
/// signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedDesired {
    /// A [`Desired`] as JSON.
    pub document: String,
    /// Over the document.
    pub signature: Signature,
}

/// What an agent knows when it opens a document.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Its tenant.
    pub tenant: &'a Slug,
    /// Its node.
    pub node: &'a Slug,
    /// The last document that it took, kept over its restarts.
    pub seen: Option<Seen>,
    /// The keys in its configuration.
    pub keys: &'a [VerifyingKey],
    /// The time.
    pub now: Timestamp,
}

/// A document that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its generation.
    pub generation: u64,
    /// The digest of its bytes: two documents of one generation are not the same.
    pub document: Digest,
}

/// Why an agent does not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The document is larger than one may be.
    #[error(
        "the document has {bytes} bytes, at most {} are read",
        Desired::BYTES_MAX
    )]
    TooLarge {
        /// How large.
        bytes: u64,
    },
    /// The signature does not fit the document.
    #[error("the document is forged: {why}")]
    Forged {
        /// How that shows.
        why: String,
    },
    /// It is signed with a key that is not in the agent's configuration.
    #[error("the document is signed by `{key}`, which is not trusted here")]
    Untrusted {
        /// The key.
        #[schemars(with = "String")]
        key: VerifyingKey,
    },
    /// What is signed is no desired state.
    #[error("the document cannot be read: {why}")]
    Malformed {
        /// Why.
        why: String,
    },
    /// It is for another node.
    #[error("the document is for node `{node}` of `{tenant}`")]
    OtherNode {
        /// Whose.
        tenant: Slug,
        /// Which.
        node: Slug,
    },
    /// It is older than one that was taken, or another one of the same generation.
    #[error("the document has generation {generation}, {seen} was taken already")]
    Replayed {
        /// Its generation.
        generation: u64,
        /// That of the last one.
        seen: u64,
    },
    /// It, or the response, is over.
    #[error("it expired at {at}")]
    Expired {
        /// When.
        #[schemars(with = "Time")]
        at: Timestamp,
    },
    /// The container does not run here.
    #[error("the container does not run on this node")]
    NoContainer,
    /// The container was started again since.
    #[error("the container was started again at {started_at}: it is another one")]
    Restarted {
        /// When it was.
        #[schemars(with = "Time")]
        started_at: Timestamp,
    },
    /// The agent's configuration does not let it.
    #[error("the agent's configuration does not allow `{action}`")]
    NotAllowed {
        /// What.
        action: ActionKind,
    },
    /// The node cannot do it.
    #[error("this node cannot `{action}`: {why}")]
    Unable {
        /// What.
        action: ActionKind,
        /// What is missing.
        why: String,
    },
    /// The container is one that nothing is done to: the agent's own, the fabric's, the system's.
    #[error("the container is protected: {why}")]
    Protected {
        /// Why.
        why: String,
    },
}

/// A document cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten {
    /// A node has as many responses as it may.
    #[error(
        "node `{node}` has {count} responses, at most {} may be",
        Desired::RESPONSES_MAX
    )]
    TooMany {
        /// The node.
        node: Slug,
        /// How many.
        count: usize,
    },
    /// The document would be too large.
    #[error(
        "the desired state of node `{node}` takes {bytes} bytes, at most {} may be",
        Desired::BYTES_MAX
    )]
    TooLarge {
        /// The node.
        node: Slug,
        /// How large.
        bytes: usize,
    },
    /// It cannot be put into words.
    #[error("the desired state cannot be written: {0}")]
    Json(String),
}

// === impl Desired ===

impl Desired {
    /// How many responses a node has at most, those that were released included.
    pub const RESPONSES_MAX: usize = 256;
    /// How large the document is at most; a value of a bucket has at most 768 KiB.
    pub const BYTES_MAX: usize = 512 * 1024;

    /// The key of a node's desired state in [`crate::event::NODES`].
    pub fn key(tenant: &Slug, node: &Slug) -> String {
        format!("{tenant}.{node}.desired")
    }

    /// What a node shall do to its containers now: neither released nor over.
    pub fn active(&self, now: Timestamp) -> impl Iterator<Item = &Response> {
        let responses = self.responses.iter();
        responses.filter(move |response| response.is_active(now))
    }
}

// === impl Response ===

impl Response {
    /// Whether it is neither released nor over.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.released.is_none() && now < self.expires_at
    }
}

// === impl ResponseId ===

impl ResponseId {
    /// The id of what is done to a container for an incident. `round` counts how often the same was
    /// released before: what is ordered again is another response.
    pub fn of(
        incident: &str,
        action: ActionKind,
        (container, started_at): (&str, Option<Timestamp>),
        round: u32,
    ) -> Self {
        let started = started_at.map(|at| at.as_nanosecond().to_string());
        let fields = [
            incident,
            action.as_str(),
            container,
            &started.unwrap_or_default(),
            &round.to_string(),
        ];
        Self(Fingerprint::of(&fields).to_string())
    }
}

impl fmt::Display for ResponseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl SignedDesired ===

impl SignedDesired {
    /// Signs what a node shall do.
    pub fn sign(desired: &Desired, key: &SigningKey) -> Result<Self, Unwritten> {
        let (node, count) = (&desired.node, desired.responses.len());
        if count > Desired::RESPONSES_MAX {
            let node = node.clone();
            return Err(Unwritten::TooMany { node, count });
        }
        let document = serde_json::to_string(desired);
        let document = document.map_err(|error| Unwritten::Json(error.to_string()))?;
        if document.len() > Desired::BYTES_MAX {
            return Err(Unwritten::TooLarge {
                node: node.clone(),
                bytes: document.len(),
            });
        }
        Ok(Self {
            signature: key.sign(CONTEXT, document.as_bytes()),
            document,
        })
    }

    /// Reads it as an agent does: if it is signed by a trusted key, for this node, not older than
    /// what was taken, and not over.
    pub fn open(&self, expected: &Expected<'_>) -> Result<Desired, Refusal> {
        let bytes = self.document.len();
        if bytes > Desired::BYTES_MAX {
            let bytes = bytes as u64;
            return Err(Refusal::TooLarge { bytes });
        }
        let desired = self.verified(expected.keys)?;
        if (&desired.tenant, &desired.node) != (expected.tenant, expected.node) {
            let Desired { tenant, node, .. } = desired;
            return Err(Refusal::OtherNode { tenant, node });
        }
        let generation = desired.generation;
        if let Some(seen) = expected.seen
            && (generation < seen.generation
                || (generation == seen.generation && self.digest() != seen.document))
        {
            let seen = seen.generation;
            return Err(Refusal::Replayed { generation, seen });
        }
        let at = desired.expires_at;
        if expected.now >= at {
            return Err(Refusal::Expired { at });
        }
        Ok(desired)
    }

    /// Reads it as who writes the next one does: signed by one of these keys, however old.
    pub fn verified(&self, keys: &[VerifyingKey]) -> Result<Desired, Refusal> {
        let checked = self
            .signature
            .check(CONTEXT, self.document.as_bytes(), (keys, false));
        checked.map_err(|error| match error {
            SignatureError::Untrusted(key) => Refusal::Untrusted { key },
            SignatureError::Form | SignatureError::Wrong(_) => {
                let why = error.to_string();
                Refusal::Forged { why }
            }
        })?;
        serde_json::from_str(&self.document).map_err(|error| {
            let why = error.to_string();
            Refusal::Malformed { why }
        })
    }

    /// What an agent remembers of a document that it took.
    pub fn seen(&self, desired: &Desired) -> Seen {
        Seen {
            generation: desired.generation,
            document: self.digest(),
        }
    }

    fn digest(&self) -> Digest {
        Digest::of(self.document.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn slug(name: &str) -> Slug {
        name.parse().unwrap()
    }

    fn response(container: &str) -> Response {
        Response {
            id: ResponseId::of("i", ActionKind::Pause, (container, None), 0),
            incident: "i".to_owned(),
            action: Action::Pause,
            container: container.to_owned(),
            container_name: "web".to_owned(),
            container_started_at: None,
            mode: Mode::Enforced,
            issued_at: at(100),
            expires_at: at(200),
            approved_by: "alice".to_owned(),
            reason: String::new(),
            released: None,
        }
    }

    fn desired(generation: u64) -> Desired {
        Desired {
            tenant: slug("default"),
            node: slug("node-1"),
            generation,
            issued_at: at(100),
            expires_at: at(1_000),
            responses: vec![response("c1")],
            start_gate: None,
        }
    }

    struct Agent {
        tenant: Slug,
        node: Slug,
        keys: Vec<VerifyingKey>,
        seen: Option<Seen>,
    }

    impl Agent {
        fn open(&self, signed: &SignedDesired, now: i64) -> Result<Desired, Refusal> {
            signed.open(&Expected {
                tenant: &self.tenant,
                node: &self.node,
                seen: self.seen,
                keys: &self.keys,
                now: at(now),
            })
        }
    }

    fn agent(key: &SigningKey) -> Agent {
        Agent {
            tenant: slug("default"),
            node: slug("node-1"),
            keys: vec![key.verifying()],
            seen: None,
        }
    }

    #[test]
    fn what_the_key_signed_for_the_node_is_taken_once_and_again() {
        let key = SigningKey::generate().unwrap();
        let mut agent = agent(&key);
        let signed = SignedDesired::sign(&desired(7), &key).unwrap();
        assert_eq!(agent.open(&signed, 150).unwrap(), desired(7));
        agent.seen = Some(signed.seen(&desired(7)));
        assert_eq!(agent.open(&signed, 150).unwrap(), desired(7));
        let next = SignedDesired::sign(&desired(8), &key).unwrap();
        assert_eq!(agent.open(&next, 150).unwrap(), desired(8));
    }

    #[test]
    fn a_forged_or_foreign_document_is_refused() {
        let key = SigningKey::generate().unwrap();
        let mine = agent(&key);
        let mut forged = SignedDesired::sign(&desired(7), &key).unwrap();
        forged.document = forged.document.replace("c1", "c2");
        let refused = mine.open(&forged, 150).unwrap_err();
        assert!(matches!(refused, Refusal::Forged { .. }), "{refused}");

        let other = SigningKey::generate().unwrap();
        let signed = SignedDesired::sign(&desired(7), &other).unwrap();
        let refused = mine.open(&signed, 150).unwrap_err();
        let key_of_other = other.verifying();
        assert_eq!(refused, Refusal::Untrusted { key: key_of_other });

        // A signature over something else by the right key.
        let mut moved = SignedDesired::sign(&desired(7), &key).unwrap();
        moved.signature = key.sign(b"rules\n", moved.document.as_bytes());
        let refused = mine.open(&moved, 150).unwrap_err();
        assert!(matches!(refused, Refusal::Forged { .. }), "{refused}");

        for (tenant, node) in [("default", "node-2"), ("acme", "node-1")] {
            let elsewhere = Agent {
                tenant: slug(tenant),
                node: slug(node),
                ..agent(&key)
            };
            let signed = SignedDesired::sign(&desired(7), &key).unwrap();
            let refused = elsewhere.open(&signed, 150).unwrap_err();
            assert!(matches!(refused, Refusal::OtherNode { .. }), "{refused}");
        }
    }

    #[test]
    fn an_older_generation_and_another_document_of_the_same_one_are_replayed() {
        let key = SigningKey::generate().unwrap();
        let mut agent = agent(&key);
        let taken = SignedDesired::sign(&desired(7), &key).unwrap();
        agent.seen = Some(taken.seen(&desired(7)));
        let replayed = |generation| Refusal::Replayed {
            generation,
            seen: 7,
        };
        let old = SignedDesired::sign(&desired(6), &key).unwrap();
        assert_eq!(agent.open(&old, 150).unwrap_err(), replayed(6));
        let mut changed = desired(7);
        changed.responses.clear();
        let twin = SignedDesired::sign(&changed, &key).unwrap();
        assert_eq!(agent.open(&twin, 150).unwrap_err(), replayed(7));
    }

    #[test]
    fn a_document_is_over_at_its_time_and_not_before() {
        let key = SigningKey::generate().unwrap();
        let signed = SignedDesired::sign(&desired(7), &key).unwrap();
        assert!(agent(&key).open(&signed, 999).is_ok());
        let refused = agent(&key).open(&signed, 1_000).unwrap_err();
        assert_eq!(refused, Refusal::Expired { at: at(1_000) });
    }

    #[test]
    fn documents_have_a_bound_on_both_sides() {
        let key = SigningKey::generate().unwrap();
        let mut many = desired(1);
        many.responses = (0..Desired::RESPONSES_MAX)
            .map(|number| response(&format!("c{number}")))
            .collect();
        let signed = SignedDesired::sign(&many, &key).unwrap();
        assert!(agent(&key).open(&signed, 150).is_ok());
        many.responses.push(response("one more"));
        let refused = SignedDesired::sign(&many, &key).unwrap_err();
        assert!(matches!(refused, Unwritten::TooMany { count: 257, .. }));

        let mut large = desired(1);
        large.responses[0].reason = "x".repeat(Desired::BYTES_MAX);
        let refused = SignedDesired::sign(&large, &key).unwrap_err();
        assert!(matches!(refused, Unwritten::TooLarge { .. }));
        let document = serde_json::to_string(&large).unwrap();
        let signature = key.sign(CONTEXT, document.as_bytes());
        let signed = SignedDesired {
            document,
            signature,
        };
        let refused = agent(&key).open(&signed, 150).unwrap_err();
        assert!(matches!(refused, Refusal::TooLarge { .. }), "{refused}");
    }

    #[test]
    fn a_response_is_active_until_it_is_over_or_released() {
        let mut one = response("c1");
        assert!(one.is_active(at(199)) && !one.is_active(at(200)));
        one.released = Some(Released {
            at: at(120),
            by: "alice".to_owned(),
        });
        assert!(!one.is_active(at(150)));
    }

    #[test]
    fn an_id_follows_from_what_is_done_to_what() {
        let id = |incident, action, container, start: Option<i64>, round| {
            ResponseId::of(incident, action, (container, start.map(at)), round).to_string()
        };
        let first = id("i", ActionKind::Pause, "c", Some(1), 0);
        assert_eq!(first, id("i", ActionKind::Pause, "c", Some(1), 0));
        for other in [
            id("j", ActionKind::Pause, "c", Some(1), 0),
            id("i", ActionKind::Kill, "c", Some(1), 0),
            id("i", ActionKind::Pause, "d", Some(1), 0),
            id("i", ActionKind::Pause, "c", Some(2), 0),
            id("i", ActionKind::Pause, "c", None, 0),
            id("i", ActionKind::Pause, "c", Some(1), 1),
        ] {
            assert_ne!(first, other);
        }
    }
}
