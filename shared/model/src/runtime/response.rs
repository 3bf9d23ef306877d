//! How the fabric answers an incident: what a node shall do, what it did, and who decided it.
//!
//! The decision that shapes it: a command is **desired state**, one signed document per node
//! ([`SignedDesired`], KV [`crate::event::NODES`]), never a message. The agent compares it with what
//! it holds and makes the two equal; so a command that it missed is not lost, one that it sees twice
//! changes nothing, and taking a response out of the document lifts it. The price is that a node's
//! document has a bound ([`Desired::RESPONSES_MAX`]).
//!
//! ```text
//! incident ─► policy ─► ResponseRecord (tw_responses) ─► SignedDesired (tw_nodes) ─► agent
//!    people ─► ResponseOrdered ──┘   ▲                                                │
//!                                    └────────────── ResponseReported ◄───────────────┘
//!                                    └─► ContainerResponded: the news of it
//! ```
//!
//! A node is where the attacker may be, and the broker may be somebody else's: an agent believes a
//! document only if one of the keys in its own configuration signed it, for this tenant and node,
//! with a generation that is not older than the last one ([`SignedDesired::open`]).

mod action;
mod desired;
mod event;
mod record;
mod release;

pub use self::{
    action::{Action, ActionKind, Mode, Peer, PeerError},
    desired::{
        DeniedImage, Desired, Expected, Refusal, Released, Response, ResponseId, Seen,
        SignedDesired, StartGate, Unwritten,
    },
    event::{
        ContainerResponded, DeniedFile, EvidenceObject, FORENSIC_BYTES_MAX, FORENSIC_OBJECTS,
        Order, Phase, RESPONSES, ResponseOrdered, ResponseReported, forensic_objects,
    },
    record::{
        Approval, Guard, LedgerEntry, ProposedResponse, RESPONSE_RECORDS, ResponseLedger,
        ResponseRecord, Stage, Step,
    },
    release::{ReleaseToken, TokenRefused},
};
