//! Benchmarks: their clauses, and whether a report meets each.

use std::{fmt, str::FromStr};

use model::{GapCode, Hides, Report, Severity};

#[cfg(test)]
use super::catalog::CHECKS;

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Benchmark {
    /// CIS Docker Benchmark 1.6, section 4: container images and build files.
    DockerCis,
    /// NIST SP 800-190, section 4.1: countermeasures for images.
    Nist800190,
}

/// Whether a clause is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All of its checks found nothing.
    Pass,
    /// One of its checks found something.
    Fail,
    /// The report cannot tell.
    NotApplicable,
}

/// What a report says of a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The clause's number.
    pub clause: &'static str,
    /// What it asks for.
    pub title: &'static str,
    /// Whether it is met.
    pub status: Status,
    /// What speaks against it, or why it cannot be told.
    pub evidence: Vec<String>,
}

/// What proves a clause, beside the checks that name it.
#[derive(Clone, Copy)]
enum Proof {
    /// Those checks alone.
    Checks,
    /// Those checks, of which some need the image's files.
    ChecksOfFiles,
    /// No vulnerability that has a fix.
    Updates,
    /// No secrets.
    Secrets,
    /// No malware.
    Malware,
    /// It can only fail here: what would make it pass is known elsewhere.
    Partly(&'static str),
    /// Nothing in an image can.
    Elsewhere(&'static str),
}

struct Clause {
    id: &'static str,
    title: &'static str,
    proof: Proof,
}

const DOCKER_CIS: &[Clause] = &[
    Clause {
        id: "4.1",
        title: "A user for the container has been created",
        proof: Proof::Checks,
    },
    Clause {
        id: "4.2",
        title: "Containers use only trusted base images",
        proof: Proof::Partly("which images are trusted is for the policy to say"),
    },
    Clause {
        id: "4.3",
        title: "Unnecessary packages are not installed",
        proof: Proof::ChecksOfFiles,
    },
    Clause {
        id: "4.4",
        title: "Images are scanned and rebuilt to include security patches",
        proof: Proof::Updates,
    },
    Clause {
        id: "4.5",
        title: "Content trust for Docker is enabled",
        proof: Proof::Elsewhere("it is a setting of who pulls"),
    },
    Clause {
        id: "4.6",
        title: "HEALTHCHECK instructions have been added",
        proof: Proof::Checks,
    },
    Clause {
        id: "4.7",
        title: "Update instructions are not used alone",
        proof: Proof::Checks,
    },
    Clause {
        id: "4.8",
        title: "setuid and setgid permissions are removed",
        proof: Proof::ChecksOfFiles,
    },
    Clause {
        id: "4.9",
        title: "COPY is used instead of ADD",
        proof: Proof::Checks,
    },
    Clause {
        id: "4.10",
        title: "Secrets are not stored in Dockerfiles",
        proof: Proof::Secrets,
    },
    Clause {
        id: "4.11",
        title: "Only verified packages are installed",
        proof: Proof::Checks,
    },
    Clause {
        id: "4.12",
        title: "All signed artifacts are validated",
        proof: Proof::Elsewhere("signatures are not looked at"),
    },
];

const NIST_800_190: &[Clause] = &[
    Clause {
        id: "4.1.1",
        title: "Image vulnerabilities",
        proof: Proof::Updates,
    },
    Clause {
        id: "4.1.2",
        title: "Image configuration defects",
        proof: Proof::ChecksOfFiles,
    },
    Clause {
        id: "4.1.3",
        title: "Embedded malware",
        proof: Proof::Malware,
    },
    Clause {
        id: "4.1.4",
        title: "Embedded clear text secrets",
        proof: Proof::Secrets,
    },
    Clause {
        id: "4.1.5",
        title: "Use of untrusted images",
        proof: Proof::Partly("which images are trusted is for the policy to say"),
    },
];

// === impl Benchmark ===

impl Benchmark {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::DockerCis, Self::Nist800190];

    /// As on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DockerCis => "docker-cis",
            Self::Nist800190 => "nist-800-190",
        }
    }

    /// For a heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::DockerCis => "CIS Docker Benchmark 1.6, section 4",
            Self::Nist800190 => "NIST SP 800-190, section 4.1",
        }
    }

    /// What a report says of each clause. What somebody accepted does not speak against one.
    pub fn outcomes(self, report: &Report) -> Vec<Outcome> {
        let (prefix, clauses) = match self {
            Self::DockerCis => ("CIS Docker ", DOCKER_CIS),
            Self::Nist800190 => ("NIST 800-190 ", NIST_800_190),
        };
        clauses
            .iter()
            .map(|clause| clause.outcome(prefix, report))
            .collect()
    }
}

impl fmt::Display for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Benchmark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| format!("`{text}` is not a benchmark: docker-cis, nist-800-190"))
    }
}

// === impl Status ===

impl Status {
    /// For a report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotApplicable => "not applicable",
        }
    }
}

// === impl Clause ===

impl Clause {
    fn outcome(&self, prefix: &str, report: &Report) -> Outcome {
        let name = format!("{prefix}{}", self.id);
        let mut against = of_checks(&name, report);
        let unknown = match self.proof {
            Proof::Checks => config_unknown(report),
            Proof::ChecksOfFiles => files_unknown(report),
            Proof::Updates => {
                against.extend(updates(report));
                updates_unknown(report)
            }
            Proof::Secrets => {
                let secrets = report.secrets.iter().filter(|found| found.waived.is_none());
                against.extend(
                    secrets
                        .map(|found| format!("{} in {}:{}", found.title, found.path, found.line)),
                );
                hidden(report, Hides::Secrets)
            }
            Proof::Malware => {
                let malware = report.malware.iter().filter(|found| found.waived.is_none());
                against.extend(malware.map(|found| format!("{} in {}", found.rule, found.path)));
                malware_unknown(report)
            }
            Proof::Partly(why) | Proof::Elsewhere(why) => Some(why.to_owned()),
        };
        let (status, evidence) = match unknown {
            _ if !against.is_empty() => (Status::Fail, against),
            Some(why) => (Status::NotApplicable, vec![why]),
            None => (Status::Pass, against),
        };
        Outcome {
            clause: self.id,
            title: self.title,
            status,
            evidence,
        }
    }
}

fn of_checks(clause: &str, report: &Report) -> Vec<String> {
    let found = report.misconfigurations.iter();
    let found =
        found.filter(|one| one.waived.is_none() && one.clauses.iter().any(|known| known == clause));
    let text = |one: &model::Misconfiguration| match &one.path {
        Some(path) => format!("{}: {path}, {}", one.id, one.evidence),
        None => format!("{}: {}", one.id, one.evidence),
    };
    found.map(text).collect()
}

/// Vulnerabilities that a rebuild would end, counted.
fn updates(report: &Report) -> Vec<String> {
    let open = report.vulnerabilities.iter().filter(|found| {
        found.waived.is_none() && found.is_fixable() && found.severity >= Severity::High
    });
    let count = open.count();
    let against = (count > 0)
        .then(|| format!("{count} vulnerabilities of severity high or worse have a fix"));
    against.into_iter().collect()
}

fn updates_unknown(report: &Report) -> Option<String> {
    if is_dockerfile(report) {
        return Some("nothing is built yet".to_owned());
    }
    let is_unassessed = |code: GapCode| {
        matches!(
            code,
            GapCode::NoAdvisories | GapCode::UnknownOs | GapCode::StaleAdvisories
        )
    };
    let mut gaps = report.gaps.iter();
    let has_gap = gaps.any(|gap| is_unassessed(gap.code) && gap.hides != Hides::Nothing);
    let has_none = report.advisories.revision == 0 || has_gap;
    has_none
        .then(|| "not all packages could be compared with advisories".to_owned())
        .or_else(|| hidden(report, Hides::Packages))
}

fn malware_unknown(report: &Report) -> Option<String> {
    let is_looked_for = report
        .analyzers
        .iter()
        .any(|analyzer| analyzer.name == "malware");
    if is_looked_for {
        hidden(report, Hides::Malware)
    } else {
        Some("malware was not looked for".to_owned())
    }
}

fn files_unknown(report: &Report) -> Option<String> {
    if is_dockerfile(report) {
        return Some("nothing is built yet".to_owned());
    }
    hidden(report, Hides::Entries)
}

/// A directory is no image: nobody wrote how it is to run, nor how it was built.
fn config_unknown(report: &Report) -> Option<String> {
    let target = &report.target;
    let is_directory = target.manifest_digest.is_none()
        && target.platform.architecture == "unknown"
        && !is_dockerfile(report);
    is_directory.then(|| "a directory has no config and no history".to_owned())
}

fn hidden(report: &Report, what: Hides) -> Option<String> {
    let hides = |hides: Hides| hides == what || hides == Hides::Entries;
    let gap = report.gaps.iter().find(|gap| hides(gap.hides))?;
    Some(format!("a gap may hide something: {}", gap.detail))
}

/// A Dockerfile has no layers.
fn is_dockerfile(report: &Report) -> bool {
    report.target.layers.is_empty()
}

/// Whether a clause is proven by some check.
#[cfg(test)]
pub(super) fn has_check(clause: &str) -> bool {
    let of_setuid = clause == "CIS Docker 4.8";
    of_setuid || CHECKS.iter().any(|check| check.clauses.contains(&clause))
}

/// All clauses that depend on checks.
#[cfg(test)]
pub(super) fn clauses_of_checks() -> Vec<String> {
    let with = |prefix: &'static str, clauses: &'static [Clause]| {
        let of_checks = clauses
            .iter()
            .filter(|clause| !matches!(clause.proof, Proof::Elsewhere(_) | Proof::Malware));
        of_checks.map(move |clause| format!("{prefix}{}", clause.id))
    };
    with("CIS Docker ", DOCKER_CIS)
        .chain(with("NIST 800-190 ", NIST_800_190))
        .collect()
}
