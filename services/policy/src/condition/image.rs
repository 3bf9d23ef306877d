//! The condition `image`: what an image itself is, whatever is in it.

use std::fmt;

use jiff::{Timestamp, tz::TimeZone};
use model::{Fingerprint, Target};
use serde::Deserialize;

use crate::{
    evidence::Evidence,
    values::{Age, NameGlobs, Text},
};

/// Labels in which a build says what an image is built on (OCI image-spec, "Pre-Defined Annotation
/// Keys").
const BASE_LABELS: [&str; 2] = [
    "org.opencontainers.image.base.name",
    "org.opencontainers.image.base.digest",
];

/// Which images. At least one line must be given, and all that are given must fit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageFilter {
    /// Whose containers run as root, or not.
    pub root: Option<bool>,
    /// With more layers than this.
    pub layers_more_than: Option<usize>,
    /// Built on one of these: as its labels say, or with a layer of this digest, which cannot lie.
    pub base: NameGlobs,
    /// Built on none of these, as far as labels and layers say.
    pub base_other_than: NameGlobs,
    /// Built longer ago than this; what does not say when it was built is of no age.
    pub older_than: Option<Age>,
    /// Without one of these labels.
    pub lacks_labels: Vec<Text>,
}

/// What a rule may hold against an image itself, and a waiver accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trait {
    /// Its user.
    Root,
    /// How many layers it has.
    Layers,
    /// What it is built on.
    Base,
    /// When it was built.
    Age,
    /// Its labels.
    Labels,
}

/// One line of a filter that fits.
pub(crate) struct Fit {
    pub(crate) of: Trait,
    piece: String,
    advice: &'static str,
}

// === impl ImageFilter ===

impl ImageFilter {
    /// Whether it asks for nothing.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            root,
            layers_more_than,
            base,
            base_other_than,
            older_than,
            lacks_labels,
        } = self;
        root.is_none()
            && layers_more_than.is_none()
            && base.is_empty()
            && base_other_than.is_empty()
            && older_than.is_none()
            && lacks_labels.is_empty()
    }

    /// What speaks for it, unless a waiver accepts a part of that.
    pub(crate) fn evidence(
        &self,
        target: &Target,
        accepted: &[Trait],
        now: Timestamp,
    ) -> Option<Evidence> {
        let fits = self.fits(target, now)?;
        if fits.iter().any(|fit| accepted.contains(&fit.of)) {
            return None;
        }
        let fingerprints = fits.iter().map(|fit| fit.of.fingerprint()).collect();
        let advice: Vec<_> = fits.iter().map(|fit| fit.advice).collect();
        let pieces = fits.into_iter().map(|fit| fit.piece).collect();
        let evidence = Evidence::plain("the image", pieces, advice.join("; "));
        Some(evidence.resting_on(fingerprints))
    }

    /// When it begins to fit, if it does not yet and only time is missing.
    pub(crate) fn fits_from(&self, target: &Target, now: Timestamp) -> Option<Timestamp> {
        let at = target.created?.checked_add(self.older_than?.0).ok()?;
        (at > now && self.fits(target, at).is_some()).then_some(at)
    }

    /// All lines that are given; `None` where one does not fit, or none is given.
    pub(crate) fn fits(&self, target: &Target, now: Timestamp) -> Option<Vec<Fit>> {
        let Self {
            root,
            layers_more_than,
            base,
            base_other_than,
            older_than,
            lacks_labels,
        } = self;
        let mut fits = Vec::new();
        if let Some(wanted) = root {
            fits.push(of_user(target, *wanted)?);
        }
        if let Some(most) = layers_more_than {
            let layers = target.layers.len();
            let piece = format!("it has {layers} layers, more than {most}");
            let advice = "join instructions, or build in stages";
            fits.push((layers > *most).then(|| Fit::new(Trait::Layers, piece, advice))?);
        }
        if !base.is_empty() {
            let name = bases(target).into_iter().find(|name| base.fits(name))?;
            let piece = format!("it is built on {name}");
            fits.push(Fit::new(Trait::Base, piece, "build it on another image"));
        }
        if !base_other_than.is_empty() {
            fits.push(of_other_base(target, base_other_than)?);
        }
        if let Some(limit) = older_than {
            fits.push(of_age(target, *limit, now)?);
        }
        if !lacks_labels.is_empty() {
            fits.push(of_labels(target, lacks_labels)?);
        }
        (!fits.is_empty()).then_some(fits)
    }
}

impl Fit {
    const fn new(of: Trait, piece: String, advice: &'static str) -> Self {
        Self { of, piece, advice }
    }
}

/// Whether there is a config that says what a container runs with: a Dockerfile and a bill of materials
/// have none, and are of no platform.
const fn has_config(target: &Target) -> bool {
    !target.platform.os.is_empty()
}

fn of_user(target: &Target, wanted: bool) -> Option<Fit> {
    let user = target.config.user.as_deref().unwrap_or_default();
    let is_root = matches!(user.split(':').next(), Some("" | "root" | "0"));
    if !has_config(target) || is_root != wanted {
        return None;
    }
    let piece = match user {
        "" => "it names no user, so its containers run as root".to_owned(),
        user => format!("its user is `{user}`"),
    };
    let advice = if wanted {
        "end the Dockerfile with a USER that is not root"
    } else {
        "end the Dockerfile with `USER root`"
    };
    Some(Fit::new(Trait::Root, piece, advice))
}

/// Names and digests of what an image is built on.
fn bases(target: &Target) -> Vec<String> {
    let labels = BASE_LABELS.iter();
    let labels = labels.filter_map(|label| target.config.labels.get(*label).cloned());
    let layers = target.layers.iter();
    let digests = layers.flat_map(|layer| layer.diff_id.into_iter().chain([layer.digest]));
    labels
        .chain(digests.map(|digest| digest.to_string()))
        .collect()
}

fn of_other_base(target: &Target, known: &NameGlobs) -> Option<Fit> {
    let is_known = bases(target).iter().any(|name| known.fits(name));
    if !has_config(target) || is_known {
        return None;
    }
    let piece = match target.config.labels.get(BASE_LABELS[0]) {
        Some(name) => format!("it is built on {name}, and not on one of `{known}`"),
        None => format!("nothing says that it is built on one of `{known}`"),
    };
    let advice = "build it on an image of the list, and label it with what it is built on";
    Some(Fit::new(Trait::Base, piece, advice))
}

fn of_age(target: &Target, limit: Age, now: Timestamp) -> Option<Fit> {
    let created = target.created?;
    if now.duration_since(created) < limit.0 {
        return None;
    }
    // The day, and no age: the same verdict must read the same tomorrow.
    let day = created.to_zoned(TimeZone::UTC).date();
    let piece = format!("it was built on {day}, more than {limit} ago");
    let advice = "build it again, on a base image of today";
    Some(Fit::new(Trait::Age, piece, advice))
}

fn of_labels(target: &Target, wanted: &[Text]) -> Option<Fit> {
    let labels = &target.config.labels;
    let missing = wanted.iter().filter(|label| !labels.contains_key(&label.0));
    let missing: Vec<_> = missing.map(|label| format!("`{label}`")).collect();
    if !has_config(target) || missing.is_empty() {
        return None;
    }
    let piece = format!("it has no label {}", missing.join(", "));
    Some(Fit::new(Trait::Labels, piece, "add `LABEL` instructions"))
}

// === impl Trait ===

impl Trait {
    pub(crate) const ALL: [Self; 5] = [
        Self::Root,
        Self::Layers,
        Self::Base,
        Self::Age,
        Self::Labels,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Layers => "layers",
            Self::Base => "base",
            Self::Age => "age",
            Self::Labels => "labels",
        }
    }

    /// Its name among findings; the same in all images.
    pub(crate) fn fingerprint(self) -> Fingerprint {
        Fingerprint::of(&["image", self.as_str()])
    }
}

impl fmt::Display for Trait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
