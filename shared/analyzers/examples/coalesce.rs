//! Reads layers from files once, then puts the image together again and again, as a scan of known
//! layers does: `coalesce ROUNDS FILE…`, base layer first.
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
    let mut arguments = std::env::args().skip(1);
    let rounds: u32 = arguments.next().ok_or("how many rounds?")?.parse()?;
    let (config, limits) = (Config::default(), Limits::default());
    let all = Analyzers::all(&config, &limits);
    let mut layers = Vec::new();
    for path in arguments {
        let (mut hasher, mut size) = (Hasher::default(), 0_u64);
        let mut reader = BufReader::with_capacity(1 << 20, File::open(&path)?);
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
        let read = read_layer(File::open(&path)?, &expected, &all, &limits, None);
        layers.push(PreparedLayer::new(read.report));
    }
    let layers: Vec<&PreparedLayer> = layers.iter().collect();
    let subject = Subject {
        image: Digest::of(b""),
        reference: String::new(),
        index_digest: None,
        manifest_digest: None,
        image_id: Digest::of(b""),
        platform: Platform::default(),
        layer_sizes: Vec::new(),
    };
    for _ in 0..rounds {
        let start = Instant::now();
        let image = ImageConfig::default();
        let report = image_report(&layers, &image, subject.clone(), &limits, &config);
        let took = start.elapsed().as_secs_f64() * 1e3;
        println!("{} packages, {took:.1} ms", report.packages.len());
    }
    Ok(())
}
