//! A program in shared memory: every process may write there, and nothing of it stays on a disk.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::attack;

pub(super) struct ShmExecution;

static DEFINITION: Definition = Definition {
    rule: "behavior/shm-execution",
    severity: Severity::High,
    advice: "Keep a copy of the file while the process runs, then stop the container.",
    techniques: &[attack::COMMAND_INTERPRETER],
    looks_at: &[Look::Start],
};

impl Detector for ShmExecution {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let script = start.exec.script.as_ref().map(|script| script.path);
        let mut paths = [Some(start.exec.file.path), script].into_iter().flatten();
        let path =
            paths.find(|path| path.starts_with("dev/shm/") || path.starts_with("run/shm/"))?;
        let mut sighting = start.sighting(format!("{} ran {path}, in shared memory", start.by()));
        path.clone_into(&mut sighting.subject);
        Some(sighting)
    }
}
