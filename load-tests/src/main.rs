//! Measures Tidewaiter from outside, beside something that everybody can run.
//!
//! The decision that shapes it: a figure alone says nothing, so each stands beside another of the
//! same run: a layer read beside `gzip -dc | sha256sum` of the same file, a warm push beside a cold
//! one. Figures are medians. The price is that a run takes a while.
//!
//! It asserts nothing: what is fast enough is decided by who reads the table.
//!
//! | command | measures |
//! |---|---|
//! | `scan` | one layer read by the library, in a process of its own: time, ratio, peak memory |
//! | `push` | push to verdict, cold and warm, and images judged per second, with a running server |
//!
//! To add a measurement: a module, a variant of `Command`, and a row here.

mod figures;
mod layout;
mod push;
mod registry;
mod scan;
mod server;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use serde::Serialize;

/// Measures Tidewaiter from outside.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  cargo load scan layer.tar.gz --rounds 7
  cargo load push LAYOUT --server http://127.0.0.1:8080 --token-file data/admin.token \\
      --registry 127.0.0.1:5000
With deploy/quickstart.sh running, server, token and registry are what it prints."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read layers, beside `gzip -dc | sha256sum`
    Scan(scan::Options),
    /// Push images to a registry that reports to a running server, and wait for verdicts
    Push(push::Options),
    /// Read one layer once and print what it took
    #[command(hide = true)]
    ReadOnce {
        /// The layer
        file: PathBuf,
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
    match &cli.command {
        Command::Scan(options) => print(cli.json, &scan::run(options)?),
        Command::Push(options) => print(cli.json, &push::run(options)?),
        Command::ReadOnce { file } => {
            serde_json::to_writer(std::io::stdout(), &scan::read_once(file)?)?;
            Ok(())
        }
    }
}

fn print<T: Serialize + std::fmt::Display>(json: bool, result: &T) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, result)?;
        writeln!(out)?;
    } else {
        write!(out, "{result}")?;
    }
    Ok(())
}
