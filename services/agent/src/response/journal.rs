//! What was taken and what was done, on disk before and after each step.
//!
//! Whoever is killed between two steps finds the last one here, and does it again: every step is
//! such that doing it twice is doing it once.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use chassis::files::read_text_bounded;
use jiff::{SignedDuration, Timestamp};
use model::{
    Digest,
    runtime::{EvidenceObject, Response, ResponseId, ResponseReported, Seen, SignedDesired},
};
use serde::{Deserialize, Serialize};

const FILE: &str = "journal.json";
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Answers that wait for room in the spool.
const UNTOLD_MAX: usize = 1_000;
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// What is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// The document that was taken last.
    pub(crate) seen: Option<Seen>,
    /// Itself: it counts though NATS is away when the agent begins.
    pub(crate) document: Option<SignedDesired>,
    /// A document that was refused and told of.
    pub(crate) refused: Option<Digest>,
    /// Answers that found no room in the spool.
    pub(crate) untold: Vec<ResponseReported>,
    /// Bytes of evidence that were stored, and when: of the last hour.
    pub(crate) stored: Vec<(Timestamp, u64)>,
    /// What was begun.
    pub(crate) entries: BTreeMap<ResponseId, Entry>,
}

/// A response that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// What it is about.
    pub(crate) response: Response,
    /// In which document.
    pub(crate) generation: u64,
    /// How far it is.
    pub(crate) state: State,
    /// How often it failed.
    #[serde(default)]
    pub(crate) attempt: u32,
    /// What was there before, in words.
    #[serde(default)]
    pub(crate) before: Option<String>,
    /// What there is since.
    #[serde(default)]
    pub(crate) after: Option<String>,
    /// What was collected.
    #[serde(default)]
    pub(crate) evidence: Option<EvidenceObject>,
    /// Files that did not run, as far as that was told.
    #[serde(default)]
    pub(crate) denied: u64,
    /// The cgroup that it is about: a container that was started again has another one.
    #[serde(default)]
    pub(crate) cgroup: Option<u64>,
    /// How often it was put into force again because of that.
    #[serde(default)]
    pub(crate) again: u32,
    /// Who could mark the container was away.
    #[serde(default)]
    pub(crate) unmarked: bool,
}

/// How far a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It is being done: perhaps not at all, perhaps in part.
    Begun,
    /// It failed and is tried again.
    Failed,
    /// It lasts until it is lifted.
    InForce,
    /// It was done, or is not done, once and for all.
    Over,
    /// It is being undone.
    Lifting,
}

/// The journal on disk.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    pub(crate) kept: Kept,
}

// === impl Kept ===

impl Kept {
    /// Keeps an answer for which the spool has no room; of too many the oldest is forgotten. Which
    /// files did not run is said by whoever makes them, so they are counted in its words only.
    pub(crate) fn keep_untold(&mut self, report: ResponseReported) {
        if self.untold.len() >= UNTOLD_MAX {
            let oldest = self.untold.remove(0);
            tracing::warn!(
                container.id = oldest.container,
                "the spool is full: an answer about `{}` is forgotten",
                oldest.container
            );
        }
        self.untold.push(ResponseReported {
            denied: Vec::new(),
            ..report
        });
    }

    /// Whether so much evidence may be stored now: all nodes share the room for it.
    pub(crate) fn may_store(&mut self, now: Timestamp, bytes: u64, bytes_max: u64) -> bool {
        let is_recent = |at: Timestamp| now.duration_since(at) < HOUR;
        self.stored.retain(|(at, _)| is_recent(*at));
        let sum = self
            .stored
            .iter()
            .fold(bytes, |sum, (_, bytes)| sum.saturating_add(*bytes));
        sum <= bytes_max
    }
}

// === impl Journal ===

impl Journal {
    /// Reads it; one that cannot be read is begun anew, for what is in force is in the kernel.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("making `{}`", dir.display()))?;
        let file = dir.join(FILE);
        let kept = match read_text_bounded(&file, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) if is_content(&error) => begun_anew(&file, &error),
            Err(error) => {
                return Err(error).with_context(|| format!("reading `{}`", file.display()));
            }
            Ok(text) => serde_json::from_str(&text)
                .unwrap_or_else(|error| begun_anew(&file, &io::Error::from(error))),
        };
        Ok(Self {
            dir: dir.to_owned(),
            kept,
        })
    }

    /// Puts it on disk: whole, or not at all.
    pub(crate) fn keep(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec(&self.kept)?;
        keep(&self.dir, FILE, &text)
    }

    /// Notes how far a response is.
    pub(crate) fn note(&mut self, entry: Entry) -> anyhow::Result<()> {
        self.kept.entries.insert(entry.response.id.clone(), entry);
        self.keep()
    }
}

/// Whether it is the content that cannot be read, and will never be.
fn is_content(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidData
    )
}

fn begun_anew(file: &Path, error: &io::Error) -> Kept {
    let file = file.display();
    tracing::warn!(%error, "`{file}` cannot be read and is begun anew: {error}");
    Kept::default()
}

/// Puts a file into a directory: whole, or not at all.
pub(crate) fn keep(dir: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let (part, file) = (dir.join(format!("{name}.part")), dir.join(name));
    let written = || -> io::Result<()> {
        let mut opened = File::create(&part)?;
        opened.write_all(bytes)?;
        opened.sync_all()?;
        fs::rename(&part, &file)?;
        File::open(dir)?.sync_all()
    };
    written().with_context(|| format!("keeping `{}`", file.display()))
}

#[cfg(test)]
mod tests {
    use model::runtime::DeniedFile;

    use super::*;

    #[test]
    fn so_much_evidence_is_stored_in_an_hour_and_no_more() {
        let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
        let mut kept = Kept {
            stored: vec![(at(0), 60), (at(30), 30)],
            ..Kept::default()
        };
        assert!(kept.may_store(at(31), 10, 100) && !kept.may_store(at(31), 11, 100));
        assert!(
            kept.may_store(at(60), 70, 100),
            "an hour later there is room"
        );
        assert_eq!(kept.stored, [(at(30), 30)]);
        assert!(!kept.may_store(at(60), u64::MAX, 100));
    }

    #[test]
    fn what_is_kept_is_read_again_and_what_is_broken_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.kept.refused = Some(Digest::of(b"x"));
        journal.keep().unwrap();
        let again = Journal::open(dir.path()).unwrap();
        assert_eq!(again.kept.refused, Some(Digest::of(b"x")));
        let large = vec![b' '; usize::try_from(FILE_BYTES_MAX).unwrap() + 1];
        for broken in [&b"{"[..], b"\xff", &large] {
            fs::write(dir.path().join(FILE), broken).unwrap();
            let anew = Journal::open(dir.path()).unwrap();
            assert!(anew.kept.refused.is_none() && anew.kept.entries.is_empty());
        }
    }

    #[test]
    fn answers_that_wait_do_not_make_it_larger_than_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        let denied = DeniedFile {
            path: "\u{1}".repeat(512),
            digest: Some(Digest::of(b"x")),
            count: 1,
        };
        let report = ResponseReported {
            denied: vec![denied; 32],
            ..report()
        };
        for _ in 0..=UNTOLD_MAX {
            journal.kept.keep_untold(report.clone());
        }
        journal.keep().unwrap();
        let again = Journal::open(dir.path()).unwrap();
        assert_eq!(again.kept.untold.len(), UNTOLD_MAX);
    }

    fn report() -> ResponseReported {
        ResponseReported {
            node: "n".parse().unwrap(),
            response: None,
            incident: String::new(),
            container: String::new(),
            action: None,
            mode: model::runtime::Mode::Enforced,
            phase: model::runtime::Phase::Done,
            refusal: None,
            generation: 0,
            attempt: 0,
            evidence: None,
            before: None,
            after: None,
            detail: None,
            image: None,
            denied: Vec::new(),
            at: Timestamp::UNIX_EPOCH,
        }
    }
}
