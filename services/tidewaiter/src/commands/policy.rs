//! `policy`: trying a policy out, and putting it into force.

use std::{fmt::Write as _, path::Path};

use anyhow::Context as _;
use serde_json::Value;

use crate::{cli::PolicyCommand, client::Client, commands::print, exit::Exit};

pub(crate) async fn run(command: PolicyCommand) -> anyhow::Result<Exit> {
    match command {
        PolicyCommand::Test { files } => test(&files),
        PolicyCommand::Replay {
            file,
            days,
            server,
            shown,
        } => super::response::replay(file.as_deref(), days, (&server, &shown)).await,
        PolicyCommand::Put { file, server } => {
            let yaml = read(&file)?;
            let policy = policy::Policy::parse(&yaml)
                .with_context(|| format!("in the policy `{}`", file.display()))?;
            let path = format!("/v1/policies/{}", policy.name);
            let _: Value = Client::new(&server)?
                .put(&path, &[], yaml.into_bytes())
                .await?;
            print(&format!(
                "policy `{}` is in force; stored images are judged again\n",
                policy.name
            ))?;
            Ok(Exit::Ok)
        }
    }
}

/// Runs the cases of every file. A case that fails is an error, as is a file that cannot be read.
fn test(files: &[impl AsRef<Path>]) -> anyhow::Result<Exit> {
    let mut documents = Vec::new();
    for file in files {
        let file = file.as_ref();
        documents.push((file.display().to_string(), read(file)?));
    }
    if documents.is_empty() {
        documents.push(("the built-in policy".to_owned(), policy::BUILTIN.to_owned()));
    }
    let (mut passed, mut failed, mut text) = (0, 0, String::new());
    for (name, yaml) in documents {
        let results = policy::run_tests(&yaml).with_context(|| format!("in `{name}`"))?;
        writeln!(text, "{name}")?;
        if results.is_empty() {
            writeln!(text, "  it has no `tests:`")?;
        }
        for result in results {
            match result.failure() {
                None => passed += 1,
                Some(_) => failed += 1,
            }
            match result.failure() {
                None => writeln!(text, "  ok      {}", result.name)?,
                Some(why) => writeln!(text, "  FAILED  {}: {why}", result.name)?,
            }
        }
        for name in policy::untested(&yaml).with_context(|| format!("in `{name}`"))? {
            writeln!(text, "  note    `{name}` fires in none of them")?;
        }
    }
    writeln!(text, "{passed} passed, {failed} failed")?;
    print(&text)?;
    Ok(if failed == 0 { Exit::Ok } else { Exit::Error })
}

fn read(file: &Path) -> anyhow::Result<String> {
    let max = u64::try_from(policy::DOCUMENT_BYTES_MAX).unwrap_or(u64::MAX);
    chassis::files::read_text_bounded(file, max)
        .with_context(|| format!("reading the policy `{}`", file.display()))
}
