//! What can be typed: commands, flags, help.

mod db;
pub(crate) mod events;
pub(crate) mod hints;
mod malware;
mod nats;
mod response;
mod runtime;
mod scan;
mod secrets;
mod tokens;
mod versions;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use model::Platform;

pub(crate) use self::db::{DbCommand, DbPlace};
use self::events::EventsCommand;
pub(crate) use self::malware::MalwareCommand;
pub(crate) use self::nats::{AccountsArgs, AgentName, NatsCommand, ProvisionArgs};
pub(crate) use self::response::{
    ActArgs, DecideArgs, Given, ReleaseArgs, ResponseCommand, ResponsePolicyCommand, Target,
};
pub(crate) use self::runtime::{
    ConnectionsArgs, ContainersArgs, IncidentsArgs, NodesArgs, Shown, WhereArgs,
};
pub(crate) use self::scan::{ExplainArgs, OutputTo, ScanArgs, Scanners};
pub(crate) use self::secrets::SecretsCommand;
pub(crate) use self::tokens::{TokenWanted, TokensCommand};
pub(crate) use self::versions::VersionsCommand;

/// Secures containers through their whole life: images before and after they enter a registry.
#[derive(Debug, Parser)]
#[command(
    name = "tidewaiter",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = "Examples:
  tidewaiter scan debian:12                          one image, no server needed
  tidewaiter db import ./advisories --replace        advisories for `scan`
  tidewaiter serve --data-dir /var/lib/tidewaiter    everything in one process
  tidewaiter check registry.example/app:1.0 --server https://tidewaiter.example

Exit codes: 0 allow or warn, 1 error, 2 deny, 3 incomplete, 4 could not pull or authenticate,
5 timeout, 6 no verdict yet, 130 interrupted.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Configuration file (YAML); every field has a default
    #[arg(long, global = true, value_name = "FILE", env = "TIDEWAITER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// What to log on standard error, as `info` or `warn,scanner=debug`
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Print nothing but the result
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// The hidden command that a scan starts as its engine.
pub(crate) const MALWARE_ENGINE: &str = "malware-engine";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Scan images and judge them, without a server
    #[command(after_help = scan::HELP)]
    Scan(ScanArgs),
    /// Say why an image has a vulnerability, or why not: the advisories, the ranges, the versions
    /// compared
    #[command(after_help = "Examples:
  tidewaiter explain debian:12 CVE-2024-3094
  tidewaiter explain ./image.tar GHSA-jfh8-c2jp-5v3q --advisories ./osv
  tidewaiter explain app:1.0 CVE-2021-44228 --format json")]
    Explain(ExplainArgs),
    /// Run the control plane: all roles in one process, or those that are named
    #[command(after_help = "Examples:
  tidewaiter serve --data-dir /var/lib/tidewaiter              all roles, with a private nats-server
  tidewaiter serve --nats-url nats://nats:4222 --role scanner \\
    --nats-credentials /etc/tidewaiter/nats/scanner.nk         one role of a fleet

A process with named roles makes no streams: `tidewaiter nats provision` does, and it waits for them.")]
    Serve(ServeArgs),
    /// Advisories: fetch, import, show
    #[command(subcommand)]
    Db(DbCommand),
    /// Policies: try them out
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Dead letters: messages that could not be handled, and the way back for them
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Events: follow what happens, and what subscribers need to know of it
    #[command(subcommand)]
    Events(EventsCommand),
    /// Versions: compare them as each ecosystem does
    #[command(subcommand)]
    Versions(VersionsCommand),
    /// The NATS server of a fleet: keys and rights, streams and buckets
    #[command(subcommand)]
    Nats(NatsCommand),
    /// List the images that a server knows
    #[command(after_help = "Examples:
  tidewaiter images --server http://127.0.0.1:8080
  tidewaiter images --cve CVE-2021-44228")]
    Images(ImagesArgs),
    /// List the nodes that have reported, or show one with the images on its disk
    #[command(after_help = runtime::NODES_HELP)]
    Nodes(NodesArgs),
    /// List the containers of all nodes, or show one with what is wrong with its settings
    #[command(after_help = runtime::CONTAINERS_HELP)]
    Containers(ContainersArgs),
    /// Say where a vulnerability runs: images, containers, nodes, and whether the outside reaches them
    #[command(after_help = runtime::WHERE_HELP)]
    Where(WhereArgs),
    /// Say who talks to whom: the connections and ports of containers
    #[command(after_help = runtime::CONNECTIONS_HELP)]
    Connections(ConnectionsArgs),
    /// List what containers did that they should not, or show one incident
    #[command(after_help = runtime::INCIDENTS_HELP)]
    Incidents(IncidentsArgs),
    /// Responses to incidents: look, approve, deny, act, take back
    #[command(subcommand)]
    Response(ResponseCommand),
    /// Ask a server for the verdict on an image
    #[command(after_help = "Examples:
  tidewaiter check registry.example/app:1.0 --server https://tidewaiter.example
  tidewaiter check registry.example/app:1.0 --wait 60s --scan")]
    Check(CheckArgs),
    /// Show how an installation does: problems, queues, processes, sources, advisories
    #[command(after_help = "Examples:
  tidewaiter status --server http://127.0.0.1:8080
  tidewaiter status --format json | jq .problems")]
    Status(StatusArgs),
    /// Secrets: the rules that find them, and baselines of those that are accepted
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Malware: rules of your own for others
    #[command(subcommand)]
    Malware(MalwareCommand),
    /// Look at what a scan hands over its pipe
    #[cfg(feature = "malware")]
    #[command(name = MALWARE_ENGINE, hide = true)]
    MalwareEngine,
    /// Tokens: who may use a server
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// Ask a server whether it is ready; what a container without a shell runs as its health check
    #[command(after_help = "Examples:
  tidewaiter health
  tidewaiter health --server https://tidewaiter.example --server-ca ca.pem

Exit codes: 0 ready, 1 not ready or no answer.")]
    Health(HealthArgs),
    /// The configuration: show it, and where each value comes from
    #[command(subcommand)]
    Config(ConfigCommand),
    /// See what works here, what is missing, and how to mend it
    #[command(after_help = "Examples:
  tidewaiter doctor
  tidewaiter doctor registry.example:5000 docker.io
  tidewaiter doctor --server http://127.0.0.1:8080

Exit codes: 0 nothing is broken, 1 something is.")]
    Doctor(DoctorArgs),
    /// Write completions for a shell
    #[command(after_help = "Examples:
  tidewaiter completions bash > /usr/share/bash-completion/completions/tidewaiter
  tidewaiter completions zsh > ~/.zfunc/_tidewaiter
  tidewaiter completions fish > ~/.config/fish/completions/tidewaiter.fish")]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual
    #[command(after_help = "Examples:
  tidewaiter man | man -l -
  tidewaiter man --dir /usr/local/share/man/man1     one page per command")]
    Man {
        /// Write one page per command into this directory, instead of the first to standard output
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Show the version, and of what
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Flags of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Roles to run; all where none is named
    #[arg(long = "role", value_enum, value_name = "ROLE")]
    pub(crate) roles: Vec<Role>,
    /// Where everything local lives
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A NATS server with JetStream, instead of a private one
    #[arg(long, value_name = "URL")]
    pub(crate) nats_url: Option<String>,
    /// The key of this process's roles for it: an nkey seed or a `.creds` file
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_credentials: Option<PathBuf>,
    /// Address of the HTTP listener
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
}

/// Commands of `policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Run the cases that a policy file carries
    #[command(after_help = "Examples:
  tidewaiter policy test policy.yaml
  tidewaiter policy test                             the built-in policy")]
    Test {
        /// Policy files
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say what a response policy would have done on the incidents of the last days
    #[command(after_help = "Examples:
  tidewaiter policy replay                           the response policies in force
  tidewaiter policy replay response.yaml --days 30   one that is to be tried

Nothing is changed. What would be left of an image is counted by what runs now.")]
    Replay {
        /// A response policy to try
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Incidents that began within so many days
        #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=365))]
        days: u16,
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        shown: Shown,
    },
    /// Put a policy into force on a server
    #[command(after_help = "Examples:
  tidewaiter policy put policy.yaml --server http://127.0.0.1:8080")]
    Put {
        /// The policy file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        server: Server,
    },
}

/// Commands of `dlq`.
#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List dead letters, newest first
    #[command(after_help = "Examples:
  tidewaiter dlq list --data-dir /var/lib/tidewaiter        of the server on this host
  tidewaiter dlq list --nats-url nats://nats:4222 --limit 20
  tidewaiter dlq list --before 120 --format json            the page before letter 120")]
    List {
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Only letters with smaller numbers: the next page
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
        /// Output format
        #[arg(long, short, value_enum, default_value = "table")]
        format: Format,
        #[command(flatten)]
        broker: Broker,
    },
    /// Show one dead letter: why, what was tried, and what the message says
    #[command(after_help = "Examples:
  tidewaiter dlq show 17
  tidewaiter dlq show 17 --format json | jq .event")]
    Show {
        /// The letter's number, as `dlq list` shows it
        #[arg(value_name = "NUMBER")]
        number: u64,
        /// Output format
        #[arg(long, short, value_enum, default_value = "table")]
        format: Format,
        #[command(flatten)]
        broker: Broker,
    },
    /// Let messages be handled again, and drop their letters; doing it twice does it once
    #[command(after_help = "Examples:
  tidewaiter dlq retry 17 18
  tidewaiter dlq list --format json | jq -r '.letters[].number' | xargs tidewaiter dlq retry")]
    Retry {
        /// The letters' numbers
        #[arg(required = true, value_name = "NUMBER")]
        numbers: Vec<u64>,
        #[command(flatten)]
        broker: Broker,
    },
    /// Drop letters for good
    #[command(after_help = "Examples:
  tidewaiter dlq drop 17")]
    Drop {
        /// The letters' numbers
        #[arg(required = true, value_name = "NUMBER")]
        numbers: Vec<u64>,
        #[command(flatten)]
        broker: Broker,
    },
}

/// Which NATS server a command talks to; `bus` of the configuration file says the rest.
#[derive(Clone, Debug, Args)]
pub(crate) struct Broker {
    /// The NATS server, instead of `bus.url` or the private one of `--data-dir`
    #[arg(long, value_name = "URL")]
    pub(crate) nats_url: Option<String>,
    /// The key for it: an nkey seed or a `.creds` file
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_credentials: Option<PathBuf>,
    /// Where `tidewaiter serve` of this host keeps its data, with its private nats-server
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Flags of `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Only repositories that contain this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) repository: Option<String>,
    /// Only images with this vulnerability
    #[arg(long, value_name = "ID")]
    pub(crate) cve: Option<String>,
    /// Only images with this decision
    #[arg(long, value_name = "DECISION")]
    pub(crate) decision: Option<String>,
    /// Output format
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) server: Server,
    /// Wait this long for a verdict, as `60s`
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) wait: Duration,
    /// Ask for a scan, and not only for what is known
    #[arg(long)]
    pub(crate) scan: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Exit code of a denial, instead of 2
    #[arg(long, value_name = "N", default_value_t = crate::exit::Exit::DENY)]
    pub(crate) exit_code: u8,
    /// Exit with 0 where the verdict is `incomplete`
    #[arg(long)]
    pub(crate) allow_incomplete: bool,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Output format
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// Commands of `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting with its value, and whether a default, the file, the environment or a flag
    /// gives it
    #[command(after_help = "Examples:
  tidewaiter config show
  tidewaiter config show --config tidewaiter.yaml --given
  tidewaiter config show --data-dir /srv/tidewaiter     what `serve` would see")]
    Show {
        /// Only what is not the default
        #[arg(long)]
        given: bool,
        /// Output format
        #[arg(long, short, value_enum, default_value = "table")]
        format: Format,
        #[command(flatten)]
        serve: Box<ServeArgs>,
    },
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Registries to try; `docker.io` where none is named
    #[arg(value_name = "HOST")]
    pub(crate) registries: Vec<String>,
    #[command(flatten)]
    pub(crate) server: OptionalServer,
    /// Speak plain HTTP with this registry, as `registry.example:5000`; may be repeated
    #[arg(long, value_name = "HOST")]
    pub(crate) plain_http: Vec<String>,
    /// Where layers and advisories are cached, instead of the user's cache directory
    #[arg(long, value_name = "DIR", env = "TIDEWAITER_CACHE_DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Output format
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// Flags of `health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Give up after this long, as `5s`
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// The server to ask.
#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// The server
    #[arg(
        long = "server",
        value_name = "URL",
        env = "TIDEWAITER_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) token: Token,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// The server to ask, if any.
#[derive(Clone, Debug, Args)]
pub(crate) struct OptionalServer {
    /// A running server, instead of what `scan` uses
    #[arg(long = "server", value_name = "URL", env = "TIDEWAITER_SERVER")]
    pub(crate) url: Option<String>,
    #[command(flatten)]
    pub(crate) token: Token,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// Whom to trust, and what to show, where the server speaks TLS.
#[derive(Clone, Debug, Args)]
pub(crate) struct Trust {
    /// File (PEM) with the authority of the server's certificate, beside those of the system
    #[arg(long, value_name = "FILE", env = "TIDEWAITER_SERVER_CA")]
    pub(crate) server_ca: Option<PathBuf>,
    /// File (PEM) with a certificate, for a server that wants to see one
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDEWAITER_CLIENT_CERTIFICATE",
        requires = "client_key"
    )]
    pub(crate) client_certificate: Option<PathBuf>,
    /// File (PEM) with its private key
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDEWAITER_CLIENT_KEY",
        requires = "client_certificate"
    )]
    pub(crate) client_key: Option<PathBuf>,
}

/// The bearer token, never on the command line, where others could read it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Token {
    /// File that holds the bearer token; otherwise `TIDEWAITER_TOKEN` is used
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Roles of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Takes events from the outside
    Gateway,
    /// Turns events into jobs
    Router,
    /// Reads images
    Scanner,
    /// Matches packages with advisories
    Matcher,
    /// Judges
    Policy,
    /// Compares what containers do with what they are
    Behavior,
    /// Delivers alerts
    Alerting,
    /// Answers questions
    Inventory,
}

/// Which platforms of an index to scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlatformChoice {
    /// Every one.
    All,
    /// This one.
    One(Platform),
}

// === impl Server, OptionalServer ===

impl OptionalServer {
    /// The server, where one was named.
    pub(crate) fn server(&self) -> Option<Server> {
        let url = self.url.clone()?;
        Some(Server {
            url,
            token: self.token.clone(),
            trust: self.trust.clone(),
        })
    }
}

// === impl Role ===

impl Role {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Gateway,
        Self::Router,
        Self::Scanner,
        Self::Matcher,
        Self::Policy,
        Self::Behavior,
        Self::Alerting,
        Self::Inventory,
    ];
}

impl From<Role> for bus::permissions::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Gateway => Self::Gateway,
            Role::Router => Self::Router,
            Role::Scanner => Self::Scanner,
            Role::Matcher => Self::Matcher,
            Role::Policy => Self::Policy,
            Role::Behavior => Self::Behavior,
            Role::Alerting => Self::Alerting,
            Role::Inventory => Self::Inventory,
        }
    }
}

fn platform(text: &str) -> Result<PlatformChoice, String> {
    if text == "all" {
        return Ok(PlatformChoice::All);
    }
    text.parse()
        .map(PlatformChoice::One)
        .map_err(|error: model::PlatformError| error.to_string())
}

/// Reads `90s`, `5m`, `1h`, `90d`, `500ms`, or seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration like `90s`, `5m` or `1h`");
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let seconds = |factor: u64| {
        number
            .checked_mul(factor)
            .map(Duration::from_secs)
            .ok_or_else(bad)
    };
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(24 * 3600),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(duration("2d"), Ok(Duration::from_hours(48)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("5 parsecs").is_err());
        assert!(duration("99999999999999999999h").is_err());
    }
}
