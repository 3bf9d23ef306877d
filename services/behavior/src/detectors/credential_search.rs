//! Somebody looks for keys and passwords.

use model::Severity;

use super::{Definition, Detector, Look, Sighting, Start};
use crate::{attack, programs::Kind};

pub(super) struct CredentialSearch;

const WANTED: &[&str] = &[
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "PRIVATE KEY",
    ".aws/credentials",
    "aws_secret",
    "AWS_SECRET",
    "aws_access_key",
    ".kube/config",
    "kubeconfig",
    ".pem",
    ".kdbx",
    ".docker/config.json",
    "application_default_credentials",
    "azureProfile",
    ".git-credentials",
    ".netrc",
    ".pgpass",
    "password",
    "passwd=",
];

static DEFINITION: Definition = Definition {
    rule: "behavior/credential-search",
    severity: Severity::High,
    advice: "Exchange what lies in the container: what was looked for was found, perhaps.",
    techniques: &[attack::CREDENTIALS_IN_FILES],
    looks_at: &[Look::Start],
};

impl Detector for CredentialSearch {
    fn definition(&self) -> &'static Definition {
        &DEFINITION
    }

    fn started(&self, start: &Start<'_>) -> Option<Sighting> {
        if !start.kind.is(Kind::SEARCHER) || !start.says(WANTED) {
            return None;
        }
        Some(start.sighting(format!("{} looks for keys or passwords", start.name)))
    }
}
