//! A library that every program loads first.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, wire::FileOpen};

pub(super) struct LoaderPreload;

static DEFINITION: Definition = Definition {
    rule: "behavior/loader-preload",
    severity: Severity::High,
    advice: "Look at the library that is named there; remove the line, then restart what \
        runs.",
    techniques: &[attack::LOADER],
    looks_at: &[Look::Open],
};

impl Detector for LoaderPreload {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        if !open.write || open.path != "etc/ld.so.preload" {
            return None;
        }
        Some(Sighting::of_file(
            open,
            format!("{} writes {}", actor.name(), open.path),
        ))
    }
}
