//! The commands, one file each.

mod check;
mod config;
mod db;
mod dlq;
mod doctor;
mod events;
mod health;
mod images;
mod malware;
mod manual;
mod nats;
mod paging;
mod policy;
mod response;
mod runtime;
mod scan;
mod secrets;
mod serve;
mod status;
mod tokens;
mod versions;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    cli::{Cli, Command},
    config::Config,
    exit::{Ended, Exit},
    rules,
};

/// How long a thread that still reads a layer may take to notice that nobody waits for it.
const STRAGGLERS: Duration = Duration::from_millis(200);

/// Runs a command to its end.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { global, command } = cli;
    // Not every command needs one, and `doctor` says what is wrong with it.
    let config = Config::load(&global).map(rules::with_engine);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let outcome = runtime.block_on(async move {
        match command {
            Command::Scan(args) => Box::pin(scan::run(config?, &global, args)).await,
            Command::Explain(args) => Box::pin(scan::explain(config?, &global, args)).await,
            Command::Serve(args) => serve::run(config?, args).await,
            Command::Db(command) => db::run(config?, &global, command).await,
            Command::Policy(command) => policy::run(command).await,
            Command::Dlq(command) => dlq::run(config?, command).await,
            Command::Versions(command) => versions::run(&global, &command),
            Command::Images(args) => images::run(args).await,
            Command::Nodes(args) => runtime::run_nodes(args).await,
            Command::Containers(args) => runtime::run_containers(args).await,
            Command::Where(args) => runtime::run_where(args).await,
            Command::Connections(args) => runtime::run_connections(args).await,
            Command::Incidents(args) => runtime::run_incidents(args).await,
            Command::Response(command) => Box::pin(response::run(command)).await,
            Command::Check(args) => check::run(args).await,
            Command::Config(command) => config::run(&global, command),
            Command::Doctor(args) => doctor::run(config, args).await,
            Command::Completions { shell } => manual::completions(shell),
            Command::Man { dir } => manual::man(dir.as_deref()),
            Command::Version { json } => manual::version(json),
            Command::Events(command) => Box::pin(events::run(config?, &global, command)).await,
            Command::Nats(command) => nats::run(config?, command).await,
            Command::Status(args) => status::run(args).await,
            Command::Secrets(command) => secrets::run(&config?, command),
            Command::Malware(command) => malware::run(&config?, command),
            #[cfg(feature = "malware")]
            Command::MalwareEngine => malware::serve_engine(),
            Command::Tokens(command) => tokens::run(command).await,
            Command::Health(args) => health::run(args).await,
        }
    });
    // Dropping the runtime would wait for work that was given up, however long it takes.
    runtime.shutdown_timeout(STRAGGLERS);
    outcome
}

/// The time that a command may take.
#[derive(Clone, Copy, Debug)]
struct Deadline(Duration);

// === impl Deadline ===

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self(timeout)
    }

    /// Runs a command until it ends, its time is up, or the user interrupts it.
    async fn limit(self, work: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
        tokio::select! {
            // First whoever listens for signals: what is said of the work can be answered by one.
            biased;
            signal = chassis::shutdown_signal() => {
                let name = signal.context("waiting for signals")?;
                Err(Ended { exit: Exit::Interrupted, message: format!("interrupted by {name}") }.into())
            }
            outcome = work => outcome,
            () = tokio::time::sleep(self.0) => {
                let message = format!("gave up after {} s (--timeout)", self.0.as_secs_f32());
                Err(Ended { exit: Exit::Timeout, message }.into())
            }
        }
    }
}

/// Writes to standard output. A reader that has gone (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(text.as_bytes())
}

/// The same, of what is a text already.
fn print_bytes(text: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("writing to standard output")
        }
        _ => Ok(()),
    }
}
