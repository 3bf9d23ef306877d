//! Password hashes, keys and credentials of clouds, read by who does not check passwords.

use model::Severity;

use super::{Actor, Definition, Detector, Look, Sighting};
use crate::{attack, programs::Kind, wire::FileOpen};

pub(super) struct SensitiveFile;

const KEYS: &[&str] = &[
    ".ssh/id_",
    ".aws/credentials",
    ".kube/config",
    ".docker/config.json",
    ".config/gcloud/",
    ".azure/",
    ".git-credentials",
    ".netrc",
    ".pgpass",
    "proc/1/environ",
    "etc/kubernetes/pki/",
    "etc/ssh/ssh_host_",
];

static DEFINITION: Definition = Definition {
    rule: "behavior/sensitive-file",
    severity: Severity::High,
    advice: "Exchange what was read. Find out why this program reads it.",
    techniques: &[attack::SHADOW, attack::CREDENTIALS_IN_FILES],
    looks_at: &[Look::Open],
};

impl Detector for SensitiveFile {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn opened(&self, open: &FileOpen<'_>, actor: &Actor<'_>) -> Option<Sighting> {
        if open.write {
            return None;
        }
        let is_hash = matches!(
            open.path,
            "etc/shadow" | "etc/shadow-" | "etc/gshadow" | "etc/master.passwd" | "etc/sudoers"
        );
        let by_trade = Kind::LOGIN.or(Kind::PACKAGE_MANAGER).or(Kind::CRON);
        let is_key = KEYS.iter().any(|key| open.path.contains(key)) && !open.path.ends_with("pub");
        // Its own clients read them; what prints and copies does not need them.
        let prints = Kind::READER
            .or(Kind::SHELL)
            .or(Kind::SEARCHER)
            .or(Kind::NETCAT);
        let takes_hash = is_hash && !actor.kind().is(by_trade);
        let takes_key = is_key && actor.kind().is(prints);
        if !takes_hash && !takes_key {
            return None;
        }
        Some(Sighting::of_file(
            open,
            format!("{} read {}", actor.name(), open.path),
        ))
    }
}
