//! One repository: what its source says of its tags, beside what the router noted.

use std::collections::{BTreeMap, BTreeSet};

use globset::GlobSet;
use jiff::{SignedDuration, Timestamp};
use model::{
    CheckRecord, Digest, Fingerprint, RecordKey, Scanned, TagRecord, What,
    event::{ImageDeleted, ImagePushed, Priority, REFS},
};
use oci::{OciError, Wanted};

use super::{Crawler, Interrupted, pass::Progress};
use crate::{decoders::check_names, intake::Accepted, metrics};

/// Tags of one repository that are looked at.
const TAGS_MAX: usize = 100_000;
/// An image that came so short a time ago is being scanned, and not forgotten.
const SETTLE: SignedDuration = SignedDuration::from_mins(10);

/// Tags that the router knows, with the revision of what it noted.
type Noted = BTreeMap<String, (TagRecord, u64)>;

/// A tag as it was listed, or as it is known and was not.
#[derive(Clone, Copy)]
struct Listed<'a> {
    repository: &'a str,
    tag: &'a str,
    noted: Option<&'a (TagRecord, u64)>,
    /// When the list was asked for: what comes later is not gone because it is not in it.
    at: Timestamp,
}

/// What a look at a tag found.
enum Found {
    /// What is known.
    Same,
    /// Something to tell of, with what makes it this and no other.
    News(Digest, String),
    /// It is not there any more.
    Gone,
    /// It could not be looked at.
    Failed(OciError),
}

// === impl Crawler ===

impl Crawler {
    /// Compares a repository and tells what differs.
    pub(super) async fn repository(
        &self,
        name: &str,
        globs: Option<&GlobSet>,
        progress: &mut Progress,
    ) -> Result<(), Interrupted> {
        let pass = &mut progress.record.pass;
        pass.repositories = pass.repositories.saturating_add(1);
        if let Err(error) = check_names(name, None) {
            progress.failed(&error);
            return Ok(());
        }
        let wanted = |tag: &str| globs.is_none_or(|globs| globs.is_match(tag));
        let (noted, at) = (self.noted(name).await?, self.cx.now());
        let listed = match self.listed(name).await? {
            Ok(listed) => listed,
            // Of a repository that is not there all tags are gone.
            Err(error) if error.is_not_found() && !noted.is_empty() => BTreeSet::new(),
            Err(error) => {
                progress.failed(&error);
                return Ok(());
            }
        };
        let errors = progress.record.pass.errors;
        let mut tags = 0_u64;
        for tag in listed.iter().filter(|tag| wanted(tag)) {
            tags = tags.saturating_add(1);
            let pass = &mut progress.record.pass;
            pass.tags = pass.tags.saturating_add(1);
            if let Err(error) = check_names(name, Some(tag)) {
                progress.failed(&error);
                continue;
            }
            let tag = Listed {
                repository: name,
                tag,
                noted: noted.get(tag),
                at,
            };
            let found = self.look(tag).await?;
            self.report(tag, found, progress).await?;
        }
        let missing = noted.iter().filter(|(tag, _)| !listed.contains(*tag));
        for (tag, known) in missing.filter(|(tag, _)| wanted(tag)) {
            let tag = Listed {
                repository: name,
                tag,
                noted: Some(known),
                at,
            };
            self.report(tag, Found::Gone, progress).await?;
        }
        let record = CheckRecord {
            source: self.source.name.clone(),
            repository: format!("{}/{name}", self.source.registry),
            checked_at: self.cx.now(),
            tags,
            errors: progress.record.pass.errors.saturating_sub(errors),
        };
        let key = CheckRecord::key(&self.source.tenant, &self.source.name, name);
        self.store
            .put(REFS, &key, &record, None)
            .await
            .map_err(anyhow::Error::from)?;
        Ok(())
    }

    /// The tags that the source lists.
    async fn listed(
        &self,
        repository: &str,
    ) -> Result<Result<BTreeSet<String>, OciError>, Interrupted> {
        let (mut tags, mut page) = (BTreeSet::new(), None::<String>);
        loop {
            let listed = self
                .ask(|| self.client.tags(repository, page.as_deref()))
                .await?;
            let listed = match listed {
                Ok(listed) => listed,
                Err(error) => return Ok(Err(error)),
            };
            let before = tags.len();
            tags.extend(listed.names);
            // A page without anything new leads nowhere, and what is beyond the bound would look
            // deleted: the repository is then left as it is.
            let is_endless = listed.next.is_some() && tags.len() == before;
            if is_endless || tags.len() > TAGS_MAX {
                return Ok(Err(OciError::TooLarge {
                    what: format!("the list of tags of `{repository}`"),
                    limit: format!("{TAGS_MAX} tags"),
                }));
            }
            page = listed.next;
            if page.is_none() {
                return Ok(Ok(tags));
            }
        }
    }

    /// The tags of this source that lead somewhere, as the router noted them.
    async fn noted(&self, repository: &str) -> Result<Noted, Interrupted> {
        let registry = &self.source.registry;
        let keys = TagRecord::keys_of(&self.source.tenant, registry, repository);
        let name = format!("{registry}/{repository}:");
        let found = self.store.list::<TagRecord>(REFS, &keys).await?;
        let noted = found.into_iter().filter_map(|(_, stored)| {
            let tag = stored.body.reference.strip_prefix(&name)?.to_owned();
            let is_ours = stored.body.source == self.source.name;
            is_ours.then_some((tag, (stored.body, stored.revision)))
        });
        Ok(noted.collect())
    }

    async fn look(&self, listed: Listed<'_>) -> Result<Found, Interrupted> {
        let digest = match self.names(listed.repository, listed.tag).await? {
            Ok(Some(digest)) => digest,
            Ok(None) => return Ok(Found::Gone),
            Err(error) => return Ok(Found::Failed(error)),
        };
        match listed.noted {
            Some((record, _)) if record.digest == Some(digest) => {
                let stale = self.stale_scan(record).await?;
                Ok(stale.map_or(Found::Same, |why| Found::News(digest, why)))
            }
            Some((_, revision)) => Ok(Found::News(digest, format!("tag:{revision}"))),
            None => Ok(Found::News(digest, "tag:0".to_owned())),
        }
    }

    /// The digest that a tag names now; `None` where there is no such tag.
    async fn names(
        &self,
        repository: &str,
        tag: &str,
    ) -> Result<Result<Option<Digest>, OciError>, Interrupted> {
        let peeked = self.ask(|| self.client.peek(repository, tag)).await?;
        if !matches!(peeked, Ok(None)) {
            return Ok(peeked);
        }
        // It is gone, or the registry does not say digests in headers.
        let wanted = Wanted {
            repository: repository.to_owned(),
            tag: Some(tag.to_owned()),
            skip_configs: true,
            ..Wanted::default()
        };
        let resolved = self.ask(|| self.client.resolve(&wanted)).await?;
        Ok(match resolved {
            Ok(resolved) => {
                let image = resolved.images.first().map(|image| image.digest);
                Ok(resolved.index.or(image))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// What shows that an image behind a tag has to be scanned again: by whom it was scanned.
    async fn stale_scan(&self, record: &TagRecord) -> Result<Option<String>, Interrupted> {
        if self.cx.now().duration_since(record.since) < SETTLE {
            return Ok(None);
        }
        for image in &record.images {
            let key = RecordKey::new(&self.source.tenant, *image, What::Scanned);
            let scanned = self.store.record::<Scanned>(&key).await?;
            let is_current = scanned
                .as_ref()
                .is_some_and(|scanned| scanned.body.is_good(&self.analyzers.borrow()));
            if !is_current {
                let revision = scanned.map_or(0, |scanned| scanned.revision);
                return Ok(Some(format!("scan:{image}:{revision}")));
            }
        }
        Ok(None)
    }

    /// Counts what was found, and tells of it.
    async fn report(
        &self,
        listed: Listed<'_>,
        found: Found,
        progress: &mut Progress,
    ) -> Result<(), Interrupted> {
        let source = self.source.name.as_str();
        let pass = &mut progress.record.pass;
        let event = match found {
            Found::Same => {
                metrics::looked_at(source, "same");
                return Ok(());
            }
            Found::Failed(error) => {
                metrics::looked_at(source, "failed");
                progress.failed(&error);
                return Ok(());
            }
            Found::News(digest, why) => {
                metrics::looked_at(source, "found");
                pass.found = pass.found.saturating_add(1);
                self.pushed(listed, digest, &why)
            }
            Found::Gone => {
                let known = listed.noted.filter(|(record, _)| record.digest.is_some());
                let Some((_, revision)) = known else {
                    return Ok(());
                };
                metrics::looked_at(source, "gone");
                pass.gone = pass.gone.saturating_add(1);
                self.deleted(listed, *revision)
            }
        };
        self.tell.tell(&self.source.tenant, &event).await?;
        Ok(())
    }

    fn pushed(&self, listed: Listed<'_>, digest: Digest, why: &str) -> Accepted {
        let Listed {
            repository, tag, ..
        } = listed;
        let id = Fingerprint::of(&["crawl", repository, tag, &digest.to_string(), why]);
        Accepted::Pushed(ImagePushed {
            source: self.source.name.clone(),
            repository: repository.to_owned(),
            tag: Some(tag.to_owned()),
            digest: Some(digest),
            sender_id: Some(id.0),
            occurred_at: self.cx.now(),
            priority: Priority::Low,
        })
    }

    fn deleted(&self, listed: Listed<'_>, revision: u64) -> Accepted {
        let Listed {
            repository,
            tag,
            at,
            ..
        } = listed;
        let id = Fingerprint::of(&["crawl", repository, tag, &format!("gone:{revision}")]);
        Accepted::Deleted(ImageDeleted {
            source: self.source.name.clone(),
            repository: repository.to_owned(),
            tag: Some(tag.to_owned()),
            digest: None,
            sender_id: Some(id.0),
            occurred_at: at,
        })
    }
}
