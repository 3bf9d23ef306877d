//! Files that a block did not let run: told soon, each once, with how often.
//!
//! Whoever is denied may try again as often as it likes. So a file, known by its digest or else by
//! its path, is told once in a while with a count; of more files than are told at once only the
//! count is told, and the log has a line for the first time only.

use std::{collections::BTreeMap, time::Duration};

use model::{
    Digest,
    runtime::{ActionKind, DeniedFile, Phase, ResponseId},
};
use tokio::time::Instant;

use super::Responder;
use crate::response::{guard::orders::Denied, journal::State};

/// How long files gather before they are told; the first one is told at once.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// The shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(50);
/// Files of one container that are told at once.
const FILES_MAX: usize = 32;
/// Characters of a path.
const PATH_MAX: usize = 512;

/// Files of a container that were not told of.
#[derive(Debug, Default)]
pub(super) struct DeniedFiles {
    files: BTreeMap<(Option<Digest>, String), u64>,
    /// Beyond those.
    others: u64,
    told_at: Option<Instant>,
}

// === impl DeniedFiles ===

impl DeniedFiles {
    /// Takes one in; whether it is the first of its kind.
    fn push(&mut self, path: &str, digest: Option<Digest>, missed: u64) -> bool {
        self.others = self.others.saturating_add(missed);
        let path: String = path.chars().take(PATH_MAX).collect();
        // One content is one file, wherever it lies.
        let known = digest.and_then(|_| {
            let mut files = self.files.iter_mut();
            files.find(|((other, _), _)| *other == digest)
        });
        if let Some((_, count)) = known {
            *count = count.saturating_add(1);
            return false;
        }
        let is_full = self.files.len() >= FILES_MAX;
        match self.files.get_mut(&(digest, path.clone())) {
            Some(count) => {
                *count = count.saturating_add(1);
                false
            }
            None if is_full => {
                self.others = self.others.saturating_add(1);
                false
            }
            None => {
                self.files.insert((digest, path), 1);
                true
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.others == 0
    }

    /// How long it may gather yet.
    fn left(&self, now: Instant) -> Duration {
        let next = self.told_at.map(|at| at + TELL_EVERY);
        next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    fn count(&self) -> u64 {
        self.files.values().sum::<u64>().saturating_add(self.others)
    }

    fn take(&mut self, now: Instant) -> (Vec<DeniedFile>, u64) {
        self.told_at = Some(now);
        let files = std::mem::take(&mut self.files).into_iter();
        let files = files.map(|((digest, path), count)| DeniedFile {
            path,
            digest,
            count,
        });
        (files.collect(), std::mem::take(&mut self.others))
    }
}

// === impl Responder ===

impl Responder {
    pub(super) fn hear_denied(&mut self, denied: Denied, missed: u64) {
        let Denied {
            container,
            path,
            pid,
            digest,
            waited_us,
        } = denied;
        let files = self.denied.entry(container.clone()).or_default();
        if !files.push(&path, digest, missed) {
            return;
        }
        let digest = digest.map_or_else(|| "not known in time".to_owned(), |one| one.to_string());
        tracing::info!(
            container.id = container,
            "`{path}` did not run in `{container}`, which is blocked: its image does not hold it \
             (digest {digest}, process {pid}, {waited_us} us)"
        );
    }

    /// How long until something may be told.
    pub(super) fn until_denied(&self) -> Duration {
        let now = Instant::now();
        let waiting = self.denied.values().filter(|files| !files.is_empty());
        let next = waiting.map(|files| files.left(now)).min();
        next.unwrap_or(TELL_EVERY).max(LOOK_MIN)
    }

    /// Tells of what did not run since the last time, where that is a while ago.
    pub(super) async fn tell_denied(&mut self) {
        let now = Instant::now();
        let due = self.denied.iter();
        let due: Vec<String> = due
            .filter(|(_, files)| !files.is_empty() && files.left(now).is_zero())
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.tell_denied_of(&id).await;
        }
    }

    /// Tells of it now; by the response that blocks the container.
    async fn tell_denied_of(&mut self, id: &str) {
        let entries = self.journal.kept.entries.values();
        let mut of_it = entries.filter(|entry| {
            let response = &entry.response;
            response.container == id && response.action.kind() == ActionKind::Block
        });
        let is_blocked = of_it.clone().any(|entry| entry.state != State::Over);
        let Some(entry) = of_it.find(|entry| entry.state == State::InForce) else {
            // It is told when the block is in force, or when that is lifted; where it is over, that
            // was told.
            if !is_blocked {
                self.denied.remove(id);
            }
            return;
        };
        let mut entry = entry.clone();
        let Some(files) = self.denied.get_mut(id) else {
            return;
        };
        let count = files.count();
        let (denied, others) = files.take(Instant::now());
        entry.denied = entry.denied.saturating_add(count);
        let mut detail = format!("{count} times a file did not run, {} in all", entry.denied);
        if others > 0 {
            detail.push_str("; not all of them are named");
        }
        let mut report = self.report_of(&entry, Phase::Done, Some(detail));
        report.denied = denied;
        self.tell(report).await;
        if let Err(error) = self.journal.note(entry) {
            self.broken(&error);
        }
    }

    /// How many files of a container did not run, now that its block ends.
    pub(super) fn denied_in_all(&mut self, container: &str, response: &ResponseId) -> u64 {
        let untold = self.denied.remove(container);
        let told = self.journal.kept.entries.get(response);
        let told = told.map_or(0, |entry| entry.denied);
        told.saturating_add(untold.map_or(0, |files| files.count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_content_is_one_file_and_what_is_beyond_is_counted() {
        let mut files = DeniedFiles::default();
        let now = Instant::now();
        assert!(files.is_empty() && files.left(now).is_zero());
        let digest = Some(Digest::of(b"x"));
        assert!(files.push("tmp/a", digest, 0));
        assert!(!files.push("tmp/b", digest, 0));
        assert!(files.push("tmp/c", None, 2));
        assert!(!files.push("tmp/c", None, 0));
        for number in 0..FILES_MAX {
            files.push(&number.to_string(), None, 0);
        }
        assert_eq!(files.count(), 4 + 2 + FILES_MAX as u64);
        let (told, others) = files.take(now);
        assert_eq!((told.len(), others), (FILES_MAX, 2 + 2));
        let content = told.iter().find(|file| file.digest == digest).unwrap();
        assert_eq!((content.path.as_str(), content.count), ("tmp/a", 2));
        assert!(files.is_empty());
        assert_eq!(files.left(now), TELL_EVERY);
    }
}
