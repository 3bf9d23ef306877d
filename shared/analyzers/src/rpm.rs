//! RPM packages: the headers in rpm's database, of all three kinds that there were, and the list
//! that distroless images of Mariner have instead.

mod bdb;
mod header;
mod ndb;
mod source;
mod sqlite;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::LazyLock,
};

use archive::{Entry, Limits};
use model::{AnalyzerId, FoundPackage, Owned, PackageType};

use self::{
    header::{Header, Tag},
    source::Source,
};
use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id, malformed};

/// A full installation's database has 300 MB.
const DATABASE_BYTES_MAX: u64 = 2 << 30;

/// A list of 10,000 packages has 2 MB.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// Packages of one database. A distribution has 60,000.
const PACKAGES_MAX: usize = 200_000;

/// Names that packages provide, or need, or files that they have, of which another could be one.
const NAMES_MAX: usize = 2_000_000;

/// Where rpm keeps its database; the second is of SUSE and of Fedora since 36, the third of rpm-ostree.
const HOMES: &[&str] = &["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"];

/// What the database is called: of Berkeley DB, ndb and `SQLite`.
const NAMES: &[&str] = &["Packages", "Packages.db", "rpmdb.sqlite"];

const LOG: &str = "rpmdb.sqlite-wal";
const LIST: &str = "var/lib/rpmmanifest/container-manifest-2";

/// Files that their package lets be changed: configuration, and what it does not bring itself (rpm,
/// `include/rpm/rpmfiles.h`).
const CHANGEABLE: u32 = 1 | 1 << 6;

/// What of a file rpm verifies: its digest.
const VERIFY_DIGEST: u32 = 1;

const DIRECTORY: u32 = 0o040_000;
const FILE_KIND: u32 = 0o170_000;

/// Reads rpm's records.
pub(crate) struct Rpm(AnalyzerId);

/// A database's packages, before it is known who needs whom.
#[derive(Default)]
struct Packages {
    packages: Vec<FoundPackage>,
    owned: Vec<Owned>,
    /// Which package provides a name: the first that does.
    providers: HashMap<String, usize>,
    /// Files that somebody needs by path.
    paths: HashSet<String>,
    names: usize,
    is_over: bool,
    /// What is wrong with the first header that could not be read.
    first_wrong: Option<String>,
    /// How many could not be read: a file may hold millions of them.
    wrong: usize,
}

/// Whether a file at this path is read as a list of packages.
pub(crate) fn is_database(path: &str) -> bool {
    is_in_home(path, NAMES) || path == LIST
}

/// All places where a package's evidence has to be seen for it to be installed.
pub(crate) fn places() -> &'static [String] {
    static PLACES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let databases = HOMES
            .iter()
            .flat_map(|home| NAMES.iter().map(move |name| (home, name)));
        let databases = databases.map(|(home, name)| format!("{home}/{name}"));
        databases.chain([LIST.to_owned()]).collect()
    });
    &PLACES
}

fn is_in_home(path: &str, names: &[&str]) -> bool {
    let Some((directory, name)) = path.rsplit_once('/') else {
        return false;
    };
    names.contains(&name)
        && HOMES.iter().any(|home| {
            let before = directory.strip_suffix(home);
            before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
        })
}

// === impl Rpm ===

impl Rpm {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("rpm", 2, config, limits)))
    }
}

impl Analyzer for Rpm {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn pieces(&self) -> Vec<&str> {
        vec![
            "/lib/rpm/",
            "/sysimage/rpm/",
            "/share/rpm/",
            "/rpmmanifest/",
        ]
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        let path = entry.path;
        if is_in_home(path, &["rpmdb.sqlite", LOG]) {
            let directory = path.rsplit_once('/').unwrap_or_default().0;
            return Wanted::Together(directory.to_owned());
        }
        if is_database(path) {
            Wanted::Alone
        } else {
            Wanted::No
        }
    }

    fn recognizes(&self, head: &[u8]) -> bool {
        bdb::recognizes(head) || ndb::recognizes(head)
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        let (logs, files): (Vec<_>, Vec<_>) =
            files.iter().partition(|file| file.path().ends_with(LOG));
        let log = logs.last();
        if let (Some(log), true) = (
            log,
            files.is_empty() && log.is_some_and(|log| log.entry.size > 0),
        ) {
            found.malformed(log.path(), "a log of changes is there without its database");
        }
        for file in files {
            if file.path() == LIST {
                read_list(file.path(), &file.text(LIST_BYTES_MAX)?, found);
                continue;
            }
            let mut packages = Packages::default();
            let read = read_database(file, log.copied(), &mut packages);
            packages.finish(file.path(), found);
            read?;
        }
        Ok(())
    }
}

/// What of it can be read is kept, whatever follows.
fn read_database(
    file: &File,
    log: Option<&File>,
    packages: &mut Packages,
) -> Result<(), Malformed> {
    let size = file.entry.size;
    if size > DATABASE_BYTES_MAX {
        return Err(Malformed::TooLarge(size, DATABASE_BYTES_MAX));
    }
    let mut source = Source::new(file);
    let path = file.path();
    let mut each = |header: &[u8]| packages.add(path, header);
    match path.rsplit('/').next() {
        Some("Packages") => bdb::read(&mut source, &mut each),
        Some("Packages.db") => ndb::read(&mut source, &mut each),
        _ => sqlite::read(source, log.map(Source::new), &mut each),
    }
}

// === impl Packages ===

impl Packages {
    fn add(&mut self, path: &str, bytes: &[u8]) {
        if self.packages.len() >= PACKAGES_MAX {
            self.is_over = true;
        } else if let Err(error) = self.read(path, bytes) {
            self.wrong = self.wrong.saturating_add(1);
            self.first_wrong.get_or_insert_with(|| error.to_string());
        }
    }

    fn read(&mut self, path: &str, bytes: &[u8]) -> Result<(), Malformed> {
        let header = Header::parse(bytes)?;
        let name = header.text(Tag::Name)?;
        let name = name.ok_or_else(|| malformed("a header names no package"))?;
        let of = |error: Malformed| malformed(format!("the header of `{name}`: {error}"));
        let package = package(path, &name, &header).map_err(of)?;
        let provided = header.texts(Tag::ProvideName).map_err(of)?;
        let owned = owned(&package, &header).map_err(of)?;
        let number = self.packages.len();
        for provided in provided {
            if self.fits(1) {
                self.providers.entry(provided).or_insert(number);
            }
        }
        if self.fits(package.depends_on.len()) {
            let paths = package
                .depends_on
                .iter()
                .filter(|need| need.starts_with('/'));
            self.paths.extend(paths.cloned());
        }
        if self.fits(owned.len()) {
            self.owned.extend(owned);
        }
        self.packages.push(package);
        Ok(())
    }

    fn fits(&mut self, names: usize) -> bool {
        self.names = self.names.saturating_add(names);
        self.is_over |= self.names > NAMES_MAX;
        self.names <= NAMES_MAX
    }

    /// Names the packages that are needed instead of what they provide.
    fn finish(mut self, path: &str, found: &mut Found) {
        settle_epochs(&mut self.packages);
        let mut by_name = HashMap::new();
        for (number, package) in self.packages.iter().enumerate() {
            by_name.entry(package.name.clone()).or_insert(number);
        }
        for owned in &self.owned {
            let file = format!("/{}", owned.path);
            if let (true, Some(owner)) = (self.paths.contains(&file), by_name.get(&owned.package)) {
                self.providers.entry(file).or_insert(*owner);
            }
        }
        let names: Vec<String> = self
            .packages
            .iter()
            .map(|package| package.name.clone())
            .collect();
        for mut package in self.packages {
            let needs = package.depends_on.iter();
            let providers = needs.filter_map(|need| self.providers.get(need));
            let providers = providers.filter_map(|number| names.get(*number));
            let providers: BTreeSet<&String> =
                providers.filter(|name| **name != package.name).collect();
            package.depends_on = providers.into_iter().cloned().collect();
            found.add_package(package);
        }
        // Another system's files, as in a directory to change the root to, are no files of this one.
        if places().iter().any(|place| *place == path) {
            self.owned
                .into_iter()
                .for_each(|owned| found.add_owned(owned));
        }
        if let Some(first) = self.first_wrong {
            let detail = match self.wrong {
                1 => first,
                count => format!("{count} headers could not be read, the first: {first}"),
            };
            found.malformed(path, detail);
        }
        if self.is_over {
            let detail =
                format!("there are more than {PACKAGES_MAX} packages or {NAMES_MAX} names");
            found.malformed(path, detail);
        }
    }
}

fn package(path: &str, name: &str, header: &Header<'_>) -> Result<FoundPackage, Malformed> {
    let version = header.text(Tag::Version)?.unwrap_or_default();
    if version.is_empty() {
        return Err(malformed("it has no version"));
    }
    let epoch = header.number(Tag::Epoch)?.filter(|epoch| *epoch != 0);
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let release = header.text(Tag::Release)?;
    let release = release
        .map(|release| format!("-{release}"))
        .unwrap_or_default();
    let source = header.text(Tag::SourceRpm)?;
    let source = source.as_deref().and_then(source_package);
    // A source package's name tells no epoch; it is that of what was built from it.
    let source_version = source.map(|(_, version)| format!("{epoch}{version}"));
    Ok(FoundPackage {
        arch: header.text(Tag::Arch)?,
        source_name: source.map(|(name, _)| name.to_owned()),
        source_version,
        vendor: header.text(Tag::Vendor)?,
        modularity: header.text(Tag::ModularityLabel)?,
        licenses: header.text(Tag::License)?.into_iter().collect(),
        depends_on: header.texts(Tag::RequireName)?,
        ..FoundPackage::new(
            PackageType::Rpm,
            name,
            format!("{epoch}{version}{release}"),
            path,
        )
    })
}

/// `bash` and `5.2.15-3.fc38` of `bash-5.2.15-3.fc38.src.rpm`.
pub(crate) fn source_package(file: &str) -> Option<(&str, &str)> {
    let stem = file.strip_suffix(".rpm")?;
    let stem = stem
        .strip_suffix(".src")
        .or_else(|| stem.strip_suffix(".nosrc"))?;
    let (rest, _release) = stem.rsplit_once('-')?;
    let (name, _version) = rest.rsplit_once('-')?;
    let version = stem.get(name.len().checked_add(1)?..)?;
    Some((name, version))
}

/// Gives each source the epoch of a package that has the source's own version. What is built beside
/// it may have a version and an epoch of its own: of perl 4:5.26.3, `perl-Errno` is 1.28.
fn settle_epochs(packages: &mut [FoundPackage]) {
    let key = |package: &FoundPackage| {
        let version = package.source_version.as_deref()?;
        let bare = version.split_once(':').map_or(version, |(_, bare)| bare);
        Some((package.source_name.clone()?, bare.to_owned()))
    };
    let mut settled = HashMap::new();
    for package in packages.iter() {
        if package.source_version.as_ref() == Some(&package.version)
            && let Some(source) = key(package)
        {
            settled
                .entry(source)
                .or_insert_with(|| package.version.clone());
        }
    }
    for package in packages {
        if let Some(version) = key(package).and_then(|source| settled.get(&source)) {
            package.source_version = Some(version.clone());
        }
    }
}

/// The files of a package that are no directories.
fn owned(package: &FoundPackage, header: &Header<'_>) -> Result<Vec<Owned>, Malformed> {
    let digests = header.texts(Tag::FileDigests)?;
    let modes = header.numbers(Tag::FileModes)?;
    let flags = header.numbers(Tag::FileFlags)?;
    let verified = header.numbers(Tag::FileVerifyFlags)?;
    let may_change = |number: usize| {
        let is_free = flags
            .get(number)
            .is_some_and(|flags| flags & CHANGEABLE != 0);
        let verified = verified.get(number);
        is_free || verified.is_some_and(|verified| verified & VERIFY_DIGEST == 0)
    };
    let algorithm = match header.number(Tag::FileDigestAlgo)? {
        None | Some(1) => Some("md5"),
        Some(2) => Some("sha1"),
        Some(8) => Some("sha256"),
        Some(9) => Some("sha384"),
        Some(10) => Some("sha512"),
        Some(_) => None,
    };
    let mut owned = Vec::new();
    for (number, path) in paths(header)?.into_iter().enumerate() {
        if modes
            .get(number)
            .is_some_and(|mode| mode & FILE_KIND == DIRECTORY)
        {
            continue;
        }
        let digest = digests.get(number).filter(|digest| !digest.is_empty());
        let digest = digest.filter(|_| !may_change(number));
        let digest = digest
            .zip(algorithm)
            .map(|(digest, name)| format!("{name}:{digest}"));
        owned.push(Owned {
            package: package.name.clone(),
            arch: package.arch.clone(),
            path: path.trim_start_matches('/').to_owned(),
            digest,
        });
    }
    Ok(owned)
}

/// Directories are written once and named by number; very old packages write whole paths.
fn paths(header: &Header<'_>) -> Result<Vec<String>, Malformed> {
    let names = header.texts(Tag::BaseNames)?;
    if names.is_empty() {
        return header.texts(Tag::OldFileNames);
    }
    let directories = header.texts(Tag::DirNames)?;
    let numbers = header.numbers(Tag::DirIndexes)?;
    let of = |(name, number): (&String, &u32)| {
        let directory = directories.get(*number as usize)?;
        Some(format!("{directory}{name}"))
    };
    let paths: Option<Vec<String>> = names.iter().zip(&numbers).map(of).collect();
    let paths = paths.filter(|paths| paths.len() == names.len());
    paths.ok_or_else(|| malformed("a file is in no directory"))
}

/// Mariner's list: a line per package, of name, version and release, times of installation and
/// building, vendor, nothing, size, architecture, epoch, source package.
fn read_list(path: &str, text: &str, found: &mut Found) {
    let mut wrong = 0_usize;
    for line in text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .take(PACKAGES_MAX)
    {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, version, _, _, vendor, _, _, arch, epoch, source, ..] = fields.as_slice() else {
            wrong = wrong.saturating_add(1);
            continue;
        };
        let known = |text: &str| (!matches!(text, "" | "(none)")).then(|| text.to_owned());
        let epoch = match *epoch {
            "" | "0" | "(none)" => String::new(),
            epoch => format!("{epoch}:"),
        };
        let source = source_package(source);
        found.add_package(FoundPackage {
            arch: known(arch),
            source_name: source.map(|(name, _)| name.to_owned()),
            source_version: source.map(|(_, version)| format!("{epoch}{version}")),
            vendor: known(vendor),
            ..FoundPackage::new(PackageType::Rpm, *name, format!("{epoch}{version}"), path)
        });
    }
    if wrong > 0 {
        found.malformed(path, format!("{wrong} lines have fewer fields than ten"));
    }
    if text.lines().nth(PACKAGES_MAX).is_some() {
        found.malformed(path, format!("there are more than {PACKAGES_MAX} lines"));
    }
}

#[cfg(test)]
mod tests;
