use std::{
    fs,
    io::{Cursor, Write as _},
};

use bytes::Bytes;
use jiff::Timestamp;
use model::{AdvisoryManifest, Digest, ShardKey};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{
    CONTEXT, Export, MANIFEST, SHARDS, SIGNATURE, SigningKey, VerifyingKey, document, export,
    import_export, is_export,
};
use crate::{
    Advisories, FeedLimits, Import, Mode, Source, stage,
    stage::tests::{records, shown},
};

/// An export that is signed and whole, with a shard that is none.
pub(crate) fn export_of_junk(key: &SigningKey) -> Bytes {
    let junk = b"of another version";
    let shard = (ShardKey::of("npm", "x"), Digest::of(junk));
    let manifest = AdvisoryManifest {
        revision: 1,
        shards: [shard.clone()].into(),
        ..AdvisoryManifest::default()
    };
    let document = document(&manifest, Timestamp::UNIX_EPOCH).unwrap();
    let signature = serde_json::to_vec(&key.sign(CONTEXT, &document)).unwrap();
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [
        (MANIFEST, &document[..]),
        (SIGNATURE, &signature),
        (&format!("{SHARDS}{}", shard.1.hex()), junk),
    ] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner().into()
}

fn take(advisories: &Advisories, feed: &str, second: i64, rows: &[(&str, &str, &str, &str)]) {
    let import = Import {
        feed: feed.to_owned(),
        mode: Mode::Replace,
        fetched_at: Timestamp::from_second(second).unwrap(),
        revision: Some(format!("r{second}")),
    };
    let source = Source::Bytes(records(rows));
    stage::import(advisories, &import, &source, &FeedLimits::default()).unwrap();
}

#[test]
fn an_export_brings_its_feeds_and_leaves_others_and_newer_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (
        Advisories::open(&dir.path().join("from")).unwrap(),
        Advisories::open(&dir.path().join("to")).unwrap(),
    );
    take(
        &from,
        "npm",
        20,
        &[("A", "npm", "x", "2.0.0"), ("B", "npm", "y", "2.0.0")],
    );
    take(&from, "PyPI", 10, &[("P", "PyPI", "x", "1")]);
    take(
        &to,
        "npm",
        10,
        &[("A", "npm", "x", "1.0.0"), ("Old", "npm", "z", "1.0.0")],
    );
    take(&to, "PyPI", 30, &[("P", "PyPI", "x", "3")]);
    take(&to, "mine", 5, &[("M", "npm", "x", "5.0.0")]);
    let (file, key) = (dir.path().join("export"), SigningKey::generate().unwrap());
    let exported = export(&from, &file, Some(&key), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!((exported.feeds, exported.key), (2, Some(key.verifying())));
    let limits = FeedLimits::default();
    let keys = [key.verifying()];
    let imported = import_export(&to, &file, (&keys, false), &limits).unwrap();
    let lines = shown(&to);
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(has("2.0.0") && !has("1.0.0") && has("5.0.0"), "{lines:?}");
    let revisions = &imported.manifest.feed_revisions;
    assert_eq!(
        (revisions["npm"].as_str(), revisions["PyPI"].as_str()),
        ("r20", "r30")
    );
    // Once more changes nothing.
    let again = import_export(&to, &file, (&keys, false), &limits).unwrap();
    assert_eq!(again.manifest, imported.manifest);
}

#[test]
fn only_a_whole_export_with_a_trusted_signature_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let from = Advisories::open(&dir.path().join("from")).unwrap();
    let to = Advisories::open(&dir.path().join("to")).unwrap();
    take(&from, "npm", 20, &[("A", "npm", "x", "2.0.0")]);
    let (file, key) = (dir.path().join("export"), SigningKey::generate().unwrap());
    let other: SigningKey = SigningKey::generate().unwrap().secret().parse().unwrap();
    let limits = FeedLimits::default();
    let refused = |keys: &[VerifyingKey], unsigned: bool| {
        let error = import_export(&to, &file, (keys, unsigned), &limits).unwrap_err();
        format!("{error:#}")
    };
    export(&from, &file, None, Timestamp::UNIX_EPOCH).unwrap();
    assert!(refused(&[key.verifying()], false).contains("not signed"));
    assert!(import_export(&to, &file, (&[], true), &limits).is_ok());
    export(&from, &file, Some(&key), Timestamp::UNIX_EPOCH).unwrap();
    assert!(refused(&[other.verifying()], false).contains("not trusted"));
    // A byte of the manifest or of a shard that is another one.
    let bytes = fs::File::open(&file)
        .map(|file| (is_export(&file), file))
        .unwrap();
    assert!(bytes.0);
    let whole = chassis::files::read_bounded(&file, 1 << 20).unwrap();
    let mut changed = 0;
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let read = Export::read(Cursor::new(&bytes), (&[key.verifying()], false), &limits);
        match read {
            Err(_) => changed += 1,
            // What only the zip's own directory says, as a date, is nobody's business.
            Ok(read) => assert_eq!(read.shards.len(), 1),
        }
    }
    assert!(
        changed * 2 > whole.len() / 7,
        "{changed} of {}",
        whole.len() / 7
    );
}
