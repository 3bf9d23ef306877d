//! One pass through a source: which repositories, in which order, and how far it got.

use std::collections::BTreeMap;

use anyhow::anyhow;
use bus::PutError;
use globset::GlobSet;
use model::{Catalog, CrawlCursor, CrawlPass, CrawlRecord, event::REFS};
use oci::OciError;
use tracing::{debug, info, warn};

use super::{Crawler, Interrupted};
use crate::metrics;

/// Repositories of one pass; what is beyond is said and left.
const REPOSITORIES_MAX: u64 = 1_000_000;
/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 500;

/// How far a pass got.
pub(super) struct Progress {
    pub(super) record: CrawlRecord,
    revision: u64,
}

/// Repositories that the configuration names, with the patterns of their tags.
type Configured = BTreeMap<String, Option<GlobSet>>;

// === impl Crawler ===

impl Crawler {
    /// Goes through the source to its end, from where the last process stopped.
    pub(super) async fn pass(&self) -> Result<(), Interrupted> {
        let mut progress = self.progress().await?;
        let configured = self.configured()?;
        let cursor = progress.cursor();
        if !cursor.in_catalog {
            for (name, globs) in &configured {
                if cursor.after.as_ref().is_some_and(|after| name <= after) {
                    continue;
                }
                self.repository(name, globs.as_ref(), &mut progress).await?;
                progress.after(name);
                self.save(&mut progress).await?;
            }
            progress.record.cursor = Some(CrawlCursor {
                in_catalog: true,
                ..CrawlCursor::default()
            });
        }
        if self.source.crawl.catalog {
            self.catalog(&configured, &mut progress).await?;
        } else {
            progress.record.catalog = Catalog::Unasked;
        }
        self.end(progress).await
    }

    /// Goes through what the catalog lists.
    async fn catalog(
        &self,
        configured: &Configured,
        progress: &mut Progress,
    ) -> Result<(), Interrupted> {
        loop {
            let CrawlCursor { page, after, .. } = progress.cursor();
            let listed = self
                .ask(|| self.client.repositories(page.as_deref()))
                .await?;
            let listed = match listed {
                Ok(listed) => listed,
                Err(error) => {
                    self.no_catalog(&error, progress);
                    return Ok(());
                }
            };
            progress.record.catalog = Catalog::Listed;
            // Where the last process stopped, if that is still on this page.
            let done = listed
                .names
                .iter()
                .position(|name| Some(name) == after.as_ref());
            let done = done.map_or(0, |done| done.saturating_add(1));
            for name in listed.names.iter().skip(done) {
                if configured.contains_key(name) {
                    continue;
                }
                self.repository(name, None, progress).await?;
                progress.after(name);
                self.save(progress).await?;
            }
            if listed.next.is_none() {
                return Ok(());
            }
            if progress.record.pass.repositories >= REPOSITORIES_MAX || listed.next == page {
                progress.failed(&"its catalog does not end");
                return Ok(());
            }
            progress.record.cursor = Some(CrawlCursor {
                page: listed.next,
                in_catalog: true,
                after: None,
            });
            self.save(progress).await?;
        }
    }

    fn no_catalog(&self, error: &OciError, progress: &mut Progress) {
        let name = &self.source.name;
        let is_away = error.is_transient();
        progress.failed(error);
        if is_away {
            warn!(source = %name, "the catalog of source `{name}` cannot be had: {error}");
            return;
        }
        // Many registries do not show it to everybody: that is no fault, and it is in the record.
        info!(
            source = %name,
            "source `{name}` does not list its repositories, only configured ones are looked at: \
             {error}"
        );
        let detail = format!(
            "{error}; name repositories in `crawl.repositories` of the source, or turn `catalog` off"
        );
        progress.record.catalog = Catalog::Refused {
            detail: clip(&detail),
        };
    }

    fn configured(&self) -> anyhow::Result<Configured> {
        let listed = self.source.crawl.repositories.iter();
        listed
            .map(|repository| Ok((repository.name.clone(), repository.globs()?)))
            .collect()
    }

    /// The pass that was interrupted, or a new one.
    async fn progress(&self) -> Result<Progress, Interrupted> {
        let key = CrawlRecord::key(&self.source.tenant, &self.source.name);
        let stored = self.store.get::<CrawlRecord>(REFS, &key).await?;
        let revision = stored.as_ref().map_or(0, |stored| stored.revision);
        let before = stored.map(|stored| stored.body);
        if let Some(record) = before.clone().filter(|record| record.cursor.is_some()) {
            return Ok(Progress { record, revision });
        }
        let number = before.as_ref().map_or(0, |before| before.pass.number);
        let record = CrawlRecord {
            source: self.source.name.clone(),
            catalog: before
                .as_ref()
                .map_or(Catalog::Unasked, |before| before.catalog.clone()),
            pass: CrawlPass {
                number: number.saturating_add(1),
                started_at: self.cx.now(),
                ..CrawlPass::default()
            },
            last_pass: before.and_then(|before| before.last_pass),
            cursor: Some(CrawlCursor::default()),
            last_error: None,
        };
        let mut progress = Progress { record, revision };
        self.save(&mut progress).await?;
        Ok(progress)
    }

    async fn save(&self, progress: &mut Progress) -> Result<(), Interrupted> {
        let key = CrawlRecord::key(&self.source.tenant, &self.source.name);
        let expected = Some(progress.revision);
        match self.store.put(REFS, &key, &progress.record, expected).await {
            Ok(revision) => {
                progress.revision = revision;
                Ok(())
            }
            Err(PutError::Conflict) => Err(Interrupted::Failed(anyhow!(
                "another process goes through it"
            ))),
            Err(PutError::Store(error)) => Err(error.into()),
        }
    }

    async fn end(&self, mut progress: Progress) -> Result<(), Interrupted> {
        let name = &self.source.name;
        let now = self.cx.now();
        let record = &mut progress.record;
        record.pass.ended_at = Some(now);
        record.last_pass = Some(record.pass.clone());
        record.cursor = None;
        self.save(&mut progress).await?;
        metrics::crawled(name.as_str());
        let CrawlPass {
            repositories,
            tags,
            found,
            gone,
            errors,
            started_at,
            ..
        } = progress.record.pass;
        let took = now.duration_since(started_at).as_secs();
        info!(
            source = %name,
            duration_s = took,
            "looked around source `{name}`: {repositories} repositories, {tags} tags, {found} news, \
             {gone} gone, {errors} errors"
        );
        if took > i64::from(self.source.crawl.check_interval_s) {
            warn!(
                source = %name,
                "looking around source `{name}` took {took} s, longer than `check_interval_s`: raise \
                 `requests_per_second`"
            );
        }
        Ok(())
    }
}

// === impl Progress ===

impl Progress {
    fn cursor(&self) -> CrawlCursor {
        self.record.cursor.clone().unwrap_or_default()
    }

    fn after(&mut self, repository: &str) {
        let cursor = self.record.cursor.get_or_insert_default();
        cursor.after = Some(repository.to_owned());
    }

    /// Counts something that could not be looked at.
    pub(super) fn failed(&mut self, why: &impl ToString) {
        let why = clip(&why.to_string());
        debug!(source = %self.record.source, "{why}");
        let pass = &mut self.record.pass;
        pass.errors = pass.errors.saturating_add(1);
        self.record.last_error = Some(why);
    }
}

fn clip(text: &str) -> String {
    text.chars().take(ERROR_CHARS_MAX).collect()
}
