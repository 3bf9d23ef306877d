//! What shells and the system run when they start.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, programs::Kind, wire::FileOpen};

pub(super) struct StartupChanged;

const FILES: &[&str] = &[
    ".bashrc",
    ".bash_profile",
    ".profile",
    ".zshrc",
    ".bash_logout",
    "rc.local",
    "bash.bashrc",
];
const DIRS: &[&str] = &[
    "etc/profile",
    "etc/init.d/",
    "etc/rc.d/",
    "etc/update-motd.d/",
];

static DEFINITION: Definition = Definition {
    rule: "behavior/startup-changed",
    severity: Severity::Medium,
    advice: "Compare the file with the image's.",
    techniques: &[attack::SHELL_STARTUP],
    looks_at: &[Look::Open],
};

impl Detector for StartupChanged {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        let name = open.path.rsplit('/').next()?;
        let is_startup = FILES.contains(&name) || DIRS.iter().any(|dir| open.path.starts_with(dir));
        let begins = actor.container.is_beginning(actor.at_ns);
        if !open.write || !is_startup || begins || actor.kind().is(Kind::PACKAGE_MANAGER) {
            return None;
        }
        Some(Sighting::of_file(
            open,
            format!("{} writes {}", actor.name(), open.path),
        ))
    }
}
