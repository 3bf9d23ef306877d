//! Every check with what it says: as data, so that reports, policies and benchmarks tell the same.

use model::{Fingerprint, Misconfiguration, Severity};

/// A check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) severity: Severity,
    /// Clauses of benchmarks that it is part of.
    pub(crate) clauses: &'static [&'static str],
    pub(crate) remediation: &'static str,
}

const CONFIGURATION: &str = "NIST 800-190 4.1.2";
const CLEAR_TEXT: &str = "NIST 800-190 4.1.4";
const TRUSTED: &str = "NIST 800-190 4.1.5";

/// All checks but those of the analyzer `setuid`.
pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "user-root",
        title: "containers run as root",
        severity: Severity::Medium,
        clauses: &["CIS Docker 4.1", CONFIGURATION],
        remediation: "create a user and end the Dockerfile with `USER` and its number",
    },
    Check {
        id: "no-healthcheck",
        title: "the image has no health check",
        severity: Severity::Low,
        clauses: &["CIS Docker 4.6"],
        remediation: "add a `HEALTHCHECK` instruction",
    },
    Check {
        id: "secret-in-environment",
        title: "the image's environment holds a secret",
        severity: Severity::High,
        clauses: &["CIS Docker 4.10", CLEAR_TEXT],
        remediation: "revoke it, and give it when the container starts",
    },
    Check {
        id: "secret-in-build",
        title: "a build argument, label or instruction holds a secret",
        severity: Severity::High,
        clauses: &["CIS Docker 4.10", CLEAR_TEXT],
        remediation: "revoke it, and use `RUN --mount=type=secret`: arguments stay in the history",
    },
    Check {
        id: "add-remote",
        title: "`ADD` fetches a file from the network",
        severity: Severity::Medium,
        clauses: &["CIS Docker 4.9", TRUSTED],
        remediation: "fetch it with `RUN`, compare its digest, or give `ADD --checksum`",
    },
    Check {
        id: "add-local",
        title: "`ADD` where `COPY` does",
        severity: Severity::Low,
        clauses: &["CIS Docker 4.9"],
        remediation: "use `COPY`: it neither unpacks nor fetches",
    },
    Check {
        id: "package-cache",
        title: "an instruction leaves the package manager's cache",
        severity: Severity::Low,
        clauses: &["CIS Docker 4.3"],
        remediation: "remove the cache in the same instruction, or mount it: `--mount=type=cache`",
    },
    Check {
        id: "update-alone",
        title: "package lists are updated in an instruction of their own",
        severity: Severity::Low,
        clauses: &["CIS Docker 4.7"],
        remediation: "update and install in one instruction: a cached list never changes",
    },
    Check {
        id: "latest-base",
        title: "the base image is not pinned",
        severity: Severity::Medium,
        clauses: &["CIS Docker 4.2", TRUSTED],
        remediation: "name a version, and best a digest, in `FROM`",
    },
    Check {
        id: "world-writable-file",
        title: "everybody may write a file",
        severity: Severity::Medium,
        clauses: &[CONFIGURATION],
        remediation: "take the right away: `chmod o-w`",
    },
    Check {
        id: "world-writable-directory",
        title: "everybody may replace files of a directory",
        severity: Severity::Medium,
        clauses: &[CONFIGURATION],
        remediation: "take the right away: `chmod o-w`, or set the sticky bit: `chmod +t`",
    },
    Check {
        id: "world-writable-build",
        title: "an instruction gives everybody the right to write",
        severity: Severity::Medium,
        clauses: &[CONFIGURATION],
        remediation: "give the rights to the user who needs them: `COPY --chown`, `chmod u+w`",
    },
    Check {
        id: "ssh-server",
        title: "the image has an SSH server",
        severity: Severity::Medium,
        clauses: &["CIS Docker 4.3", CONFIGURATION],
        remediation: "remove it; `docker exec` and `kubectl exec` need none",
    },
    Check {
        id: "sudo-without-password",
        title: "sudo asks for no password",
        severity: Severity::High,
        clauses: &[CONFIGURATION],
        remediation: "remove `NOPASSWD`, or sudo",
    },
    Check {
        id: "empty-password",
        title: "a user has an empty password",
        severity: Severity::High,
        clauses: &[CONFIGURATION],
        remediation: "lock the account: `passwd -l`",
    },
    Check {
        id: "uid-0-duplicate",
        title: "a user beside root has the number 0",
        severity: Severity::High,
        clauses: &[CONFIGURATION],
        remediation: "give the user a number of its own",
    },
    Check {
        id: "pipe-to-shell",
        title: "an instruction runs what it fetches, unseen",
        severity: Severity::High,
        clauses: &["CIS Docker 4.11", TRUSTED],
        remediation: "fetch to a file, compare its digest or signature, then run it",
    },
    Check {
        id: "unsigned-packages",
        title: "packages are installed without their signatures being checked",
        severity: Severity::High,
        clauses: &["CIS Docker 4.11", TRUSTED],
        remediation: "remove the flag, and install the repository's key",
    },
    Check {
        id: "insecure-download",
        title: "an instruction fetches without checking whom it speaks with",
        severity: Severity::High,
        clauses: &["CIS Docker 4.11", TRUSTED],
        remediation: "remove the flag, and install the authority's certificate",
    },
    Check {
        id: "package-manager-left",
        title: "the image has a package manager",
        severity: Severity::Negligible,
        clauses: &["CIS Docker 4.3", CONFIGURATION],
        remediation: "build in a stage of its own, and copy into a minimal base image",
    },
    Check {
        id: "build-tools",
        title: "the image has compilers or build tools",
        severity: Severity::Low,
        clauses: &["CIS Docker 4.3", CONFIGURATION],
        remediation: "build in a stage of its own, and copy what it made",
    },
    Check {
        id: "privileged-port",
        title: "the image listens on a privileged port",
        severity: Severity::Low,
        clauses: &[CONFIGURATION],
        remediation: "listen above 1023, and map the port when the container starts",
    },
    Check {
        id: "end-of-life-os",
        title: "the operating system gets no security updates any more",
        severity: Severity::High,
        clauses: &["CIS Docker 4.4", "NIST 800-190 4.1.1"],
        remediation: "move to a release that gets security updates",
    },
    Check {
        id: "volume-over-system-path",
        title: "a volume covers a directory of the system",
        severity: Severity::Medium,
        clauses: &[CONFIGURATION],
        remediation: "declare volumes for data only",
    },
];

/// Checks of the analyzer `setuid`, which says what they find itself.
pub(crate) const OF_SETUID: &[&str] = &["setuid-file", "setgid-file"];

/// Whether a built-in check has this id.
pub fn is_check(id: &str) -> bool {
    CHECKS.iter().any(|check| check.id == id) || OF_SETUID.contains(&id)
}

/// The finding of a check; `None` for an id that is none.
pub(crate) fn finding(
    id: &str,
    evidence: impl Into<String>,
    path: Option<&str>,
    line: Option<u32>,
) -> Option<Misconfiguration> {
    let check = CHECKS.iter().find(|check| check.id == id)?;
    let evidence = evidence.into();
    // Where there is no path the evidence says which one it is.
    let which = path.unwrap_or(&evidence);
    let place = line.filter(|_| path.is_some()).map(|line| line.to_string());
    let fingerprint = Fingerprint::of(&[id, which, place.as_deref().unwrap_or_default()]);
    Some(Misconfiguration {
        id: check.id.to_owned(),
        title: check.title.to_owned(),
        severity: check.severity,
        clauses: check
            .clauses
            .iter()
            .map(|clause| (*clause).to_owned())
            .collect(),
        evidence,
        path: path.map(ToOwned::to_owned),
        line,
        remediation: check.remediation.to_owned(),
        waived: None,
        fingerprint,
    })
}
