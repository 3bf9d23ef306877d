//! A user's home, and the binary run in it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use testkit::{Artifact, Image, ImageBuilder, TempDir, debian_layer, python_layer, temp_dir};

/// A home of its own, so that no test sees another's cache or logins.
pub(crate) struct World {
    home: TempDir,
    variables: Vec<(String, String)>,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// An image with a Python package that the advisory of [`World::advisories`] is about.
pub(crate) fn vulnerable() -> Image {
    ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            python_layer(&[("requests", "2.19.1")]).build(),
            "RUN pip install requests",
        )
        .build()
}

// === impl World ===

impl World {
    pub(crate) fn new() -> Self {
        Self {
            home: temp_dir(),
            variables: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file, with the directories above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let parent = path.parent().expect("a file is in a directory");
        std::fs::create_dir_all(parent).expect("the home is writable");
        std::fs::write(&path, content).expect("the home is writable");
        path
    }

    /// The target of [`vulnerable`] as a layout.
    pub(crate) fn layout(&self) -> String {
        let dir = self.path("image");
        Artifact::from(vulnerable()).write_layout(&dir, "latest");
        format!("oci:{}", dir.display())
    }

    /// Imports advisories: a critical one with a fix, for `requests` before 2.20.0, and feeds that
    /// cover Debian and `PyPI` whole.
    pub(crate) fn advisories(&self) {
        let record = |ecosystem: &str, package: &str, id: &str| {
            json!({
                "schema_version": "1.6.0",
                "id": id,
                "modified": "2026-01-01T00:00:00Z",
                "affected": [{
                    "package": {"ecosystem": ecosystem, "name": package},
                    "ranges": [{
                        "type": "ECOSYSTEM",
                        "events": [{"introduced": "0"}, {"fixed": "2.20.0"}],
                    }],
                }],
                "database_specific": {"severity": "CRITICAL"},
            })
        };
        let records = [
            record("PyPI", "requests", "CVE-2018-18074"),
            record("Debian:12", "no-such-package", "CVE-2000-0001"),
        ];
        for record in records {
            let id = record["id"].as_str().expect("it has one").to_owned();
            self.write(&format!("advisories-in/{id}.json"), record.to_string());
        }
        let dir = self.path("advisories-in").display().to_string();
        let ended = self.run(&["db", "import", &dir, "--replace"]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewaiter"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            // What this machine runs is no part of a test.
            .env("DOCKER_HOST", "unix:///none")
            .env("CONTAINER_HOST", "unix:///none")
            .env("CONTAINERD_ADDRESS", "/none")
            .envs(self.variables.iter().cloned())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("tidewaiter starts")
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.start(arguments))
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub(crate) fn stdout(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}\n{}", ended.stderr);
        ended.stdout
    }

    /// Runs a scan, whatever its verdict, and reads its report.
    pub(crate) fn report(&self, arguments: &[&str]) -> Value {
        let scan = [&["scan", "--format", "json"], arguments].concat();
        let ended = self.run(&scan);
        serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{}", ended.stderr))
    }
}

/// Waits for a command.
pub(crate) fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().expect("tidewaiter ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// The names of a report's packages.
pub(crate) fn packages(report: &Value) -> Vec<String> {
    let packages = report["packages"]
        .as_array()
        .expect("a report has packages");
    let name = |package: &Value| package["name"].as_str().expect("it has a name").to_owned();
    packages.iter().map(name).collect()
}

/// The directory's own text for messages.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
