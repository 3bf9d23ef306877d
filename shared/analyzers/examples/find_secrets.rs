//! Reads a layer from a file and lists the secrets and refused settings in it: `find_secrets FILE`.
#![expect(
    clippy::print_stdout,
    reason = "it is a program for a person at a terminal"
)]

use std::{
    error::Error,
    fs::File,
    io::{BufRead as _, BufReader},
    time::Instant,
};

use analyzers::{Analyzers, Config, LayerBlob, PreparedLayer, Subject, image_report, read_layer};
use archive::Limits;
use model::{Digest, Hasher, ImageConfig, Platform};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which file?")?;
    let mut reader = BufReader::with_capacity(1 << 20, File::open(&path)?);
    let (mut hasher, mut size) = (Hasher::default(), 0_u64);
    while !reader.fill_buf()?.is_empty() {
        hasher.update(reader.buffer());
        let length = reader.buffer().len();
        size += length as u64;
        reader.consume(length);
    }
    let expected = LayerBlob {
        digest: hasher.finish(),
        size,
        media_type: String::new(),
    };
    let limits = Limits::default();
    let all = Analyzers::all(&Config::default(), &limits);
    let start = Instant::now();
    let read = read_layer(File::open(&path)?, &expected, &all, &limits, None);
    let took = start.elapsed().as_secs_f64();
    let entries = &read.report.entries;
    println!(
        "{} entries, {} MB, {took:.2} s, complete: {}",
        entries.entries.len(),
        entries.uncompressed_bytes / 1_000_000,
        read.complete
    );
    let layer = PreparedLayer::new(read.report);
    let subject = Subject {
        image: Digest::of(b""),
        reference: path,
        index_digest: None,
        manifest_digest: None,
        image_id: Digest::of(b""),
        platform: Platform::default(),
        layer_sizes: Vec::new(),
    };
    let config = ImageConfig::default();
    let report = image_report(&[&layer], &config, subject, &limits, &Config::default());
    for one in &report.findings.secrets {
        println!(
            "{} {} {}:{}:{} {}",
            one.severity, one.rule, one.path, one.line, one.column, one.masked
        );
    }
    for one in &report.findings.misconfigurations {
        let path = one.path.as_deref().unwrap_or_default();
        println!("{} {} {path} {}", one.severity, one.id, one.evidence);
    }
    for gap in report
        .gaps
        .iter()
        .filter(|gap| gap.hides == model::Hides::Secrets)
    {
        println!(
            "gap {:?} {} {}",
            gap.code,
            gap.path.as_deref().unwrap_or_default(),
            gap.detail
        );
    }
    Ok(())
}
