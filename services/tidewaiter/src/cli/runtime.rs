//! Nodes, containers, incidents: what runs where.

use clap::Args;

use super::{Format, Server};

pub(crate) const NODES_HELP: &str = "Examples:
  tidewaiter nodes --server https://tidewaiter.example
  tidewaiter nodes node-1                            one node, with the images on its disk
  tidewaiter nodes --json | jq -r '.[] | select(.state == \"silent\") | .node'";

pub(crate) const CONTAINERS_HELP: &str = "Examples:
  tidewaiter containers --node node-1
  tidewaiter containers --unauthorized               images that nobody knows or policy denies
  tidewaiter containers --vulnerable --severity high --exposed
  tidewaiter containers --check privileged
  tidewaiter containers 3f2a                         one container, by the beginning of its id";

pub(crate) const WHERE_HELP: &str = "Examples:
  tidewaiter where CVE-2021-44228
  tidewaiter where GHSA-jfh8-c2jp-5v3q --json | jq -r '.[].instances[].node'";

pub(crate) const CONNECTIONS_HELP: &str = "Examples:
  tidewaiter connections --exposed                   what the outside can reach, and what that reaches
  tidewaiter connections --namespace shop --json | jq -r '.[].connects_to[].container.name'";

pub(crate) const INCIDENTS_HELP: &str = "Examples:
  tidewaiter incidents --state open --severity high
  tidewaiter incidents 4be1d7                        one incident, with what was detected in order";

/// Flags of `nodes`.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// One node
    #[arg(value_name = "NODE")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Flags of `containers`.
#[derive(Debug, Args)]
pub(crate) struct ContainersArgs {
    /// One container: its id, or enough of its beginning
    #[arg(value_name = "ID", conflicts_with = "Filters")]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) filters: Filters,
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Which containers.
#[derive(Debug, Args)]
#[group(multiple = true)]
pub(crate) struct Filters {
    /// Only those of this node
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Only those whose image's name contains this text, or that run the image with this digest
    #[arg(long, value_name = "TEXT")]
    pub(crate) image: Option<String>,
    /// Only those of this namespace of the orchestrator
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Only those in this state: created, running, paused, stopped
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// Only those whose image is unknown or denied
    #[arg(long, alias = "unauthorised")]
    pub(crate) unauthorized: bool,
    /// Only those whose image has vulnerabilities
    #[arg(long)]
    pub(crate) vulnerable: bool,
    /// Only those whose image has a vulnerability of this severity or worse
    #[arg(long, value_name = "LEVEL")]
    pub(crate) severity: Option<String>,
    /// Only those that the outside can reach over their host
    #[arg(long)]
    pub(crate) exposed: bool,
    /// Only those whose settings this check refuses, as `privileged`
    #[arg(long, value_name = "CHECK")]
    pub(crate) check: Option<String>,
}

/// Flags of `where`.
#[derive(Debug, Args)]
pub(crate) struct WhereArgs {
    /// The vulnerability, by any of its names
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Flags of `connections`.
#[derive(Debug, Args)]
pub(crate) struct ConnectionsArgs {
    /// Only those of this node
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Only those of this namespace of the orchestrator
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Only those that the outside can reach over their host
    #[arg(long)]
    pub(crate) exposed: bool,
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Flags of `incidents`.
#[derive(Debug, Args)]
pub(crate) struct IncidentsArgs {
    /// One incident
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Only those in this state: open, closed
    #[arg(long, value_name = "STATE", conflicts_with = "id")]
    pub(crate) state: Option<String>,
    /// Only those of this severity or worse
    #[arg(long, value_name = "LEVEL", conflicts_with = "id")]
    pub(crate) severity: Option<String>,
    /// Only those of this node
    #[arg(long, value_name = "NODE", conflicts_with = "id")]
    pub(crate) node: Option<String>,
    /// Only those of this container
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    pub(crate) container: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// How the answer is shown.
#[derive(Debug, Args)]
pub(crate) struct Shown {
    /// Output format
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// The same as `--format json`
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
}

// === impl Shown ===

impl Shown {
    /// Whether it is for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.json || self.format == Format::Json
    }
}
