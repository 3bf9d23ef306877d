//! agent: what a node holds and what its containers do, told to the fabric; and what the fabric
//! decides about a container, done.
//!
//! It tells two things. The **inventory** ([`inventory`]) is a whole picture of the node: containers,
//! images on disk, the host, and what this agent can see. It is sent at the start, within a second
//! of a change and at least every minute. The **batches** ([`sender`]) hold what processes of
//! containers did since the last one: programs started, connections, watched files, rare system
//! calls. What could not be told is counted per class and container and told instead.
//!
//! ```text
//! kernel (bpf/sensor.bpf.c) ── two ring buffers ──► [`raw`] ► [`pipeline`] ► [`sender`] ► spool ► NATS
//! engines' sockets ───────────────────────────────► [`inventory`] ────────────────┘
//! recorded events ([`replay`]) ───────────────────────────────────► the same batches
//! without BPF: connector, fanotify ──► [`procconn`] ► [`pipeline`], and on as above
//! signed desired state ──► [`response`]: freezer, cgroup BPF, fanotify, engine ──► results ──► spool
//! ```
//!
//! The decision that shapes it: **the kernel side decides whose event it is and carries everything
//! that cannot be had later**: process keys with start times, paths, arguments, where a file's
//! content comes from, what standard input is. So user space keeps no process table that could be
//! wrong, and a process that lives for a millisecond is told of as well as any other. It costs a
//! larger kernel side (one file) and Linux 5.17 with BTF (`bpf_loop`). Only a file's content needs
//! the file: what is not of the image's own layers is hashed once per version, bounded in size and
//! rate, through the process while it lives, or through its container.
//!
//! Nothing is loaded that does not load: every program is tried by itself, and what this node can
//! see is part of its inventory (`sensors`). Where BPF does not load, the process connector tells of
//! programs that start, and fanotify of their files (`procconn`); where that is not there either, the
//! inventory remains. Each says so.
//!
//! Its size is bounded: 12 MiB of ring buffers in the kernel, at most about 16 MiB of maps there,
//! batches of at most 500 events or 700 KB, one of them being made and 64 waiting for the disk, a
//! spool of 256 MiB on disk, and a cache of 16,384 digests. Work that grows with load runs on one
//! thread, so it takes at most one processor, and hashing at most 32 MiB a second of it. Without BPF
//! the kernel keeps messages of 8 MiB, 16,384 files that wait to be read, and as many marks.
//!
//! What only the node has, the fabric reads through it ([`blobs`]): images of its engines, and the
//! host's own package databases as an image of one layer. It looks into none of them. Beside the
//! sizes above that takes disk for at most four images while they are read, and 32 MiB a second.
//!
//! What it does to a container stands in a document that a key of its configuration signed
//! ([`response`]); without such a key it does nothing to anything. What is in force outlives it:
//! pinned in the kernel, or held by a process of its own, the guard. Where it is told an API server
//! of Kubernetes, it takes labels from pods or gives them its mark, and nothing else.
//!
//! Evidence of all nodes shares one room on the fabric, where the oldest goes first. This agent
//! stores so much in an hour and no more, but a broker cannot hold another one to that: who has a
//! node's key can push out what other nodes stored ([`model::runtime::FORENSIC_OBJECTS`]).
//!
//! What it does not do: it judges nothing, and it holds no rights on the fabric but to publish and
//! to read under its own node's name, and to answer what is asked of its node. It sees containers
//! only; a process of the host costs one look-up and is not told of.
//!
//! To add an event: a kind in `bpf/events.h`, a program in `bpf/sensor.bpf.c` with its line in
//! `bpf.rs`, its decoding in `raw.rs`, its `Activity` in `pipeline.rs`.

pub mod config;
pub mod node;

mod batch;
mod blobs;
mod bpf;
mod cgroup;
mod files;
mod inventory;
mod metrics;
mod mounts;
mod pipeline;
mod procconn;
mod raw;
mod replay;
mod response;
mod run;
mod script;
mod sender;
mod sensor;
mod sequence;
mod watch;

pub use self::{
    config::Config,
    inventory::{Held, look_around},
    replay::{Told, replay},
    response::{guard, release},
    run::{run, watch},
    sensor::probe,
};
