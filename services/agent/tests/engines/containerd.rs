//! containerd of a test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::ground::{self, copied, wait};

pub(crate) const IMAGE: &str = "localhost/containerd-test:1";

/// containerd with everything of its own, whose containers end with it.
pub(crate) struct Containerd {
    dir: tempfile::TempDir,
    namespace: &'static str,
    server: Child,
}

// === impl Containerd ===

impl Containerd {
    /// With an image of programs of this machine; `None`, and why on standard output, where there is
    /// none to test with.
    pub(crate) fn start(namespace: &'static str, programs: &[&str]) -> Option<Self> {
        if !ground::is_possible(&["containerd", "ctr", "runc", "podman"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\n  address = \"{0}/containerd.sock\"\n",
            dir.path().display()
        );
        let file = dir.path().join("config.toml");
        fs::write(&file, config).unwrap();
        let server = Command::new("containerd")
            .arg("--config")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let containerd = Self {
            dir,
            namespace,
            server,
        };
        wait("containerd", || containerd.try_run(&["version"]).ok());
        containerd.import(programs);
        Some(containerd)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("containerd.sock")
    }

    fn import(&self, programs: &[&str]) {
        let root = self.dir.path().join("image");
        let folders = ["proc", "sys", "dev", "tmp", "shared"];
        let tar = copied(programs, &folders, &root).display().to_string();
        let archive = self.dir.path().join("image.tar").display().to_string();
        let podman = |arguments: &[&str]| {
            let mut command = Command::new("podman");
            command.arg("--root").arg(self.dir.path().join("store"));
            command.arg("--runroot").arg(self.dir.path().join("run"));
            // A `reset` takes what podman knows along, and would take that of another test.
            command.arg("--tmpdir").arg(self.dir.path().join("t"));
            ground::run(command.args(arguments));
        };
        podman(&["import", "--quiet", &tar, IMAGE]);
        let save = ["save", "--quiet", "--format", "oci-archive", "-o", &archive];
        podman(&[&save[..], &[IMAGE]].concat());
        podman(&["system", "reset", "--force"]);
        self.run(&["images", "import", &archive]);
    }

    /// Starts a container of the image.
    pub(crate) fn container(&self, id: &str, options: &[&str], command: &[&str]) {
        let run = ["run", "--detach", "--null-io", "--snapshotter", "native"];
        self.run(&[&run[..], options, &[IMAGE, id], command].concat());
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments)
            .unwrap_or_else(|error| panic!("ctr {arguments:?}: {error}"))
    }

    pub(crate) fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket());
        command
            .args(["--namespace", self.namespace])
            .args(arguments);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// The cgroup of v2 of a container.
    pub(crate) fn cgroup(&self, id: &str) -> Option<PathBuf> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let dirs = roots.map(|root| root.join(self.namespace).join(id));
        dirs.into_iter()
            .find(|dir| dir.join("cgroup.events").exists())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let ids = |of: &str| self.try_run(&[of, "ls", "-q"]).unwrap_or_default();
        for id in ids("tasks").lines() {
            if let Some(dir) = self.cgroup(id) {
                // What stands still does not end.
                drop(fs::write(dir.join("cgroup.freeze"), "0"));
            }
            drop(self.try_run(&["tasks", "kill", "--signal", "9", id]));
            let gone = || self.try_run(&["tasks", "rm", id]).is_ok();
            let started = Instant::now();
            while !gone() && started.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        for id in ids("containers").lines() {
            drop(self.try_run(&["containers", "rm", id]));
        }
        drop(self.server.kill());
        drop(self.server.wait());
        // What runc leaves of them, in each tree; those that others use are not empty.
        let trees = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
        for tree in trees.flatten() {
            drop(fs::remove_dir(tree.path().join(self.namespace)));
        }
    }
}
