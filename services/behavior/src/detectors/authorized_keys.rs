//! A key that opens the container, or the host whose directory is mounted, by `ssh`.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, wire::FileOpen};

pub(super) struct AuthorizedKeys;

static DEFINITION: Definition = Definition {
    rule: "behavior/authorized-keys",
    severity: Severity::High,
    advice: "Remove the key that was added; look for logins with it.",
    techniques: &[attack::ACCOUNT_KEYS],
    looks_at: &[Look::Open],
};

impl Detector for AuthorizedKeys {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        let is_keys = open.path.ends_with(".ssh/authorized_keys")
            || open.path.ends_with(".ssh/authorized_keys2");
        if !open.write || !is_keys {
            return None;
        }
        Some(Sighting::of_file(
            open,
            format!("{} writes {}", actor.name(), open.path),
        ))
    }
}
