//! The trait of an analyzer, what it is given and what it gives back.

use std::{
    fmt, io,
    sync::{Arc, OnceLock},
};

use archive::{Entry, Limits};
use model::{
    AnalyzerId, Digest, Diversion, FileSums, FoundFinding, FoundLicenses, FoundOs, FoundPackage,
    Gap, GapCode, Hides, Owned,
};
use serde::{Deserialize, Serialize};

use crate::{
    ANALYZERS, File, KeptEntries, LOCKS, SecretsConfig, Skip, checksums, compliance,
    filter::Filter, secrets, setuid, unpack::Room,
};

/// About what a result takes beside its texts.
const FIXED_BYTES: usize = 250;

/// Bytes of a licence's name or expression.
const LICENSE_BYTES_MAX: usize = 200;

/// Licences of one package.
const LICENSES_MAX: usize = 100;

/// Looks at files of a layer and says what they prove.
pub trait Analyzer: Send + Sync {
    /// Name, output version, digest of its configuration and of [`Limits`]: its part of the
    /// section's key.
    fn id(&self) -> &AnalyzerId;

    /// What is hidden when a file that it wants cannot be read.
    fn hides(&self) -> Hides {
        Hides::Packages
    }

    /// Pieces of paths, of which at least one is in the path of each file that it wants. A slash
    /// stands before and behind the whole path, too: `/METADATA/` is a name, `.jar/` the end of
    /// one, `/libpython` its beginning. Where there are none, it is asked for every file.
    fn pieces(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Decides by path, size, mode and the first KB whether it wants a regular file, so that
    /// unwanted bytes are never copied.
    fn wants(&self, entry: &Entry<'_>, head: &[u8]) -> Wanted;

    /// Whether it is given the entry of a directory, by path and mode.
    fn notices(&self, _directory: &Entry<'_>) -> bool {
        false
    }

    /// Whether a file that it does not want would be one that it wants, had it another name: by its
    /// first KB. Small ones are kept until the layer's end, for a hard link that gives them such a
    /// name, and are then analyzed under that name.
    fn recognizes(&self, _head: &[u8]) -> bool {
        false
    }

    /// Whether it waits for somebody else, as for another process. Such a one is asked beside the
    /// walk, by one thread per layer and never by the pool that all layers share.
    fn waits(&self) -> bool {
        false
    }

    /// The same one for the layers of one image, where it counts something that no other image is to
    /// pay for.
    fn for_image(&self) -> Option<Arc<dyn Analyzer>> {
        None
    }

    /// Reads the wanted files and says what it found. What it found before an error is kept.
    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed>;
}

/// Whether and how an analyzer wants a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Not at all.
    No,
    /// The entry is enough; the content is not collected.
    Entry,
    /// Its digests as package managers record them ([`File::sums`]), at the layer's end; the content
    /// is not collected.
    Sums,
    /// The file by itself.
    Alone,
    /// Together with the layer's other files of the same key, at the layer's end.
    Together(String),
}

/// What analyzers are configured with; what an analyzer uses of it is part of its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What none of them looks into.
    pub skip: Skip,
    /// Whether files that packages own are compared with what their package manager recorded.
    pub checksums: bool,
    /// Which secrets are looked for, and how they are named.
    pub secrets: SecretsConfig,
    /// What is not looked for at all.
    #[serde(skip)]
    pub without: Without,
}

/// What one scan leaves out because its user wants to know less. It is no setting: a server's verdict is
/// about everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// Secrets, in files and in the config. In what is shown of a config they are masked all the same.
    pub secrets: bool,
    /// Rights, accounts and settings that benchmarks refuse.
    pub misconfigurations: bool,
}

/// What an analyzer found in the files of one call, within a bound on its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub(crate) os: Vec<FoundOs>,
    pub(crate) packages: Vec<FoundPackage>,
    pub(crate) owned: Vec<Owned>,
    pub(crate) sums: Vec<FileSums>,
    pub(crate) diversions: Vec<Diversion>,
    pub(crate) licenses: Vec<FoundLicenses>,
    pub(crate) findings: Vec<FoundFinding>,
    pub(crate) gaps: Vec<Gap>,
    /// Bytes that archives were unpacked to.
    pub(crate) unpacked: u64,
    /// Where nothing is unpacked any more: how much all archives may take.
    pub(crate) spent: Option<u64>,
    /// Bytes that may still be added.
    room: u64,
    packages_max: usize,
    /// Whether something did not fit.
    pub(crate) is_over: bool,
}

/// A file is not what its name promises.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Its content has another form.
    #[error("{0}")]
    Format(String),
    /// It is larger than any real file of its kind.
    #[error("the file has {0} bytes, more than {1}")]
    TooLarge(u64, u64),
    /// It is an archive, and what it is unpacked to is more than one file may be.
    #[error("it unpacks to more than {0} bytes")]
    Unpacked(u64),
    /// It is an archive, and those before it took all that archives of a layer may.
    #[error("the archives before it unpack to more than {0} bytes")]
    Spent(u64),
    /// Its spilled copy could not be read: says nothing about the file.
    #[error("the temporary file could not be read: {0}")]
    Spilled(#[source] io::Error),
    /// What looks at it in a process of its own gave no answer: says nothing about the file.
    #[error("the engine: {0}")]
    Engine(String),
}

/// Analyzers that run in one pass. A clone shares them.
#[derive(Clone)]
pub struct Analyzers {
    list: Vec<Arc<dyn Analyzer>>,
    skip: Arc<Skip>,
    /// Who is asked for which file, made when it is first needed.
    filter: Arc<OnceLock<Filter>>,
}

/// The id of an analyzer under limits and what all analyzers are configured with: what is meant for
/// another one costs no section.
pub fn analyzer_id(name: &str, version: u32, config: &Config, limits: &Limits) -> AnalyzerId {
    own_id(name, version, &config.skip, limits)
}

/// The id of an analyzer whose output depends on more than [`Config::skip`].
pub fn own_id(name: &str, version: u32, config: &impl Serialize, limits: &Limits) -> AnalyzerId {
    // A configuration is plain data: there is nothing that could fail.
    let config = Digest::of(&rmp_serde::to_vec_named(config).unwrap_or_default());
    let both = [config.as_bytes().as_slice(), limits.digest().as_bytes()].concat();
    AnalyzerId {
        name: name.to_owned(),
        version,
        config: Digest::of(&both),
    }
}

/// The id under which the `entries` section is kept: another one where names have other numbers.
pub fn entries_id(limits: &Limits) -> AnalyzerId {
    own_id("entries", 4, &KeptEntries::naming(), limits)
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            skip: Skip::default(),
            checksums: true,
            secrets: SecretsConfig::default(),
            without: Without::default(),
        }
    }
}

// === impl Found ===

impl Found {
    /// Nothing yet, and room for this many bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            os: Vec::new(),
            packages: Vec::new(),
            owned: Vec::new(),
            sums: Vec::new(),
            diversions: Vec::new(),
            licenses: Vec::new(),
            findings: Vec::new(),
            gaps: Vec::new(),
            unpacked: 0,
            spent: None,
            room: bytes_max,
            packages_max: usize::MAX,
            is_over: false,
        }
    }

    /// The same with so many packages at most: behind them nothing is added.
    #[must_use]
    pub(crate) const fn with_packages(mut self, packages_max: usize) -> Self {
        self.packages_max = packages_max;
        self
    }

    /// Nothing, and it is known that this is not all.
    pub(crate) fn overfull() -> Self {
        Self {
            is_over: true,
            ..Self::new(0)
        }
    }

    /// Adds an operating system.
    pub fn add_os(&mut self, os: FoundOs) {
        let texts = [&os.path, &os.id, &os.version_id].into_iter();
        let texts = texts.chain(&os.codename).chain(&os.pretty_name);
        let bytes = list_bytes(&os.id_like).saturating_add(bytes(texts));
        if self.fits(bytes) {
            self.os.push(os);
        }
    }

    /// Adds a package. A licence that is longer than any name is left out: some write its whole
    /// text where the name belongs.
    pub fn add_package(&mut self, mut package: FoundPackage) {
        names_only(&mut package.licenses);
        let texts = [&package.path, &package.name, &package.version].into_iter();
        let texts = texts
            .chain(&package.arch)
            .chain(&package.source_name)
            .chain(&package.source_version)
            .chain(&package.vendor)
            .chain(&package.modularity)
            .chain(&package.within);
        let bytes = bytes(texts)
            .saturating_add(list_bytes(&package.licenses))
            .saturating_add(list_bytes(&package.depends_on))
            .saturating_add(list_bytes(&package.digests));
        self.is_over |= self.packages.len() >= self.packages_max;
        if self.fits(bytes) {
            self.packages.push(package);
        }
    }

    /// Adds a file that a package owns.
    pub fn add_owned(&mut self, owned: Owned) {
        let texts = [&owned.package, &owned.path].into_iter();
        if self.fits(bytes(texts.chain(&owned.arch).chain(&owned.digest))) {
            self.owned.push(owned);
        }
    }

    /// Adds the digests of a file.
    pub fn add_sums(&mut self, sums: FileSums) {
        let digests = size_of_val(&sums.md5).saturating_add(size_of_val(&sums.sha1));
        if self.fits(sums.path.len().saturating_add(digests)) {
            self.sums.push(sums);
        }
    }

    /// Adds a path at which packages put their files elsewhere.
    pub fn add_diversion(&mut self, diversion: Diversion) {
        let texts = [&diversion.path, &diversion.to].into_iter();
        if self.fits(bytes(texts.chain(&diversion.package))) {
            self.diversions.push(diversion);
        }
    }

    /// Adds the licences of a package, as [`add_package`](Self::add_package) does.
    pub fn add_licenses(&mut self, mut licenses: FoundLicenses) {
        names_only(&mut licenses.licenses);
        let bytes = list_bytes(&licenses.licenses);
        if self.fits(bytes.saturating_add(licenses.package.len())) {
            self.licenses.push(licenses);
        }
    }

    /// Adds a finding.
    pub fn add_finding(&mut self, finding: FoundFinding) {
        if self.fits(finding_bytes(&finding)) {
            self.findings.push(finding);
        }
    }

    /// Adds a gap.
    pub fn add_gap(&mut self, gap: Gap) {
        if self.fits(bytes(gap.path.iter().chain([&gap.detail]))) {
            self.gaps.push(gap);
        }
    }

    /// Notes that part of a file could not be read, which may hide packages.
    pub fn malformed(&mut self, path: &str, detail: impl Into<String>) {
        self.add_gap(Gap::new(GapCode::Malformed, Hides::Packages, detail).at(path));
    }

    /// What an archive of this size may be unpacked to.
    pub(crate) fn room_to_unpack(&self, size: u64) -> Result<Room, Malformed> {
        match self.spent {
            Some(bytes_max) => Err(Malformed::Spent(bytes_max)),
            None => Ok(Room::of(size)),
        }
    }

    /// Notes what an archive was unpacked to.
    pub(crate) fn add_unpacked(&mut self, room: &Room) {
        self.unpacked = self.unpacked.saturating_add(room.taken());
    }

    /// Adds everything of another.
    pub(crate) fn merge(&mut self, other: Self) {
        other.os.into_iter().for_each(|os| self.add_os(os));
        other
            .packages
            .into_iter()
            .for_each(|package| self.add_package(package));
        other
            .owned
            .into_iter()
            .for_each(|owned| self.add_owned(owned));
        other.sums.into_iter().for_each(|sums| self.add_sums(sums));
        other
            .diversions
            .into_iter()
            .for_each(|diversion| self.add_diversion(diversion));
        other
            .licenses
            .into_iter()
            .for_each(|licenses| self.add_licenses(licenses));
        other
            .findings
            .into_iter()
            .for_each(|finding| self.add_finding(finding));
        other.gaps.into_iter().for_each(|gap| self.add_gap(gap));
        self.is_over |= other.is_over;
    }

    /// Bytes that may still be added.
    pub(crate) const fn room(&self) -> u64 {
        self.room
    }

    /// Whether a result with so many bytes of texts fits; it takes the room.
    fn fits(&mut self, bytes: usize) -> bool {
        match self
            .room
            .checked_sub(bytes.saturating_add(FIXED_BYTES) as u64)
        {
            Some(room) => self.room = room,
            None => self.is_over = true,
        }
        !self.is_over
    }
}

/// Leaves out what is too long for a name, and what are too many.
fn names_only(licenses: &mut Vec<String>) {
    licenses.retain(|name| name.len() <= LICENSE_BYTES_MAX);
    licenses.truncate(LICENSES_MAX);
}

/// Bytes of texts.
fn bytes<'a>(texts: impl Iterator<Item = &'a String>) -> usize {
    texts.map(String::len).fold(0, usize::saturating_add)
}

/// Bytes of a list of texts, with what each takes beside its letters.
fn list_bytes(texts: &[String]) -> usize {
    let of_each = texts.len().saturating_mul(size_of::<String>());
    bytes(texts.iter()).saturating_add(of_each)
}

fn finding_bytes(finding: &FoundFinding) -> usize {
    match finding {
        FoundFinding::Secret(secret) => bytes(
            [
                &secret.rule,
                &secret.title,
                &secret.path,
                &secret.masked,
                &secret.advice,
                &secret.fingerprint,
            ]
            .into_iter(),
        )
        .saturating_add(list_bytes(&secret.file_digests)),
        FoundFinding::Malware(malware) => {
            bytes([&malware.rule, &malware.ruleset, &malware.path].into_iter())
        }
        FoundFinding::Misconfiguration(found) => {
            let texts = [&found.id, &found.title, &found.evidence, &found.remediation];
            let texts = texts.into_iter().chain(&found.path);
            bytes(texts.chain([&found.fingerprint.0])).saturating_add(list_bytes(&found.clauses))
        }
        FoundFinding::Unknown => 0,
    }
}

/// The error of a file that is not what its name promises.
pub(crate) fn malformed(detail: impl Into<String>) -> Malformed {
    Malformed::Format(detail.into())
}

// === impl Malformed ===

impl Malformed {
    /// The gap's name.
    pub const fn gap_code(&self) -> GapCode {
        match self {
            Self::Format(_) => GapCode::Malformed,
            Self::TooLarge(..) => GapCode::LimitFile,
            Self::Unpacked(_) | Self::Spent(_) => GapCode::LimitUncompressed,
            Self::Spilled(_) => GapCode::LayerUnavailable,
            Self::Engine(_) => GapCode::EngineFailed,
        }
    }

    /// Whether another attempt may end otherwise.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Spilled(_) | Self::Engine(_))
    }
}

// === impl Analyzers ===

impl Analyzers {
    /// All of [`ANALYZERS`], but those that are switched off.
    pub fn all(config: &Config, limits: &Limits) -> Self {
        // Whether one of them is there changes nothing of what the others find.
        let of_each = Config {
            checksums: true,
            without: Without::default(),
            ..config.clone()
        };
        let Without {
            secrets,
            misconfigurations,
        } = config.without;
        let is_wanted = |name: &str| match name {
            checksums::NAME => config.checksums,
            secrets::NAME => !secrets,
            setuid::NAME | compliance::NAME => !misconfigurations,
            _ => true,
        };
        let all = ANALYZERS.iter().map(|make| make(&of_each, limits));
        Self {
            list: all
                .filter(|one| is_wanted(&one.id().name))
                .map(Arc::from)
                .collect(),
            skip: Arc::new(config.skip.clone()),
            filter: Arc::default(),
        }
    }

    /// All of [`ANALYZERS`], and the kinds of lock files: for a directory, from which something will
    /// be installed. Of an image they would say what somebody once meant to install.
    pub fn of_directory(config: &Config, limits: &Limits) -> Self {
        let mut all = Self::all(config, limits);
        let locks = LOCKS.iter().map(|format| format.boxed(config, limits));
        all.list.extend(locks.map(Arc::from));
        all
    }

    /// None; a pass still makes the `entries` section.
    pub fn none() -> Self {
        Self {
            list: Vec::new(),
            skip: Arc::default(),
            filter: Arc::default(),
        }
    }

    /// Adds one that lives elsewhere.
    pub fn push(&mut self, analyzer: Box<dyn Analyzer>) {
        self.list.push(analyzer.into());
        self.filter = Arc::default();
    }

    /// The same for the layers of one image.
    #[must_use]
    pub fn for_image(&self) -> Self {
        let list = self.list.iter();
        Self {
            list: list
                .map(|one| one.for_image().unwrap_or_else(|| Arc::clone(one)))
                .collect(),
            skip: Arc::clone(&self.skip),
            filter: Arc::clone(&self.filter),
        }
    }

    /// Their ids, in order.
    pub fn ids(&self) -> Vec<AnalyzerId> {
        self.list
            .iter()
            .map(|analyzer| analyzer.id().clone())
            .collect()
    }

    /// Keeps those with the given ids, for a layer whose other sections are known already.
    #[must_use]
    pub fn subset(mut self, ids: &[AnalyzerId]) -> Self {
        self.list.retain(|analyzer| ids.contains(analyzer.id()));
        self.filter = Arc::default();
        self
    }

    /// Who is to be asked for a file, by its path.
    pub(crate) fn filter(&self) -> &Filter {
        self.filter.get_or_init(|| Filter::new(&self.list))
    }

    pub(crate) fn as_slice(&self) -> &[Arc<dyn Analyzer>] {
        &self.list
    }

    /// Whether nobody is to look into a file.
    pub(crate) fn skips(&self, path: &str) -> bool {
        self.skip.file(path)
    }
}

impl fmt::Debug for Analyzers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.list.iter().map(|analyzer| &analyzer.id().name))
            .finish()
    }
}
