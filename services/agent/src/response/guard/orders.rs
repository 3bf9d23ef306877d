//! What the agent and the guard say to each other: a line of JSON each.

use std::{collections::BTreeSet, path::PathBuf};

use model::Digest;
use serde::{Deserialize, Serialize};

/// The longest line.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// Everything that the guard shall do; what it was told before is void.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// Containers that run nothing but what their image holds.
    pub(crate) blocked: BTreeSet<String>,
    /// Whether containers are held when they start.
    pub(crate) gate: Option<Gate>,
    /// Where the kernel keeps which files were approved.
    pub(crate) approved: Option<PathBuf>,
    /// Containers that were held and may go on, by the ids of their cgroups: one that is started
    /// again has another one.
    pub(crate) passed: BTreeSet<u64>,
}

// === impl Orders ===

impl Orders {
    /// Whether there is anything to do.
    pub(crate) fn is_anything(&self) -> bool {
        !self.blocked.is_empty() || self.gate.is_some()
    }
}

/// Holds containers when they start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gate {
    /// Programs that start containers.
    pub(crate) runtimes: Vec<PathBuf>,
    /// How long a container is held where nobody answers.
    pub(crate) hold_ms: u64,
    /// Whether every container is held, not only those that something is in force for.
    pub(crate) all: bool,
    /// Containers that something is in force for: started again, they are held until it is in force
    /// again, however long that takes.
    pub(crate) kept: BTreeSet<String>,
    /// Of these, such as stand still when they may go on.
    pub(crate) still: BTreeSet<String>,
}

/// What the guard tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// The last orders are in force, as far as `failed` does not say otherwise.
    Ready {
        /// Containers that cannot be guarded, and why.
        failed: Vec<(String, String)>,
    },
    /// Something did not run.
    Denied(Denied),
    /// So often something else did not run, and is not told.
    Missed {
        /// How often.
        count: u64,
    },
    /// A container stands still before its first program.
    Held {
        /// Which.
        container: String,
        /// The id of its cgroup.
        cgroup: u64,
    },
}

/// Something that did not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Denied {
    pub(crate) container: String,
    /// Within the container.
    pub(crate) path: String,
    pub(crate) pid: u32,
    /// `None` where it was not known in time.
    pub(crate) digest: Option<Digest>,
    /// How long the process waited for the answer, microseconds.
    pub(crate) waited_us: u64,
}
