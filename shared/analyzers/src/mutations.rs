//! Every file of the testdata, cut and changed at random: whatever is read of it, nothing breaks.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use archive::Limits;
use model::Digest;

use crate::{Analyzers, Config, LayerBlob, read_layer};

/// Rounds over all files; each takes some 50 ms.
const ROUNDS: u64 = 60;

/// Numbers that look random and are the same in each run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (end.max(1) as u64)).unwrap()
    }
}

/// Paths in the layer and contents, of all cases of all analyzers.
fn samples() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut samples = Vec::new();
    let mut due = vec![root.clone()];
    while let Some(directory) = due.pop() {
        for entry in directory.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                due.push(path);
                continue;
            }
            let mut parts = path.strip_prefix(&root).unwrap().components();
            let mut content = Vec::new();
            File::open(&path)
                .unwrap()
                .take(1 << 20)
                .read_to_end(&mut content)
                .unwrap();
            // Without the analyzer and the case.
            let inner = parts.by_ref().skip(2).collect::<PathBuf>();
            if !inner.as_os_str().is_empty() {
                samples.push((inner, content));
            }
        }
    }
    samples.sort();
    samples
}

fn changed(content: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut content = content.to_vec();
    for _ in 0..=numbers.below(4) {
        let (at, length) = (numbers.below(content.len()), numbers.below(16));
        let end = (at + length).min(content.len());
        match numbers.below(5) {
            0 => content.truncate(at),
            1 => drop(content.drain(at..end)),
            2 => {
                let part = content[at..end].to_vec();
                let to = numbers.below(content.len());
                content.splice(to..to, part);
            }
            3 if at < content.len() => content[at] = u8::try_from(numbers.below(256)).unwrap(),
            _ => {
                let bytes = b"{}[]()\"'\\:;,@/%&<>=#\n \0\xff-9";
                content.insert(at.min(content.len()), bytes[numbers.below(bytes.len())]);
            }
        }
    }
    content
}

#[test]
fn files_that_are_broken_anywhere_break_nothing() {
    let limits = Limits::default();
    let analyzers = Analyzers::of_directory(&Config::default(), &limits);
    let samples = samples();
    assert!(samples.len() > 100);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..ROUNDS {
        let mut builder = tar::Builder::new(Vec::new());
        for (number, (path, content)) in samples.iter().enumerate() {
            let content = changed(content, &mut numbers);
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            // Each case is a directory of its own, but records of the system are where they are.
            let path = if path.starts_with("app") {
                Path::new(&number.to_string()).join(path)
            } else {
                path.clone()
            };
            builder
                .append_data(&mut header, path, &content[..])
                .unwrap();
        }
        let blob = builder.into_inner().unwrap();
        let expected = LayerBlob {
            digest: Digest::of(&blob),
            size: blob.len() as u64,
            media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        };
        let read = read_layer(&blob[..], &expected, &analyzers, &limits, None);
        assert!(
            read.complete,
            "round {round}: {:?}",
            read.report.transient_gaps
        );
        let ids = analyzers.ids().len();
        assert_eq!(read.report.sections.len(), ids, "round {round}");
    }
}
