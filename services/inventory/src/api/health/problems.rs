//! What of an installation's state needs somebody's attention.

use model::{ProcessRecord, QueueState};

use super::{Health, SourceHealth};

/// How long a message may wait before somebody should look.
const AGE_SECONDS_MAX: u64 = 15 * 60;
/// The same for work that gives way to all other.
const LOW_AGE_SECONDS_MAX: u64 = 24 * 60 * 60;
const LOW: &str = "image_low";
/// How old advisory data may be: most feeds change daily.
const DATA_AGE_SECONDS_MAX: i64 = 3 * 24 * 60 * 60;
/// From this share of its room on, a spool is said to fill; at all of it, senders are refused.
const SPOOL_PERCENT: u64 = 80;

/// Says what is wrong, the gravest first.
pub(super) fn find(health: &Health, problems: &mut Vec<String>) {
    for (role, processes) in &health.roles {
        if *processes == 0 {
            problems.push(format!("no process runs the role `{role}`"));
        }
    }
    for process in &health.processes {
        of_process(process, problems);
    }
    problems.extend(health.queues.iter().filter_map(of_queue));
    match health.dead_letters {
        None | Some(0) => {}
        Some(1) => problems.push("there is a dead letter: `tidewaiter dlq list`".to_owned()),
        Some(count) => problems.push(format!(
            "there are {count} dead letters: `tidewaiter dlq list`"
        )),
    }
    let advisories = &health.advisories;
    match advisories.age_seconds {
        _ if advisories.revision == 0 => problems.push(
            "there is no advisory data, so every verdict is incomplete: `tidewaiter db update`"
                .to_owned(),
        ),
        Some(age) if age > DATA_AGE_SECONDS_MAX => {
            let days = age / (24 * 60 * 60);
            problems.push(format!(
                "the oldest advisory data are {days} days old: `tidewaiter db update`"
            ));
        }
        _ => {}
    }
    problems.extend(health.sources.iter().filter_map(of_source));
}

fn of_process(process: &ProcessRecord, problems: &mut Vec<String>) {
    let who = format!("{} on `{}`", process.roles.join(", "), process.host);
    for part in &process.unready {
        problems.push(format!("{who}: `{part}` is not ready"));
    }
    for stream in &process.full {
        problems.push(format!(
            "{who}: the stream of `{stream}` is full, and what is for it waits"
        ));
    }
    if let Some(spool) = process.spool
        && spool.bytes.saturating_mul(100) >= spool.bytes_max.saturating_mul(SPOOL_PERCENT)
    {
        let (events, bytes, max) = (spool.events, spool.bytes, spool.bytes_max);
        problems.push(format!(
            "{who}: the spool holds {events} events in {bytes} of {max} bytes; when it is full, senders are refused"
        ));
    }
    for (name, note) in &process.notes {
        problems.push(format!("{who}: {name}: {note}"));
    }
}

fn of_queue(queue: &QueueState) -> Option<String> {
    let limit = if queue.consumer == LOW {
        LOW_AGE_SECONDS_MAX
    } else {
        AGE_SECONDS_MAX
    };
    let age = queue.oldest_age_seconds.filter(|age| *age > limit)?;
    let messages = queue.pending.saturating_add(queue.in_flight);
    let (stream, consumer, minutes) = (&queue.stream, &queue.consumer, age / 60);
    Some(format!(
        "`{stream}/{consumer}`: the oldest of {messages} messages is there for {minutes} min"
    ))
}

fn of_source(source: &SourceHealth) -> Option<String> {
    let error = source.last_error.as_ref()?;
    Some(format!("source `{}`: {error}", source.source))
}
