//! What is measured: ours, the pipes that everybody can run, other scanners.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use serde_json::Value;

use super::image::{Image, Packing};

/// One way to read an image.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: &'static [(&'static str, &'static str)],
    /// Exit codes that mean that it did its work.
    codes: &'static [i32],
    pub(super) count: Count,
    /// Whether it gets a cache of its own, empty, each time.
    pub(super) is_cold: bool,
}

/// Where an answer counts packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// It has none.
    Nothing,
    /// The length of the list of this name.
    List(&'static str),
    /// The number at this name.
    Number(&'static str),
}

/// Another scanner: its name, its arguments with `{}` for the image, and how to read its answer.
struct Tool {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Whether `{}` is an archive as `docker save` writes it, and not a layout.
    is_archive: bool,
    environment: &'static [(&'static str, &'static str)],
    codes: &'static [i32],
    count: Count,
}

const TOOLS: [Tool; 4] = [
    Tool {
        name: "syft",
        arguments: &["scan", "oci-dir:{}", "--quiet", "--output", "syft-json"],
        is_archive: false,
        environment: &[("SYFT_CHECK_FOR_APP_UPDATE", "false")],
        codes: &[0],
        count: Count::List("/artifacts"),
    },
    Tool {
        name: "trivy",
        arguments: &[
            "image",
            "--input",
            "{}",
            "--quiet",
            "--scanners",
            "license",
            "--list-all-pkgs",
            "--format",
            "cyclonedx",
            "--skip-version-check",
        ],
        is_archive: false,
        environment: &[],
        codes: &[0],
        count: Count::List("/components"),
    },
    Tool {
        name: "grype",
        arguments: &["oci-dir:{}", "--quiet", "--output", "json"],
        is_archive: false,
        environment: &[("GRYPE_CHECK_FOR_APP_UPDATE", "false")],
        codes: &[0],
        count: Count::Nothing,
    },
    Tool {
        name: "osv-scanner",
        arguments: &[
            "scan",
            "image",
            "--offline",
            "--all-packages",
            "--format",
            "json",
            "--archive",
            "{}",
        ],
        is_archive: true,
        environment: &[],
        codes: &[0, 1],
        count: Count::Nothing,
    },
];

/// Everything that can be measured with this image here.
pub(super) fn all(image: &Image, work: &Path, without_tools: bool) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = vec![ours(image)?];
    if let Some(layout) = &image.layout {
        let parts: [(&str, &[&str]); 2] = [
            ("tidewaiter, packages", &["--scanners", "vuln"]),
            ("  and changed files", &["--scanners", "vuln,integrity"]),
        ];
        for (name, flags) in parts {
            subjects.push(ours_of(layout, name, flags)?);
        }
    }
    subjects.extend(pipes(image));
    if let Some(layout) = image.layout.as_ref().filter(|_| !without_tools) {
        for tool in &TOOLS {
            subjects.extend(tool.subject(layout, work)?);
        }
    }
    Ok(subjects)
}

/// The whole command for a layout; the library alone for a single layer.
fn ours(image: &Image) -> anyhow::Result<Subject> {
    if let Some(layout) = &image.layout {
        return ours_of(layout, "tidewaiter scan", &[]);
    }
    let files = image.layers.iter().map(|layer| layer.display().to_string());
    let arguments = std::iter::once("read-once".to_owned()).chain(files);
    Ok(Subject {
        name: "read_layer".to_owned(),
        program: std::env::current_exe().context("finding this program")?,
        arguments: arguments.collect(),
        environment: &[],
        codes: &[0],
        count: Count::Number("/packages"),
        is_cold: false,
    })
}

/// The whole command for a layout, with some flags.
fn ours_of(layout: &Path, name: &str, flags: &[&str]) -> anyhow::Result<Subject> {
    let this = std::env::current_exe().context("finding this program")?;
    let target = format!("oci:{}", layout.display());
    let arguments = ["scan", &target, "--quiet", "--format", "json"];
    let arguments = arguments.iter().chain(flags);
    Ok(Subject {
        name: name.to_owned(),
        program: this.with_file_name("tidewaiter"),
        arguments: arguments.map(|one| (*one).to_owned()).collect(),
        environment: &[],
        // Allowed, denied, incomplete: it was scanned.
        codes: &[0, 2, 3],
        count: Count::List("/packages"),
        is_cold: true,
    })
}

/// What a shell user would call the least: unpack and hash, layer by layer; and unpack alone.
fn pipes(image: &Image) -> Vec<Subject> {
    let unpack = match image.packing {
        Packing::Gzip => "gzip -dc",
        Packing::Zstd => "zstd -dc",
        Packing::Plain => "cat",
    };
    let pipe = |rest: &str| Subject {
        name: format!("{unpack} {rest}"),
        program: PathBuf::from("sh"),
        arguments: [
            "-c",
            &format!("for f; do {unpack} \"$f\" {rest}; done"),
            "sh",
        ]
        .into_iter()
        .map(ToOwned::to_owned)
        .chain(image.layers.iter().map(|layer| layer.display().to_string()))
        .collect(),
        environment: &[],
        codes: &[0],
        count: Count::Nothing,
        is_cold: false,
    };
    vec![pipe("| sha256sum"), pipe(">/dev/null")]
}

fn is_on_path(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$1\"", "sh", program])
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

// === impl Tool ===

impl Tool {
    fn subject(&self, layout: &Path, work: &Path) -> anyhow::Result<Option<Subject>> {
        if !is_on_path(self.name) {
            return Ok(None);
        }
        let image = if self.is_archive {
            let Some(archive) = archive(layout, work)? else {
                crate::say(&format!("{} needs skopeo, which is not here", self.name));
                return Ok(None);
            };
            archive
        } else {
            layout.to_owned()
        };
        let image = image.display().to_string();
        let arguments = self.arguments.iter().map(|one| one.replace("{}", &image));
        Ok(Some(Subject {
            name: self.name.to_owned(),
            program: PathBuf::from(self.name),
            arguments: arguments.collect(),
            environment: self.environment,
            codes: self.codes,
            count: self.count,
            is_cold: false,
        }))
    }
}

/// The layout as an archive, for who reads nothing else.
fn archive(layout: &Path, work: &Path) -> anyhow::Result<Option<PathBuf>> {
    if !is_on_path("skopeo") {
        return Ok(None);
    }
    let file = work.join("image.tar");
    if file.exists() {
        std::fs::remove_file(&file)?;
    }
    let status = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy"])
        .arg(format!("oci:{}", layout.display()))
        .arg(format!("docker-archive:{}:measured:1", file.display()))
        .status()
        .context("starting skopeo")?;
    anyhow::ensure!(
        status.success(),
        "skopeo could not make an archive: {status}"
    );
    Ok(Some(file))
}

// === impl Subject ===

impl Subject {
    /// The command, with what stands in for a user's home.
    pub(super) fn command(&self, work: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().copied());
        command.stderr(Stdio::null());
        if self.is_cold {
            let cache = work.join("cache");
            if cache.exists() {
                std::fs::remove_dir_all(&cache)?;
            }
            command.arg("--cache-dir").arg(cache);
        }
        Ok(command)
    }

    /// Whether a run with this exit code did its work.
    pub(super) fn is_done(&self, code: Option<i32>) -> bool {
        code.is_some_and(|code| self.codes.contains(&code))
    }
}

// === impl Count ===

impl Count {
    /// How many packages an answer has.
    pub(super) fn of(self, answer: &[u8]) -> Option<u64> {
        let pointer = match self {
            Self::Nothing => return None,
            Self::List(pointer) | Self::Number(pointer) => pointer,
        };
        let answer: Value = serde_json::from_slice(answer).ok()?;
        let found = answer.pointer(pointer)?;
        match self {
            Self::List(_) => found.as_array().map(|list| list.len() as u64),
            _ => found.as_u64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_counted_where_an_answer_has_them() {
        assert_eq!(Count::List("/a/b").of(br#"{"a": {"b": [1, 2]}}"#), Some(2));
        assert_eq!(Count::Number("/n").of(br#"{"n": 7}"#), Some(7));
        assert_eq!(Count::List("/a").of(b"not JSON"), None);
        assert_eq!(Count::Nothing.of(b"{}"), None);
    }
}
