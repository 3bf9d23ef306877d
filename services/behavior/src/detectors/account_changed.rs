//! Users are made, passwords are set, or the right to become root is given.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting, Start};
use crate::{attack, processes::Program, programs::Kind, wire::FileOpen};

pub(super) struct AccountChanged;

/// Entry points give an unknown user a name when the container begins.
fn lessened(sighting: Sighting, begins: bool) -> Sighting {
    if begins {
        sighting.with_severity(Severity::Low)
    } else {
        sighting
    }
}

static DEFINITION: Definition = Definition {
    rule: "behavior/account-changed",
    severity: Severity::Medium,
    advice: "Compare `etc/passwd`, `etc/shadow` and `etc/sudoers` with those of the image.",
    techniques: &[attack::ACCOUNT],
    looks_at: &[Look::Start, Look::Open],
};

impl Detector for AccountChanged {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let part = |parent: &Program| parent.kind.is(Kind::PACKAGE_MANAGER);
        if !start.kind.is(Kind::ACCOUNT_TOOL) || start.parent.is_some_and(part) {
            return None;
        }
        let title = format!("{} changes users with {}", start.by(), start.name);
        Some(lessened(
            start.sighting(title),
            start.container.is_beginning(start.at_ns),
        ))
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        let by_trade = Kind::LOGIN.or(Kind::PACKAGE_MANAGER).or(Kind::ACCOUNT_TOOL);
        let is_sudo = open.path == "etc/sudoers" || open.path.starts_with("etc/sudoers.d/");
        let is_users = matches!(open.path, "etc/passwd" | "etc/shadow" | "etc/group");
        if !open.write || !(is_sudo || is_users) || actor.kind().is(by_trade) {
            return None;
        }
        let title = format!("{} writes {}", actor.name(), open.path);
        let sighting = Sighting::of_file(open, title);
        let begins = actor.container.is_beginning(actor.at_ns);
        Some(if is_sudo {
            sighting.with_severity(Severity::High)
        } else {
            lessened(sighting, begins)
        })
    }
}
