//! `scan`: images, no server. The same functions as the workers', called directly.

mod compliance;
mod dockerfile;
mod explaining;
mod output;
mod progress;
mod sbom;

use std::{path::PathBuf, sync::Arc, time::Duration};

use analyzers::{FingerprintKey, Without};
use anyhow::Context as _;
use chassis::Cx;
use clap::ValueEnum as _;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use matcher::{Advisories, Loose};
use model::{
    Assessment, Decision, Facts, GapCode, Hides, ImageReport, Platform, Report, Reports,
    ScannedPackages, Slug, Tool,
};
use oci::{
    DockerConfig, Image, Location, Opened, Opening, Platforms, RegistryConfig, Resolved, Skip,
    Source,
};
use policy::{Condition, Policy, Rule, VulnerabilityFilter};
use scanner::{CacheSections, Documents, Reader, Settings};
use tokio::sync::oneshot;
use vulndb::SeverityBy;

pub(crate) use self::explaining::explain;
use self::{
    output::{Document, Outputs},
    progress::Progress,
};
use crate::{
    advice,
    cli::{Global, PlatformChoice, ScanArgs, Scanners},
    commands::{Deadline, db::feeds_at},
    config::Config,
    exit::Exit,
    paths::{self, CacheDirs},
    rules::{self, Asking},
    secrets::{self, Baseline},
    terminal,
};

/// Bytes that the layer cache of one-off scans may take on disk.
const CACHE_BYTES_MAX: u64 = 2 << 30;

/// Bytes of a directory: it is here already, so that a limit protects nobody from its size.
const DIRECTORY_BYTES_MAX: u64 = 1 << 42;

/// How long the last telemetry may take to get out.
const FLUSH: Duration = Duration::from_secs(1);

/// Bytes of an image's layers up to which it is put together in milliseconds, so that making the layer
/// cache would be seen, and having it open harms no scan beside this one.
const SMALL_BYTES_MAX: u64 = 64 << 20;

/// Advisories that are being opened, or why they cannot be.
type ComingAdvisories = Shared<BoxFuture<'static, Result<Arc<Advisories>, String>>>;

/// What all targets of one call share.
struct Scanner<'a> {
    cx: Cx,
    args: &'a ScanArgs,
    settings: Settings,
    reader: Reader,
    domain: Slug,
    sections: CacheSections,
    advisories: ComingAdvisories,
    /// Advisories in files, which take the place of the database's.
    loose: Vec<Loose>,
    matcher: matcher::Config,
    policy: Policy,
    /// Secrets that are accepted.
    baseline: Option<Baseline>,
    progress: Progress,
    quiet: bool,
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
    let is_wanted = !global.quiet && !args.no_progress;
    let progress = Progress::new(is_wanted, terminal::shows_progress());
    let work = Box::pin(scan_all(&cx, &config, global, &args, &progress));
    let outcome = deadline.limit(work).await;
    progress.clear();
    cx.stop();
    telemetry.shutdown(FLUSH).await;
    outcome
}

async fn scan_all(
    cx: &Cx,
    config: &Config,
    global: &Global,
    args: &ScanArgs,
    progress: &Progress,
) -> anyhow::Result<Exit> {
    let outputs = Outputs::of(args)?;
    let dirs = CacheDirs::find(args.cache_dir.as_deref())?;
    let mut config = config.clone();
    let malware = &mut config.scanner.malware;
    malware.enabled &= !args.no_malware && args.looks_for(Scanners::Malware);
    let fetches = malware.enabled && malware.bundle.is_some();
    let step = fetches.then(|| progress.step("looking for rules of malware".to_owned()));
    let note = rules::prepare(cx, malware, &dirs.malware(), Asking::Yes).await?;
    drop(step);
    let scanner = Scanner::new(cx, &config, global, args, progress)?;
    if let Some(note) = note {
        scanner.note(&note);
    }
    scanner.say_left_out();
    let mut worst = Exit::Ok;
    let mut documents = Vec::new();
    for target in &args.targets {
        let outcome = scanner.target(target).await;
        progress.clear();
        let exit = match outcome.with_context(|| format!("scanning `{target}`")) {
            Ok((document, decision)) => {
                if !outputs.use_stdout() {
                    scanner.tell(&format!(
                        "{target}: {}",
                        report::summary(document.verdict())
                    ));
                }
                documents.push(document);
                Exit::decided(decision, args.exit_code, args.allow_incomplete)
            }
            // The others are looked at all the same, and the worst counts.
            Err(error) => {
                advice::complain(&error);
                Exit::of(&error)
            }
        };
        worst = worst.max(exit);
    }
    let writing = async {
        if documents.is_empty() {
            return Ok(());
        }
        scanner.say_advisories(&dirs).await?;
        outputs.write(args, &scanner.policy, &documents)
    };
    // The cache is written on another thread, which the first one asks for before it writes itself.
    let ((), written) = tokio::join!(scanner.keep_layers(), writing);
    // The process ends next, and the system takes back at once what would be freed piece by piece.
    std::mem::forget((scanner, documents));
    written.map(|()| worst)
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    fn new(
        cx: &Cx,
        config: &Config,
        global: &Global,
        args: &'a ScanArgs,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let dirs = CacheDirs::find(args.cache_dir.as_deref())?;
        let mut settings = config.scanner.settings()?;
        let skip = &mut settings.analyzers.skip;
        skip.dirs.extend(args.skip_dirs.iter().cloned());
        skip.files.extend(args.skip_files.iter().cloned());
        settings.analyzers.checksums &= args.looks_for(Scanners::Integrity);
        settings.analyzers.without = Without {
            secrets: !args.looks_for(Scanners::Secret),
            misconfigurations: !args.looks_for(Scanners::Misconfig),
        };
        let key = secret_key(config, args, &dirs)?;
        let baseline = args.secret_baseline.as_deref();
        let baseline = baseline
            .map(|file| Baseline::read(file, &key))
            .transpose()?;
        settings.analyzers.secrets.key = key;
        let mut policy = load_policy(args)?;
        let waivers = baseline.iter().flat_map(Baseline::waivers);
        policy.waivers.extend(waivers);
        let mut loose = Vec::new();
        for path in &args.advisories {
            loose.extend(feeds_at(path)?);
        }
        // Opening takes some milliseconds, and the scan of a known image takes not much more in all: what
        // is needed last is opened beside the rest.
        let advisories = open_advisories(cx, dirs.advisories(), config.matcher.severity);
        let sections = CacheSections::open_shared(cx.clone(), &dirs.layers(), CACHE_BYTES_MAX);
        prepare_secrets(cx, &settings);
        Ok(Scanner {
            cx: cx.clone(),
            args,
            reader: Reader::new(settings.clone()),
            settings,
            domain: config.scanner.cache_domain.clone(),
            sections,
            advisories,
            loose,
            matcher: config.matcher.clone(),
            policy,
            baseline,
            progress: progress.clone(),
            quiet: global.quiet,
        })
    }

    /// Keeps the layers that were read; whether others get to reuse them must not fail a result.
    async fn keep_layers(&self) {
        if let Err(error) = self.sections.finish().await {
            tracing::warn!("the layers are not kept for the next scan: {error:#}");
        }
    }
}

impl Scanner<'_> {
    /// Manifests and configs, in the cache that the layers are in.
    fn documents(&self) -> Documents {
        let cache = Arc::clone(self.sections.cache());
        let secrets = self.settings.analyzers.secrets.clone();
        Documents::new(self.cx.clone(), cache, self.domain.clone(), secrets)
    }

    /// Finds a target, and which of its images are to be scanned.
    async fn resolve(
        &self,
        target: &str,
        location: &Location,
    ) -> anyhow::Result<(Opened, Resolved)> {
        // A directory is gone through whole before its layer is read.
        let doing = match location {
            Location::Directory(_) | Location::RootFs(_) => "going through",
            _ => "looking for",
        };
        let step = self.progress.step(format!("{doing} {target}"));
        let opened = oci::open(&self.cx, location, &self.opening(location)).await?;
        let resolved = opened.source.resolve(&opened.wanted).await?;
        drop(step);
        if let Some(unreadable) = resolved.unreadable.first() {
            return Err(unreadable.error.clone().into());
        }
        self.say_choices(target, location, &opened, &resolved);
        Ok((opened, resolved))
    }

    async fn target(&self, target: &str) -> anyhow::Result<(Document, Decision)> {
        if let Some(file) = dockerfile::file(target) {
            let report = self.dockerfile(target, &file).await?;
            let decision = report.verdict.decision;
            return Ok((Document::One(Box::new(report)), decision));
        }
        let location = Location::parse(target)?;
        if let Location::Sbom(file) = &location {
            return self.sbom(target, file).await;
        }
        let (opened, resolved) = self.resolve(target, &location).await?;
        let index = resolved.index;
        if let ([_], [image]) = (self.args.targets.as_slice(), resolved.images.as_slice())
            && self.loose.is_empty()
            && bytes_of(image) <= SMALL_BYTES_MAX
        {
            self.sections.next_is_last();
        }
        let mut reports = Vec::new();
        for mut image in resolved.images {
            target.clone_into(&mut image.reference);
            reports.push(self.image(&location, &opened.source, &image).await?);
        }
        let worst = reports.iter().max_by_key(|report| report.verdict.decision);
        let worst = worst.context("the index has no image that could be scanned")?;
        let decision = worst.verdict.decision;
        let is_all = matches!(self.args.platform, Some(PlatformChoice::All));
        if let (true, Some(index)) = (is_all, index) {
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

    fn opening(&self, location: &Location) -> Opening {
        let platforms = match &self.args.platform {
            None => Platforms::Prefer(host_platform()),
            Some(PlatformChoice::All) => Platforms::All,
            Some(PlatformChoice::One(platform)) => Platforms::Only(platform.clone()),
        };
        let host = match location {
            Location::Registry(reference) | Location::Name(reference) => &reference.registry,
            _ => "",
        };
        let globs = self.settings.analyzers.skip.clone();
        let is_skipping = !globs.dirs.is_empty() || !globs.files.is_empty();
        let skip: Skip = Arc::new(move |path, is_dir| {
            if is_dir {
                globs.dir(path)
            } else {
                globs.file(path)
            }
        });
        Opening {
            registry: RegistryConfig {
                plain_http: self.args.plain_http.iter().any(|plain| plain == host),
                // Whoever types a registry's name means that registry, wherever it is.
                allow_private: true,
                documents: Some(Arc::new(self.documents())),
                ..RegistryConfig::default()
            },
            docker: paths::docker_config().map(DockerConfig::new),
            engines: paths::engines(),
            skip: is_skipping.then_some(skip),
            platforms,
        }
    }

    async fn image(
        &self,
        location: &Location,
        source: &Arc<dyn Source>,
        image: &Image,
    ) -> anyhow::Result<Report> {
        let scanned = self.scanned(location, source, image).await?;
        self.judged(scanned, &repository(location)).await
    }

    /// The report of what was found: with vulnerabilities, and what policy says of it.
    async fn judged(&self, mut scanned: ImageReport, names: &[String]) -> anyhow::Result<Report> {
        if !self.args.removed_packages {
            scanned.findings.removed.clear();
        }
        let now = self.cx.now();
        let packages = ScannedPackages {
            image: scanned.image,
            os: scanned.target.os.clone(),
            packages: std::mem::take(&mut scanned.packages),
            gaps: scanned.gaps.clone(),
        };
        let advisories = self.advisories_for(&packages).await?;
        let mut assessment: Assessment = matcher::assess(&advisories, &packages, now)?;
        scanned.packages = packages.packages;
        let facts = Facts {
            assessment: &assessment,
            findings: &scanned.findings,
            target: &scanned.target,
        };
        let data_at = assessment.advisories.data_at();
        let judgement = policy::judge(&self.policy, &facts, names, now, data_at);
        judgement.complete(&mut assessment.vulnerabilities, &mut scanned.findings);
        if let Some(baseline) = &self.baseline {
            baseline.sign(&mut scanned.findings.secrets);
        }
        let tool = Tool::tidewaiter(env!("CARGO_PKG_VERSION"));
        Ok(Report::new(
            scanned,
            assessment,
            judgement.verdict,
            tool,
            now,
        ))
    }

    /// What an image's layers prove.
    async fn scanned(
        &self,
        location: &Location,
        source: &Arc<dyn Source>,
        image: &Image,
    ) -> anyhow::Result<ImageReport> {
        // Where they cannot be opened nobody has to wait for layers.
        self.advisories().await?;
        let watched = self.progress.watch(image, Arc::clone(source));
        let (is_directory, reader) = match location {
            Location::Directory(_) => (true, self.reader_of_directories(true)),
            Location::RootFs(_) => (true, self.reader_of_directories(false)),
            _ => (false, self.reader.clone()),
        };
        let scan = scanner::scan(&self.cx, &reader, image, &watched, &self.sections);
        let scan = scan.await?;
        drop(watched);
        self.progress.known(image, scan.layers_read);
        let mut scanned = scan.report;
        if is_directory {
            allow_changes(&mut scanned);
        }
        Ok(scanned)
    }

    /// The advisories of the database.
    async fn advisories(&self) -> anyhow::Result<Arc<Advisories>> {
        self.advisories.clone().await.map_err(anyhow::Error::msg)
    }

    /// The advisories that an image's packages are compared with: of files, where the command line names
    /// some.
    async fn advisories_for(&self, packages: &ScannedPackages) -> anyhow::Result<Arc<Advisories>> {
        if self.loose.is_empty() {
            return self.advisories().await;
        }
        let (feeds, limits) = (self.loose.clone(), self.matcher.limits.clone());
        let (packages, now) = (packages.clone(), self.cx.now());
        let step = self.progress.step("reading advisories".to_owned());
        let read = move || matcher::read_for(&packages, &feeds, &limits, now);
        let (advisories, problems) = self.cx.blocking(read).await.context("reading")??;
        drop(step);
        for problem in problems {
            self.note(&format!("left out: {problem}"));
        }
        Ok(Arc::new(advisories.rated_by(self.matcher.severity)))
    }

    /// A reader for a directory, which something is built of unless it is a root file system.
    fn reader_of_directories(&self, lock_files: bool) -> Reader {
        let mut settings = self.settings.clone();
        settings.lock_files = lock_files;
        settings.limits.compressed_bytes_max = DIRECTORY_BYTES_MAX;
        settings.limits.uncompressed_bytes_max = DIRECTORY_BYTES_MAX;
        Reader::new(settings)
    }

    /// Says what was taken where the command line left it open.
    fn say_choices(&self, target: &str, location: &Location, opened: &Opened, resolved: &Resolved) {
        for error in &opened.passed_over {
            self.note(&format!("passed over: {error}"));
        }
        if let Some(place) = &opened.chosen {
            self.note(&format!(
                "`{target}` is taken from {place} (registry:{target} takes it from its registry)"
            ));
        }
        if let Location::Directory(_) = location
            && !target.starts_with(['/', '.', '~', ':'])
            && !target.contains(':')
        {
            self.note(&format!(
                "`{target}` is a directory here, which is scanned (registry:{target} is the image)"
            ));
        }
        if let (None, Some(index), [image]) = (
            &self.args.platform,
            resolved.index,
            resolved.images.as_slice(),
        ) {
            self.note(&format!(
                "{} is an index; {} of it is scanned (another with --platform, every one with --platform all)",
                index.short(),
                image.platform
            ));
        }
    }

    /// Says what is missing for finding vulnerabilities, and how to get it.
    async fn say_advisories(&self, dirs: &CacheDirs) -> anyhow::Result<()> {
        if self.loose.is_empty() && self.advisories().await?.manifest().feeds.is_empty() {
            self.note(&format!(
                "there are no advisories in `{}`, so vulnerabilities were not looked for; `tidewaiter db update` gets them",
                dirs.advisories().display()
            ));
        }
        Ok(())
    }

    /// Says what the flags leave out, so that nobody takes it for absent.
    fn say_left_out(&self) {
        let kinds = Scanners::value_variants().iter();
        let left_out =
            kinds.filter(|kind| **kind != Scanners::Vuln && !self.args.looks_for(**kind));
        let left_out: Vec<_> = left_out.map(|kind| kind.noun()).collect();
        if !left_out.is_empty() {
            self.note(&format!("not looked for: {}", left_out.join(", ")));
        }
    }

    fn note(&self, text: &str) {
        self.tell(&format!("note: {text}"));
    }

    fn tell(&self, text: &str) {
        if !self.quiet {
            crate::complain(text);
        }
    }
}

/// Bytes of all layers, as the manifest says.
fn bytes_of(image: &Image) -> u64 {
    let layers = image.manifest.layers.iter();
    layers.fold(0, |sum, layer| sum.saturating_add(layer.size))
}

/// Makes the rules of secrets ready while the image is looked for.
fn prepare_secrets(cx: &Cx, settings: &Settings) {
    let (work, secrets) = (cx.clone(), settings.analyzers.secrets.clone());
    cx.spawn("secret rules", async move {
        // Lost is what nobody needs any more.
        let prepared = work.compute(move || analyzers::prepare_secrets(&secrets));
        let _lost = prepared.await.is_err();
    });
}

/// Opens the advisories while something else is waited for.
fn open_advisories(cx: &Cx, dir: PathBuf, severity: SeverityBy) -> ComingAdvisories {
    let (sender, opened) = oneshot::channel();
    let work = cx.clone();
    cx.spawn("opening the advisories", async move {
        let opened = work
            .blocking(move || Advisories::open_read_only(&dir))
            .await;
        let opened = opened.context("opening the advisories").flatten();
        let opened = opened.map(|advisories| Arc::new(advisories.rated_by(severity)));
        // Nobody waits where nothing is to be matched.
        drop(sender.send(opened.map_err(|error| format!("opening the advisories: {error:#}"))));
    });
    let opened = opened.map(|sent| sent.unwrap_or_else(|_| Err("the scan is stopping".to_owned())));
    opened.boxed().shared()
}

/// A directory is what it is when it is read: files that changed since it was first gone through make
/// its digest another one, and hide nothing.
fn allow_changes(report: &mut ImageReport) {
    let changes = [GapCode::DigestMismatch, GapCode::DiffidMismatch];
    for gap in &mut report.gaps {
        if changes.contains(&gap.code) {
            gap.hides = Hides::Nothing;
            "files changed while the directory was read, so its digest is not that of what was read"
                .clone_into(&mut gap.detail);
        }
    }
    report.gaps.sort();
    report.gaps.dedup();
}

/// The image's name as policies select by it; none where it is no registry's.
fn repository(location: &Location) -> Vec<String> {
    match location {
        Location::Name(name) | Location::Registry(name) | Location::Engine(_, name) => {
            vec![name.name()]
        }
        Location::OciLayout { .. }
        | Location::Archive { .. }
        | Location::Directory(_)
        | Location::RootFs(_)
        | Location::Sbom(_) => Vec::new(),
    }
}

/// The installation's key; else the one beside the baseline, or the user's own.
fn secret_key(
    config: &Config,
    args: &ScanArgs,
    dirs: &CacheDirs,
) -> anyhow::Result<FingerprintKey> {
    if let Some(file) = &config.scanner.secret_key_file {
        return secrets::read_key(file);
    }
    if let Some(baseline) = &args.secret_baseline {
        return secrets::key_beside(baseline);
    }
    // A place that cannot be written to must not fail a scan: the fingerprints are then of this scan.
    secrets::own_key(dirs.root()).or_else(|error| {
        tracing::warn!("secrets get fingerprints that no later scan has: {error:#}");
        secrets::passing_key()
    })
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
                fixable: args.ignore_unfixed.then_some(true),
                ..VulnerabilityFilter::default()
            }),
            then: Decision::Deny,
            message: None,
            remediation: None,
        });
    }
    Ok(policy)
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

#[cfg(test)]
mod tests {
    use model::{Digest, Findings, Gap, RuntimeConfig, Target};

    use super::*;

    #[test]
    fn a_directory_that_changes_hides_nothing() {
        let digest = Digest::of(b"image");
        let gap = |code| Gap::new(code, Hides::Entries, "why");
        let mut report = ImageReport {
            image: digest,
            target: Target {
                reference: "dir:/x".to_owned(),
                index_digest: None,
                manifest_digest: None,
                image_id: digest,
                platform: Platform::default(),
                created: None,
                os: None,
                layers: Vec::new(),
                config: RuntimeConfig::default(),
            },
            analyzers: Vec::new(),
            packages: Vec::new(),
            findings: Findings::default(),
            gaps: vec![gap(GapCode::DigestMismatch), gap(GapCode::Truncated)],
        };
        allow_changes(&mut report);
        let hides = |code| {
            let gap = report.gaps.iter().find(|gap| gap.code == code);
            gap.map(|gap| gap.hides)
        };
        assert_eq!(hides(GapCode::DigestMismatch), Some(Hides::Nothing));
        assert_eq!(hides(GapCode::Truncated), Some(Hides::Entries));
    }
}
