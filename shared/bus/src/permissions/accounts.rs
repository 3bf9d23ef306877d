//! Accounts and users as `nats-server` reads them from its configuration file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use model::{
    Slug,
    event::NODES,
    runtime::{FORENSIC_OBJECTS, node_subject},
};

use super::{Grants, Role};
use crate::{command, subject, topology};

/// The account of the control plane: all streams are in it.
const CONTROL: &str = "TIDEWAITER";

/// Somebody with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub holder: Holder,
    /// The public half of the key.
    pub public_key: String,
}

/// Who holds a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A process with these roles.
    Roles(BTreeSet<Role>),
    /// The agent of a node.
    Agent {
        /// Whose node.
        tenant: Slug,
        /// The node.
        node: Slug,
    },
}

/// Text with braces.
#[derive(Default)]
struct Writer {
    text: String,
    depth: usize,
}

/// The inbox of a key's holder: answers come to subjects below it, and nobody else may look.
pub(crate) fn inbox(public_key: &str) -> String {
    format!("_INBOX_{public_key}")
}

/// Accounts with these users: the text of a file that a `nats-server` configuration includes.
/// Agents live in an account per tenant, without `JetStream`; what they reach of the control plane
/// is exported to them.
pub fn accounts(users: &[User]) -> String {
    let mut control = Vec::new();
    let mut tenants: BTreeMap<&Slug, Vec<&User>> = BTreeMap::new();
    for user in users {
        match &user.holder {
            Holder::Roles(_) => control.push(user),
            Holder::Agent { tenant, .. } => tenants.entry(tenant).or_default().push(user),
        }
    }
    let mut out = Writer::default();
    out.open("accounts {");
    out.open(&format!("{CONTROL} {{"));
    out.line("jetstream: enabled");
    out.users(&control);
    out.open("exports: [");
    for tenant in tenants.keys() {
        let to = account(tenant);
        for service in services(tenant, "*") {
            out.line(&format!(
                r#"{{ service: "{service}", accounts: ["{to}"] }}"#
            ));
        }
        let commands = command::subject(tenant, "*");
        out.line(&format!(
            r#"{{ stream: "{commands}", accounts: ["{to}"] }}"#
        ));
    }
    out.close("]");
    out.open("imports: [");
    for tenant in tenants.keys() {
        let (from, blobs) = (account(tenant), blobs(tenant.as_str(), "*"));
        out.line(&format!(
            r#"{{ service: {{ account: "{from}", subject: "{blobs}" }} }}"#
        ));
    }
    out.close("]");
    out.close("}");
    for (tenant, agents) in tenants {
        let commands = command::subject(tenant, "*");
        out.open(&format!(r#""{}" {{"#, account(tenant)));
        out.users(&agents);
        out.open("exports: [");
        out.line(&format!(
            r#"{{ service: "{}", accounts: ["{CONTROL}"] }}"#,
            blobs(tenant.as_str(), "*")
        ));
        out.close("]");
        out.open("imports: [");
        for service in services(tenant, "*") {
            out.line(&format!(
                r#"{{ service: {{ account: {CONTROL}, subject: "{service}" }} }}"#
            ));
        }
        out.line(&format!(
            r#"{{ stream: {{ account: {CONTROL}, subject: "{commands}" }} }}"#
        ));
        out.close("]");
        out.close("}");
    }
    out.close("}");
    out.text
}

/// The account of a tenant's agents.
fn account(tenant: &Slug) -> String {
    format!("AGENTS_{tenant}")
}

/// Where an agent publishes what its node's containers do, in any shard.
fn batches(tenant: &Slug, node: &str) -> String {
    format!("tw.evt.{tenant}.runtime.*.{node}")
}

/// What an agent asks of the control plane: it tells what containers do and how far its responses
/// are, stores evidence under the name of its node, and reads what its node shall do.
fn services(tenant: &Slug, node: &str) -> [String; 5] {
    let desired = subject::of_key(NODES, &format!("{tenant}.{node}.desired"));
    let evidence = format!("tw.obj.{FORENSIC_OBJECTS}.{tenant}.{node}.*.*");
    [
        batches(tenant, node),
        format!("tw.evt.{tenant}.response.reported.{node}"),
        format!(
            "$JS.API.DIRECT.GET.{}.{desired}",
            topology::bucket_stream(NODES)
        ),
        format!(
            "$JS.API.DIRECT.GET.{}.{evidence}",
            topology::object_stream(FORENSIC_OBJECTS)
        ),
        evidence,
    ]
}

/// Where a node is asked for what it holds: [`model::runtime::node_subject`].
pub(super) fn blobs(tenant: &str, node: &str) -> String {
    format!("tw.req.{tenant}.blob.{node}")
}

// === impl Holder ===

impl Holder {
    /// What it may do.
    pub fn grants(&self) -> Grants {
        match self {
            Self::Roles(roles) => Grants::of(roles.iter().copied()),
            Self::Agent { tenant, node } => Grants {
                publish: services(tenant, node.as_str()).into(),
                subscribe: [
                    command::subject(tenant, node.as_str()),
                    node_subject(tenant, node),
                ]
                .into(),
                answers: true,
                ..Grants::default()
            },
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roles(roles) => {
                let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
                f.write_str(&names.join("-"))
            }
            Self::Agent { tenant, node } => write!(f, "the agent of node {node} of {tenant}"),
        }
    }
}

// === impl Writer ===

impl Writer {
    fn line(&mut self, line: &str) {
        self.text.extend(std::iter::repeat_n("  ", self.depth));
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn open(&mut self, line: &str) {
        self.line(line);
        self.depth += 1;
    }

    fn close(&mut self, line: &str) {
        self.depth = self.depth.saturating_sub(1);
        self.line(line);
    }

    fn users(&mut self, users: &[&User]) {
        self.open("users: [");
        for User { holder, public_key } in users {
            let grants = holder.grants();
            self.line(&format!("# {holder}"));
            self.open("{");
            self.line(&format!("nkey: {public_key}"));
            self.open("permissions: {");
            self.open("publish: {");
            self.subjects("allow", grants.publish());
            self.subjects("deny", grants.deny());
            self.close("}");
            self.open("subscribe: {");
            let inbox = format!("{}.>", inbox(public_key));
            self.subjects("allow", [&*inbox].into_iter().chain(grants.subscribe()));
            self.close("}");
            if grants.answers() {
                // To who asked, once, and for as long as somebody waits.
                self.line(r#"allow_responses: { max: 1, expires: "1m" }"#);
            }
            self.close("}");
            self.close("}");
        }
        self.close("]");
    }

    /// A list of subjects; none at all where it would be empty.
    fn subjects<'a>(&mut self, name: &str, subjects: impl Iterator<Item = &'a str>) {
        let mut subjects = subjects.peekable();
        if subjects.peek().is_none() {
            return;
        }
        self.open(&format!("{name}: ["));
        for subject in subjects {
            self.line(&format!(r#""{subject}""#));
        }
        self.close("]");
    }
}
