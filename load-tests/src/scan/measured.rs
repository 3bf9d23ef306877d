//! One run of one command: how long, how much processor time, how much memory.

use std::{
    fs::File,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::usage;

/// Between two looks at a process's peak memory, which only grows.
const LOOK: Duration = Duration::from_millis(1);

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Once {
    pub(super) wall: Duration,
    /// User and system, of the process and of all that it waited for.
    pub(super) cpu_s: f64,
    /// Of the largest process, for some are started by a script.
    pub(super) peak_rss_bytes: u64,
    pub(super) status: ExitStatus,
}

/// Runs a command to its end; its answer goes to `out` where there is one.
pub(super) fn once(command: &mut Command, out: Option<File>) -> anyhow::Result<Once> {
    let stdout = out.map_or_else(Stdio::null, Stdio::from);
    command.stdin(Stdio::null()).stdout(stdout);
    let before = usage::children_cpu_s()?;
    let start = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let (status, peak_rss_bytes) = watch(&mut child)?;
    Ok(Once {
        wall: start.elapsed(),
        cpu_s: usage::children_cpu_s()? - before,
        peak_rss_bytes,
        status,
    })
}

fn watch(child: &mut Child) -> anyhow::Result<(ExitStatus, u64)> {
    let (id, has_ended) = (child.id(), AtomicBool::new(false));
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut peak = 0;
            while !has_ended.load(Ordering::Acquire) {
                // Before the program is loaded and after it has ended there is nothing to see.
                let family = usage::family(id).into_iter();
                let peaks = family.filter_map(|id| usage::peak_rss_bytes(id).ok());
                peak = peaks.fold(peak, u64::max);
                thread::sleep(LOOK);
            }
            peak
        });
        let status = child.wait();
        has_ended.store(true, Ordering::Release);
        let peak = watching.join().unwrap_or_default();
        Ok((status.context("waiting for the command")?, peak))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_a_time_and_an_answer() {
        let dir = testkit::temp_dir();
        let file = dir.path().join("answer");
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done; echo $i",
        ]);
        let once = once(&mut command, Some(File::create(&file).unwrap())).unwrap();
        assert!(once.status.success() && once.wall > Duration::ZERO && once.cpu_s > 0.0);
        assert_eq!(crate::layout::read(&file, 100).unwrap(), b"100000\n");
    }
}
