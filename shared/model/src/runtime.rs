//! What nodes tell: the containers and images they hold, and what the containers do.
//!
//! Two messages come from an agent on `tw.evt.<tenant>.runtime.<shard>.<node>`:
//! [`NodeReported`], a whole picture of the node, sent at the start, soon after a change and at
//! least every minute; and [`RuntimeBatch`], what containers did since the batch before. Both carry
//! the node's boot and a sequence, so a copy or a late one is told from news. A third,
//! [`ResponseReported`], answers what the node was told to do.
//!
//! An agent answers, too: what its node holds is read from there ([`NodeQuestion`]).
//!
//! Agents run where an attacker may be: every text here is hostile, and bounded by who decodes it.

mod activity;
mod connections;
mod container;
mod event;
mod files;
mod held;
mod incident;
mod response;
mod sighted;

pub use self::{
    activity::{
        Activity, Drop, Exec, ExecutedFile, FileOpen, Listen, NetworkFlow, Origin, ProcessKey,
        RareCall, RuntimeEvent, Stdio, SyscallMade, Transport,
    },
    connections::{Connections, NodeConnections},
    container::{
        Container, ContainerState, HostFacts, HostRuntime, ImageAtRest, MountPoint, NodeRecord,
        PortMapping, Security, SensorMatrix,
    },
    event::{
        ContainerDetected, ImageSighted, IncidentChanged, NodeReported, RUNTIME, RuntimeBatch,
        Shard,
    },
    files::{LayerFile, LayerFiles},
    held::{
        HOST_REPOSITORY, HOST_RUNTIME, NODE_REGISTRY, NodeAnswer, NodeQuestion, OnNode,
        PART_BYTES_MAX, node_repository, node_subject,
    },
    incident::{
        Detection, DetectionKind, Evidence, Incident, IncidentState, ProcessNode, ProcessSeen,
        Surroundings, Technique,
    },
    response::{
        Action, ActionKind, Approval, ContainerResponded, DeniedFile, DeniedImage, Desired,
        EvidenceObject, Expected, FORENSIC_BYTES_MAX, FORENSIC_OBJECTS, Guard, LedgerEntry, Mode,
        Order, Peer, PeerError, Phase, ProposedResponse, RESPONSE_RECORDS, RESPONSES, Refusal,
        ReleaseToken, Released, Response, ResponseId, ResponseLedger, ResponseOrdered,
        ResponseRecord, ResponseReported, Seen, SignedDesired, Stage, StartGate, Step,
        TokenRefused, Unwritten, forensic_objects,
    },
    sighted::{SightedImages, SightedRecord, Unserved},
};
