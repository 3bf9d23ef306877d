//! What processes use, as the kernel counts it.

use std::{fmt, path::Path};

use anyhow::Context as _;
use serde::Serialize;

use crate::figures::mib;

/// Ticks per second in `/proc/<pid>/stat`: the same on every Linux that we run on.
const TICKS: f64 = 100.0;

/// A process to watch.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// What it is called in tables.
    pub(crate) label: String,
    /// Its process id.
    pub(crate) id: u32,
}

/// What a process used over some time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Used {
    process: String,
    cpu_s: f64,
    cpu_ms_per_image: f64,
    rss_bytes: u64,
}

/// A table of what processes used.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Usage(Vec<Used>);

/// CPU seconds at a moment, by process.
#[derive(Clone, Debug)]
pub(crate) struct Before(Vec<(Watched, f64)>);

// === impl Before ===

impl Before {
    /// Now.
    pub(crate) fn of(watched: Vec<Watched>) -> anyhow::Result<Self> {
        let cpu = |one: Watched| cpu_s(one.id).map(|cpu| (one, cpu));
        Ok(Self(
            watched
                .into_iter()
                .map(cpu)
                .collect::<anyhow::Result<_>>()?,
        ))
    }

    /// What was used since, with so many images.
    pub(crate) fn until_now(&self, images: usize) -> anyhow::Result<Usage> {
        let used = |(one, before): &(Watched, f64)| {
            let cpu_s = cpu_s(one.id)? - before;
            Ok(Used {
                process: one.label.clone(),
                cpu_s,
                cpu_ms_per_image: cpu_s * 1000.0 / per(images),
                rss_bytes: rss_bytes(one.id)?,
            })
        };
        Ok(Usage(
            self.0.iter().map(used).collect::<anyhow::Result<_>>()?,
        ))
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16} {:>9} {:>12} {:>9}",
            "process", "CPU s", "CPU ms/image", "RSS MiB"
        )?;
        let sum: f64 = self.0.iter().map(|used| used.cpu_s).sum();
        let each: f64 = self.0.iter().map(|used| used.cpu_ms_per_image).sum();
        for used in &self.0 {
            let rss = mib(used.rss_bytes);
            writeln!(
                f,
                "{:<16} {:>9.2} {:>12.3} {rss:>9.1}",
                used.process, used.cpu_s, used.cpu_ms_per_image
            )?;
        }
        writeln!(f, "{:<16} {sum:>9.2} {each:>12.3}", "all")
    }
}

/// The memory that a process has in use.
pub(crate) fn rss_bytes(id: u32) -> anyhow::Result<u64> {
    memory_bytes(id, "VmRSS:")
}

/// The most memory that a process ever had in use.
pub(crate) fn peak_rss_bytes(id: u32) -> anyhow::Result<u64> {
    memory_bytes(id, "VmHWM:")
}

/// A process and those that it started, as far as they run now.
pub(crate) fn family(id: u32) -> Vec<u32> {
    let (mut found, mut at) = (vec![id], 0);
    while let Some(parent) = found.get(at).copied() {
        let children = read(parent, &format!("task/{parent}/children")).unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
        at += 1;
    }
    found
}

fn memory_bytes(id: u32, name: &str) -> anyhow::Result<u64> {
    let status = read(id, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .with_context(|| format!("no {name}"))?;
    Ok(kilobytes.trim().parse::<u64>()? * 1024)
}

/// The processor time that a process has had, user and system.
fn cpu_s(id: u32) -> anyhow::Result<f64> {
    ticks_s(id, 11)
}

/// The processor time that this process's children have had that have ended, and theirs.
pub(crate) fn children_cpu_s() -> anyhow::Result<f64> {
    ticks_s(std::process::id(), 13)
}

/// The sum of two fields of `stat`, counted from behind the name.
fn ticks_s(id: u32, at: usize) -> anyhow::Result<f64> {
    let stat = read(id, "stat")?;
    // The name stands in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in `stat`")?;
    let mut ticks = fields.split_whitespace().skip(at).take(2);
    let mut next = || {
        ticks
            .next()
            .context("`stat` is short")?
            .parse::<f64>()
            .context("no number")
    };
    Ok((next()? + next()?) / TICKS)
}

fn read(id: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{id}/{file}");
    let text = chassis::files::read_text_bounded(Path::new(&path), 1 << 16);
    text.with_context(|| format!("reading `{path}`"))
}

#[expect(clippy::cast_precision_loss, reason = "a number of images")]
fn per(images: usize) -> f64 {
    images.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_spends_time() {
        let id = std::process::id();
        assert!(rss_bytes(id).unwrap() > 1 << 20);
        let before = Before::of(vec![Watched {
            label: "this".to_owned(),
            id,
        }]);
        let used = before.unwrap().until_now(10).unwrap();
        assert!(used.0[0].cpu_s >= 0.0);
        assert!(used.to_string().contains("this"));
    }
}
