//! What an agent does to real containers when it is told to: podman's containers on this machine, a
//! real nats-server, the real program. Needs root, podman, runc and nats-server; without them a test
//! says what is missing and passes.
//!
//! A test that hangs must not leave this machine unable to run programs: whatever happens, the guard
//! is ended after some minutes, and with it the kernel takes back what it has asked.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::unused_self,
    reason = "tests that tell a story each, say why they are skipped and what they measured"
)]

mod again;
mod block;
mod containerd;
#[path = "../engines/containerd.rs"]
mod containerd_engine;
mod crash;
#[path = "../engines/podman.rs"]
mod engine;
#[path = "../engines/ground.rs"]
mod ground;
mod measure;
mod network;
mod replace;
mod start_gate;
mod yard;
