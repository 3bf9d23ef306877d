use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn descriptor(media_type: &str, of: &str) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(of.as_bytes()).to_string(), "size": 7})
}

fn parse(value: &Value) -> Result<Document, OciError> {
    let bytes = serde_json::to_vec(value).unwrap();
    Document::parse(&bytes, None, Digest::of(&bytes), &Limits::default())
}

fn refused(value: &Value) -> String {
    parse(value).unwrap_err().to_string()
}

#[test]
fn oci_and_docker_manifests_are_images() {
    for (config, layer) in [
        (
            media::IMAGE_CONFIG_MEDIA_TYPE,
            media::IMAGE_LAYER_GZIP_MEDIA_TYPE,
        ),
        (
            media::IMAGE_DOCKER_CONFIG_MEDIA_TYPE,
            media::IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE,
        ),
    ] {
        let layers = [descriptor(layer, "a"), descriptor(layer, "b")];
        let value =
            json!({"schemaVersion": 2, "config": descriptor(config, "c"), "layers": layers});
        let Document::Image(image) = parse(&value).unwrap() else {
            panic!("an image")
        };
        assert_eq!(image.manifest.layers.len(), 2);
        assert_eq!(image.manifest.layers[0].digest, Digest::of(b"a"));
        assert_eq!(image.manifest.config.media_type, config);
    }
}

#[test]
fn attestations_and_names_of_an_index_are_told() {
    let mut attestation = descriptor(media::OCI_IMAGE_MEDIA_TYPE, "att");
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    attestation["annotations"] = json!({REFERENCE_TYPE: "attestation-manifest"});
    let mut image = descriptor(media::OCI_IMAGE_MEDIA_TYPE, "arm");
    image["platform"] = json!({"os": "linux", "architecture": "arm", "variant": "v7"});
    image["annotations"] = json!({REF_NAME: "1.0", CONTAINERD_NAME: "r.example/app:stable"});
    let value = json!({"schemaVersion": 2, "manifests": [attestation, image]});
    let Document::Index(entries) = parse(&value).unwrap() else {
        panic!("an index")
    };
    assert!(entries[0].is_attestation && !entries[1].is_attestation);
    assert_eq!(entries[1].platform, Some("linux/arm/v7".parse().unwrap()));
    for (tag, expected) in [("1.0", true), ("stable", true), ("2", false)] {
        assert_eq!(entries[1].is_named(tag), expected, "{tag}");
    }
}

#[test]
fn an_image_is_not_hidden_by_half_the_marks_of_an_attestation() {
    let entry = |os: &str, architecture: &str, reference: Option<&str>| {
        let mut entry = descriptor(media::OCI_IMAGE_MEDIA_TYPE, "x");
        entry["platform"] = json!({"os": os, "architecture": architecture});
        if let Some(reference) = reference {
            entry["annotations"] = json!({REFERENCE_TYPE: reference});
        }
        entry
    };
    for (entry, expected) in [
        (entry("unknown", "unknown", Some(ATTESTATION)), true),
        (entry("linux", "amd64", Some(ATTESTATION)), false),
        (entry("linux", "amd64", Some("anything")), false),
        (entry("unknown", "amd64", Some(ATTESTATION)), false),
        (entry("unknown", "unknown", Some("anything")), false),
        (entry("unknown", "unknown", None), false),
    ] {
        let value = json!({"schemaVersion": 2, "manifests": [entry]});
        let Document::Index(entries) = parse(&value).unwrap() else {
            panic!("an index")
        };
        assert_eq!(entries[0].is_attestation, expected, "{entry}");
    }
}

#[test]
fn what_cannot_be_trusted_is_refused_with_a_reason() {
    let schema1 = json!({"schemaVersion": 1, "fsLayers": [], "history": []});
    assert!(
        refused(&schema1).contains("Docker schema 1"),
        "{}",
        refused(&schema1)
    );
    let config = descriptor(media::IMAGE_CONFIG_MEDIA_TYPE, "c");
    let both = json!({"schemaVersion": 2, "manifests": [], "config": config, "layers": []});
    assert!(refused(&both).contains("at once"));
    assert!(refused(&json!({"schemaVersion": 2})).contains("neither a config nor manifests"));
    assert!(refused(&json!([])).contains("is malformed"));
    let mut sha512 = config.clone();
    sha512["digest"] = json!("sha512:00");
    assert!(refused(&json!({"config": sha512})).contains("`sha512` is not supported"));
}

#[test]
fn what_a_runtime_would_read_as_another_image_is_refused() {
    let config = descriptor(media::IMAGE_CONFIG_MEDIA_TYPE, "c");
    let clean = descriptor(media::IMAGE_LAYER_GZIP_MEDIA_TYPE, "clean");
    let evil = descriptor(media::IMAGE_LAYER_GZIP_MEDIA_TYPE, "evil");
    let mut folded = clean.clone();
    folded["Digest"] = evil["digest"].clone();
    let mut platform = clean.clone();
    platform["platform"] = json!({"os": "linux", "architecture": "amd64", "OS": "windows"});
    for (lie, key) in [
        (
            json!({"config": config, "layers": [clean], "Layers": [evil]}),
            "`Layers`",
        ),
        (
            json!({"config": config, "layers": [clean], "layer\u{17f}": [evil]}),
            "for `layers`",
        ),
        (
            json!({"config": config, "Config": config, "layers": [clean]}),
            "`Config`",
        ),
        (json!({"config": config, "layers": [folded]}), "`Digest`"),
        (
            json!({"manifests": [clean], "Manifests": [evil]}),
            "`Manifests`",
        ),
        (json!({"manifests": [platform]}), "`OS`"),
        (
            json!({"config": config, "layers": [clean], "FSLayers": []}),
            "`FSLayers`",
        ),
    ] {
        let text = refused(&lie);
        assert!(
            text.contains("is malformed") && text.contains(key),
            "{text}"
        );
    }
    let twice = format!(r#"{{"config": {config}, "layers": [{clean}], "layers": [{evil}]}}"#);
    let bytes = twice.as_bytes();
    let parsed = Document::parse(bytes, None, Digest::of(bytes), &Limits::default());
    assert!(parsed.unwrap_err().to_string().contains("stands twice"));
    // Keys of annotations are the maker's own, and readers compare them exactly.
    let mut noted = clean.clone();
    noted["annotations"] = json!({"Digest": "x", "digest": "y"});
    let value = json!({"config": config, "layers": [noted], "annotations": {"LAYERS": ""}});
    assert!(parse(&value).is_ok());
}

#[test]
fn a_chart_is_no_image_but_a_renamed_config_hides_nothing() {
    let chart = "application/vnd.cncf.helm.config.v1+json";
    let content = descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "x");
    let value = json!({"config": descriptor(chart, "c"), "layers": [content]});
    assert!(refused(&value).contains("not a container image"));
    let layer = descriptor(media::IMAGE_LAYER_GZIP_MEDIA_TYPE, "x");
    let value = json!({"config": descriptor(chart, "c"), "layers": [layer]});
    assert!(matches!(parse(&value), Ok(Document::Image(_))));
}

#[test]
fn too_many_layers_are_a_gap_and_too_many_platforms_an_error() {
    let layer = descriptor(media::IMAGE_LAYER_GZIP_MEDIA_TYPE, "x");
    let config = descriptor(media::IMAGE_CONFIG_MEDIA_TYPE, "c");
    let value = json!({"config": config, "layers": vec![layer.clone(); 1001]});
    let Document::Image(image) = parse(&value).unwrap() else {
        panic!("an image")
    };
    assert_eq!(image.manifest.layers.len(), 1000);
    assert_eq!(image.gaps[0].code, GapCode::LimitLayers);
    let value = json!({"manifests": vec![layer; 801]});
    assert!(matches!(parse(&value), Err(OciError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let digest = Digest::of(&bytes);
        let _parsed = Document::parse(&bytes, None, digest, &Limits::default());
    }
}
