//! System calls by a ring: who watches system calls sees nothing of what is done through it.

use model::{Severity, runtime::RareCall};

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, wire::Call};

pub(super) struct IoUring;

/// Programs that are known to use it.
const USERS: &[&str] = &[
    "postgres",
    "node",
    "scylla",
    "mysqld",
    "mariadbd",
    "redpanda",
    "ceph-osd",
    "nginx",
    "bun",
    "qemu-system-x86_64",
];

static DEFINITION: Definition = Definition {
    rule: "behavior/io-uring",
    severity: Severity::Low,
    advice: "If the program has no use for it, forbid io_uring by seccomp.",
    techniques: &[attack::IMPAIR_DEFENSES],
    looks_at: &[Look::Call],
};

impl Detector for IoUring {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn called(&self, call: &Call<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        if call.call != RareCall::IoUring || USERS.contains(&actor.name()) {
            return None;
        }
        let title = format!("{} makes system calls through a ring", actor.name());
        Some(actor.of_call("io_uring_setup".to_owned(), title))
    }
}
