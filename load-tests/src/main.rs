//! Measures Tidewaiter from outside, beside something that everybody can run.
//!
//! The decision that shapes it: a figure alone says nothing, so each stands beside another of the
//! same run: a layer read beside `gzip -dc | sha256sum` of the same file, a warm push beside a cold
//! one. Figures are medians. The price is that a run takes a while.
//!
//! What needs a whole installation starts one: a broker, a registry, and each role in a process of
//! its own, in a directory that is gone afterwards. Only `push` measures a server that runs already.
//!
//! `images` makes what `scan` reads, from the file system that `load-tests/make-tree.sh` installs, or
//! from one of archives and programs, which `load-tests/make-archives.sh` makes.
//! Whether package lists are right is shown by `load-tests/package-truth.sh`, which asks the package
//! managers' own tools; whether versions are ordered right, by `load-tests/versions.sh`.
//!
//! It asserts nothing: what is fast enough is decided by who reads the table.
//!
//! | command | measures |
//! |---|---|
//! | `scan` | images scanned by the command, or layers read by the library, beside pipes and other scanners: medians, ratios, processor time, peak memory; `--warm` with known layers |
//! | `push` | push to verdict, cold and warm, and images judged per second, with a running server |
//! | `churn` | distinct images over shared stacks: judged per second, latency, bytes read, CPU per role; a policy edit |
//! | `scale` | 1, 2, 4 scanner processes against a slow registry |
//! | `fairness` | fresh pushes while low-priority rescans wait |
//! | `outage` | webhooks while the broker is away: answers, losses, time to drain |
//! | `match` | packages matched with advisories: an image of 1,000 packages, new and known, on one core |
//! | `reassess` | from one advisory to the news and verdicts of the images that it touches; what the reverse index costs |
//! | `behavior` | runtime events judged per second on one core: 1,000 containers of 50 images, decoding included |
//! | `memory` | memory of every process over minutes, and its slope |
//!
//! To add a measurement: a module, a variant of `Command`, and a row here.

mod behaving;
mod churn;
mod fairness;
mod figures;
mod fleet;
mod images;
mod layout;
mod matching;
mod memory;
mod outage;
mod push;
mod reassess;
mod registry;
mod scale;
mod scan;
mod sending;
mod server;
mod usage;
mod watch;
mod workload;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde::Serialize;

/// Measures Tidewaiter from outside.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  load-tests/make-tree.sh TREE && cargo load images TREE IMAGES
  cargo load scan IMAGES/*
  cargo load scan layer.tar.gz --rounds 7 --without-tools
  cargo load scan IMAGES/one-gzip --warm CACHE
  cargo load push LAYOUT --server http://127.0.0.1:8080 --token-file data/admin.token \\
      --registry 127.0.0.1:5000
  cargo load churn                                   10,000 images, all at once
  cargo load churn --images 500 --rate 150 --json churn.json
  cargo load churn --registry stand-in --policy-edit
  cargo load scale
  cargo load fairness
  cargo load outage --down-s 60 --rate 50
  cargo load memory --seconds 600
  cargo load behavior
  cargo load match OSV                               a directory in the layout of OSV.dev's exports
  cargo load reassess OSV --images 2000              100,000 where it is left out
`push` needs deploy/quickstart.sh running; server, token and registry are what it prints. `scan`
and the others, from `churn` on, start what they measure: cargo build --release -p tidewaiter
comes first."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Write the figures as JSON into a file, too
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Scan images, beside `gzip -dc | sha256sum` and other scanners
    Scan(scan::Options),
    /// Make images of one file system: in one layer, in twelve, each compression
    Images(images::Options),
    /// Push images to a registry that reports to a running server, and wait for verdicts
    Push(push::Options),
    /// Judge many distinct images that share their stacks
    Churn(churn::Options),
    /// Run several scanner processes against a slow registry
    Scale(scale::Options),
    /// Push fresh images while many rescans of low priority wait
    Fairness(fairness::Options),
    /// Take the broker away while webhooks come
    Outage(outage::Options),
    /// Match an image's packages with real advisories, on one core
    Match(matching::Options),
    /// Hand in advisories that touch 1, 10, 1,000 and 50,000 of many images
    Reassess(reassess::Options),
    /// Judge what a thousand containers do, on one core
    Behavior(behaving::Options),
    /// Watch the memory of every process for minutes
    Memory(memory::Options),
    /// Read layers once and print what was found
    #[command(hide = true)]
    ReadOnce {
        /// The layers
        files: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let json = cli.json.as_deref();
    match &cli.command {
        Command::Scan(options) => print(json, &scan::run(options)?),
        Command::Push(options) => print(json, &push::run(options)?),
        Command::Churn(options) => print(json, &churn::run(options)?),
        Command::Scale(options) => print(json, &scale::run(options)?),
        Command::Fairness(options) => print(json, &fairness::run(options)?),
        Command::Outage(options) => print(json, &outage::run(options)?),
        Command::Match(options) => print(json, &matching::run(options)?),
        Command::Reassess(options) => print(json, &reassess::run(options)?),
        Command::Behavior(options) => print(json, &behaving::run(options)?),
        Command::Memory(options) => print(json, &memory::run(options)?),
        Command::Images(options) => print(json, &images::run(options)?),
        Command::ReadOnce { files } => {
            serde_json::to_writer(std::io::stdout(), &scan::read_once(files)?)?;
            Ok(())
        }
    }
}

/// Prints a table, and writes the figures into a file where one is named.
fn print<T: Serialize + std::fmt::Display>(json: Option<&Path>, result: &T) -> anyhow::Result<()> {
    write!(std::io::stdout().lock(), "{result}")?;
    let Some(path) = json else { return Ok(()) };
    let mut text = serde_json::to_string_pretty(result)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("writing `{}`", path.display()))
}

/// Tells how far a measurement is, on standard error.
fn say(what: &str) {
    drop(writeln!(std::io::stderr(), "{what} …"));
}
