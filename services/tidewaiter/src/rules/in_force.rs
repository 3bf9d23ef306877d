//! The rules of a process that goes on: others are taken up once they are there, and work.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::Context as _;
use chassis::Cx;
use jiff::{SignedDuration, Timestamp};
use malware::Malware;
use model::{AnalyzerId, Digest};
use scanner::Reader;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Asking, prepare};
use crate::config::Config;

/// How long after a bundle could not be had, or rules did not work, that is tried again.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// The name of what people are told.
const NOTE: &str = "rules for malware";

/// What images are read with.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    /// The reader with these rules.
    pub(crate) readers: watch::Receiver<Reader>,
    /// What it looks for.
    pub(crate) analyzers: watch::Receiver<BTreeSet<AnalyzerId>>,
}

/// Looks again and again whether there are other rules.
struct Lookout {
    cx: Cx,
    config: malware::Config,
    /// Where the bundle is kept.
    dir: PathBuf,
    in_force: Option<Digest>,
    /// Other rules that the last look saw. They are taken up when the next one sees the same: who writes
    /// to the directory at this moment has not written all of it yet.
    seen: Option<Digest>,
    /// Other rules that do not work, and why; until then they are not tried again.
    refused: Option<(Digest, String, Timestamp)>,
    /// What is to be said of a bundle that could not be had; until then it is not asked for.
    bundle: Option<(String, Timestamp)>,
}

// === impl InForce ===

impl InForce {
    /// Reads the rules, and goes on looking whether there are others. Where there are none to be had at
    /// the start, that is an error.
    pub(crate) async fn begin(cx: &Cx, config: &Config) -> anyhow::Result<Self> {
        let mut scanner = config.scanner.clone();
        let dir = config.data_dir.path().join("malware");
        let mut lookout = Lookout::new(cx, scanner.malware.clone(), dir);
        let note = prepare(cx, &mut scanner.malware, &lookout.dir, Asking::Yes).await?;
        if let Some(note) = note {
            warn!("{note}");
            lookout.has_no_bundle(note);
        }
        let settings = cx.blocking(move || scanner.settings()).await??;
        lookout.in_force = settings.malware.as_ref().map(Malware::revision);
        let reader = Reader::new(settings);
        let (analyzers, in_force) = watch::channel(reader.ids().into_iter().collect());
        let (readers, reader) = watch::channel(reader);
        if lookout.has_work() {
            cx.spawn("rules for malware", async move {
                lookout.go_on(&readers, &analyzers).await;
            });
        }
        Ok(Self {
            readers: reader,
            analyzers: in_force,
        })
    }
}

// === impl Lookout ===

impl Lookout {
    fn new(cx: &Cx, config: malware::Config, dir: PathBuf) -> Self {
        Self {
            cx: cx.clone(),
            config,
            dir,
            in_force: None,
            seen: None,
            refused: None,
            bundle: None,
        }
    }

    /// Whether the rules can become others.
    const fn has_work(&self) -> bool {
        let config = &self.config;
        let is_used = config.enabled && config.program.is_some();
        is_used && (config.rules.is_some() || config.bundle.is_some())
    }

    async fn go_on(
        mut self,
        readers: &watch::Sender<Reader>,
        analyzers: &watch::Sender<BTreeSet<AnalyzerId>>,
    ) {
        let interval = Duration::from_secs(self.config.look_interval_s.max(1).into());
        let (cx, mut said) = (self.cx.clone(), None);
        while cx.sleep(interval).await {
            let note = match self.look().await {
                Ok(Some(malware)) => {
                    let reader = readers.borrow().with_malware(Some(malware));
                    let ids = reader.ids().into_iter().collect();
                    // Who is told to scan again must find them in force.
                    readers.send_replace(reader);
                    analyzers.send_replace(ids);
                    None
                }
                Ok(None) => self.bundle.as_ref().map(|(note, _)| note.clone()),
                Err(error) => Some(format!("others are not taken up: {error:#}")),
            };
            if let Some(note) = note.as_ref().filter(|note| said.as_ref() != Some(*note)) {
                warn!("{NOTE}: {note}");
            }
            cx.notes().set(NOTE, note.clone());
            said = note;
        }
    }

    /// Other rules, if there are any that were the same at the last look and work.
    async fn look(&mut self) -> anyhow::Result<Option<Malware>> {
        let (cx, mut config) = (self.cx.clone(), self.config.clone());
        let is_over = |until: Timestamp| cx.now() >= until;
        let asking = match &self.bundle {
            Some((_, until)) if !is_over(*until) => Asking::No,
            _ => Asking::Yes,
        };
        let prepared = prepare(&cx, &mut config, &self.dir, asking).await;
        match &prepared {
            Ok(Some(note)) => self.has_no_bundle(note.clone()),
            Ok(None) if asking == Asking::Yes => self.bundle = None,
            Err(error) if asking == Asking::Yes => self.has_no_bundle(format!("{error:#}")),
            Ok(None) | Err(_) => {}
        }
        prepared?;
        let opened = cx.blocking(move || Malware::open(&config)).await??;
        let malware = opened.context("nothing is looked for")?;
        let revision = malware.revision();
        let before = self.seen.replace(revision);
        if self.in_force == Some(revision) || before != Some(revision) {
            return Ok(None);
        }
        if let Some((refused, why, until)) = &self.refused
            && *refused == revision
            && !is_over(*until)
        {
            anyhow::bail!("{why}");
        }
        let trying = malware.clone();
        let works = cx.blocking(move || trying.check()).await?;
        if let Err(error) = works {
            let why = format!("{:#}", anyhow::Error::from(error));
            self.refused = Some((revision, why.clone(), self.later()));
            anyhow::bail!("{why}");
        }
        let old = self.in_force.replace(revision).map(|old| old.short());
        let old = old.unwrap_or_default();
        info!(
            "rules for malware {} take the place of {old}",
            revision.short()
        );
        Ok(Some(malware))
    }

    fn has_no_bundle(&mut self, note: String) {
        self.bundle = Some((note, self.later()));
    }

    fn later(&self) -> Timestamp {
        self.cx.now().checked_add(AGAIN).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests;
