//! Something is to run again and again.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind, wire::FileOpen};

pub(super) struct CronChanged;

static DEFINITION: Definition = Definition {
    rule: "behavior/cron-changed",
    severity: Severity::Medium,
    advice: "Read the entry; compare cron's tables with those of the image.",
    techniques: &[attack::CRON],
    looks_at: &[Look::Start, Look::Open],
};

impl Detector for CronChanged {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let edits = start.name == "crontab" && !start.has_arg(&["-l"]);
        if !edits || start.container.is_beginning(start.at_ns) {
            return None;
        }
        Some(start.sighting(format!("{} changes cron's table", start.by())))
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        let is_table = [
            "etc/cron",
            "var/spool/cron",
            "var/spool/at",
            "etc/anacrontab",
            "etc/systemd/system/",
        ]
        .iter()
        .any(|table| open.path.starts_with(table));
        let by_trade = Kind::PACKAGE_MANAGER.or(Kind::CRON);
        let begins = actor.container.is_beginning(actor.at_ns);
        if !open.write || !is_table || begins || actor.kind().is(by_trade) {
            return None;
        }
        Some(Sighting::of_file(
            open,
            format!("{} writes {}", actor.name(), open.path),
        ))
    }
}
