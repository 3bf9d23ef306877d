//! A Dockerfile as a target: what its image will be refused for, before it is built.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use model::{
    Assessment, Digest, Facts, Findings, ImageReport, Platform, Report, RuntimeConfig, Target, Tool,
};

use super::Scanner;

/// Bytes of a Dockerfile.
const BYTES_MAX: u64 = 4 << 20;

/// The Dockerfile that a target means: a file here with such a name.
pub(super) fn file(target: &str) -> Option<PathBuf> {
    let path = Path::new(target.strip_prefix("dockerfile:").unwrap_or(target));
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let is_named = |word: &str| {
        let (before, after) = (format!("{word}."), format!(".{word}"));
        name == word || name.starts_with(&before) || name.ends_with(&after)
    };
    let is_meant =
        target.starts_with("dockerfile:") || is_named("dockerfile") || is_named("containerfile");
    (is_meant && path.is_file()).then(|| path.to_owned())
}

impl Scanner<'_> {
    /// The report of a Dockerfile: it has no layers and no packages, and nothing to compare with
    /// advisories.
    pub(super) async fn dockerfile(&self, target: &str, file: &Path) -> anyhow::Result<Report> {
        let text = chassis::files::read_text_bounded(file, BYTES_MAX);
        let text = text.with_context(|| format!("reading `{}`", file.display()))?;
        let path = file.to_string_lossy();
        let settings = &self.settings.analyzers.secrets;
        let (misconfigurations, secrets) = analyzers::check_dockerfile(&path, &text, settings);
        let digest = Digest::of(text.as_bytes());
        let mut findings = Findings {
            secrets,
            misconfigurations,
            ..Findings::default()
        };
        let mut assessment = Assessment {
            image: digest,
            scan: 0,
            advisories: self.advisories().await?.manifest().stamp(),
            os: None,
            os_ends: None,
            vulnerabilities: Vec::new(),
            gaps: Vec::new(),
        };
        let target = Target {
            reference: target.to_owned(),
            index_digest: None,
            manifest_digest: None,
            image_id: digest,
            platform: Platform::default(),
            created: None,
            os: None,
            layers: Vec::new(),
            config: RuntimeConfig::default(),
        };
        let facts = Facts {
            assessment: &assessment,
            findings: &findings,
            target: &target,
        };
        let now = self.cx.now();
        // No packages need no advisories, of whatever age.
        let judgement = policy::judge(&self.policy, &facts, &[], now, Some(now));
        judgement.complete(&mut assessment.vulnerabilities, &mut findings);
        if let Some(baseline) = &self.baseline {
            baseline.sign(&mut findings.secrets);
        }
        let image = ImageReport {
            image: digest,
            target,
            analyzers: Vec::new(),
            packages: Vec::new(),
            findings,
            gaps: Vec::new(),
        };
        let tool = Tool::tidewaiter(env!("CARGO_PKG_VERSION"));
        Ok(Report::new(image, assessment, judgement.verdict, tool, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_is_known_by_its_name() {
        let dir = testkit::temp_dir();
        let check = |name: &str, prefix: &str, expected: bool| {
            let path = dir.path().join(name);
            std::fs::write(&path, "FROM scratch").unwrap();
            let target = format!("{prefix}{}", path.display());
            assert_eq!(file(&target).is_some(), expected, "{target}");
        };
        for name in [
            "Dockerfile",
            "dockerfile",
            "Dockerfile.dev",
            "app.Dockerfile",
            "Containerfile",
        ] {
            check(name, "", true);
        }
        check("image.tar", "", false);
        check("notes.txt", "", false);
        check("build.txt", "dockerfile:", true);
        assert_eq!(file("Dockerfile.of.nobody"), None);
    }
}
