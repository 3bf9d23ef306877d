//! podman with a store of its own, whose containers end with it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use testkit::TempDir;

use crate::fabric::PATIENCE;

/// Limits that may be set without the right to raise them.
const LIMITS: &[&str] = &[
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=2048:2048",
];

pub(super) struct Podman {
    dir: TempDir,
    service: Child,
}

// === impl Podman ===

impl Podman {
    /// `None`, and why on standard output, where there is no podman to test with.
    pub(super) fn start() -> Option<Self> {
        if !super::are_here(&["podman", "runc"]) {
            return None;
        }
        let dir = testkit::temp_dir();
        let service = podman(dir.path())
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", socket(dir.path()).display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("podman starts");
        let podman = Self { dir, service };
        let started = Instant::now();
        while !podman.socket().exists() {
            assert!(
                started.elapsed() < PATIENCE,
                "podman's service is not there"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(podman)
    }

    pub(super) fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    /// A command that must succeed; returns what it prints.
    pub(super) fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "podman {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Starts a container; returns its id.
    pub(super) fn container(
        &self,
        name: &str,
        options: &[&str],
        image: &str,
        command: &[&str],
    ) -> String {
        let mut arguments = vec!["run", "--detach", "--network", "none", "--name", name];
        arguments.extend(LIMITS);
        arguments.extend(options);
        arguments.push(image);
        arguments.extend(command);
        self.run(&arguments)
    }

    /// Runs a line of a shell in a container, whatever becomes of it.
    pub(super) fn exec(&self, name: &str, line: &str) {
        drop(self.try_run(&["exec", name, "/bin/sh", "-c", line]));
    }

    pub(super) fn try_run(&self, arguments: &[&str]) -> Output {
        let mut command = podman(self.dir.path());
        command.args(arguments).output().expect("podman runs")
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        drop(self.try_run(&["rm", "--all", "--force", "--time", "0"]));
        drop(self.service.kill());
        drop(self.service.wait());
        // Where nothing is mounted any more, the folder can go.
        drop(self.try_run(&["system", "reset", "--force"]));
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("podman.sock")
}

/// runc takes cgroups as they come; crun wants those of v2 alone. Everything is in a folder of its
/// own: a `system reset` takes what podman knows of running containers along, and would take that of
/// other tests. Paths of sockets are short, so its name is.
fn podman(dir: &Path) -> Command {
    let mut command = Command::new("podman");
    command.args(["--runtime", "runc", "--root"]);
    command.arg(dir.join("store"));
    command.arg("--runroot").arg(dir.join("run"));
    command.arg("--tmpdir").arg(dir.join("t"));
    command
}
