//! Responses to incidents: look, decide, order, take back.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use model::{Slug, runtime::Peer};

use super::{Server, runtime::Shown};

/// Commands of `response`.
#[derive(Debug, Subcommand)]
pub(crate) enum ResponseCommand {
    /// List what was proposed, decided and done about incidents
    #[command(after_help = "Examples:
  tidewaiter response list
  tidewaiter response list --waiting                 what waits for somebody
  tidewaiter response list --active --node node-1")]
    List {
        /// Only incidents with a response that waits for somebody
        #[arg(long)]
        waiting: bool,
        /// Only incidents with a response that is in force
        #[arg(long)]
        active: bool,
        /// Only those of this node
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show what was proposed, decided and done about an incident, by whom, and how it ended
    #[command(after_help = "Examples:
  tidewaiter response show 4be1d7…
  tidewaiter response show node-web1                 what node `web1` refused or did not let start")]
    Show {
        /// The incident, or the name that an order gave
        #[arg(value_name = "INCIDENT")]
        incident: String,
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        shown: Shown,
    },
    /// Let a proposed response be carried out
    #[command(after_help = "Examples:
  tidewaiter response approve INCIDENT RESPONSE --reason 'seen in the shell history'
  tidewaiter response approve INCIDENT RESPONSE --force    even if it is the last that serves")]
    Approve {
        #[command(flatten)]
        decided: DecideArgs,
        /// Overrule what guards against too much
        #[arg(long)]
        force: bool,
    },
    /// Let a proposed response not be carried out
    #[command(after_help = "Examples:
  tidewaiter response deny INCIDENT RESPONSE --reason 'our own backup'")]
    Deny(DecideArgs),
    /// Do something to the container of an incident, or to any container
    #[command(after_help = "Examples:
  tidewaiter response act quarantine --incident INCIDENT --allow 10.0.0.53:53
  tidewaiter response act replace --incident INCIDENT --reason 'clean copy'
  tidewaiter response act pause --container 3f2a --for 1h
  tidewaiter response act kill --incident INCIDENT --dry-run    what the agent would do

Evidence is collected before a container is taken out of service. The last instance that serves,
system namespaces and the fabric's own containers are left alone without --force.")]
    Act(ActArgs),
    /// Take back what was done
    #[command(after_help = "Examples:
  tidewaiter response release --incident INCIDENT                all of it
  tidewaiter response release --incident INCIDENT --response ID
  tidewaiter response release --container 3f2a")]
    Release(ReleaseArgs),
    /// Fetch evidence that an agent collected
    #[command(after_help = "Examples:
  tidewaiter response evidence INCIDENT sha256:… --output evidence.tar.zst")]
    Evidence {
        /// The incident
        #[arg(value_name = "INCIDENT")]
        incident: String,
        /// The digest of the evidence, as `response show` has it
        #[arg(value_name = "DIGEST")]
        digest: model::Digest,
        /// Where to write it; it must not be there yet
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        server: Server,
    },
    /// Make the key that signs what nodes shall do, and print the half that agents trust
    #[command(after_help = "Examples:
  tidewaiter response key /etc/tidewaiter/response.key

Name the file in `policy.signing_key_file`, and what is printed in the `response.keys` of agents.")]
    Key {
        /// The file; it must not be there yet
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Sign a token that lifts what nodes enforce, without NATS and without a server
    #[command(after_help = "Examples:
  tidewaiter response release-token --key response.key --node web1 --valid-for 1h
  tidewaiter-agent release --all --token TOKEN       on the node

It lifts what was decided before it was signed and nothing later.")]
    ReleaseToken {
        /// The file with the key that signs what nodes shall do
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The node
        #[arg(long, value_name = "NODE", required_unless_present = "all")]
        node: Option<Slug>,
        /// Every node
        #[arg(long, conflicts_with = "node")]
        all: bool,
        /// How long it is taken
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = super::duration)]
        valid_for: Duration,
        /// Whose nodes
        #[arg(long, value_name = "TENANT", default_value = "default")]
        tenant: Slug,
        /// Who signs it, for the record
        #[arg(long, value_name = "NAME", default_value = "")]
        by: String,
    },
    /// Response policies: put one into force
    #[command(subcommand)]
    Policy(ResponsePolicyCommand),
    /// List images with a better successor, and how far their replacement is
    #[command(after_help = "Examples:
  tidewaiter response replacements --json | jq -r '.[].containers[].id'")]
    Replacements {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        shown: Shown,
    },
}

/// Commands of `response policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum ResponsePolicyCommand {
    /// Put a response policy into force on a server
    #[command(after_help = "Examples:
  tidewaiter policy replay response.yaml             what it would have done; then
  tidewaiter response policy put response.yaml")]
    Put {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        server: Server,
    },
}

/// Flags of `approve` and `deny`.
#[derive(Debug, Args)]
pub(crate) struct DecideArgs {
    /// The incident
    #[arg(value_name = "INCIDENT")]
    pub(crate) incident: String,
    /// The response
    #[arg(value_name = "RESPONSE")]
    pub(crate) response: String,
    #[command(flatten)]
    pub(crate) given: Given,
}

/// Flags of `act`.
#[derive(Debug, Args)]
pub(crate) struct ActArgs {
    /// What to do
    #[arg(value_enum, value_name = "ACTION")]
    pub(crate) action: Act,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Whom a container in quarantine may still talk to, as `10.0.0.53:53` or `10.0.0.0/8`; may be
    /// repeated
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) allow: Vec<Peer>,
    /// For how long
    #[arg(long = "for", value_name = "DURATION", default_value = "24h", value_parser = super::duration)]
    pub(crate) valid_for: Duration,
    /// Only ask the agent what it would do
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Overrule what guards against too much
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) given: Given,
}

/// Flags of `release`.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// One response, instead of all of the container
    #[arg(long, value_name = "ID")]
    pub(crate) response: Option<String>,
    #[command(flatten)]
    pub(crate) given: Given,
}

/// What an order is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// The container of this incident
    #[arg(long, value_name = "INCIDENT")]
    pub(crate) incident: Option<String>,
    /// A container: its id, or enough of its beginning
    #[arg(long, value_name = "ID")]
    pub(crate) container: Option<String>,
}

/// What comes with every order.
#[derive(Debug, Args)]
pub(crate) struct Given {
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Do not wait for what becomes of it
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// What can be done to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Act {
    /// Keep its process tree, open files, sockets, memory maps, changed files
    CollectEvidence,
    /// Let it run no file that its image does not hold
    Block,
    /// Freeze it
    Pause,
    /// Cut it off from the network
    Quarantine,
    /// Cut it off and freeze it, and start a fresh one of the same image
    Replace,
    /// Kill it
    Kill,
}

// === impl Act ===

impl Act {
    /// As the API has it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::CollectEvidence => "collect_evidence",
            Self::Block => "block",
            Self::Pause => "pause",
            Self::Quarantine => "quarantine",
            Self::Replace => "replace",
            Self::Kill => "kill",
        }
    }
}
