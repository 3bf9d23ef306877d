//! `response`: what is done about incidents.

mod pages;

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use chassis::{Clock as _, SystemClock};
use model::{Slug, runtime::ReleaseToken};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    cli::{
        ActArgs, DecideArgs, Given, ReleaseArgs, ResponseCommand, ResponsePolicyCommand, Server,
        Target,
    },
    client::Client,
    commands::{
        db::transfer,
        paging, print,
        runtime::{list, one, segment, show},
    },
    exit::Exit,
};

/// Characters of the name of who signs a token.
const NAME_CHARS_MAX: usize = 100;
/// How long an order is waited for, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) async fn run(command: ResponseCommand) -> anyhow::Result<Exit> {
    match command {
        ResponseCommand::List {
            waiting,
            active,
            node,
            server,
            shown,
        } => {
            let mut query = Vec::new();
            query.extend(waiting.then(|| ("waiting", "true".to_owned())));
            query.extend(active.then(|| ("active", "true".to_owned())));
            query.extend(node.map(|node| ("node", node)));
            let client = Client::new(&server)?;
            let all = paging::latest(&client, "/v1/responses", &query, "incident").await?;
            show(&shown, &Value::Array(all), pages::responses)
        }
        ResponseCommand::Show {
            incident,
            server,
            shown,
        } => {
            let found = answer(&Client::new(&server)?, &incident).await?;
            show(&shown, &found, pages::response)
        }
        ResponseCommand::Approve { decided, force } => decide("approve", decided, force).await,
        ResponseCommand::Deny(decided) => decide("deny", decided, false).await,
        ResponseCommand::Act(args) => act(args).await,
        ResponseCommand::Release(args) => release(args).await,
        ResponseCommand::Evidence {
            incident,
            digest,
            output,
            server,
        } => evidence(&server, &incident, &digest, &output).await,
        ResponseCommand::Key { file } => {
            transfer::make_key(&file)?;
            Ok(Exit::Ok)
        }
        ResponseCommand::ReleaseToken {
            key,
            node,
            all: _,
            valid_for,
            tenant,
            by,
        } => release_token(&key, (tenant, node), valid_for, &by),
        ResponseCommand::Policy(ResponsePolicyCommand::Put { file, server }) => {
            put(&server, &file).await
        }
        ResponseCommand::Replacements { server, shown } => {
            let all = list(&Client::new(&server)?, "/v1/replacements", &[]).await?;
            show(&shown, &all, pages::replacements)
        }
    }
}

async fn answer(client: &Client, incident: &str) -> anyhow::Result<Value> {
    let path = format!("/v1/responses/{}", segment(incident));
    one(
        client,
        &path,
        &format!("nothing was done about `{incident}`"),
    )
    .await
}

async fn decide(verb: &str, args: DecideArgs, force: bool) -> anyhow::Result<Exit> {
    let path = format!("/v1/incidents/{}/orders", segment(&args.incident));
    let body = json!({ "order": verb, "response": args.response, "force": force });
    order(&path, body, &args.given).await
}

async fn act(args: ActArgs) -> anyhow::Result<Exit> {
    let body = json!({
        "order": "act",
        "action": args.action.as_str(),
        "allow": args.allow,
        "valid_for_s": args.valid_for.as_secs(),
        "dry_run": args.dry_run,
        "force": args.force,
    });
    order(&path(&args.target), body, &args.given).await
}

async fn release(args: ReleaseArgs) -> anyhow::Result<Exit> {
    let body = json!({ "order": "release", "response": args.response });
    order(&path(&args.target), body, &args.given).await
}

fn path(target: &Target) -> String {
    let (kind, id) = match (&target.incident, &target.container) {
        (Some(incident), _) => ("incidents", &**incident),
        // One of the two is given.
        (None, container) => ("containers", container.as_deref().unwrap_or_default()),
    };
    format!("/v1/{kind}/{}/orders", segment(id))
}

/// Sends an order, and waits for what policy makes of it.
async fn order(path: &str, mut body: Value, given: &Given) -> anyhow::Result<Exit> {
    body["reason"] = given.reason.clone().into();
    let client = Client::new(&given.server)?;
    let taken: Value = client.post(path, &body).await?;
    let text = |name: &str| taken[name].as_str().unwrap_or_default().to_owned();
    let (id, incident) = (text("id"), text("incident"));
    if given.no_wait {
        print(&format!(
            "order `{id}` is taken: tidewaiter response show {incident}\n"
        ))?;
        return Ok(Exit::Ok);
    }
    let until = Instant::now() + PATIENCE;
    let path = format!("/v1/responses/{}", segment(&incident));
    while Instant::now() < until {
        let found = client.get::<Value>(&path, &[]).await;
        let taken = || {
            format!(
                "order `{id}` is taken, what became of it is not known: tidewaiter response show {incident}"
            )
        };
        let found = found.with_context(taken)?.unwrap_or_default();
        let orders = found["orders"].as_array();
        let mut orders = orders.into_iter().flatten();
        if let Some(step) = orders.find(|step| step["id"] == *id) {
            return told(step, &incident);
        }
        sleep(PAUSE).await;
    }
    bail!(
        "policy did not take order `{id}` within {} seconds; it stays ordered: \
         tidewaiter response show {incident}",
        PATIENCE.as_secs()
    )
}

fn told(step: &Value, incident: &str) -> anyhow::Result<Exit> {
    let stage = step["stage"].as_str().unwrap_or_default();
    if stage == "held" {
        bail!("{}", step["detail"].as_str().unwrap_or_default());
    }
    print(&format!("{stage}: tidewaiter response show {incident}\n"))?;
    Ok(Exit::Ok)
}

async fn evidence(
    server: &Server,
    incident: &str,
    digest: &model::Digest,
    output: &PathBuf,
) -> anyhow::Result<Exit> {
    let path = format!("/v1/responses/{}/evidence/{digest}", segment(incident));
    let bytes = Client::new(server)?.bytes(&path).await?;
    let bytes = bytes.context("the incident has no such evidence, or it is not kept any more")?;
    if model::Digest::of(&bytes) != *digest {
        bail!("what the server sent is not `{digest}`");
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let making = || format!("making `{}`", output.display());
    let mut file = options.open(output).with_context(making)?;
    file.write_all(&bytes).with_context(making)?;
    print(&format!("{}: {} bytes\n", output.display(), bytes.len()))?;
    Ok(Exit::Ok)
}

fn release_token(
    key: &Path,
    (tenant, node): (Slug, Option<Slug>),
    valid_for: Duration,
    by: &str,
) -> anyhow::Result<Exit> {
    let key = transfer::read_key(key)?;
    let issued_at = SystemClock.now();
    let expires_at = issued_at.checked_add(valid_for);
    let token = ReleaseToken {
        tenant,
        node,
        issued_at,
        expires_at: expires_at.context("`--valid-for` is too long")?,
        // A token has a length.
        by: by.chars().take(NAME_CHARS_MAX).collect(),
    };
    print(&format!("{}\n", token.sign(&key)?))?;
    Ok(Exit::Ok)
}

async fn put(server: &Server, file: &Path) -> anyhow::Result<Exit> {
    let yaml = read(file)?;
    let policy = policy::ResponsePolicy::parse(&yaml)
        .with_context(|| format!("in the response policy `{}`", file.display()))?;
    let path = format!("/v1/response-policies/{}", policy.name);
    let _: Value = Client::new(server)?
        .put(&path, &[], yaml.into_bytes())
        .await?;
    print(&format!(
        "response policy `{}` is in force; it decides about incidents from now on\n",
        policy.name
    ))?;
    Ok(Exit::Ok)
}

/// `policy replay`: what a response policy would have done. It changes nothing.
pub(crate) async fn replay(
    file: Option<&Path>,
    days: u16,
    (server, shown): (&Server, &crate::cli::Shown),
) -> anyhow::Result<Exit> {
    let yaml = match file {
        None => String::new(),
        Some(file) => {
            let yaml = read(file)?;
            policy::ResponsePolicy::parse(&yaml)
                .with_context(|| format!("in the response policy `{}`", file.display()))?;
            yaml
        }
    };
    let query = [("days", days.to_string())];
    let client = Client::new(server)?;
    let found: Value = client
        .post_bytes("/v1/response-replays", &query, yaml.into_bytes())
        .await?;
    show(shown, &found, pages::replayed)
}

fn read(file: &Path) -> anyhow::Result<String> {
    let max = u64::try_from(policy::DOCUMENT_BYTES_MAX).unwrap_or(u64::MAX);
    chassis::files::read_text_bounded(file, max)
        .with_context(|| format!("reading the response policy `{}`", file.display()))
}
