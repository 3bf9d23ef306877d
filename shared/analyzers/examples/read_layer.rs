//! Reads a layer from a file, says how long that took, and how long an image of it alone takes once
//! the layer is known, and what that has:
//! `read_layer FILE [TIMES [WITHOUT]]`, with all analyzers but some: `secrets,compliance`.
#![expect(
    clippy::print_stdout,
    reason = "it is a program for a person at a terminal"
)]

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io::{BufRead as _, BufReader},
    time::Instant,
};

use analyzers::{
    Analyzers, Config, LayerBlob, PreparedLayer, Subject, coalesce_prepared, read_layer,
};
use archive::Limits;
use model::Hasher;
use model::{ImageConfig, ImageReport, Platform};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which file?")?;
    let times: u32 = arguments.next().map_or(Ok(3), |times| times.parse())?;
    let mut reader = BufReader::with_capacity(1 << 20, File::open(&path)?);
    let (mut hasher, mut size) = (Hasher::default(), 0_u64);
    while !reader.fill_buf()?.is_empty() {
        let bytes = reader.buffer();
        hasher.update(bytes);
        let length = bytes.len();
        size += length as u64;
        reader.consume(length);
    }
    let expected = LayerBlob {
        digest: hasher.finish(),
        size,
        media_type: String::new(),
    };
    let limits = Limits::default();
    let without = arguments.next().unwrap_or_default();
    let analyzers = Analyzers::all(&Config::default(), &limits);
    let mut layer = None;
    let mut ids = analyzers.ids();
    ids.retain(|id| !without.split(',').any(|name| name == id.name));
    let analyzers = analyzers.subset(&ids);
    for _ in 0..times {
        let start = Instant::now();
        let read = read_layer(File::open(&path)?, &expected, &analyzers, &limits, None);
        let took = start.elapsed();
        let packages: usize = read
            .report
            .sections
            .iter()
            .map(|one| one.packages.len())
            .sum();
        let entries = &read.report.entries;
        println!(
            "{:.3} s: {} entries, {} MB uncompressed, {packages} packages, {} gaps, complete: {}",
            took.as_secs_f64(),
            entries.entries.len(),
            entries.uncompressed_bytes / 1_000_000,
            entries.gaps.len(),
            read.complete,
        );
        layer = Some(read.report);
    }
    if let Some(layer) = layer {
        let start = Instant::now();
        let layer = PreparedLayer::new(layer);
        println!("{:.3} s: made ready", start.elapsed().as_secs_f64());
        for _ in 0..times {
            let start = Instant::now();
            let report = image(&layer, &limits);
            println!(
                "{:.3} s: an image of it alone, {} packages",
                start.elapsed().as_secs_f64(),
                report.packages.len()
            );
        }
        show(&image(&layer, &limits));
    }
    Ok(())
}

fn image(layer: &PreparedLayer, limits: &Limits) -> ImageReport {
    let subject = Subject {
        image: layer.blob,
        reference: String::new(),
        index_digest: None,
        manifest_digest: None,
        image_id: layer.blob,
        platform: Platform::default(),
        layer_sizes: Vec::new(),
    };
    let config = ImageConfig {
        diff_ids: layer.entries.diff_id.into_iter().collect(),
        ..ImageConfig::default()
    };
    coalesce_prepared(&[layer], &config, subject, limits)
}

/// Packages by kind and confidence, guesses by name, changed files and gaps.
fn show(report: &ImageReport) {
    let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for package in &report.packages {
        let kind = format!("{} ({:?})", package.kind, package.confidence);
        let (all, owned) = kinds.entry(kind).or_default();
        *all += 1;
        *owned += usize::from(package.owned_by.is_some());
    }
    for (kind, (all, owned)) in kinds {
        println!("{kind}: {all}, of which packages of the system own {owned}");
    }
    for package in report
        .packages
        .iter()
        .filter(|one| one.kind == model::PackageType::Generic)
    {
        println!("  {} at {}", package.purl, package.path);
    }
    println!(
        "{} files are not as their packages made them",
        report.findings.tampered.len()
    );
    for found in &report.findings.tampered {
        println!("  {} of {}", found.path, found.package_id);
    }
    for gap in &report.gaps {
        println!(
            "gap {:?}: {} {}",
            gap.code,
            gap.path.as_deref().unwrap_or_default(),
            gap.detail
        );
    }
}
