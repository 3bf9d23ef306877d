//! Where a tag or digest leads: from what we know, else from its source. Configs are not read here:
//! the scanner needs them whole, and each is fetched once.

use std::time::Duration;

use anyhow::anyhow;
use bus::Failure;
use model::{
    Digest, Known, Platform, RecordKey, RefKind, RefRecord, Slug, What,
    event::{Manifest, REFS},
};
use oci::{Image, Kept, OciError, Resolved, Wanted};
use tracing::{info, warn};

use super::{Router, names::Sighting};
use crate::sources::Client;

/// The first wait for a tag that is being moved; it doubles.
const TAG_PAUSE: Duration = Duration::from_millis(25);
/// The longest of these waits: about a second in all.
const TAG_PAUSE_MAX: Duration = Duration::from_millis(400);
/// A manifest goes with the job up to this size; a larger one is read again. A job
/// must stay small: the stream of jobs has a bound in bytes.
const MANIFEST_BYTES_MAX: usize = 16 << 10;

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
    /// As its index says; empty where none does.
    pub(super) platform: Platform,
    pub(super) config: Option<Digest>,
    /// What was read of it just now.
    pub(super) manifest: Option<Manifest>,
    /// Whether the store had no record of it a moment ago.
    pub(super) is_new: bool,
}

/// What the store knows of a digest.
enum Remembered {
    Lead(Lead),
    /// Nothing, or less than its source would say.
    Nothing {
        /// Whether it has no record as an image at all.
        is_new: bool,
    },
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
        let mut known = None;
        if let Some(told) = told {
            match self.known_lead(tenant, told).await? {
                Remembered::Lead(lead) => known = Some(lead),
                Remembered::Nothing { is_new } => {
                    if let Some(lead) = fresh(client, &sighting, told).await? {
                        return Ok((sighting, lead.noting(told, is_new)));
                    }
                }
            }
        }
        let named = self.named_now(client, &sighting, &tag).await?;
        if let Some(named) = named.filter(|named| told.is_none_or(|told| told == *named)) {
            let sighting = Sighting {
                digest: Some(named),
                ..sighting
            };
            let lead = match known {
                Some(lead) => lead,
                None => self.by_digest(tenant, client, &sighting).await?,
            };
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
        let Some(digest) = sighting.digest else {
            return resolve(client, sighting).await;
        };
        match self.known_lead(tenant, digest).await? {
            Remembered::Lead(lead) => Ok(lead),
            Remembered::Nothing { is_new } => {
                let lead = resolve(client, sighting).await?;
                Ok(lead.noting(digest, is_new))
            }
        }
    }

    /// What the store knows of a digest. An index counts when all its images do.
    async fn known_lead(&self, tenant: &Slug, digest: Digest) -> Result<Remembered, Failure> {
        let known = self.known(tenant, digest).await?;
        let nothing = Remembered::Nothing {
            is_new: known.is_none(),
        };
        if let Some(image) = known.and_then(|known| Seen::known(digest, known)) {
            return Ok(Remembered::Lead(Lead {
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
            return Ok(nothing);
        };
        let mut images = Vec::with_capacity(record.images.len());
        for image in record.images {
            let known = self.known(tenant, image).await?;
            match known.and_then(|known| Seen::known(image, known)) {
                Some(image) => images.push(image),
                None => return Ok(nothing),
            }
        }
        if images.is_empty() {
            return Ok(nothing);
        }
        Ok(Remembered::Lead(Lead {
            digest: Some(digest),
            index: Some(digest),
            images,
        }))
    }

    pub(super) async fn known(
        &self,
        tenant: &Slug,
        image: Digest,
    ) -> Result<Option<Known>, Failure> {
        let key = RecordKey::new(tenant, image, What::Known);
        let known = self.store.record::<Known>(&key).await?;
        Ok(known.map(|stored| stored.body))
    }
}

/// Where a tag leads that is told to name what nobody has seen yet: then its content is needed, and
/// asking for that says where the tag leads, too. `None`: look closer.
async fn fresh(
    client: &dyn Client,
    sighting: &Sighting,
    told: Digest,
) -> Result<Option<Lead>, NoLead> {
    let by_tag = Wanted {
        digest: None,
        ..wanted(sighting)
    };
    match client.resolve_keeping(&by_tag).await {
        Ok((resolved, kept)) if root(&resolved) == Some(told) => {
            lead_of(resolved, &kept, sighting).map(Some)
        }
        Ok(_) => Ok(None),
        Err(error) => match sorted(error, sighting) {
            failed @ NoLead::Failed(_) => Err(failed),
            _ => Ok(None),
        },
    }
}

/// Asks the source; where a digest is known, that is asked for.
async fn resolve(client: &dyn Client, sighting: &Sighting) -> Result<Lead, NoLead> {
    match client.resolve_keeping(&wanted(sighting)).await {
        Ok((resolved, kept)) => lead_of(resolved, &kept, sighting),
        Err(error) => unread(error, sighting),
    }
}

fn wanted(sighting: &Sighting) -> Wanted {
    Wanted {
        repository: sighting.place.repository.clone(),
        tag: sighting.tag.clone(),
        digest: sighting.digest,
        skip_configs: true,
        ..Wanted::default()
    }
}

/// The manifest or index that something was resolved to.
fn root(resolved: &Resolved) -> Option<Digest> {
    let first = || resolved.images.first().map(|image| image.digest);
    resolved.index.or_else(first)
}

fn lead_of(resolved: Resolved, kept: &Kept, sighting: &Sighting) -> Result<Lead, NoLead> {
    let digest = root(&resolved).or(sighting.digest);
    let Resolved {
        index,
        images,
        unreadable,
    } = resolved;
    let artifacts: Vec<_> = images.iter().filter_map(artifact).collect();
    if !artifacts.is_empty() && artifacts.len() == images.len() && unreadable.is_empty() {
        return Err(NoLead::NoImage(artifacts.join("; ")));
    }
    let mut seen: Vec<Seen> = images
        .into_iter()
        .filter(|image| artifact(image).is_none())
        .map(|image| Seen::new(image, kept))
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

/// What goes with the job of what was read of an image.
pub(super) fn manifest(image: &Image, kept: &Kept) -> Option<Manifest> {
    let manifest = kept.get(&image.digest)?;
    let is_small = manifest.len() <= MANIFEST_BYTES_MAX;
    is_small.then(|| Manifest(manifest.to_vec()))
}

// === impl Lead ===

impl Lead {
    /// Notes of an image whether the store has no record of it.
    fn noting(mut self, image: Digest, is_new: bool) -> Self {
        for seen in &mut self.images {
            seen.is_new |= is_new && seen.digest == image;
        }
        self
    }

    /// Whether an image that a runtime knows by this digest is behind it. An image whose manifest
    /// could not be read is, where its digest was asked for.
    pub(super) fn holds(&self, image: Digest, by_digest: bool) -> bool {
        let is = |seen: &Seen| {
            let is_read = seen.config.is_some() || by_digest;
            seen.config == Some(image) || (seen.digest == image && is_read)
        };
        self.index == Some(image) || self.images.iter().any(is)
    }

    /// The same with the image alone that a runtime knows by this digest; with all of them where
    /// that is the index.
    pub(super) fn only(&self, image: Digest) -> Self {
        let is = |seen: &&Seen| seen.config == Some(image) || seen.digest == image;
        let only: Vec<Seen> = self.images.iter().filter(is).cloned().collect();
        let mut lead = self.clone();
        if !only.is_empty() {
            lead.images = only;
        }
        lead
    }
}

// === impl Seen ===

impl Seen {
    /// What a record says of an image, however little.
    pub(super) fn of_record(digest: Digest, known: Known) -> Self {
        Self {
            config: known.config,
            ..Self::unread(digest, known.platform)
        }
    }

    /// What the store says of an image. `None`: its manifest was not read yet, and its source may
    /// do better now.
    fn known(digest: Digest, known: Known) -> Option<Self> {
        Some(Self {
            digest,
            platform: known.platform,
            config: Some(known.config?),
            manifest: None,
            is_new: false,
        })
    }

    /// An image that was read from a node.
    pub(super) fn of_node(image: Image, is_new: bool) -> Self {
        Self {
            is_new,
            ..Self::new(image, &Kept::default())
        }
    }

    /// An image whose manifest could not be read.
    fn unread(digest: Digest, platform: Platform) -> Self {
        Self {
            digest,
            platform,
            config: None,
            manifest: None,
            is_new: false,
        }
    }

    fn new(image: Image, kept: &Kept) -> Self {
        Self {
            digest: image.digest,
            manifest: manifest(&image, kept),
            is_new: false,
            platform: image.platform,
            config: Some(image.image_id),
        }
    }
}
