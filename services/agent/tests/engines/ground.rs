//! What tests that start real containers stand on, whichever engine starts them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(40);

/// Whether containers can be started here; otherwise it says why not on standard output.
pub(crate) fn is_possible(programs: &[&str]) -> bool {
    let is_root =
        fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !is_root {
        println!("skipped: containers are started as root only");
        return false;
    }
    let is_missing = |program: &&&str| {
        let found = Command::new(program).arg("--version").output();
        !found.is_ok_and(|output| output.status.success())
    };
    let missing = programs.iter().find(is_missing);
    if let Some(program) = missing {
        println!("skipped: there is no {program}");
    }
    missing.is_none()
}

/// Copies programs of this machine with their libraries, and makes a tar file of them.
pub(crate) fn copied(programs: &[&str], folders: &[&str], root: &Path) -> PathBuf {
    for program in programs {
        copy(program, root);
        let listed = Command::new("ldd").arg(program).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let words = listed.split_whitespace();
        for library in words.filter(|word| word.starts_with('/')) {
            copy(library, root);
        }
    }
    for folder in folders {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let tar = root.with_extension("tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(root)
        .arg("-cf")
        .arg(&tar)
        .arg("."));
    tar
}

fn copy(path: &str, root: &Path) {
    let target = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::copy(path, target).unwrap();
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}

/// Waits until there is a value, and not for ever.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
