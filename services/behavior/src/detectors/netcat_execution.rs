//! Netcat that gives a program to a connection, or waits for one.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct NetcatExecution;

const GIVES: &[&str] = &["-e", "-c", "--exec", "--sh-exec", "--lua-exec"];

/// `-l` alone or among other letters, as in `-lvp`.
fn is_listen(arg: &str) -> bool {
    let letters = arg.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
    arg == "--listen" || letters.is_some_and(|letters| letters.contains('l') && letters.len() < 6)
}

static DEFINITION: Definition = Definition {
    rule: "behavior/netcat-execution",
    severity: Severity::Critical,
    advice: "Take the container off the network and find out who started netcat; images of \
        services seldom need it.",
    techniques: &[attack::COMMAND_INTERPRETER, attack::PROTOCOL],
    looks_at: &[Look::Start],
};

impl Detector for NetcatExecution {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        if !start.kind.is(Kind::NETCAT) {
            return None;
        }
        let (name, by) = (start.name, start.by());
        let gives = start.has_arg(GIVES) || start.says(&["EXEC:", "SYSTEM:", "exec:", "system:"]);
        if gives {
            let title = format!("{name}, started by {by}, gives a program to a connection");
            return Some(start.sighting(title));
        }
        let mut flags = start.exec.args.iter().skip(1);
        let waits = flags.any(|arg| is_listen(arg)) || start.says(&["-LISTEN", "-listen"]);
        let title = format!("{name}, started by {by}, waits for connections");
        waits.then(|| start.sighting(title).with_severity(Severity::High))
    }
}
