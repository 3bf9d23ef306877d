//! `status`: how an installation does.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::Context as _;
use model::{CrawlPass, ProcessRecord, QueueState, Slug};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    cli::{Format, StatusArgs},
    client::Client,
    commands::print,
    exit::Exit,
};

const MIB: u64 = 1024 * 1024;

/// `GET /v1/health`, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Health {
    status: String,
    problems: Vec<String>,
    advisories: Advisories,
    queues: Vec<QueueState>,
    dead_letters: Option<u64>,
    stores: Vec<Stored>,
    roles: BTreeMap<String, usize>,
    processes: Vec<ProcessRecord>,
    sources: Vec<Source>,
}

#[derive(Debug, Deserialize)]
struct Advisories {
    revision: u64,
    swept: u64,
    age_seconds: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Stored {
    name: String,
    bytes: u64,
    bytes_max: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Source {
    source: Slug,
    is_looking: bool,
    pass: CrawlPass,
    last_pass: Option<CrawlPass>,
}

pub(crate) async fn run(args: StatusArgs) -> anyhow::Result<Exit> {
    let health = Client::new(&args.server)?
        .get::<Value>("/v1/health", &[])
        .await?;
    let health = health.context("the server has no /v1/health; does it run the inventory role?")?;
    match args.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&health)?))?,
        Format::Table => {
            let health = serde_json::from_value(health).context("reading the server's answer")?;
            print(&page(&health)?)?;
        }
    }
    Ok(Exit::Ok)
}

fn page(health: &Health) -> anyhow::Result<String> {
    let mut text = format!("{}\n", health.status);
    for problem in &health.problems {
        writeln!(text, "  ! {problem}")?;
    }
    let Advisories {
        revision,
        swept,
        age_seconds,
    } = &health.advisories;
    let age = age_seconds.map_or_else(
        || "of unknown age".to_owned(),
        |age| format!("the oldest {} h old", age / 3600),
    );
    writeln!(
        text,
        "\nadvisories   revision {revision}, all images matched with {swept}, {age}"
    )?;
    match health.dead_letters {
        Some(letters) => writeln!(text, "dead letters {letters}")?,
        None => writeln!(text, "dead letters unknown")?,
    }
    for store in &health.stores {
        let max = store
            .bytes_max
            .map_or_else(String::new, |max| format!(" of {}", max / MIB));
        writeln!(text, "{:<12} {}{max} MiB", store.name, store.bytes / MIB)?;
    }
    queues(health, &mut text)?;
    processes(health, &mut text)?;
    sources(health, &mut text)?;
    Ok(text)
}

fn queues(health: &Health, text: &mut String) -> anyhow::Result<()> {
    let busy = health
        .queues
        .iter()
        .filter(|queue| queue.pending + queue.in_flight > 0);
    let mut busy = busy.peekable();
    if busy.peek().is_none() {
        writeln!(text, "\nall {} queues are empty", health.queues.len())?;
        return Ok(());
    }
    writeln!(
        text,
        "\n{:<44} {:>8} {:>8} {:>10}",
        "QUEUE", "WAITING", "IN HAND", "OLDEST"
    )?;
    for queue in busy {
        let name = format!("{}/{}", queue.stream, queue.consumer);
        let age = queue
            .oldest_age_seconds
            .map(|age| format!("{:?}", Duration::from_secs(age)));
        let age = age.unwrap_or_default();
        writeln!(
            text,
            "{name:<44} {:>8} {:>8} {age:>10}",
            queue.pending, queue.in_flight
        )?;
    }
    Ok(())
}

fn processes(health: &Health, text: &mut String) -> anyhow::Result<()> {
    writeln!(
        text,
        "\n{:<20} {:<10} {:<22} ROLES",
        "HOST", "VERSION", "SINCE"
    )?;
    for process in &health.processes {
        let roles = process.roles.join(", ");
        let since = format!("{:.0}", process.started_at);
        writeln!(
            text,
            "{:<20} {:<10} {since:<22} {roles}",
            process.host, process.version
        )?;
        if let Some(spool) = process.spool.filter(|spool| spool.events > 0) {
            let (mib, max) = (spool.bytes / MIB, spool.bytes_max / MIB);
            writeln!(
                text,
                "  spool: {} events wait, {mib} of {max} MiB",
                spool.events
            )?;
        }
    }
    let idle = health
        .roles
        .iter()
        .filter(|(_, processes)| **processes == 0);
    for (role, _) in idle {
        writeln!(text, "{:<20} {:<10} {:<22} {role}", "nowhere", "-", "-")?;
    }
    Ok(())
}

fn sources(health: &Health, text: &mut String) -> anyhow::Result<()> {
    for source in &health.sources {
        let state = if source.is_looking {
            "is looked around in"
        } else {
            "was looked around in"
        };
        let CrawlPass {
            number,
            tags,
            found,
            gone,
            errors,
            ..
        } = &source.pass;
        write!(
            text,
            "\nsource {} {state}: pass {number}, {tags} tags, {found} found, {gone} gone, {errors} errors",
            source.source
        )?;
        let ended = source.last_pass.as_ref().and_then(|pass| pass.ended_at);
        match ended {
            Some(ended) => writeln!(text, "; a pass ended last at {ended:.0}")?,
            None => writeln!(text, "; no pass has ended yet")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_is_wrong_and_what_waits() {
        let health = serde_json::json!({
            "status": "degraded",
            "problems": ["no process runs the role `scanner`"],
            "advisories": { "revision": 7, "swept": 6, "age_seconds": 7200 },
            "queues": [
                { "stream": "JOBS", "consumer": "image_high", "pending": 3, "in_flight": 1, "oldest_age_seconds": 95 },
                { "stream": "JOBS", "consumer": "image_low", "pending": 0, "in_flight": 0 },
            ],
            "dead_letters": 2,
            "stores": [{ "name": "tw_layers", "bytes": 5_000_000, "bytes_max": 1_073_741_824_u64 }],
            "roles": { "gateway": 1, "scanner": 0 },
            "processes": [{
                "id": "x", "roles": ["gateway"], "version": "0.1.0", "host": "node-1",
                "started_at": "2026-03-01T12:00:00Z", "seen_at": "2026-03-01T12:00:05Z",
                "spool": { "events": 4, "bytes": 4096, "bytes_max": 1_048_576 },
            }],
            "sources": [{
                "source": "main", "is_looking": false, "last_pass": null,
                "pass": { "number": 1, "started_at": "2026-03-01T12:00:00Z", "tags": 9 },
            }],
        });
        let text = page(&serde_json::from_value(health).unwrap()).unwrap();
        let expected = "degraded
  ! no process runs the role `scanner`

advisories   revision 7, all images matched with 6, the oldest 2 h old
dead letters 2
tw_layers    4 of 1024 MiB

QUEUE                                         WAITING  IN HAND     OLDEST
JOBS/image_high                                     3        1        95s

HOST                 VERSION    SINCE                  ROLES
node-1               0.1.0      2026-03-01T12:00:00Z   gateway
  spool: 4 events wait, 0 of 1 MiB
nowhere              -          -                      scanner

source main was looked around in: pass 1, 9 tags, 0 found, 0 gone, 0 errors; no pass has ended yet
";
        assert_eq!(text, expected);
    }
}
