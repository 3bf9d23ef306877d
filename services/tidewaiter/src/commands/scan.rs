//! `scan`: one image, no server. The same functions as the workers', called directly.

use std::{io::IsTerminal as _, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use chassis::Cx;
use matcher::Advisories;
use model::{
    Assessment, Decision, Facts, ImageRef, Platform, Report, Reports, ScannedPackages, Slug, Tool,
};
use oci::{DockerConfig, Image, Location, Platforms, RegistryConfig, Resolved, Source, Wanted};
use policy::{Condition, Policy, Rule, VulnerabilityFilter};
use scanner::{CacheSections, Documents, Reader};

use crate::{
    cli::{Format, Global, PlatformChoice, ScanArgs},
    commands::{Deadline, print},
    config::Config,
    exit::Exit,
    paths::{self, CacheDirs},
};

/// Bytes that the layer cache of one-off scans may take on disk.
const CACHE_BYTES_MAX: u64 = 2 << 30;

/// How long the last telemetry may take to get out.
const FLUSH: Duration = Duration::from_secs(1);

/// What all targets of one call share.
struct Scanner<'a> {
    cx: Cx,
    args: &'a ScanArgs,
    reader: Reader,
    domain: Slug,
    sections: CacheSections,
    advisories: Advisories,
    policy: Policy,
}

pub(crate) async fn run(config: Config, global: &Global, args: ScanArgs) -> anyhow::Result<Exit> {
    let mut telemetry = config.telemetry.clone();
    if global.log.is_none() {
        // A developer wants the report; what is worth a warning is a gap in it.
        "error".clone_into(&mut telemetry.log);
    }
    let telemetry = chassis::telemetry::init(&telemetry, "tidewaiter", env!("CARGO_PKG_VERSION"))?;
    let cx = Cx::system();
    let deadline = Deadline::after(args.timeout);
    let outcome = deadline.limit(scan_all(&cx, &config, global, &args)).await;
    cx.stop();
    telemetry.shutdown(FLUSH).await;
    outcome
}

async fn scan_all(
    cx: &Cx,
    config: &Config,
    global: &Global,
    args: &ScanArgs,
) -> anyhow::Result<Exit> {
    let dirs = CacheDirs::find(args.cache_dir.as_deref())?;
    let policy = load_policy(args)?;
    let scanner = Scanner {
        cx: cx.clone(),
        args,
        reader: Reader::new(config.scanner.settings()),
        domain: config.scanner.cache_domain.clone(),
        sections: CacheSections::open_shared(cx.clone(), &dirs.layers(), CACHE_BYTES_MAX),
        advisories: Advisories::open_read_only(&dirs.advisories())
            .context("opening the advisories")?,
        policy,
    };
    let mut worst = Exit::Ok;
    let mut documents = Vec::new();
    for target in &args.targets {
        let outcome = scanner.target(target, global.quiet).await;
        let exit = match outcome.with_context(|| format!("scanning `{target}`")) {
            Ok((document, decision)) => {
                documents.push(document);
                Exit::decided(decision, args.exit_code, args.allow_incomplete)
            }
            // The others are looked at all the same, and the worst counts.
            Err(error) => {
                crate::complain(&format!("error: {error:#}"));
                Exit::of(&error)
            }
        };
        worst = worst.max(exit);
    }
    let output = render(&scanner, &documents)?;
    write(args.output.as_deref(), &output)?;
    // Whether others get to reuse the layers must not fail a result.
    let cache = Arc::clone(scanner.sections.cache());
    let kept = cx.blocking(move || cache.finish()).await;
    if let Err(error) = kept.map_err(anyhow::Error::from).and_then(|kept| Ok(kept?)) {
        tracing::warn!("the layers are not kept for the next scan: {error:#}");
    }
    Ok(worst)
}

/// The reports of one target.
enum Document {
    One(Box<Report>),
    Platforms(Box<Reports>),
}

// === impl Scanner ===

impl Scanner<'_> {
    /// Manifests and configs, in the cache that the layers are in.
    fn documents(&self) -> Documents {
        let cache = Arc::clone(self.sections.cache());
        Documents::new(self.cx.clone(), cache, self.domain.clone())
    }

    async fn target(&self, target: &str, quiet: bool) -> anyhow::Result<(Document, Decision)> {
        let location = Location::parse(target)?;
        let (source, wanted) = self.open(&location).await?;
        let resolved = source.resolve(&wanted).await?;
        if let Some(unreadable) = resolved.unreadable.first() {
            return Err(unreadable.error.clone().into());
        }
        let platforms_wanted = matches!(self.args.platform, Some(PlatformChoice::All));
        if !quiet && self.args.platform.is_none() {
            say_choice(&resolved);
        }
        let index = resolved.index;
        let mut reports = Vec::new();
        for mut image in resolved.images {
            target.clone_into(&mut image.reference);
            reports.push(self.image(&source, &image).await?);
        }
        let worst = reports.iter().max_by_key(|report| report.verdict.decision);
        let worst = worst.context("the index has no image that could be scanned")?;
        let decision = worst.verdict.decision;
        if let (true, Some(index)) = (platforms_wanted, index) {
            let all = Reports {
                schema: model::REPORTS_SCHEMA.to_owned(),
                index_digest: index,
                verdict: worst.verdict.clone(),
                reports,
            };
            return Ok((Document::Platforms(Box::new(all)), decision));
        }
        let report = reports.pop().context("there is no image to report on")?;
        Ok((Document::One(Box::new(report)), decision))
    }

    async fn open(&self, location: &Location) -> anyhow::Result<(Arc<dyn Source>, Wanted)> {
        let platforms = match &self.args.platform {
            None => Platforms::Prefer(host_platform()),
            Some(PlatformChoice::All) => Platforms::All,
            Some(PlatformChoice::One(platform)) => Platforms::Only(platform.clone()),
        };
        let host = match location {
            Location::Registry(reference) => reference.registry.as_str(),
            _ => "",
        };
        let registry = RegistryConfig {
            plain_http: self.args.plain_http.iter().any(|plain| plain == host),
            // Whoever types a registry's name means that registry, wherever it is.
            allow_private: true,
            documents: Some(Arc::new(self.documents())),
            ..RegistryConfig::default()
        };
        let docker = paths::docker_config().map(DockerConfig::new);
        let source = oci::open(&self.cx, location, registry, docker.as_ref()).await?;
        Ok((source, location.wanted(platforms)))
    }

    async fn image(&self, source: &Arc<dyn Source>, image: &Image) -> anyhow::Result<Report> {
        let mut scan = scanner::scan(&self.cx, &self.reader, image, source, &self.sections).await?;
        let now = self.cx.now();
        let packages = ScannedPackages {
            image: scan.report.image,
            os: scan.report.target.os.clone(),
            packages: scan.report.packages.clone(),
            gaps: scan.report.gaps.clone(),
        };
        let mut assessment: Assessment = matcher::assess(&self.advisories, &packages, now)?;
        let facts = Facts {
            assessment: &assessment,
            findings: &scan.report.findings,
        };
        let data_at = assessment.advisories.data_at();
        let names = repository(&image.reference);
        let judgement = policy::judge(&self.policy, &facts, &names, now, data_at);
        judgement.mark(&mut assessment.vulnerabilities, &mut scan.report.findings);
        let tool = Tool::tidewaiter(env!("CARGO_PKG_VERSION"));
        Ok(Report::new(
            scan.report,
            assessment,
            judgement.verdict,
            tool,
            now,
        ))
    }
}

/// The image's name as policies select by it; none where it is no registry's.
fn repository(reference: &str) -> Vec<String> {
    let reference: Option<ImageRef> = reference.parse().ok();
    reference
        .map(|reference| reference.name())
        .into_iter()
        .collect()
}

fn load_policy(args: &ScanArgs) -> anyhow::Result<Policy> {
    let mut policy = match &args.policy {
        None => Policy::builtin(),
        Some(file) => {
            let max = u64::try_from(policy::DOCUMENT_BYTES_MAX).unwrap_or(u64::MAX);
            let text = chassis::files::read_text_bounded(file, max)
                .with_context(|| format!("reading the policy `{}`", file.display()))?;
            Policy::parse(&text).with_context(|| format!("in the policy `{}`", file.display()))?
        }
    };
    if let Some(level) = args.fail_on {
        policy.rules.push(Rule {
            name: "fail-on".parse()?,
            when: Condition::Vulnerability(VulnerabilityFilter {
                severity: Some(policy::Level(level)),
                ..VulnerabilityFilter::default()
            }),
            then: Decision::Deny,
            message: None,
            remediation: None,
        });
    }
    Ok(policy)
}

fn render(scanner: &Scanner<'_>, documents: &[Document]) -> anyhow::Result<Vec<u8>> {
    let args = scanner.args;
    let terminal = args.output.is_none() && std::io::stdout().is_terminal();
    let options = report::Options {
        color: terminal && chassis::config::env_var("NO_COLOR").is_none(),
        width: terminal.then(terminal_width).flatten(),
        severities: args.severity.clone(),
        ..report::Options::default()
    };
    let format = match args.format {
        Format::Table => report::Format::Table,
        Format::Json => report::Format::Json,
    };
    let mut out = Vec::new();
    for document in documents {
        match document {
            Document::One(one) => report::render(one, format, &options, &mut out)?,
            Document::Platforms(all) => report::render_all(all, format, &options, &mut out)?,
        }
    }
    Ok(out)
}

fn write(file: Option<&Path>, output: &[u8]) -> anyhow::Result<()> {
    match file {
        None => print(&String::from_utf8_lossy(output)),
        Some(file) => std::fs::write(file, output)
            .with_context(|| format!("writing the report to `{}`", file.display())),
    }
}

/// Says which platform was taken where nobody named one.
fn say_choice(resolved: &Resolved) {
    if let (Some(index), [image]) = (resolved.index, resolved.images.as_slice()) {
        crate::complain(&format!(
            "note: {} is an index; scanning {} (another with --platform, every one with --platform all)",
            index.short(),
            image.platform
        ));
    }
}

/// The platform of this machine in the words of OCI; containers are Linux everywhere.
fn host_platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: None,
    }
}

fn terminal_width() -> Option<usize> {
    chassis::config::env_var("COLUMNS").and_then(|columns| columns.parse().ok())
}
