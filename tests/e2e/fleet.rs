//! The broker of a fleet: each process has a key of its own, which may do what its roles need and
//! nothing else.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use bus::permissions::{Holder, Role};
use testkit::NatsServer;

use crate::fabric::tidewaiter_binary;

/// The user with all rights, for what a test looks at itself.
const TEST: &str = "{ user: test, password: test }";

/// A server with accounts, and the keys that belong to them.
pub(crate) struct Broker {
    pub(crate) server: NatsServer,
    keys: PathBuf,
    admin_token: PathBuf,
}

// === impl Broker ===

impl Broker {
    /// Makes keys for processes with these roles and for agents, and starts the server with the accounts that
    /// `tidewaiter` prints. `None`, with a reason printed, where there is no `nats-server`.
    pub(crate) fn start(dir: &Path, processes: &[Vec<&str>], agents: &[&str]) -> Option<Self> {
        let keys = dir.join("keys");
        let mut arguments = vec!["nats".to_owned(), "accounts".to_owned()];
        arguments.extend(["--dir".to_owned(), keys.display().to_string()]);
        for roles in processes.iter().filter(|roles| roles.len() > 1) {
            arguments.extend(["--together".to_owned(), roles.join(",")]);
        }
        for node in agents {
            arguments.extend(["--agent".to_owned(), (*node).to_owned()]);
        }
        let accounts = run(&arguments);
        let accounts = accounts.replacen("users: [", &format!("users: [ {TEST}"), 1);
        Some(Self {
            server: NatsServer::start_with(&accounts)?,
            keys,
            admin_token: dir.join("admin.token"),
        })
    }

    /// Makes streams, buckets and consumers, and the first admin token.
    pub(crate) fn provision(&self, config: &Path) {
        let mut arguments = vec!["nats".to_owned(), "provision".to_owned()];
        arguments.extend(["--config".to_owned(), config.display().to_string()]);
        let token = self.admin_token.display().to_string();
        arguments.extend(["--admin-token".to_owned(), token]);
        arguments.extend(self.flags(&["provisioner"]));
        run(&arguments);
    }

    /// The flags of a process with these roles; one without runs everything, and may do it.
    pub(crate) fn flags(&self, roles: &[&str]) -> Vec<String> {
        if roles.is_empty() {
            return vec!["--nats-url".to_owned(), self.url()];
        }
        let role = |name: &&str| name.parse::<Role>().expect("a role");
        let holder = Holder::Roles(roles.iter().map(role).collect());
        let key = self.keys.join(format!("{holder}.nk"));
        vec![
            "--nats-url".to_owned(),
            self.server.url(),
            "--nats-credentials".to_owned(),
            key.display().to_string(),
        ]
    }

    /// The key of a node's agent.
    pub(crate) fn agent_key(&self, node: &str) -> PathBuf {
        self.keys.join("agents/default").join(format!("{node}.nk"))
    }

    /// Its address for the test itself, which may do everything.
    pub(crate) fn url(&self) -> String {
        self.server.url().replace("nats://", "nats://test:test@")
    }

    /// Where the admin token is.
    pub(crate) fn admin_token(&self) -> &Path {
        &self.admin_token
    }
}

/// Runs a command of `tidewaiter` and gives what it prints.
fn run(arguments: &[String]) -> String {
    let output = Command::new(tidewaiter_binary()).args(arguments).output();
    let output = output.expect("tidewaiter runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}
