//! Reads a layer from a file and says how long it took: `read_layer FILE [TIMES [WITHOUT]]`, with all
//! analyzers but one.
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

use analyzers::{Analyzers, Config, LayerBlob, read_layer};
use archive::Limits;
use model::Hasher;

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
    let without = arguments.next();
    let analyzers = Analyzers::all(&Config::default(), &limits);
    let mut ids = analyzers.ids();
    ids.retain(|id| Some(&id.name) != without.as_ref());
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
    }
    Ok(())
}
