//! The report of an image: its config looked into, its layers put together, and both checked.

use std::collections::BTreeMap;

use archive::Limits;
use model::{Digest, ImageConfig, ImageReport, RuntimeConfig};

use crate::{
    Config, PreparedLayer, SecretsConfig, Subject, coalesce_prepared,
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
    let blobs: Vec<Digest> = layers.iter().map(|layer| layer.blob).collect();
    let ConfigSecrets { config, secrets } =
        look_into_config(config, &blobs, subject.image_id, &settings.secrets);
    let mut report = coalesce_prepared(layers, &config, subject, limits);
    if !settings.without.misconfigurations {
        check_image(&config, &secrets, &mut report);
    }
    if !settings.without.secrets {
        report.findings.secrets.extend(secrets);
    }
    report
}

/// Labels as they may be kept: what the built-in rules take for a secret is masked.
pub fn masked_labels(labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let config = ImageConfig {
        runtime: RuntimeConfig {
            labels,
            ..RuntimeConfig::default()
        },
        ..ImageConfig::default()
    };
    let looked_into = look_into_config(&config, &[], Digest::of(b""), &SecretsConfig::default());
    looked_into.config.runtime.labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kept_without_their_secrets() {
        let password = ["hV7qd", "T2mXw9", "Lr4"].concat();
        let labels = [
            ("maintainer", "ada@example.com".to_owned()),
            (
                "source",
                format!("https://ada:{password}@git.example.com/app"),
            ),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value));
        let masked = masked_labels(BTreeMap::from(labels));
        assert_eq!(masked["maintainer"], "ada@example.com");
        assert!(masked["source"].starts_with("https://"), "{masked:?}");
        assert!(!masked["source"].contains(&password), "{masked:?}");
    }
}
