//! What the process itself takes, as the kernel counts it, under the names of OpenTelemetry's
//! conventions for processes. Asked for when somebody reads the metrics.

use std::{fs, path::Path, time::Instant};

use opentelemetry::{KeyValue, metrics::Meter};

use crate::files;

/// Seconds on processors, by `cpu.mode`.
const CPU_TIME: &str = "process.cpu.time";
/// Bytes of memory that are in use and not swapped out.
const MEMORY: &str = "process.memory.usage";
/// Open files and sockets.
const FILES: &str = "process.unix.file_descriptor.count";
/// Threads.
const THREADS: &str = "process.thread.count";
/// Seconds since the start.
const UPTIME: &str = "process.uptime";

const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The unit of times in `/proc`, fixed by the kernel's interface whatever its own clock is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Shows from now on what this process takes. The meter keeps what it asks, and the instruments
/// themselves are of no further use.
pub(super) fn watch(meter: &Meter) {
    let _cpu = meter
        .f64_observable_counter(CPU_TIME)
        .with_unit("s")
        .with_description("Time on processors")
        .with_callback(|counter| {
            let times = read("stat").and_then(|text| cpu_times(&text));
            for (mode, seconds) in times.into_iter().flatten() {
                counter.observe(seconds, &[KeyValue::new("cpu.mode", mode)]);
            }
        })
        .build();
    let gauge = |name, unit, meaning, ask: fn() -> Option<i64>| {
        let _gauge = meter
            .i64_observable_up_down_counter(name)
            .with_unit(unit)
            .with_description(meaning)
            .with_callback(move |gauge| {
                if let Some(value) = ask() {
                    gauge.observe(value, &[]);
                }
            })
            .build();
    };
    gauge(MEMORY, "By", "Memory in use", || {
        Some(field(&read("status")?, "VmRSS:")? * 1024)
    });
    gauge(THREADS, "{thread}", "Threads", || {
        field(&read("status")?, "Threads:")
    });
    gauge(FILES, "{file_descriptor}", "Open files and sockets", || {
        i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
    });
    let start = Instant::now();
    let _uptime = meter
        .f64_observable_gauge(UPTIME)
        .with_unit("s")
        .with_description("Time since the start")
        .with_callback(move |gauge| gauge.observe(start.elapsed().as_secs_f64(), &[]))
        .build();
}

fn read(name: &str) -> Option<String> {
    let path = Path::new("/proc/self").join(name);
    files::read_text_bounded(&path, FILE_BYTES_MAX).ok()
}

/// A number of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The two times of `/proc/self/stat`. The second field is the program's name, which may hold
/// spaces and parentheses.
fn cpu_times(stat: &str) -> Option<[(&'static str, f64); 2]> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut ticks = rest.split_whitespace().skip(11);
    let mut seconds = || Some(ticks.next()?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    Some([("user", seconds()?), ("system", seconds()?)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "1 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 125 0 0 20 0 9 0 100 1 2";
        let times = cpu_times(stat);
        assert_eq!(times, Some([("user", 2.5), ("system", 1.25)]));
        assert_eq!(cpu_times("1 (cut off"), None);
    }

    #[test]
    fn fields_are_found_by_name() {
        let status = "Name:\tx\nVmRSS:\t   2048 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(2048));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(field(status, "VmSwap:"), None);
    }
}
