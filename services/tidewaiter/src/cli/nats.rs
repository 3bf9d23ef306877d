//! The NATS server of a fleet.

use std::{collections::BTreeSet, path::PathBuf, str::FromStr};

use bus::permissions::Role;
use clap::{Args, Subcommand};
use model::Slug;

use super::Broker;

/// Commands of `nats`.
#[derive(Debug, Subcommand)]
pub(crate) enum NatsCommand {
    /// Make a key for each role and print accounts and rights for nats-server
    #[command(
        after_help = "Each role gets a key of its own in DIR, and may do with it what its work needs and nothing else.
Running it again keeps every key that is there. Delete a key's file and run it again to withdraw
the key: a role gets a new one, an agent none.

Examples:
  tidewaiter nats accounts --dir keys > accounts.conf
  tidewaiter nats accounts --dir keys --agent node-1 --agent acme/node-2 > accounts.conf
  tidewaiter nats accounts --dir keys --together gateway,router > accounts.conf

In the configuration of nats-server:
  jetstream { store_dir: /var/lib/nats }
  include accounts.conf

`nats-server --signal reload` takes up what changed. A process gets its key by
`serve --nats-credentials keys/scanner.nk` or `bus.credentials_file`."
    )]
    Accounts(AccountsArgs),
    /// Make every stream, bucket and consumer that is missing, and the first admin token
    #[command(
        after_help = "What exists is compared and never changed or deleted, so it may run before every start of a fleet.

Examples:
  tidewaiter nats provision --nats-url nats://nats:4222 \\
    --nats-credentials keys/provisioner.nk --admin-token admin.token
  tidewaiter nats provision --config tidewaiter.yaml --admin-token admin.token"
    )]
    Provision(ProvisionArgs),
}

/// Flags of `nats accounts`.
#[derive(Debug, Args)]
pub(crate) struct AccountsArgs {
    /// Where the keys are
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Add a key for the agent of a node; may be repeated
    #[arg(long = "agent", value_name = "[TENANT/]NODE")]
    pub(crate) agents: Vec<AgentName>,
    /// Add a key for one process with several roles; may be repeated
    #[arg(long, value_name = "ROLE,ROLE", value_parser = roles)]
    pub(crate) together: Vec<BTreeSet<Role>>,
}

/// Flags of `nats provision`.
#[derive(Debug, Args)]
pub(crate) struct ProvisionArgs {
    #[command(flatten)]
    pub(crate) broker: Broker,
    /// Where to write the admin token of an installation that has no token yet
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token: PathBuf,
}

/// A node, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentName {
    pub(crate) tenant: Slug,
    pub(crate) node: Slug,
}

// === impl AgentName ===

impl FromStr for AgentName {
    type Err = model::SlugError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (tenant, node) = match text.split_once('/') {
            Some((tenant, node)) => (tenant.parse()?, node),
            None => (Slug::default_tenant(), text),
        };
        let node = node.parse()?;
        Ok(Self { tenant, node })
    }
}

/// Reads `gateway,router`.
fn roles(text: &str) -> Result<BTreeSet<Role>, String> {
    let roles: Result<BTreeSet<Role>, _> = text.split(',').map(str::parse).collect();
    let roles = roles.map_err(|error| error.to_string())?;
    if roles.len() < 2 {
        return Err(
            "a key for several roles needs at least two; each single role has one".to_owned(),
        );
    }
    Ok(roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_of_the_default_tenant_where_none_is_named() {
        let check = |text: &str| {
            let name: AgentName = text.parse().ok()?;
            Some(format!("{} {}", name.tenant, name.node))
        };
        assert_eq!(check("node-1").as_deref(), Some("default node-1"));
        assert_eq!(check("acme/node-1").as_deref(), Some("acme node-1"));
        for bad in ["", "a/b/c", "node.example", "*", "acme/"] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }

    #[test]
    fn roles_that_live_together_are_two_at_least() {
        assert_eq!(roles("router,gateway").unwrap().len(), 2);
        assert!(roles("router,router").is_err());
        assert!(roles("router,nobody").unwrap_err().contains("`nobody`"));
    }
}
