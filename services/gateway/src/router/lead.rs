//! Where a tag or digest leads: from what we know, else from its source.

use std::{collections::BTreeMap, time::Duration};

use anyhow::anyhow;
use bus::Failure;
use model::{Digest, Known, Platform, RecordKey, RefKind, RefRecord, Slug, What, event::REFS};
use oci::{Image, OciError, Resolved, Wanted};
use tracing::{info, warn};

use super::{Router, names::Sighting};
use crate::sources::Client;

/// The first wait for a tag that is being moved; it doubles.
const TAG_PAUSE: Duration = Duration::from_millis(25);
/// The longest of these waits: about a second in all.
const TAG_PAUSE_MAX: Duration = Duration::from_millis(400);
/// Labels that are kept of an image's config.
const LABELS_MAX: usize = 64;
const LABEL_CHARS_MAX: usize = 512;

const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// What a tag or digest leads to.
#[derive(Clone, Debug, Default)]
pub(super) struct Lead {
    /// The manifest or index itself.
    pub(super) digest: Option<Digest>,
    /// The same, where it is an index.
    pub(super) index: Option<Digest>,
    /// The images behind it.
    pub(super) images: Vec<Seen>,
}

/// An image as far as it is known before it is scanned.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) digest: Digest,
    pub(super) platform: Platform,
    pub(super) config: Option<Digest>,
    pub(super) labels: BTreeMap<String, String>,
}

/// Why there is nothing to route.
pub(super) enum NoLead {
    /// The source does not have it.
    Missing(OciError),
    /// The source does not let us in, or may not be asked.
    Refused(OciError),
    /// It is there, and not what it should be.
    Unreadable(OciError),
    /// It is there, and nothing that a container could be made of.
    NoImage(String),
    /// Try again, or give up.
    Failed(Failure),
}

impl From<Failure> for NoLead {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

// === impl Router ===

impl Router {
    /// The digest that a tag names. CNCF Distribution tells of a push before it moves the tag, so a
    /// tag that does not lead to what was told yet is looked at again for a moment.
    async fn named_now(
        &self,
        client: &dyn Client,
        sighting: &Sighting,
        tag: &str,
    ) -> Result<Option<Digest>, NoLead> {
        let mut pause = TAG_PAUSE;
        loop {
            let named = client.peek(&sighting.place.repository, tag).await;
            let named = named.map_err(|error| sorted(error, sighting))?;
            let as_told = sighting.digest.is_none() || named == sighting.digest;
            if as_told || pause > TAG_PAUSE_MAX || !self.cx.sleep(pause).await {
                return Ok(named);
            }
            pause = pause.saturating_mul(2);
        }
    }

    /// The client of a source.
    pub(super) fn client(&self, name: &Slug) -> Result<&dyn Client, Failure> {
        let client = self.sources.client(name);
        let client =
            client.ok_or_else(|| Failure::Reject(anyhow!("source `{name}` is not open")))?;
        Ok(&**client)
    }

    /// Where a sighting leads, and the sighting as its source confirms it: with the digest that
    /// the tag names now, or without the tag where that leads elsewhere.
    pub(super) async fn lead(
        &self,
        tenant: &Slug,
        sighting: Sighting,
    ) -> Result<(Sighting, Lead), NoLead> {
        let client = self.client(&sighting.place.source)?;
        let told = sighting.digest;
        let Some(tag) = sighting.tag.clone() else {
            let lead = self.by_digest(tenant, client, &sighting).await?;
            return Ok((sighting, lead));
        };
        let named = self.named_now(client, &sighting, &tag).await?;
        if let Some(named) = named.filter(|named| told.is_none_or(|told| told == *named)) {
            let sighting = Sighting {
                digest: Some(named),
                ..sighting
            };
            let lead = self.by_digest(tenant, client, &sighting).await?;
            return Ok((sighting, lead));
        }
        if named.is_none() {
            // There is no such tag, or this registry does not say digests in headers.
            let by_tag = Sighting {
                digest: None,
                ..sighting.clone()
            };
            match resolve(client, &by_tag).await {
                Ok(lead) if told.is_none_or(|told| lead.digest == Some(told)) => {
                    return Ok((
                        Sighting {
                            digest: lead.digest,
                            ..sighting
                        },
                        lead,
                    ));
                }
                Err(NoLead::Missing(_)) if told.is_some() => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        info!("tag `{tag}` of {sighting} leads elsewhere by now");
        let sighting = Sighting {
            tag: None,
            ..sighting
        };
        let lead = self.by_digest(tenant, client, &sighting).await?;
        Ok((sighting, lead))
    }

    /// From what we know, else from the source.
    async fn by_digest(
        &self,
        tenant: &Slug,
        client: &dyn Client,
        sighting: &Sighting,
    ) -> Result<Lead, NoLead> {
        if let Some(digest) = sighting.digest
            && let Some(lead) = self.known_lead(tenant, digest).await?
        {
            return Ok(lead);
        }
        resolve(client, sighting).await
    }

    /// What the store knows of a digest. An index counts when all its images do.
    async fn known_lead(&self, tenant: &Slug, digest: Digest) -> Result<Option<Lead>, Failure> {
        if let Some(image) = self.known_image(tenant, digest).await? {
            return Ok(Some(Lead {
                digest: Some(digest),
                index: None,
                images: vec![image],
            }));
        }
        let key = RefRecord::key(tenant, digest);
        let record = self
            .store
            .get::<RefRecord>(REFS, &key)
            .await?
            .map(|stored| stored.body);
        let Some(record) = record.filter(|record| record.kind == RefKind::Index) else {
            return Ok(None);
        };
        let mut images = Vec::with_capacity(record.images.len());
        for image in record.images {
            match self.known_image(tenant, image).await? {
                Some(image) => images.push(image),
                None => return Ok(None),
            }
        }
        let found = !images.is_empty();
        Ok(found.then_some(Lead {
            digest: Some(digest),
            index: Some(digest),
            images,
        }))
    }

    async fn known_image(&self, tenant: &Slug, digest: Digest) -> Result<Option<Seen>, Failure> {
        let key = RecordKey::new(tenant, digest, What::Known);
        let known = self
            .store
            .record::<Known>(&key)
            .await?
            .map(|stored| stored.body);
        // Without a config its manifest was not read yet: the source may do better now.
        Ok(known
            .filter(|known| known.config.is_some())
            .map(|known| Seen {
                digest,
                platform: known.platform,
                config: known.config,
                labels: known.labels,
            }))
    }
}

/// Asks the source; where a digest is known, that is asked for.
async fn resolve(client: &dyn Client, sighting: &Sighting) -> Result<Lead, NoLead> {
    let wanted = Wanted {
        repository: sighting.place.repository.clone(),
        tag: sighting.tag.clone(),
        digest: sighting.digest,
        ..Wanted::default()
    };
    match client.resolve(&wanted).await {
        Ok(resolved) => lead_of(resolved, sighting),
        Err(error) => unread(error, sighting),
    }
}

fn lead_of(resolved: Resolved, sighting: &Sighting) -> Result<Lead, NoLead> {
    let Resolved {
        index,
        images,
        unreadable,
    } = resolved;
    let digest = index
        .or_else(|| images.first().map(|image| image.digest))
        .or(sighting.digest);
    let artifacts: Vec<_> = images.iter().filter_map(artifact).collect();
    if !artifacts.is_empty() && artifacts.len() == images.len() && unreadable.is_empty() {
        return Err(NoLead::NoImage(artifacts.join("; ")));
    }
    let mut seen: Vec<Seen> = images
        .into_iter()
        .filter(|image| artifact(image).is_none())
        .map(Seen::from)
        .collect();
    for image in unreadable {
        // The scanner reads it again, and its verdict names the gap.
        warn!(
            image.digest = %image.digest,
            "image {} of {sighting} cannot be read: {}", image.digest, image.error
        );
        seen.push(Seen::unread(
            image.digest,
            image.platform.unwrap_or_default(),
        ));
    }
    Ok(Lead {
        digest,
        index,
        images: seen,
    })
}

/// A digest whose content cannot be read still leads to the scanner: its verdict names the gap.
fn unread(error: OciError, sighting: &Sighting) -> Result<Lead, NoLead> {
    match (sorted(error, sighting), sighting.digest) {
        (NoLead::Unreadable(error), Some(digest)) => {
            warn!(image.digest = %digest, "{sighting} cannot be read: {error}");
            let images = vec![Seen::unread(digest, Platform::default())];
            Ok(Lead {
                digest: Some(digest),
                index: None,
                images,
            })
        }
        (no_lead, _) => Err(no_lead),
    }
}

/// The one place that decides what a source's error means.
pub(super) fn sorted(error: OciError, sighting: &Sighting) -> NoLead {
    if error.is_transient() {
        let context = format!("looking up {sighting}");
        return NoLead::Failed(Failure::Retry(anyhow::Error::from(error).context(context)));
    }
    if error.is_not_found() {
        return NoLead::Missing(error);
    }
    if error.is_auth() || matches!(error, OciError::PrivateAddress { .. }) {
        return NoLead::Refused(error);
    }
    NoLead::Unreadable(error)
}

/// What an image that is none says of itself: charts, signatures and the like have configs or
/// layers of types that no runtime makes a container of. In doubt it is an image.
fn artifact(image: &Image) -> Option<String> {
    let config = image.manifest.config.media_type.as_str();
    let is_config = config.is_empty() || CONFIG_TYPES.contains(&config);
    let layers = &image.manifest.layers;
    let is_layer = |media_type: &str| {
        media_type.is_empty() || media_type.contains("tar") || media_type.contains("layer")
    };
    let has_layers = layers.is_empty() || layers.iter().any(|layer| is_layer(&layer.media_type));
    if is_config && has_layers {
        return None;
    }
    let shown = if is_config {
        layers.first().map_or("", |layer| layer.media_type.as_str())
    } else {
        config
    };
    let shown: String = shown.chars().take(100).collect();
    Some(format!(
        "`{}` is an artifact of the type `{shown}`, not an image",
        image.digest
    ))
}

// === impl Seen ===

impl Seen {
    /// An image whose manifest could not be read.
    fn unread(digest: Digest, platform: Platform) -> Self {
        Self {
            digest,
            platform,
            config: None,
            labels: BTreeMap::new(),
        }
    }
}

impl From<Image> for Seen {
    fn from(image: Image) -> Self {
        let labels = image.config.runtime.labels.into_iter();
        let short = |text: String| text.chars().take(LABEL_CHARS_MAX).collect();
        Self {
            digest: image.digest,
            platform: image.platform,
            config: Some(image.image_id),
            labels: labels
                .take(LABELS_MAX)
                .map(|(name, value)| (short(name), short(value)))
                .collect(),
        }
    }
}
