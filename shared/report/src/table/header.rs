//! What was scanned, and with what.

use std::io;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use model::{AdvisoryStamp, Feed, Os, Report};

use super::page::{Page, count};

const FEEDS_SHOWN: usize = 8;

pub(super) fn write(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let target = &report.target;
    let title = format!("{} ({})", target.reference, target.platform);
    page.styled(&title, Style::new().bold())?;
    let digest = target.manifest_digest.unwrap_or(target.image_id);
    let kind = if target.manifest_digest.is_some() {
        "image"
    } else {
        "image id"
    };
    page.line(&format!("{kind} {digest}"))?;
    let parts = [
        target
            .os
            .as_ref()
            .map_or_else(|| "unknown operating system".to_owned(), os_name),
        count(target.layers.len(), "layer", "layers"),
        count(report.packages.len(), "package", "packages"),
    ];
    page.line(&parts.join(" · "))?;
    if target.os.as_ref().is_some_and(|os| os.eol == Some(true)) {
        let warning = "this operating system gets no more security updates";
        page.styled(warning, AnsiColor::Red.on_default())?;
    }
    page.line(&advisories(&report.advisories, report.created_at))
}

fn os_name(os: &Os) -> String {
    os.pretty_name
        .clone()
        .unwrap_or_else(|| format!("{} {}", os.id, os.version_id))
}

fn advisories(stamp: &AdvisoryStamp, now: Timestamp) -> String {
    if stamp.feeds.is_empty() {
        return "no advisories: vulnerabilities were not looked for".to_owned();
    }
    let feed = |feed: &Feed| format!("{} {}", feed.name, age(feed.fetched_at, now));
    let mut feeds: Vec<_> = stamp.feeds.iter().take(FEEDS_SHOWN).map(feed).collect();
    if stamp.feeds.len() > FEEDS_SHOWN {
        feeds.push(format!("{} more", stamp.feeds.len() - FEEDS_SHOWN));
    }
    format!(
        "advisories revision {} · {}",
        stamp.revision,
        feeds.join(", ")
    )
}

/// `3 hours old`.
fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let unit = |number: i64, name: &str| {
        format!("{number} {name}{} old", if number == 1 { "" } else { "s" })
    };
    match seconds {
        0..60 => "just fetched".to_owned(),
        60..3600 => unit(seconds / 60, "minute"),
        3600..172_800 => unit(seconds / 3600, "hour"),
        _ => unit(seconds / 86_400, "day"),
    }
}
