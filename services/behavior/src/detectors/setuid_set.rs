//! A program is given the rights of its owner, or capabilities.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, processes::Program, programs::Kind};

pub(super) struct SetuidSet;

/// `u+s`, `+s`, `g+s`, `4755`, `06755`.
fn is_setuid(mode: &str) -> bool {
    let octal = mode.trim_start_matches('0');
    let is_octal = octal.len() == 4 && octal.bytes().all(|b| matches!(b, b'0'..=b'7'));
    if is_octal {
        return matches!(octal.as_bytes().first(), Some(b'2'..=b'7'));
    }
    let symbols = mode.bytes().all(|b| b"ugoa+-=rwxXst,".contains(&b));
    let adds = mode.split(',').any(|part| {
        part.split_once('+')
            .or_else(|| part.split_once('='))
            .is_some_and(|(_, to)| to.contains('s'))
    });
    symbols && adds
}

static DEFINITION: Definition = Definition {
    rule: "behavior/setuid-set",
    severity: Severity::High,
    advice: "Remove the bit; look at the file and at who may run it.",
    techniques: &[attack::SETUID],
    looks_at: &[Look::Start],
};

impl Detector for SetuidSet {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let sets = match start.name {
            "chmod" => start.exec.args.iter().skip(1).any(|arg| is_setuid(arg)),
            "setcap" => !start.has_arg(&["-r", "-v"]),
            _ => false,
        };
        let by_package = |parent: &Program| parent.kind.is(Kind::PACKAGE_MANAGER);
        if !sets || start.parent.is_some_and(by_package) {
            return None;
        }
        let title = format!(
            "{} gives a program more rights with {}",
            start.by(),
            start.name
        );
        Some(start.sighting(title))
    }
}
