//! What describes the program itself: completions, manual, version.

use std::path::Path;

use analyzers::Analyzers;
use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;
use serde_json::json;

use crate::{cli::Cli, commands::print, exit::Exit};

pub(crate) fn completions(shell: Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidewaiter", &mut script);
    print(&String::from_utf8(script)?)?;
    Ok(Exit::Ok)
}

pub(crate) fn man(dir: Option<&Path>) -> anyhow::Result<Exit> {
    if let Some(dir) = dir {
        std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
            .with_context(|| format!("writing the manual to `{}`", dir.display()))?;
        return Ok(Exit::Ok);
    }
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page)?;
    print(&String::from_utf8(page)?)?;
    Ok(Exit::Ok)
}

pub(crate) fn version(as_json: bool) -> anyhow::Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    let (os, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    if !as_json {
        print(&format!("tidewaiter {version} ({os}/{machine})\n"))?;
        return Ok(Exit::Ok);
    }
    let (config, limits) = (analyzers::Config::default(), archive::Limits::default());
    let analyzers = Analyzers::of_directory(&config, &limits);
    let analyzers: Vec<_> = analyzers
        .ids()
        .into_iter()
        .map(|id| json!({"name": id.name, "version": id.version}))
        .collect();
    let formats: Vec<_> = report::Format::ALL.iter().map(|f| f.as_str()).collect();
    let document = json!({
        "name": "tidewaiter",
        "version": version,
        "os": os,
        "architecture": machine,
        "report_schema": model::REPORT_SCHEMA,
        "formats": formats,
        "analyzers": analyzers,
    });
    print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    Ok(Exit::Ok)
}
