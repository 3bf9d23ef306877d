//! Java archives: who they are, and what they carry inside (Apache Maven's `pom.properties`, the
//! JAR File Specification's manifest; and where neither says it, the file's name).

mod licenses;

use std::{collections::BTreeMap, io::Cursor};

use archive::{Entry, Limits};
use model::{AnalyzerId, Confidence, FoundPackage, Gap, GapCode, Hides, PackageType, hex};

use crate::{
    Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id,
    unpack::Room,
    zip::{self, Member, Source},
};

/// Names that such archives have (Syft's and Trivy's lists, joined).
const ENDS: &[&str] = &[
    ".jar", ".war", ".ear", ".par", ".sar", ".nar", ".rar", ".jpi", ".hpi", ".kar", ".lpkg",
];

const MANIFEST: &str = "META-INF/MANIFEST.MF";
const MAVEN: &str = "META-INF/maven/";
const PROPERTIES: &str = "/pom.properties";
const POM: &str = "/pom.xml";

/// `.ear` in which a `.war` has a `.jar` that carries one: real ones go no deeper.
const DEPTH_MAX: u32 = 4;

/// A manifest with a digest for each of 100,000 files has 20 MB; its main section comes first.
const MANIFEST_BYTES_MAX: u64 = 32 << 20;
const PROPERTIES_BYTES_MAX: u64 = 64 << 10;
const POM_BYTES_MAX: u64 = 2 << 20;

/// An archive in an archive is unpacked in memory.
const INNER_BYTES_MAX: u64 = 256 << 20;

/// Words that versions go on with.
const QUALIFIERS: &[&str] = &[
    "alpha",
    "android",
    "b",
    "beta",
    "build",
    "cr",
    "dev",
    "ea",
    "final",
    "ga",
    "incubating",
    "jre",
    "m",
    "p",
    "patch",
    "pre",
    "r",
    "rc",
    "redhat",
    "release",
    "snapshot",
    "sp",
    "v",
];

/// A name, a version and what else a file name may say is shorter.
const TEXT_BYTES_MAX: usize = 300;

/// Reads Java archives.
pub(crate) struct Jar {
    id: AnalyzerId,
    depth_max: u32,
}

/// What an archive is, as far as something in it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Identity {
    group: Option<String>,
    artifact: String,
    version: String,
    licenses: Vec<String>,
}

/// One file with all that it carries.
struct Look<'a> {
    /// The file.
    path: &'a str,
    depth_max: u32,
    room: Room,
    found: &'a mut Found,
}

// === impl Jar ===

impl Jar {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self {
            id: analyzer_id("jar", 2, config, limits),
            depth_max: limits.nesting_max.min(DEPTH_MAX),
        })
    }
}

impl Analyzer for Jar {
    fn id(&self) -> &AnalyzerId {
        &self.id
    }

    fn pieces(&self) -> Vec<&str> {
        // As the ends of names; what only begins so is asked for in vain.
        ENDS.to_vec()
    }

    fn wants(&self, entry: &Entry<'_>, head: &[u8]) -> Wanted {
        // Some begin as a shell script.
        let is_one = is_archive(entry.path) && (head.starts_with(b"PK") || head.starts_with(b"#!"));
        if is_one { Wanted::Alone } else { Wanted::No }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            let mut look = Look {
                path: file.path(),
                depth_max: self.depth_max,
                room: found.room_to_unpack(file.entry.size)?,
                found,
            };
            let looked = look.archive(&mut file.reader(), file.path(), None);
            look.found.add_unpacked(&look.room);
            looked?;
        }
        Ok(())
    }
}

fn is_archive(path: &str) -> bool {
    let end = path.rfind('.').and_then(|dot| path.get(dot..));
    end.is_some_and(|end| ENDS.iter().any(|known| end.eq_ignore_ascii_case(known)))
}

// === impl Look ===

impl Look<'_> {
    /// Looks into an archive; `within` is where it is in the file, one name for each level.
    fn archive(
        &mut self,
        source: &mut dyn Source,
        name: &str,
        within: Option<&str>,
    ) -> Result<(), Malformed> {
        let digest = sha1(source)?;
        let wanted = |name: &str| {
            name == MANIFEST
                || name.starts_with(MAVEN) && (name.ends_with(PROPERTIES) || name.ends_with(POM))
                || is_archive(name)
        };
        let members = zip::members(source, &wanted)?;
        self.identify(source, name, within, &members, &digest)?;
        let inner = members.iter().filter(|member| is_archive(&member.name));
        for member in inner.filter(|member| !member.name.ends_with('/')) {
            self.inner(source, member, within)?;
        }
        Ok(())
    }

    /// What is in an archive: what Maven says, else what the manifest and the name say.
    fn identities(
        &mut self,
        source: &mut dyn Source,
        members: &[Member],
        own: &Identity,
    ) -> Result<(Vec<Identity>, Confidence), Malformed> {
        let mut identities = Vec::new();
        for member in members {
            let Some(directory) = member.name.strip_suffix(PROPERTIES) else {
                continue;
            };
            let properties = self.unpack(source, member, PROPERTIES_BYTES_MAX)?;
            let Some(mut identity) = of_properties(&String::from_utf8_lossy(&properties)) else {
                continue;
            };
            let mut poms = members.iter();
            let pom = poms.find(|other| other.name.strip_suffix(POM) == Some(directory));
            // What cannot be read of it is no reason to doubt the package.
            let pom = pom.and_then(|pom| self.unpack(source, pom, POM_BYTES_MAX).ok());
            identity.licenses =
                licenses::of_pom(&String::from_utf8_lossy(&pom.unwrap_or_default()));
            identities.push(identity);
        }
        let is_silent = |one: &Identity| one.artifact == own.artifact && one.licenses.is_empty();
        if !identities.is_empty() && !identities.iter().any(is_silent) {
            return Ok((identities, Confidence::High));
        }
        let manifest = members.iter().find(|member| member.name == MANIFEST);
        let read = manifest.map(|manifest| self.unpack(source, manifest, MANIFEST_BYTES_MAX));
        let read = match read.transpose() {
            Err(_) if !identities.is_empty() => None,
            read => read?,
        };
        let manifest = main_section(&String::from_utf8_lossy(&read.unwrap_or_default()));
        let declared = licenses::of_manifest(&manifest);
        if identities.is_empty() {
            let (identity, confidence) = of_manifest(&manifest, own);
            let licenses = declared;
            let identity = identity.map(|identity| Identity {
                licenses,
                ..identity
            });
            return Ok((identity.into_iter().collect(), confidence));
        }
        for silent in identities.iter_mut().filter(|one| is_silent(one)) {
            silent.licenses.clone_from(&declared);
        }
        Ok((identities, Confidence::High))
    }

    fn identify(
        &mut self,
        source: &mut dyn Source,
        name: &str,
        within: Option<&str>,
        members: &[Member],
        digest: &str,
    ) -> Result<(), Malformed> {
        let own = of_name(name);
        let (identities, confidence) = self.identities(source, members, &own)?;
        for identity in identities {
            // The archive's digest is that of the package it is named after, not of what was
            // copied into it.
            let is_own = identity.artifact == own.artifact || own.artifact.is_empty();
            let name = match identity.group {
                Some(group) => format!("{group}:{}", identity.artifact),
                None => identity.artifact,
            };
            self.found.add_package(FoundPackage {
                licenses: identity.licenses,
                within: within.map(ToOwned::to_owned),
                digests: is_own
                    .then(|| format!("sha1:{digest}"))
                    .into_iter()
                    .collect(),
                confidence,
                ..FoundPackage::new(PackageType::Maven, name, identity.version, self.path)
            });
        }
        Ok(())
    }

    /// The bytes of a member, if neither it nor all of them together are too many.
    fn unpack(
        &mut self,
        source: &mut dyn Source,
        member: &Member,
        bytes_max: u64,
    ) -> Result<Vec<u8>, Malformed> {
        member.read(source, bytes_max, &mut self.room)
    }

    /// An archive in an archive; one that cannot be read is a gap, and the others are looked at.
    fn inner(
        &mut self,
        source: &mut dyn Source,
        member: &Member,
        within: Option<&str>,
    ) -> Result<(), Malformed> {
        let place = match within {
            Some(within) => format!("{within}!/{}", member.name),
            None => member.name.clone(),
        };
        let depth = place.matches("!/").count().saturating_add(1);
        if depth > self.depth_max as usize {
            let detail = format!("`{place}` is deeper than {} archives", self.depth_max);
            let gap = Gap::new(GapCode::LimitNesting, Hides::Packages, detail);
            self.found.add_gap(gap.at(self.path));
            return Ok(());
        }
        let read = self.unpack(source, member, INNER_BYTES_MAX);
        let looked = read
            .and_then(|bytes| self.archive(&mut Cursor::new(bytes), &member.name, Some(&place)));
        match looked {
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                let gap = Gap::new(
                    error.gap_code(),
                    Hides::Packages,
                    format!("`{place}`: {error}"),
                );
                self.found.add_gap(gap.at(self.path));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// What Maven Central knows an archive by.
fn sha1(source: &mut dyn Source) -> Result<String, Malformed> {
    use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
    source.rewind().map_err(Malformed::Spilled)?;
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = source.read(&mut buffer).map_err(Malformed::Spilled)?;
        if length == 0 {
            return Ok(hex(context.finish().as_ref()));
        }
        context.update(buffer.get(..length).unwrap_or_default());
    }
}

/// `log4j-core` and `2.14.1` of `lib/log4j-core-2.14.1.jar`: a version begins with a digit, and
/// goes on with numbers and words that versions have; `log4j-1.2-api-2.14.jar` is one of an API.
fn of_name(path: &str) -> Identity {
    let name = path.rsplit('/').next().unwrap_or_default();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let of_version = |part: &str| {
        let word = part.trim_end_matches(|last: char| last.is_ascii_digit() || last == '.');
        word.is_empty()
            || part.starts_with(|first: char| first.is_ascii_digit())
            || QUALIFIERS
                .iter()
                .any(|known| word.eq_ignore_ascii_case(known))
    };
    let starts = stem.match_indices('-').map(|(at, _)| at);
    let starts = starts.filter(|at| {
        let rest = at.checked_add(1).and_then(|at| stem.get(at..));
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    });
    let starts: Vec<usize> = starts.collect();
    let whole = starts.iter().find(|at| {
        let rest = stem.get(**at..).unwrap_or_default();
        rest.split('-').skip(1).all(of_version)
    });
    let (artifact, version) = match whole.or(starts.last()) {
        Some(at) => stem.split_at(*at),
        None => (stem, ""),
    };
    Identity {
        group: None,
        artifact: artifact.to_owned(),
        version: version.trim_start_matches('-').to_owned(),
        licenses: Vec::new(),
    }
}

/// `groupId=…` and the like (Java's `Properties`, as Maven writes them).
fn of_properties(text: &str) -> Option<Identity> {
    let mut values = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with(['#', '!'])) {
        if let Some((key, value)) = line.split_once(['=', ':']) {
            values.insert(key.trim(), value.trim());
        }
    }
    let get = |key| values.get(key).copied().filter(|value| is_text(value));
    Some(Identity {
        group: Some(get("groupId")?.to_owned()),
        artifact: get("artifactId")?.to_owned(),
        version: get("version")?.to_owned(),
        licenses: Vec::new(),
    })
}

/// The manifest's main section, up to its first empty line; a line that begins with a space goes
/// on with the one before.
fn main_section(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in text.lines().take_while(|line| !line.is_empty()) {
        match (line.strip_prefix(' '), &last) {
            (Some(more), Some(key)) => {
                let value: &mut String = values.entry(key.clone()).or_default();
                value.push_str(more);
            }
            _ => {
                if let Some((key, value)) = line.split_once(':') {
                    values.insert(key.to_owned(), value.trim().to_owned());
                    last = Some(key.to_owned());
                }
            }
        }
    }
    values
}

/// What a manifest says, beside what the name says: the name of a file is what builds agree on,
/// the manifest has whatever its author thought of.
fn of_manifest(
    manifest: &BTreeMap<String, String>,
    own: &Identity,
) -> (Option<Identity>, Confidence) {
    let first = |keys: &[&str]| {
        let values = keys.iter().filter_map(|key| manifest.get(*key));
        values.map(String::as_str).find(|value| is_text(value))
    };
    let symbolic = first(&["Bundle-SymbolicName"]);
    // `org.example.tide;singleton:=true`
    let symbolic = symbolic
        .and_then(|name| name.split(';').next())
        .map(str::trim);
    let said = first(&[
        "Implementation-Version",
        "Bundle-Version",
        "Specification-Version",
    ]);
    let version = Some(own.version.as_str())
        .filter(|version| !version.is_empty())
        .or(said);
    let group = first(&["Implementation-Vendor-Id"]).or_else(|| {
        let symbolic = symbolic?;
        let group = symbolic
            .strip_suffix(own.artifact.as_str())
            .map(|group| group.trim_end_matches('.'));
        group.filter(|group| group.contains('.'))
    });
    let Some(version) = version.filter(|version| is_text(version)) else {
        return (None, Confidence::Low);
    };
    let agrees = said.is_some_and(|said| said == version);
    let confidence = match (group, agrees) {
        (Some(_), true) => Confidence::Medium,
        _ => Confidence::Low,
    };
    let identity = Identity {
        group: group.map(ToOwned::to_owned),
        artifact: own.artifact.clone(),
        version: version.to_owned(),
        licenses: Vec::new(),
    };
    (
        Some(identity).filter(|identity| is_text(&identity.artifact)),
        confidence,
    )
}

/// Whether it could be a name or a version, and is no variable that nobody filled in.
fn is_text(value: &str) -> bool {
    !value.is_empty() && value.len() <= TEXT_BYTES_MAX && !value.contains(['$', '\0', '\n'])
}

#[cfg(test)]
pub(crate) mod tests;
