//! From what documents say to packages.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::{Confidence, Digest, Gap, GapCode, Hides, Os, Package, PackageId, PackageType, Purl};

use super::{Bom, Item, ItemKind, by_reference, purl::PackageUrl, short};
use crate::{
    coalesce::{distro, normalized},
    rpm::source_package,
};

/// Names in one gap.
const NAMED_MAX: usize = 5;

/// Words of syft and trivy for what we have our own for.
const ARCHES: &[&str] = &["tidewaiter:package:arch", "syft:metadata:architecture"];
const SOURCES: &[&str] = &[
    "tidewaiter:source:name",
    "aquasecurity:trivy:SrcName",
    "SrcName",
    "syft:metadata:source",
    "syft:metadata:originPackage",
];
const LAYERS: &[&str] = &[
    "tidewaiter:layer:digest",
    "aquasecurity:trivy:LayerDigest",
    "LayerDigest",
];
const PATHS: &[&str] = &[
    "tidewaiter:package:path",
    "syft:location:0:path",
    "aquasecurity:trivy:FilePath",
    "FilePath",
];

/// The operating system: the component that is one, or what most packages were made for.
pub(super) fn operating_system(bom: &Bom) -> Option<Os> {
    let mut systems = bom
        .items
        .iter()
        .filter(|item| item.kind == ItemKind::OperatingSystem);
    if let Some(item) = systems.next() {
        let or = |name: &str, other: &str| item.property(name).unwrap_or(other).to_owned();
        return Some(Os {
            id: or("syft:distro:id", &item.name).to_ascii_lowercase(),
            version_id: or("syft:distro:versionID", &item.version),
            eol: item
                .property("tidewaiter:os:endOfLife")
                .and_then(|text| text.parse().ok()),
            pretty_name: Some(item.description.clone()).filter(|text| !text.is_empty()),
            codename: item
                .property("tidewaiter:os:codename")
                .map(ToOwned::to_owned),
        });
    }
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for item in &bom.items {
        let purl = PackageUrl::parse(&item.purl);
        let purl = purl.filter(|purl| PackageType::of_purl(&purl.kind).is_os());
        let distro = purl.as_ref().and_then(|purl| purl.qualifier("distro"));
        let Some((id, version)) = distro.and_then(|distro| distro.rsplit_once('-')) else {
            continue;
        };
        let count = counts
            .entry((id.to_owned(), version.to_owned()))
            .or_default();
        *count = count.saturating_add(1);
    }
    let (most, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    Some(Os {
        id: most.0,
        version_id: most.1,
        eol: None,
        pretty_name: None,
        codename: None,
    })
}

/// The packages of a document, sorted as those of an image are.
pub(super) fn packages(
    bom: &Bom,
    os: Option<&Os>,
    document: Digest,
    reference: &str,
    gaps: &mut Vec<Gap>,
) -> Vec<Package> {
    let mut packages = Vec::new();
    let mut ids: HashMap<usize, PackageId> = HashMap::new();
    let mut taken: HashSet<String> = HashSet::new();
    let mut unnamed: Vec<&str> = Vec::new();
    let items = bom.items.iter().enumerate();
    for (number, item) in items.filter(|(_, item)| item.kind == ItemKind::Package) {
        let Some(facts) = facts(item) else {
            if !item.name.is_empty() {
                unnamed.push(&item.name);
            }
            continue;
        };
        let mut package = package(item, facts, os, document, reference);
        let mut id = package.id.0.clone();
        if !taken.insert(id.clone()) {
            id = format!("{id}#{number}");
            taken.insert(id.clone());
        }
        package.id = PackageId(id);
        ids.insert(number, package.id.clone());
        packages.push((number, package));
    }
    relate(bom, &ids, &mut packages);
    note(os, bom, &unnamed, gaps);
    let mut packages: Vec<Package> = packages.into_iter().map(|(_, package)| package).collect();
    packages.sort_by(|one, other| sort_key(one).cmp(&sort_key(other)));
    packages
}

fn sort_key(package: &Package) -> (PackageType, &str, &str, Option<&str>, &PackageId) {
    let Package {
        kind,
        name,
        version,
        arch,
        id,
        ..
    } = package;
    (*kind, name, version, arch.as_deref(), id)
}

fn note(os: Option<&Os>, bom: &Bom, unnamed: &[&str], gaps: &mut Vec<Gap>) {
    if !unnamed.is_empty() {
        let named: Vec<String> = unnamed
            .iter()
            .take(NAMED_MAX)
            .map(|name| format!("`{}`", short(name)))
            .collect();
        let more = unnamed.len().saturating_sub(named.len());
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let detail = format!(
            "components without a package URL or a version cannot be compared: {}{more}",
            named.join(", ")
        );
        gaps.push(Gap::new(
            GapCode::UnresolvedDependency,
            Hides::Packages,
            detail,
        ));
    }
    let systems = bom
        .items
        .iter()
        .filter(|item| item.kind == ItemKind::OperatingSystem);
    let others = systems.filter(|item| {
        os.is_some_and(|os| {
            os.id != item.name.to_ascii_lowercase() || os.version_id != item.version
        }) && item.property("syft:distro:id").is_none()
    });
    if others.count() > 0 {
        let detail = "the document has several operating systems, and the packages of all are compared with the first";
        gaps.push(Gap::new(GapCode::UnknownOs, Hides::Packages, detail));
    }
}

/// What a component's package URL says.
pub(super) struct Facts {
    pub(super) kind: PackageType,
    pub(super) name: String,
    pub(super) version: String,
    purl: PackageUrl,
}

/// Kind, name and version of a component; `None` where it does not say them.
pub(super) fn facts(item: &Item) -> Option<Facts> {
    let purl = PackageUrl::parse(&item.purl)?;
    let own = item
        .property("tidewaiter:package:type")
        .map(PackageType::of_purl);
    let kind = own.unwrap_or_else(|| PackageType::of_purl(&purl.kind));
    let (name, version) = (name(item, &purl, kind), version(item, &purl, kind));
    (!version.is_empty()).then_some(Facts {
        kind,
        name,
        version,
        purl,
    })
}

/// The component's own name where it is the one in the package URL, which may have lost its case.
fn name(item: &Item, purl: &PackageUrl, kind: PackageType) -> String {
    let separator = match kind {
        PackageType::Maven => ':',
        _ => '/',
    };
    let is_spaced = !kind.is_os() && kind != PackageType::Bitnami && !purl.namespace.is_empty();
    let of_purl = if is_spaced {
        format!("{}{separator}{}", purl.namespace, purl.name)
    } else {
        purl.name.clone()
    };
    let whole = if item.group.is_empty() {
        item.name.clone()
    } else {
        format!("{}{separator}{}", item.group, item.name)
    };
    let is_same = |name: &str| {
        name.eq_ignore_ascii_case(&of_purl)
            || kind == PackageType::Pypi && normalized(name) == normalized(&of_purl)
    };
    let mut own = [whole, item.name.clone()].into_iter();
    own.find(|name| is_same(name)).unwrap_or(of_purl)
}

/// The same of the version, which has its epoch beside it in the URLs of some.
fn version(item: &Item, purl: &PackageUrl, kind: PackageType) -> String {
    if purl.version.is_empty() {
        return item.version.clone();
    }
    let epoch = purl
        .qualifier("epoch")
        .filter(|_| kind.is_os() && !purl.version.contains(':'));
    let with_epoch = epoch.map(|epoch| format!("{epoch}:{}", purl.version));
    if item.version == purl.version && with_epoch.is_none()
        || with_epoch
            .as_ref()
            .is_some_and(|version| *version == item.version)
    {
        return item.version.clone();
    }
    match with_epoch {
        Some(version) if !version.starts_with("0:") => version,
        _ => purl.version.clone(),
    }
}

fn package(
    item: &Item,
    facts: Facts,
    os: Option<&Os>,
    document: Digest,
    reference: &str,
) -> Package {
    let Facts {
        kind,
        name,
        version,
        purl,
    } = facts;
    let any = |names: &[&str]| {
        let mut values = names.iter().filter_map(|name| item.property(name));
        values.next().map(ToOwned::to_owned)
    };
    let (source_name, source_version) = source(item, &purl, kind);
    let arch = any(ARCHES).or_else(|| purl.qualifier("arch").map(ToOwned::to_owned));
    let own_distro = any(&["tidewaiter:package:distro"]);
    let of_purl = || purl.qualifier("distro").map(ToOwned::to_owned);
    let of_system = || own_distro.or_else(of_purl).or_else(|| distro(os));
    let vendor = any(&["tidewaiter:package:vendor"]);
    let is_foreign = item.property("tidewaiter:package:type").is_none();
    let builder = || {
        let is_told = kind == PackageType::Rpm && is_foreign && !item.vendor.is_empty();
        is_told.then(|| item.vendor.clone())
    };
    let path = Some(item.path.clone()).filter(|path| !path.is_empty());
    let path = any(PATHS).or(path).unwrap_or_else(|| reference.to_owned());
    let layer = any(LAYERS).and_then(|text| text.parse().ok());
    let flag = |name: &str| item.property(name).and_then(|text| text.parse().ok());
    let list = |name: &str, plain: &[String]| {
        let own = item.properties_of(name);
        if own.is_empty() { plain.to_vec() } else { own }
    };
    Package {
        id: id(item, kind, &name, &version),
        kind,
        purl: Purl(item.purl.clone()),
        path: path.strip_prefix('/').unwrap_or(&path).to_owned(),
        within: any(&["tidewaiter:package:within"]),
        layer: layer.unwrap_or(document),
        arch,
        distro: if kind.is_os() { of_system() } else { None },
        source_name,
        source_version,
        vendor: vendor.or_else(builder),
        modularity: any(&[
            "tidewaiter:package:modularity",
            "aquasecurity:trivy:Modularitylabel",
            "syft:metadata:modularityLabel",
        ])
        .or_else(|| purl.qualifier("rpmmod").map(ToOwned::to_owned)),
        licenses: list("tidewaiter:package:license", &item.licenses),
        depends_on: Vec::new(),
        digests: list("tidewaiter:package:digest", &item.digests),
        owned_by: any(&["tidewaiter:package:ownedBy"]).map(PackageId),
        direct: flag("tidewaiter:package:direct"),
        dev: flag("tidewaiter:package:dev"),
        confidence: confidence(item),
        name,
        version,
    }
}

/// A document's own name of the package, or one made of what it is.
fn id(item: &Item, kind: PackageType, name: &str, version: &str) -> PackageId {
    let own = item.property("tidewaiter:package:id");
    let is_ours = item.property("tidewaiter:package:type").is_some();
    let reference = Some(item.reference.as_str()).filter(|text| is_ours && !text.is_empty());
    PackageId(match own.or(reference) {
        Some(id) => id.to_owned(),
        None if item.reference.is_empty() => format!("{kind}:{name}@{version}"),
        None => format!("{kind}:{name}@{version}#{}", item.reference),
    })
}

fn confidence(item: &Item) -> Confidence {
    match (
        item.property("tidewaiter:package:confidence"),
        item.confidence,
    ) {
        (Some("high"), _) => Confidence::High,
        (Some("low"), _) => Confidence::Low,
        (None, Some(sure)) if sure >= 0.9 => Confidence::High,
        (None, Some(sure)) if sure < 0.5 => Confidence::Low,
        // Somebody's word that it was there.
        _ => Confidence::Medium,
    }
}

/// Name and version of the source package.
fn source(item: &Item, purl: &PackageUrl, kind: PackageType) -> (Option<String>, Option<String>) {
    if !kind.is_os() {
        let own = |name| item.property(name).map(ToOwned::to_owned);
        return (
            own("tidewaiter:source:name"),
            own("tidewaiter:source:version"),
        );
    }
    let mut names = SOURCES.iter().filter_map(|name| item.property(name));
    if let Some(name) = names.next() {
        return (Some(name.to_owned()), source_version(item));
    }
    let upstream = item
        .property("syft:metadata:sourceRpm")
        .or_else(|| purl.qualifier("upstream"));
    let Some(upstream) = upstream else {
        return (None, None);
    };
    if let Some((name, version)) = source_package(upstream) {
        return (Some(name.to_owned()), Some(version.to_owned()));
    }
    match upstream.split_once('@') {
        Some((name, version)) => (Some(name.to_owned()), Some(version.to_owned())),
        None => (Some(upstream.to_owned()), None),
    }
}

fn source_version(item: &Item) -> Option<String> {
    let own = item.property("tidewaiter:source:version");
    if let Some(version) = own.or_else(|| item.property("syft:metadata:sourceVersion")) {
        return Some(version.to_owned());
    }
    let of_trivy = |name: &str| {
        let long = item.property(&format!("aquasecurity:trivy:{name}"));
        long.or_else(|| item.property(name)).map(ToOwned::to_owned)
    };
    let version = of_trivy("SrcVersion")?;
    let epoch = of_trivy("SrcEpoch")
        .map(|epoch| format!("{epoch}:"))
        .unwrap_or_default();
    let release = of_trivy("SrcRelease")
        .map(|release| format!("-{release}"))
        .unwrap_or_default();
    Some(format!("{epoch}{version}{release}"))
}

/// Fills `depends_on` and turns references into the packages that they mean.
fn relate(bom: &Bom, ids: &HashMap<usize, PackageId>, packages: &mut [(usize, Package)]) {
    let numbers = by_reference(bom);
    let id = |reference: &str| ids.get(numbers.get(reference)?);
    let mut needs: HashMap<&PackageId, Vec<&PackageId>> = HashMap::new();
    for (from, to) in &bom.needs {
        if let (Some(from), Some(to)) = (id(from), id(to)) {
            needs.entry(from).or_default().push(to);
        }
    }
    let known: HashSet<&PackageId> = ids.values().collect();
    for (_, package) in packages {
        let needed = needs.remove(&package.id).into_iter().flatten();
        let mut needed: Vec<PackageId> = needed.filter(|id| **id != package.id).cloned().collect();
        needed.sort();
        needed.dedup();
        package.depends_on = needed;
        package.owned_by = package
            .owned_by
            .take()
            .filter(|owner| known.contains(owner));
    }
}
