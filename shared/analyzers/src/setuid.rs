//! Files that run with the rights of their owner or group.

use archive::{Entry, Limits};
use model::{AnalyzerId, Fingerprint, FoundFinding, Hides, Misconfiguration, Severity};

use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id};

/// The analyzer's name.
pub(crate) const NAME: &str = "setuid";

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const EXECUTABLE: u32 = 0o111;

/// Looks at the mode of each file.
pub(crate) struct Setuid(AnalyzerId);

// === impl Setuid ===

impl Setuid {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id(NAME, 2, config, limits)))
    }
}

impl Analyzer for Setuid {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn hides(&self) -> Hides {
        Hides::Nothing
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        let is_set = entry.mode & (SETUID | SETGID) != 0 && entry.mode & EXECUTABLE != 0;
        if is_set { Wanted::Entry } else { Wanted::No }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            if file.entry.mode & SETUID != 0 {
                found.add_finding(finding("setuid-file", "owner", file.entry.uid, file));
            }
            if file.entry.mode & SETGID != 0 {
                found.add_finding(finding("setgid-file", "group", file.entry.gid, file));
            }
        }
        Ok(())
    }
}

fn finding(id: &str, whose: &str, number: u64, file: &File) -> FoundFinding {
    let path = file.path();
    FoundFinding::Misconfiguration(Misconfiguration {
        id: id.to_owned(),
        title: format!("a file runs with the rights of its {whose}"),
        severity: Severity::Negligible,
        clauses: vec!["CIS Docker 4.8".to_owned()],
        evidence: format!("mode {:04o}, {whose} {number}", file.entry.mode),
        path: Some(path.to_owned()),
        line: None,
        remediation: format!("remove the file, or `chmod a-s /{path}` in the image's build"),
        waived: None,
        fingerprint: Fingerprint::of(&[id, path]),
    })
}
