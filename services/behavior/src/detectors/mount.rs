//! A file system is mounted inside of a container.

use model::{Severity, runtime::RareCall};

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, wire::Call};

pub(super) struct Mount;

static DEFINITION: Definition = Definition {
    rule: "behavior/mount",
    severity: Severity::High,
    advice: "Take CAP_SYS_ADMIN from the container: mounting the host's disk is the short \
        way out.",
    techniques: &[attack::BREAK_OUT],
    looks_at: &[Look::Call],
};

impl Detector for Mount {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn called(&self, call: &Call<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        if call.call != RareCall::Mount || actor.is_preparing() {
            return None;
        }
        let target = call.text.unwrap_or("something");
        let title = format!("{} mounted {target}", actor.name());
        let mut sighting = actor.of_call(format!("mount({target})"), title);
        target.clone_into(&mut sighting.subject);
        Some(sighting)
    }
}
