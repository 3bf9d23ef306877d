//! The report of an image: its config looked into, its layers put together, and both checked.

use archive::Limits;
use model::{Digest, ImageConfig, ImageReport};

use crate::{
    Config, PreparedLayer, Subject, coalesce_prepared,
    compliance::check_image,
    secrets::{ConfigSecrets, look_into_config},
};

/// Makes an image's report of its layers, base layer first, and its config.
///
/// What the config tells of secrets is masked before anything else sees it. Like [`coalesce_prepared`]
/// it is pure, and bounded by the limits.
pub fn image_report(
    layers: &[&PreparedLayer],
    config: &ImageConfig,
    subject: Subject,
    limits: &Limits,
    settings: &Config,
) -> ImageReport {
    let blobs: Vec<Digest> = layers.iter().map(|layer| layer.report.blob).collect();
    let ConfigSecrets { config, secrets } =
        look_into_config(config, &blobs, subject.image_id, &settings.secrets);
    let mut report = coalesce_prepared(layers, &config, subject, limits);
    check_image(&config, &secrets, &mut report);
    report.findings.secrets.extend(secrets);
    report
}
