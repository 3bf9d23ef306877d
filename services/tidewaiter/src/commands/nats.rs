//! `nats`: what an operator of a fleet does before its first start.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bus::{
    UserKey,
    permissions::{Holder, Role, User, accounts},
};
use chassis::Cx;
use model::Slug;

use crate::{
    broker,
    cli::{AccountsArgs, AgentName, NatsCommand, ProvisionArgs},
    commands::print,
    config::Config,
    exit::Exit,
    tokens,
};

/// The folder of agents' keys, with one for each tenant.
const AGENTS: &str = "agents";
/// The end of the name of a key's file.
const KEY: &str = "nk";

pub(crate) async fn run(config: Config, command: NatsCommand) -> anyhow::Result<Exit> {
    match command {
        NatsCommand::Accounts(args) => {
            print(&make_accounts(&args)?)?;
            Ok(Exit::Ok)
        }
        NatsCommand::Provision(args) => provision(config, &args).await,
    }
}

/// Makes the keys that are missing, and says so; gives the accounts as nats-server reads them.
fn make_accounts(args: &AccountsArgs) -> anyhow::Result<String> {
    let mut holders = holders(&args.dir)?;
    for role in Role::ALL {
        holders.insert(Holder::Roles([role].into()));
    }
    holders.extend(args.together.iter().cloned().map(Holder::Roles));
    for AgentName { tenant, node } in args.agents.iter().cloned() {
        holders.insert(Holder::Agent { tenant, node });
    }
    let mut users = Vec::new();
    for holder in holders {
        let file = key_file(&args.dir, &holder);
        make_folder(&file)?;
        let key = UserKey::open(&file).with_context(|| format!("the key of {holder}"))?;
        if key.is_new {
            say(&format!("made {}, the key of {holder}", file.display()));
        }
        users.push(User {
            holder,
            public_key: key.public_key,
        });
    }
    Ok(format!(
        "# Accounts and rights for nats-server, printed by tidewaiter {}.\n{}",
        env!("CARGO_PKG_VERSION"),
        accounts(&users)
    ))
}

async fn provision(config: Config, args: &ProvisionArgs) -> anyhow::Result<Exit> {
    let cx = Cx::system();
    let bus = broker::connect(&cx, &config, &args.broker, Role::Provisioner).await?;
    bus.provision()
        .await
        .context("setting up streams and buckets")?;
    let made = tokens::bootstrap(&cx, &bus, &args.admin_token).await?;
    cx.stop();
    let token = if made {
        format!("the admin token is in {}", args.admin_token.display())
    } else {
        "it has tokens already, and none was made".to_owned()
    };
    print(&format!(
        "streams, buckets and consumers are there; {token}\n"
    ))?;
    Ok(Exit::Ok)
}

/// Whose keys are in a folder.
fn holders(dir: &Path) -> anyhow::Result<BTreeSet<Holder>> {
    let mut holders = BTreeSet::new();
    for (file, name) in keys(dir)? {
        let roles: Result<BTreeSet<Role>, _> = name.split('-').map(str::parse).collect();
        let roles = roles.with_context(|| format!("`{}`", file.display()))?;
        holders.insert(Holder::Roles(roles));
    }
    for tenant in entries(&dir.join(AGENTS))? {
        let whose = || format!("`{}`", tenant.display());
        let name: Slug = name(&tenant).parse().with_context(whose)?;
        for (file, node) in keys(&tenant)? {
            let node = node
                .parse()
                .with_context(|| format!("`{}`", file.display()))?;
            let tenant = name.clone();
            holders.insert(Holder::Agent { tenant, node });
        }
    }
    Ok(holders)
}

/// The keys directly in a folder, with their names.
fn keys(dir: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut files = entries(dir)?;
    files.retain(|file| file.extension().is_some_and(|end| end == KEY));
    let named = |file: PathBuf| {
        let name = name(&file.with_extension(""));
        (file, name)
    };
    Ok(files.into_iter().map(named).collect())
}

/// What is in a folder; nothing where there is none.
fn entries(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = || format!("reading the folder `{}`", dir.display());
    let entries = match dir.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(read)?,
    };
    let paths: Result<_, io::Error> = entries.map(|entry| Ok(entry?.path())).collect();
    paths.with_context(read)
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn key_file(dir: &Path, holder: &Holder) -> PathBuf {
    match holder {
        Holder::Roles(_) => dir.join(format!("{holder}.{KEY}")),
        Holder::Agent { tenant, node } => {
            let tenant = dir.join(AGENTS).join(tenant.as_str());
            tenant.join(format!("{node}.{KEY}"))
        }
    }
}

/// The folder of a file, for its owner alone.
fn make_folder(file: &Path) -> anyhow::Result<()> {
    let Some(dir) = file.parent() else {
        return Ok(());
    };
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("making the folder `{}`", dir.display()))
}

/// Tells the operator; standard output is the configuration.
fn say(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn make(dir: &Path, agents: &[&str], together: &[&[Role]]) -> anyhow::Result<String> {
        make_accounts(&AccountsArgs {
            dir: dir.to_owned(),
            agents: agents.iter().map(|name| name.parse().unwrap()).collect(),
            together: together
                .iter()
                .map(|roles| roles.iter().copied().collect())
                .collect(),
        })
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_made_once_and_stay_in_the_accounts() {
        let temp = testkit::temp_dir();
        let dir = temp.path().join("keys");
        let both: &[Role] = &[Role::Router, Role::Gateway];
        let first = make(&dir, &["node-1", "acme/node-1"], &[both]).unwrap();
        assert_eq!(make(&dir, &[], &[]).unwrap(), first);
        for name in ["scanner.nk", "gateway-router.nk", "agents/acme/node-1.nk"] {
            assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
        }
        for name in ["", "agents", "agents/acme"] {
            assert_eq!(mode(&dir.join(name)), 0o700, "{name}");
        }
        for words in ["# scanner\n", "# gateway-router\n", "\"AGENTS_acme\" {"] {
            assert!(first.contains(words), "{words}");
        }
        let second = make(&dir, &["node-2"], &[]).unwrap();
        assert!(
            second.contains("tw.evt.default.runtime.*.node-1"),
            "{second}"
        );
        assert!(
            second.contains("tw.evt.default.runtime.*.node-2"),
            "{second}"
        );
        // A withdrawn key is not in it any more; a role gets another.
        for name in ["agents/default/node-1.nk", "scanner.nk"] {
            std::fs::remove_file(dir.join(name)).unwrap();
        }
        let third = make(&dir, &[], &[]).unwrap();
        assert!(
            !third.contains("tw.evt.default.runtime.*.node-1"),
            "{third}"
        );
        let keys = |text: &str| -> BTreeSet<String> {
            let lines = text.lines().map(str::trim);
            lines
                .filter(|line| line.starts_with("nkey: "))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(keys(&second).difference(&keys(&third)).count(), 2);
        assert_eq!(keys(&third).difference(&keys(&second)).count(), 1);
    }

    #[test]
    fn a_key_that_is_nobodys_is_named() {
        let dir = testkit::temp_dir();
        std::fs::write(dir.path().join("nobody.nk"), "").unwrap();
        let error = format!("{:#}", make(dir.path(), &[], &[]).unwrap_err());
        assert!(error.contains("nobody.nk"), "{error}");
        std::fs::remove_file(dir.path().join("nobody.nk")).unwrap();
        std::fs::write(dir.path().join("scanner.nk"), "").unwrap();
        let error = format!("{:#}", make(dir.path(), &[], &[]).unwrap_err());
        assert!(error.contains("the key of scanner"), "{error}");
    }
}
