//! The flags of `scan`: named as users of other scanners expect, where they mean the same.

use std::{path::PathBuf, str::FromStr, time::Duration};

use analyzers::{Benchmark, PathGlob};
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use model::Severity;
use report::Format;

use super::{PlatformChoice, duration, platform};

/// What stands below the flags.
pub(super) const HELP: &str = "Targets:
  debian:12, registry.example/team/app@sha256:…     a name: Docker, podman and containerd are asked
                                                    for it where they run, then its registry
  registry:NAME, docker://NAME                      the registry only
  docker:NAME:TAG, podman:…, containerd:…           an engine on this machine only
  DIR with a file `oci-layout`, oci:DIR[:TAG]       an OCI image layout
  FILE.tar, FILE.tar.gz, FILE.tgz, FILE.tar.zst     an image in a file, of either kind:
  docker-archive:FILE[:NAME], oci-archive:FILE[:TAG]
  ./DIR, dir:DIR                                    a directory, with its lock files
  rootfs:/                                          a root file system: what is installed in it
  FILE.json, FILE.spdx, FILE.xml, sbom:FILE         a bill of materials: CycloneDX or SPDX
  Dockerfile, Containerfile, app.Dockerfile         how an image will be built

Examples:
  tidewaiter scan debian:12
  tidewaiter scan --severity high,critical --ignore-unfixed debian:12
  tidewaiter scan -o table -o json=report.json registry.example/app:1.0
  tidewaiter scan --fail-on high --platform linux/arm64 registry.example/app:1.0
  tidewaiter scan --policy policy.yaml oci:./build/image
  tidewaiter scan --advisories ./osv debian:12       without a database
  tidewaiter scan --compliance docker-cis registry.example/app:1.0
  tidewaiter scan --secret-baseline known-secrets.yaml registry.example/app:1.0

A secret baseline is a YAML file of accepted secrets, and beside it, as FILE.key, lies the key under which
they have their fingerprints (`tidewaiter secrets key FILE.key`), unless `scanner.secret_key_file` names one.
`tidewaiter secrets baseline` makes such a file of a report:
  secrets:
    - fingerprint: 0123456789abcdef0123456789abcdef   # as --format json has it
      reason: a key of the test bench
      author: ada@example.com
      expires: 2026-12-31

Exit codes: 0 allow or warn, 1 error, 2 deny, 3 incomplete, 4 could not pull or authenticate,
5 timeout, 130 interrupted. Of several targets the worst counts.";

/// Flags of `scan`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag that can be given by itself"
)]
pub(crate) struct ScanArgs {
    /// Images to scan
    #[arg(required = true, value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Output format
    #[arg(long, short, default_value = "table", value_parser = format_parser())]
    pub(crate) format: Format,
    /// Write a format to a file; `FILE` alone gets --format, `FORMAT` alone goes to standard output;
    /// may be repeated
    #[arg(long, short, value_name = "FORMAT=FILE")]
    pub(crate) output: Vec<OutputTo>,
    /// Show only these severities; never changes the verdict
    #[arg(long, short, value_delimiter = ',', value_name = "LEVELS")]
    pub(crate) severity: Vec<Severity>,
    /// Deny what has a vulnerability of this level or above (a word, or 5 to 1)
    #[arg(long, value_name = "LEVEL")]
    pub(crate) fail_on: Option<Severity>,
    /// Show only what has a fix; --fail-on counts nothing else either, the policy's own rules do
    #[arg(long, visible_alias = "only-fixed")]
    pub(crate) ignore_unfixed: bool,
    /// Show what waivers and VEX documents accept, too
    #[arg(long)]
    pub(crate) show_suppressed: bool,
    /// List the licenses of packages, too
    #[arg(long)]
    pub(crate) licenses: bool,
    /// List what layers had and later ones removed or replaced, too
    #[arg(long)]
    pub(crate) removed_packages: bool,
    /// Exit code of a denial, instead of 2
    #[arg(long, value_name = "N", default_value_t = crate::exit::Exit::DENY)]
    pub(crate) exit_code: u8,
    /// Exit with 0 where the verdict is `incomplete`
    #[arg(long)]
    pub(crate) allow_incomplete: bool,
    /// The platform of a multi-platform image, or `all`
    #[arg(long, value_name = "OS/ARCH", value_parser = platform)]
    pub(crate) platform: Option<PlatformChoice>,
    /// Policy file, instead of the built-in policy
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Advisories of these files alone, without the database: directories of OSV records, or zips as
    /// OSV.dev's all.zip; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) advisories: Vec<PathBuf>,
    /// Print which clauses of a benchmark are met instead of the report: docker-cis, nist-800-190
    #[arg(long, value_name = "BENCHMARK")]
    pub(crate) compliance: Option<Benchmark>,
    /// File with secrets that are accepted, each with reason and expiry
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_baseline: Option<PathBuf>,
    /// Look only for these: packages and their vulnerabilities always, and what else is named. What is
    /// not looked for denies nothing
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "KINDS",
        conflicts_with = "compliance"
    )]
    pub(crate) scanners: Vec<Scanners>,
    /// Do not look for malware
    #[arg(long)]
    pub(crate) no_malware: bool,
    /// Directories not to look into, as `usr/share/doc` or `**/node_modules`; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "GLOB")]
    pub(crate) skip_dirs: Vec<PathGlob>,
    /// Files not to look into; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "GLOB")]
    pub(crate) skip_files: Vec<PathGlob>,
    /// Give up after this long, as `5m` or `90s`
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Show no progress
    #[arg(long)]
    pub(crate) no_progress: bool,
    /// Speak plain HTTP with this registry, as `registry.example:5000`; may be repeated
    #[arg(long, value_name = "HOST")]
    pub(crate) plain_http: Vec<String>,
    /// Where layers and advisories are cached, instead of the user's cache directory
    #[arg(long, value_name = "DIR", env = "TIDEWAITER_CACHE_DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

/// What a scan looks for, in the words of other scanners where they have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scanners {
    /// Packages and their vulnerabilities
    Vuln,
    /// Secrets
    Secret,
    /// Rights, accounts and settings that benchmarks refuse
    Misconfig,
    /// Malware
    Malware,
    /// Files that are not as their package brought them
    Integrity,
}

/// Flags of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The image, as `scan` takes it
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The vulnerability, by any of its names
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Advisories of these files alone, without the database; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) advisories: Vec<PathBuf>,
    /// The platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH", value_parser = platform)]
    pub(crate) platform: Option<PlatformChoice>,
    /// Output format
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) format: super::Format,
    /// Give up after this long, as `5m` or `90s`
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Show no progress
    #[arg(long)]
    pub(crate) no_progress: bool,
    /// Speak plain HTTP with this registry, as `registry.example:5000`; may be repeated
    #[arg(long, value_name = "HOST")]
    pub(crate) plain_http: Vec<String>,
    /// Where layers and advisories are cached, instead of the user's cache directory
    #[arg(long, value_name = "DIR", env = "TIDEWAITER_CACHE_DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

/// Where a report goes: `json=report.json`, `json` or `report.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutputTo {
    /// That of `--format` where none is named.
    pub(crate) format: Option<Format>,
    /// Standard output where none is named.
    pub(crate) file: Option<PathBuf>,
}

fn format_parser() -> impl clap::builder::TypedValueParser<Value = Format> {
    let names = Format::ALL.iter().map(|format| format.as_str());
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Format>())
}

// === impl ScanArgs ===

impl ScanArgs {
    /// Whether something is looked for.
    pub(crate) fn looks_for(&self, kind: Scanners) -> bool {
        self.scanners.is_empty() || self.scanners.contains(&kind)
    }
}

// === impl Scanners ===

impl Scanners {
    /// As a person is told what was left out.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Vuln => "vulnerabilities",
            Self::Secret => "secrets",
            Self::Misconfig => "misconfigurations",
            Self::Malware => "malware",
            Self::Integrity => "changed files",
        }
    }
}

// === impl ExplainArgs ===

impl ExplainArgs {
    /// The scan that answers it; what it prints is not a report.
    pub(crate) fn scan(&self) -> ScanArgs {
        ScanArgs {
            targets: vec![self.image.clone()],
            format: Format::Json,
            output: Vec::new(),
            severity: Vec::new(),
            fail_on: None,
            ignore_unfixed: false,
            show_suppressed: false,
            licenses: false,
            exit_code: crate::exit::Exit::DENY,
            allow_incomplete: false,
            platform: self.platform.clone(),
            policy: None,
            compliance: None,
            secret_baseline: None,
            scanners: Vec::new(),
            // Nobody asks for it.
            no_malware: true,
            removed_packages: false,
            advisories: self.advisories.clone(),
            skip_dirs: Vec::new(),
            skip_files: Vec::new(),
            timeout: self.timeout,
            no_progress: self.no_progress,
            plain_http: self.plain_http.clone(),
            cache_dir: self.cache_dir.clone(),
        }
    }
}

// === impl OutputTo ===

impl FromStr for OutputTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it names neither a format nor a file".to_owned());
        }
        let to = |file: &str| (file != "-").then(|| PathBuf::from(file));
        if let Ok(format) = text.parse() {
            return Ok(Self {
                format: Some(format),
                file: None,
            });
        }
        match text.split_once('=') {
            Some((_, "")) => Err("there is no file after `=`".to_owned()),
            Some((name, file)) => match name.parse() {
                Ok(format) => Ok(Self {
                    format: Some(format),
                    file: to(file),
                }),
                // A file may have such a name, but what looks like a format is meant as one.
                Err(error) if !name.contains(['/', '.']) => Err(error.to_string()),
                Err(_) => Ok(Self {
                    format: None,
                    file: to(text),
                }),
            },
            None => Ok(Self {
                format: None,
                file: to(text),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_name_a_format_a_file_or_both() {
        let check = |text: &str, format: Option<Format>, file: Option<&str>| {
            let file = file.map(PathBuf::from);
            assert_eq!(text.parse(), Ok(OutputTo { format, file }), "{text}");
        };
        check("json=a/b.json", Some(Format::Json), Some("a/b.json"));
        check("json", Some(Format::Json), None);
        check("table=-", Some(Format::Table), None);
        check("report.txt", None, Some("report.txt"));
        check("./json", None, Some("./json"));
        check("out/a=b.json", None, Some("out/a=b.json"));
        check("json=a=b", Some(Format::Json), Some("a=b"));
    }

    #[test]
    fn an_unknown_format_is_no_file_name() {
        let wrong = |text: &str| text.parse::<OutputTo>().unwrap_err();
        assert!(wrong("xml=a.xml").contains("`xml` is not a format"));
        assert!(wrong("json=").contains("no file"));
        assert!(wrong("").contains("neither"));
    }
}
