//! The windows of a range.

use super::Event;
use crate::{
    ecosystems::{self, Ecosystem},
    shard::{Window, WindowEnd},
};

/// Windows of a range: events in file order, paired; the sorted walk only where they do not
/// alternate.
pub(super) fn windows(
    events: &[Event],
    family: Option<&'static dyn Ecosystem>,
    notes: &mut Vec<String>,
) -> Vec<Window> {
    let starts = events.iter().map(|event| event.introduced.is_some());
    let alternates = starts
        .enumerate()
        .all(|(index, is_start)| is_start == (index % 2 == 0));
    if alternates {
        return pair(events.iter());
    }
    notes.push("its events do not alternate: sorted".to_owned());
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_cached_key(|event| {
        let (text, is_start) = match event {
            Event {
                introduced: Some(text),
                ..
            } => (text, true),
            Event {
                fixed: Some(text), ..
            }
            | Event {
                last_affected: Some(text),
                ..
            }
            | Event {
                limit: Some(text), ..
            } => (text, false),
            _ => return (None, false),
        };
        let version = family
            .filter(|_| text != "0")
            .and_then(|f| ecosystems::version(f, text));
        (version, is_start)
    });
    pair(sorted.into_iter())
}

fn pair<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<Window> {
    let mut found = Vec::new();
    let mut open: Option<Option<String>> = None;
    for event in events {
        let end = match event {
            Event {
                introduced: Some(from),
                ..
            } => {
                // Two starts without an end between them: the first one holds.
                let from = (from != "0").then(|| from.clone());
                open = Some(open.unwrap_or(from));
                continue;
            }
            Event {
                fixed: Some(version),
                ..
            } => WindowEnd::Fixed(version.clone()),
            Event {
                last_affected: Some(version),
                ..
            } => WindowEnd::Last(version.clone()),
            Event {
                limit: Some(version),
                ..
            } if version == "*" => WindowEnd::Open,
            Event {
                limit: Some(version),
                ..
            } => WindowEnd::Limit(version.clone()),
            _ => continue,
        };
        if let Some(introduced) = open.take() {
            found.push(Window { introduced, end });
        }
    }
    if let Some(introduced) = open {
        found.push(Window {
            introduced,
            end: WindowEnd::Open,
        });
    }
    found
}
