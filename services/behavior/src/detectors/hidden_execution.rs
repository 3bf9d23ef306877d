//! A program with a hidden name, where everybody may write.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::attack;

pub(super) struct HiddenExecution;

const OPEN_TO_ALL: &[&str] = &["tmp/", "var/tmp/", "dev/shm/", "run/lock/"];

static DEFINITION: Definition = Definition {
    rule: "behavior/hidden-execution",
    severity: Severity::Medium,
    advice: "Look at the file and at who wrote it.",
    techniques: &[attack::HIDDEN],
    looks_at: &[Look::Start],
};

impl Detector for HiddenExecution {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let script = start.exec.script.as_ref().map(|script| script.path);
        let mut paths = [Some(start.exec.file.path), script].into_iter().flatten();
        let path = paths.find(|path| {
            OPEN_TO_ALL.iter().any(|dir| path.starts_with(dir)) && path.contains("/.")
        })?;
        let title = format!("{} ran {path}, whose name is hidden", start.by());
        let mut sighting = start.sighting(title);
        path.clone_into(&mut sighting.subject);
        Some(sighting)
    }
}
