use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use model::GapCode;
use oci_distribution::manifest as media;
use serde_json::{Value, json};
use testkit::{ImageBuilder, debian_layer};

use super::*;

/// Documents in memory.
#[derive(Default)]
struct Memory {
    manifests: BTreeMap<Digest, Vec<u8>>,
    configs: BTreeMap<Digest, Vec<u8>>,
    /// Documents that the source does not answer for.
    down: Vec<Digest>,
    limits: Limits,
    configs_read: AtomicUsize,
}

impl Memory {
    fn image(&mut self, platform: &str) -> Value {
        let image = ImageBuilder::for_platform(platform)
            .layer(debian_layer(), "ADD")
            .build();
        self.configs.insert(image.image_id, image.config);
        let (os, rest) = platform.split_once('/').unwrap();
        let (architecture, variant) = rest.split_once('/').unwrap_or((rest, ""));
        let mut entry = self.entry(media::OCI_IMAGE_MEDIA_TYPE, image.manifest);
        entry["platform"] = json!({"os": os, "architecture": architecture, "variant": variant});
        entry
    }

    fn index(&mut self, entries: &[Value]) -> Value {
        let bytes = json!({"schemaVersion": 2, "manifests": entries})
            .to_string()
            .into_bytes();
        self.entry(media::OCI_IMAGE_INDEX_MEDIA_TYPE, bytes)
    }

    fn entry(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::of(&bytes);
        let entry = json!({
            "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()
        });
        self.manifests.insert(digest, bytes);
        entry
    }

    fn resolve(&self, root: &Value, platforms: Platforms) -> Result<Resolved, OciError> {
        let wanted = Wanted {
            platforms,
            ..Wanted::default()
        };
        self.resolve_wanted(root, &wanted)
    }

    fn resolve_wanted(&self, root: &Value, wanted: &Wanted) -> Result<Resolved, OciError> {
        futures::executor::block_on(async {
            let root = self.manifest("", digest(root)).await?;
            follow(self, wanted, "r.example/app:1".to_owned(), root).await
        })
    }

    fn get(&self, from: &BTreeMap<Digest, Vec<u8>>, digest: Digest) -> Result<Vec<u8>, OciError> {
        if self.down.contains(&digest) {
            let (host, detail) = ("r.example".to_owned(), "down".to_owned());
            return Err(OciError::Unavailable {
                host,
                detail,
                retry_after: None,
            });
        }
        let (what, place) = (digest.to_string(), "memory".to_owned());
        from.get(&digest).cloned().ok_or(OciError::NotFound {
            what,
            place,
            missing: crate::Missing::Unsaid,
        })
    }
}

impl Documents for Memory {
    fn manifest<'a>(
        &'a self,
        _repository: &'a str,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Fetched, OciError>> {
        let bytes = self.get(&self.manifests, digest);
        Box::pin(async move {
            Ok(Fetched {
                bytes: bytes?,
                digest,
                content_type: None,
            })
        })
    }

    fn config<'a>(
        &'a self,
        _repository: &'a str,
        config: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<u8>, OciError>> {
        self.configs_read.fetch_add(1, Ordering::Relaxed);
        let bytes = self.get(&self.configs, config.digest);
        Box::pin(async move { bytes })
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

fn digest(entry: &Value) -> Digest {
    entry["digest"].as_str().unwrap().parse().unwrap()
}

fn platforms(resolved: &Resolved) -> Vec<String> {
    resolved
        .images
        .iter()
        .map(|image| image.platform.to_string())
        .collect()
}

#[test]
fn an_index_leads_to_all_its_images_in_order_without_attestations() {
    let mut memory = Memory::default();
    let (amd, arm) = (memory.image("linux/amd64"), memory.image("linux/arm/v7"));
    let mut attestation = memory.image("linux/riscv64");
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let inner = memory.index(&[arm.clone(), amd.clone()]);
    let root = memory.index(&[amd.clone(), attestation, inner]);
    let resolved = memory.resolve(&root, Platforms::All).unwrap();
    assert_eq!(platforms(&resolved), ["linux/amd64", "linux/arm/v7"]);
    assert_eq!(resolved.index, Some(digest(&root)));
    assert_eq!(resolved.images[1].index, Some(digest(&root)));
    assert_eq!(resolved.images[1].digest, digest(&arm));
    assert_eq!(resolved.images[1].config.history.len(), 1);
    assert!(resolved.images[1].has_registry_manifest);
    // The same without a config being fetched.
    let before = memory.configs_read.load(Ordering::Relaxed);
    let wanted = Wanted {
        skip_configs: true,
        ..Wanted::default()
    };
    let resolved = memory.resolve_wanted(&root, &wanted).unwrap();
    assert_eq!(platforms(&resolved), ["linux/amd64", "linux/arm/v7"]);
    assert!(resolved.images.iter().all(|image| image.gaps.is_empty()));
    assert_eq!(memory.configs_read.load(Ordering::Relaxed), before);
}

#[test]
fn one_platform_is_found_by_what_the_index_says_and_else_by_the_configs() {
    let mut memory = Memory::default();
    let mut entries = [
        memory.image("linux/amd64"),
        memory.image("linux/arm/v6"),
        memory.image("linux/arm/v7"),
    ];
    let said = memory.index(&entries);
    for entry in &mut entries {
        entry.as_object_mut().unwrap().remove("platform");
    }
    let silent = memory.index(&entries);
    for root in [said, silent] {
        let check = |platforms: Platforms| {
            let resolved = memory.resolve(&root, platforms);
            resolved.map(|resolved| resolved.images[0].platform.to_string())
        };
        let only = |platform: &str| Platforms::Only(platform.parse().unwrap());
        assert_eq!(check(only("linux/arm/v7")).unwrap(), "linux/arm/v7");
        assert_eq!(check(only("linux/amd64")).unwrap(), "linux/amd64");
        assert!(check(only("linux/arm")).unwrap().starts_with("linux/arm/"));
        let error = check(only("linux/s390x")).unwrap_err();
        assert!(error.is_not_found() && matches!(error, OciError::NoPlatform { .. }));
        let prefer = Platforms::Prefer("linux/s390x".parse().unwrap());
        assert_eq!(check(prefer).unwrap(), "linux/amd64");
    }
}

#[test]
fn an_image_that_is_missing_is_told_and_a_source_that_is_down_fails_all() {
    let mut memory = Memory::default();
    let (amd, arm) = (memory.image("linux/amd64"), memory.image("linux/arm64"));
    let root = memory.index(&[amd.clone(), arm.clone()]);
    let bytes = memory.manifests.remove(&digest(&arm)).unwrap();
    let resolved = memory.resolve(&root, Platforms::All).unwrap();
    assert_eq!(platforms(&resolved), ["linux/amd64"]);
    assert_eq!(resolved.unreadable[0].digest, digest(&arm));
    assert!(resolved.unreadable[0].error.is_not_found());
    memory.manifests.insert(digest(&arm), bytes);
    memory.down.push(digest(&arm));
    assert!(
        memory
            .resolve(&root, Platforms::All)
            .unwrap_err()
            .is_transient()
    );
}

#[test]
fn a_config_that_is_missing_or_broken_is_a_gap() {
    let mut memory = Memory::default();
    let image = memory.image("linux/amd64");
    memory.configs.clear();
    let resolved = memory.resolve(&image, Platforms::All).unwrap();
    assert_eq!(resolved.images[0].gaps[0].code, GapCode::BadConfig);
    assert_eq!(resolved.index, None);
    let root = memory.index(&[image]);
    let resolved = memory.resolve(&root, Platforms::All).unwrap();
    assert_eq!(platforms(&resolved), ["linux/amd64"], "as the index says");
}

#[test]
fn indexes_that_are_deep_wide_or_empty_are_refused() {
    let mut memory = Memory::default();
    let image = memory.image("linux/amd64");
    let two_deep = memory.index(std::slice::from_ref(&image));
    let one_deep = memory.index(&[two_deep]);
    let root = memory.index(std::slice::from_ref(&one_deep));
    assert!(memory.resolve(&one_deep, Platforms::All).is_ok());
    let error = memory.resolve(&root, Platforms::All).unwrap_err();
    assert!(error.to_string().contains("2 deep"), "{error}");
    let empty = memory.index(&[]);
    assert!(matches!(
        memory.resolve(&empty, Platforms::All),
        Err(OciError::Unsupported { .. })
    ));
    let wide: Vec<_> = (0..201)
        .map(|n: u32| {
            let digest = Digest::of(&n.to_be_bytes()).to_string();
            json!({"mediaType": media::OCI_IMAGE_MEDIA_TYPE, "digest": digest, "size": 1})
        })
        .collect();
    let wide = memory.index(&wide);
    assert!(matches!(
        memory.resolve(&wide, Platforms::All),
        Err(OciError::TooLarge { .. })
    ));
}
