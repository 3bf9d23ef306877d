//! `tidewaiter-agent`: tells the fabric what this node holds and what its containers do.

use std::{
    fs::File,
    io::{self, BufReader, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use agent::{Config, node::Node};
use anyhow::Context as _;
use chassis::{Cx, config, telemetry};
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

const PREFIX: &str = "TIDEWAITER_AGENT";
const DRAIN: Duration = Duration::from_secs(10);
const FLUSH: Duration = Duration::from_secs(2);

/// Tells a Tidewaiter fabric what this node holds and what its containers do.
#[derive(Debug, Parser)]
#[command(name = "tidewaiter-agent", version, after_help = EXAMPLES)]
struct Cli {
    /// The configuration file; every key is `TIDEWAITER_AGENT_<KEY>` in the environment, too.
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidewaiter-agent probe                    what this node can see and enforce (as root)
  tidewaiter-agent inventory                its containers and images, as JSON
  tidewaiter-agent watch > recording.jsonl  what containers do, one JSON document a line
  tidewaiter-agent replay recording.jsonl   the messages that a recording makes
  TIDEWAITER_AGENT_BUS__URL=nats://fabric:4222 tidewaiter-agent run";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs until it is told to stop.
    Run,
    /// Prints what this node can see and enforce, and what not and why.
    Probe,
    /// Prints what this node holds.
    Inventory,
    /// Prints what containers do as it happens.
    Watch,
    /// Prints the messages that a recording of `watch` makes; needs no rights.
    Replay {
        /// The recording.
        file: PathBuf,
    },
    /// Prints the configuration that counts.
    Config,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done where not even the terminal takes the message.
            drop(error.print());
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match start(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "tidewaiter-agent: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: &Cli) -> anyhow::Result<()> {
    let config: Config = config::load(cli.config.as_deref(), PREFIX)?;
    config.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let name = "tidewaiter-agent";
        let telemetry = telemetry::init(&config.telemetry, name, env!("CARGO_PKG_VERSION"))?;
        let cx = Cx::system();
        let done = command(&cx, &cli.command, &config).await;
        cx.stop();
        cx.finish(DRAIN).await;
        telemetry.shutdown(FLUSH).await;
        done
    })
}

async fn command(cx: &Cx, command: &Command, config: &Config) -> anyhow::Result<()> {
    match command {
        Command::Run => {
            agent::run(cx, config).await?;
            tokio::select! {
                signal = chassis::shutdown_signal() => {
                    let name = signal.context("waiting for signals")?;
                    tracing::info!("{name}: finishing what is at hand");
                    Ok(())
                }
                () = cx.stopped() => anyhow::bail!("a part of the agent broke; the log says which"),
            }
        }
        Command::Probe => {
            let config = config.clone();
            let matrix = cx.blocking(move || agent::probe(&config)).await?;
            print(&matrix)
        }
        Command::Inventory => {
            let held = agent::look_around(cx, config, &Node::here(config)?).await;
            print(&serde_json::json!({
                "host": held.host,
                "containers": held.containers,
                "images": held.images,
                "left_out": held.left_out,
            }))
        }
        Command::Watch => {
            let signal = async {
                drop(chassis::shutdown_signal().await);
                cx.stop();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                done = agent::watch(cx, config, |told| line(&told)) => done,
                () = signal => Ok(()),
            }
        }
        Command::Replay { file } => {
            let opened = File::open(file).with_context(|| format!("opening `{}`", file.display()));
            let node = Node::here(config)?;
            let at = Timestamp::UNIX_EPOCH;
            agent::replay(BufReader::new(opened?), &node, at, |batch| line(&batch))
        }
        Command::Config => print(config),
    }
}

fn print(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(writeln!(io::stdout(), "{text}")?)
}

fn line(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}
