//! Packages that are installed while the container runs: it is not its image any more.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct PackageManager;

const INSTALLS: &[&str] = &[
    "install",
    "add",
    "upgrade",
    "update",
    "dist-upgrade",
    "full-upgrade",
    "localinstall",
    "reinstall",
    "groupinstall",
    "-i",
    "--install",
    "-U",
    "-S",
    "-Sy",
    "-Syu",
    "ci",
];

static DEFINITION: Definition = Definition {
    rule: "behavior/package-manager",
    severity: Severity::Medium,
    advice: "Install what is needed when the image is built; a container that builds things \
        deserves an exception.",
    techniques: &[attack::DEPLOYMENT_TOOLS, attack::TOOL_TRANSFER],
    looks_at: &[Look::Start],
};

impl Detector for PackageManager {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        let is_manager = start.kind.is(Kind::PACKAGE_MANAGER)
            || (start.kind.is(Kind::INTERPRETER) && start.has_arg(&["pip", "ensurepip"]));
        let installs = start
            .exec
            .args
            .iter()
            .skip(1)
            .any(|arg| INSTALLS.contains(arg));
        // What a package manager starts itself is one piece of work.
        let is_part = start
            .parent
            .is_some_and(|parent| parent.kind.is(Kind::PACKAGE_MANAGER));
        if !is_manager || !installs || is_part {
            return None;
        }
        let (name, by) = (start.name, start.by());
        Some(start.sighting(format!("{by} installs packages with {name}")))
    }
}
