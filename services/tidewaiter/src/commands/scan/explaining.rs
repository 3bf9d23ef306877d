//! `explain`: why an image has a vulnerability, or why not.

use std::{collections::BTreeSet, fmt::Write as _};

use anyhow::Context as _;
use chassis::Cx;
use model::{ImageReport, ScannedPackages};
use oci::Location;
use serde::Serialize;
use vulndb::{ExplainedPackage, Explanation, Lookup};

use super::{FLUSH, Scanner, progress::Progress};
use crate::{
    cli::{ExplainArgs, Format, Global, ScanArgs},
    commands::{Deadline, print},
    config::Config,
    exit::Exit,
    terminal,
};

/// How many packages elsewhere are named.
const ELSEWHERE_MAX: usize = 10;

/// The answer about one image.
#[derive(Debug, Serialize)]
struct Answer {
    target: String,
    platform: String,
    os: Option<String>,
    #[serde(flatten)]
    explanation: Explanation,
    /// Where the image has no package of it: what it is about.
    elsewhere: BTreeSet<Lookup>,
    /// The advisory revision; 0: none.
    advisory_revision: u64,
}

pub(crate) async fn explain(
    config: Config,
    global: &Global,
    args: ExplainArgs,
) -> anyhow::Result<Exit> {
    let mut telemetry = config.telemetry.clone();
    if global.log.is_none() {
        "error".clone_into(&mut telemetry.log);
    }
    let telemetry = chassis::telemetry::init(&telemetry, "tidewaiter", env!("CARGO_PKG_VERSION"))?;
    let cx = Cx::system();
    let scan = args.scan();
    let is_wanted = !global.quiet && !args.no_progress;
    let progress = Progress::new(is_wanted, terminal::shows_progress());
    let work = Box::pin(answer(&cx, &config, global, (&args, &scan), &progress));
    let outcome = Deadline::after(args.timeout).limit(work).await;
    progress.clear();
    cx.stop();
    telemetry.shutdown(FLUSH).await;
    outcome
}

async fn answer(
    cx: &Cx,
    config: &Config,
    global: &Global,
    (args, scan): (&ExplainArgs, &ScanArgs),
    progress: &Progress,
) -> anyhow::Result<Exit> {
    let scanner = Scanner::new(cx, config, global, scan, progress)?;
    let explained = scanner.explained(&args.image, &args.id).await;
    progress.clear();
    let answers = explained.with_context(|| format!("scanning `{}`", args.image))?;
    match args.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&answers)?))?,
        Format::Table => {
            for answer in &answers {
                print(&answer.text()?)?;
            }
        }
    }
    scanner.keep_layers().await;
    Ok(Exit::Ok)
}

// === impl Scanner ===

impl Scanner<'_> {
    async fn explained(&self, target: &str, id: &str) -> anyhow::Result<Vec<Answer>> {
        let location = Location::parse(target)?;
        if let Location::Sbom(file) = &location {
            let read = self.document(target, file).await?;
            return Ok(vec![self.answer(&read, id).await?]);
        }
        let (opened, resolved) = self.resolve(target, &location).await?;
        let mut answers = Vec::new();
        for mut image in resolved.images {
            target.clone_into(&mut image.reference);
            let scanned = self.scanned(&location, &opened.source, &image).await?;
            answers.push(self.answer(&scanned, id).await?);
        }
        Ok(answers)
    }

    async fn answer(&self, scanned: &ImageReport, id: &str) -> anyhow::Result<Answer> {
        let packages = packages_of(scanned);
        let advisories = self.advisories_for(&packages).await?;
        let (explanation, elsewhere) = matcher::explain(&advisories, &packages, id)?;
        Ok(Answer {
            target: scanned.target.reference.clone(),
            platform: scanned.target.platform.to_string(),
            os: packages.os.map(|os| format!("{} {}", os.id, os.version_id)),
            explanation,
            elsewhere,
            advisory_revision: advisories.manifest().revision,
        })
    }
}

// === impl Answer ===

impl Answer {
    fn text(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        let Explanation {
            id,
            names,
            affected,
            exploitation,
            packages,
        } = &self.explanation;
        let verdict = if *affected { "yes" } else { "no" };
        writeln!(text, "{} ({}): {id}: {verdict}", self.target, self.platform)?;
        if names.len() > 1 {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            writeln!(text, "  also known as {}", names.join(", "))?;
        }
        for one in exploitation {
            if let Some(since) = one.known_since {
                let by = if one.ransomware {
                    ", also by ransomware"
                } else {
                    ""
                };
                writeln!(
                    text,
                    "  known to be exploited since {since}{by} ({})",
                    one.feed
                )?;
            }
            if let Some(epss) = one.epss {
                let percent = epss * 100.0;
                writeln!(
                    text,
                    "  likely to be exploited: {percent:.1} % ({})",
                    one.feed
                )?;
            }
        }
        for package in packages {
            package_text(&mut text, package)?;
        }
        if packages.is_empty() {
            self.nothing(&mut text)?;
        }
        Ok(text)
    }

    /// No advisory about it speaks of a package of the image.
    fn nothing(&self, text: &mut String) -> anyhow::Result<()> {
        if self.advisory_revision == 0 {
            writeln!(
                text,
                "  there are no advisories here (`tidewaiter db update` gets them)"
            )?;
            return Ok(());
        }
        let os = self.os.as_deref().unwrap_or("no operating system");
        writeln!(
            text,
            "  no advisory about it speaks of a package of this image ({os})"
        )?;
        for Lookup { ecosystem, name } in self.elsewhere.iter().take(ELSEWHERE_MAX) {
            writeln!(text, "  it is about `{name}` of {ecosystem}")?;
        }
        let more = self.elsewhere.len().saturating_sub(ELSEWHERE_MAX);
        if more > 0 {
            writeln!(text, "  and about {more} more packages")?;
        }
        Ok(())
    }
}

fn package_text(text: &mut String, package: &ExplainedPackage) -> anyhow::Result<()> {
    let ExplainedPackage {
        kind,
        name,
        version,
        path,
        verdict,
        finding: _,
        advisories,
    } = package;
    writeln!(text, "\n  {kind} {name} {version} ({path})\n    {verdict}")?;
    for advisory in advisories {
        let method = advisory.method.replace('_', " ");
        writeln!(
            text,
            "    {} ({}): {} `{}`, by {method}, compared with {}\n      {}",
            advisory.id,
            advisory.feed,
            advisory.ecosystem,
            advisory.name,
            advisory.version,
            advisory.says
        )?;
        for range in &advisory.ranges {
            writeln!(text, "      {} {}", range.range, range.says)?;
        }
        for note in &advisory.notes {
            writeln!(text, "      note: {note}")?;
        }
    }
    Ok(())
}

/// The packages as they are matched.
fn packages_of(scanned: &ImageReport) -> ScannedPackages {
    ScannedPackages {
        image: scanned.image,
        os: scanned.target.os.clone(),
        packages: scanned.packages.clone(),
        gaps: scanned.gaps.clone(),
    }
}
