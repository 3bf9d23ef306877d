//! What can be typed after `tokens`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use model::Slug;

use super::{Format, Server};
use crate::tokens::TokenRole;

/// Commands of `tokens`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// Make a token; its secret is shown this once
    #[command(after_help = "Examples:
  tidewaiter tokens create github --role ci --expires 90d
  tidewaiter tokens create grafana --role viewer --output grafana.token
  tidewaiter tokens create team-a-ci --role ci --tenant team-a
  export TIDEWAITER_TOKEN=$(tidewaiter tokens create me --role admin --token-file admin.token)

A token grants no more than the one that it is made with, and ends no later.")]
    Create {
        #[command(flatten)]
        wanted: TokenWanted,
        /// Write the secret to a file that only you can read, and not to standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Output format
        #[arg(long, short, value_enum, default_value = "table")]
        format: Format,
        #[command(flatten)]
        server: Server,
    },
    /// List tokens, without their secrets
    #[command(after_help = "Examples:
  tidewaiter tokens list
  tidewaiter tokens list --format json | jq -r '.[] | select(.is_expired) | .id'")]
    List {
        /// Output format
        #[arg(long, short, value_enum, default_value = "table")]
        format: Format,
        #[command(flatten)]
        server: Server,
    },
    /// Revoke a token: no process knows it any more
    #[command(after_help = "Examples:
  tidewaiter tokens revoke github
  tidewaiter tokens revoke 3f2a9c0d11e87b64")]
    Revoke {
        /// Its name or id, as `tokens list` shows them
        #[arg(value_name = "NAME_OR_ID")]
        token: String,
        /// Also the last token that can administer the installation; the next start of
        /// `tidewaiter serve` then makes a new one
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        server: Server,
    },
}

/// What a token shall be.
#[derive(Clone, Debug, Args)]
#[group(id = "may", skip)]
pub(crate) struct TokenWanted {
    /// Who uses it
    #[arg(value_name = "NAME")]
    pub(crate) name: Slug,
    /// What it may do, by a role
    #[arg(
        long,
        value_enum,
        value_name = "ROLE",
        required_unless_present = "scopes",
        conflicts_with = "scopes"
    )]
    pub(crate) role: Option<TokenRole>,
    /// What it may do, scope by scope; may be repeated
    #[arg(long = "scope", id = "scopes", value_enum, value_name = "SCOPE")]
    pub(crate) scopes: Vec<Scope>,
    /// Whose images, instead of your own token's
    #[arg(long, value_name = "TENANT")]
    pub(crate) tenant: Option<Slug>,
    /// How long it holds, as `90d` or `12h`; without it, until it is revoked
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    pub(crate) expires: Option<Duration>,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// Read everything of its tenant
    Read,
    /// Ask for scans
    Scan,
    /// Decide about responses to incidents, and order them
    Respond,
    /// Change advisories, policies and tokens; decide about responses
    Admin,
}

// === impl Scope ===

impl From<Scope> for model::Scope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Read => Self::Read,
            Scope::Scan => Self::Scan,
            Scope::Respond => Self::Respond,
            Scope::Admin => Self::Admin,
        }
    }
}
