//! podman with a store of a test's own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use crate::ground::{copied, wait};

/// What containers without rights to more are let have.
const LIMITS: &[&str] = &[
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=2048:2048",
];

/// podman and its service, whose containers end with it.
///
/// Everything is in a folder of its own: a `system reset` takes what podman knows of running
/// containers along, and would take that of another test.
pub(crate) struct Podman {
    dir: PathBuf,
    service: Child,
}

// === impl Podman ===

impl Podman {
    /// In a folder; there must be podman and runc.
    pub(crate) fn start(dir: &Path) -> Self {
        let service = podman(dir)
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", dir.join("podman.sock").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let podman = Self {
            dir: dir.to_owned(),
            service,
        };
        wait("podman's service", || {
            podman.socket().exists().then_some(())
        });
        podman
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("podman.sock")
    }

    /// Makes an image of programs of this machine; returns the layer that it has.
    pub(crate) fn import(&self, programs: &[&str], folders: &[&str], name: &str) -> PathBuf {
        let tar = copied(programs, folders, &self.dir.join("root"));
        self.run(&["import", "-q", tar.to_str().unwrap(), name]);
        tar
    }

    /// A command that must succeed; returns what it prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "podman {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn try_run(&self, arguments: &[&str]) -> Output {
        podman(&self.dir).args(arguments).output().unwrap()
    }

    /// Starts a container of an image; returns its id.
    pub(crate) fn container(
        &self,
        (name, image): (&str, &str),
        options: &[&str],
        command: &[&str],
    ) -> String {
        let mut arguments = vec!["run", "--detach", "--name", name];
        if !options.contains(&"--network") {
            arguments.extend(["--network", "none"]);
        }
        arguments.extend(LIMITS);
        arguments.extend(options);
        arguments.push(image);
        arguments.extend(command);
        self.run(&arguments)
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

/// runc takes cgroups as they come; crun wants those of v2 alone.
fn podman(dir: &Path) -> Command {
    let mut command = Command::new("podman");
    command
        .args(["--runtime", "runc", "--root"])
        .arg(dir.join("store"));
    command.arg("--runroot").arg(dir.join("run"));
    command.arg("--tmpdir").arg(dir.join("t"));
    command
}
