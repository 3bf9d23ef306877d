//! `pom.xml` of Maven (maven.apache.org, "POM Reference"): what a project asks for. Versions that
//! properties, parents and managed dependencies say are found as far as the files of the directory
//! tell; what comes from a repository, above all what the dependencies need themselves, is a gap.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
};

use model::{FoundPackage, Gap, GapCode, Hides, PackageType};

use super::{BYTES_MAX, Format, Lock, With};
use crate::{File, Found, Malformed, xml::Element};

pub(crate) static FORMAT: Format = Format {
    name: "pom",
    version: 1,
    is_named: |name| name == "pom.xml",
    with: With::All,
    read,
};

/// Parents of parents, and properties in properties.
const DEPTH_MAX: usize = 16;

/// Bytes that a text may have after its properties are filled in.
const TEXT_BYTES_MAX: usize = 4096;

/// Managed dependencies that are gone through for all projects of a directory.
const STEPS_MAX: usize = 20_000_000;

/// A project.
struct Pom {
    /// `groupId`, `artifactId`, `version` and the like.
    texts: Texts,
    parent: Option<Texts>,
    properties: Texts,
    dependencies: Vec<Texts>,
    managed: Vec<Texts>,
    /// The path of its parent, where that is among the files.
    parent_path: Option<String>,
}

/// The elements of an element that hold text alone.
type Texts = HashMap<String, String>;

/// Version and scope.
type Managed = HashMap<String, (Option<String>, Option<String>)>;

/// All projects of a directory.
struct Poms {
    by_path: BTreeMap<String, Pom>,
    /// Path of the project of each `group:artifact`.
    own: HashMap<String, String>,
    steps: Cell<usize>,
}

/// A project and its parents, nearest first.
struct Scope<'a>(Vec<&'a Pom>);

#[expect(clippy::unnecessary_wraps, reason = "the signature of every format")]
fn read(files: &[File], found: &mut Found) -> Result<(), Malformed> {
    let mut by_path = BTreeMap::new();
    for file in files {
        let parsed = file.text(BYTES_MAX).and_then(|text| Element::parse(&text));
        match parsed {
            Ok(root) if root.name == "project" => {
                by_path.insert(file.path().to_owned(), Pom::new(&root));
            }
            Ok(_) => found.malformed(file.path(), "it is no project of Maven"),
            Err(error) => found.malformed(file.path(), error.to_string()),
        }
    }
    let poms = Poms::new(by_path);
    for (path, pom) in &poms.by_path {
        let scope = poms.scope(path);
        let managed = poms.managed(&scope);
        let mut lock = Lock::new(PackageType::Maven, path);
        let mut is_any = false;
        for dependency in &pom.dependencies {
            is_any |= poms.add(dependency, &scope, &managed, &mut lock);
        }
        lock.finish(found);
        let why = if pom.parent.is_some() && pom.parent_path.is_none() {
            "its parent is not among the files, and what its dependencies need is not in it"
        } else if is_any {
            "what its dependencies need is not in it"
        } else {
            continue;
        };
        let gap = Gap::new(GapCode::UnresolvedDependency, Hides::Packages, why);
        found.add_gap(gap.at(path));
    }
    if poms.steps.get() > STEPS_MAX {
        let detail = format!("the projects manage more than {STEPS_MAX} dependencies");
        found.add_gap(Gap::new(GapCode::LimitResults, Hides::Packages, detail));
    }
    Ok(())
}

// === impl Pom ===

impl Pom {
    fn new(root: &Element) -> Self {
        let each = |element: &Element| element.list("dependencies").iter().map(texts).collect();
        Self {
            texts: texts(root),
            parent: root.child("parent").map(texts),
            properties: root.child("properties").map(texts).unwrap_or_default(),
            dependencies: each(root),
            managed: root
                .child("dependencyManagement")
                .map(each)
                .unwrap_or_default(),
            parent_path: None,
        }
    }

    /// A text of the project, or the parent's where the project takes that.
    fn text(&self, key: &str) -> Option<&str> {
        let inherited = || {
            let is_inherited = matches!(key, "groupId" | "version");
            self.parent.as_ref().filter(|_| is_inherited)?.get(key)
        };
        self.texts.get(key).or_else(inherited).map(String::as_str)
    }

    fn id(&self) -> String {
        let text = |key| self.text(key).unwrap_or_default();
        format!("{}:{}", text("groupId"), text("artifactId"))
    }
}

fn texts(element: &Element) -> Texts {
    let mut texts = Texts::new();
    for child in element
        .children
        .iter()
        .filter(|child| child.children.is_empty())
    {
        let text = texts.entry(child.name.clone());
        text.or_insert_with(|| child.text.clone());
    }
    texts
}

fn id(texts: &Texts) -> String {
    let text = |key: &str| texts.get(key).map_or("", String::as_str);
    format!("{}:{}", text("groupId"), text("artifactId"))
}

/// A text that says something.
fn said<'a>(texts: &'a Texts, key: &str) -> Option<&'a String> {
    texts.get(key).filter(|text| !text.is_empty())
}

// === impl Poms ===

impl Poms {
    fn new(mut by_path: BTreeMap<String, Pom>) -> Self {
        let mut own: HashMap<String, String> = HashMap::new();
        for (path, pom) in &by_path {
            own.entry(pom.id()).or_insert_with(|| path.clone());
        }
        let mut parents = Vec::new();
        for (path, pom) in &by_path {
            let Some(parent) = &pom.parent else {
                continue;
            };
            let relative = parent
                .get("relativePath")
                .map_or("../pom.xml", String::as_str);
            let wanted = id(parent);
            let is_it = |path: &String| by_path.get(path).is_some_and(|pom| pom.id() == wanted);
            let at = Some(beside(path, relative)).filter(is_it);
            let at = at.or_else(|| own.get(&wanted).cloned());
            parents.extend(at.map(|parent| (path.clone(), parent)));
        }
        for (path, parent) in parents {
            if let Some(pom) = by_path.get_mut(&path) {
                pom.parent_path = Some(parent);
            }
        }
        Self {
            by_path,
            own,
            steps: Cell::new(0),
        }
    }

    fn scope(&self, path: &str) -> Scope<'_> {
        let mut chain = Vec::new();
        let mut next = Some(path);
        while let Some(pom) = next.and_then(|path| self.by_path.get(path)) {
            if chain.len() >= DEPTH_MAX {
                break;
            }
            chain.push(pom);
            next = pom.parent_path.as_deref();
        }
        Scope(chain)
    }

    /// What a project and its parents say for whoever asks, nearest first.
    fn managed(&self, scope: &Scope<'_>) -> Managed {
        let mut managed = Managed::new();
        for dependency in scope.0.iter().flat_map(|pom| &pom.managed) {
            let is_list = dependency
                .get("scope")
                .is_some_and(|scope| scope == "import");
            if !is_list {
                if !self.manage(scope, dependency, &mut managed) {
                    return managed;
                }
                continue;
            }
            // A list that another project of the directory keeps.
            let Some(path) = self.own.get(&scope.filled(&id(dependency))) else {
                continue;
            };
            let other = self.scope(path);
            for dependency in other.0.iter().flat_map(|pom| &pom.managed) {
                if !self.manage(&other, dependency, &mut managed) {
                    return managed;
                }
            }
        }
        managed
    }

    /// Adds one; whether there may be more.
    fn manage(&self, scope: &Scope<'_>, dependency: &Texts, managed: &mut Managed) -> bool {
        self.steps.set(self.steps.get().saturating_add(1));
        if self.steps.get() > STEPS_MAX {
            return false;
        }
        let text = |key| said(dependency, key).map(|text| scope.filled(text));
        let entry = managed.entry(scope.filled(&id(dependency)));
        entry.or_insert_with(|| (text("version"), text("scope")));
        true
    }

    /// Adds a dependency; whether it is a package from elsewhere.
    fn add(
        &self,
        dependency: &Texts,
        scope: &Scope<'_>,
        managed: &Managed,
        lock: &mut Lock,
    ) -> bool {
        let name = scope.filled(&id(dependency));
        if self.own.contains_key(&name) {
            return false;
        }
        let of_managed = managed.get(&name);
        let text = |key| said(dependency, key).map(|text| scope.filled(text));
        let version = text("version");
        let version = version.or_else(|| of_managed.and_then(|(version, _)| version.clone()));
        let role = text("scope").or_else(|| of_managed.and_then(|(_, role)| role.clone()));
        let is_exact =
            |version: &String| !version.contains("${") && !version.contains(['[', '(', ',']);
        match version.filter(is_exact) {
            Some(version) => lock.add(FoundPackage {
                direct: Some(true),
                dev: Some(role.as_deref() == Some("test")),
                ..lock.package(&name, &version)
            }),
            None => lock.unresolved(&name),
        }
        true
    }
}

// === impl Scope ===

impl Scope<'_> {
    /// The text with properties filled in, as far as they are known.
    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for _ in 0..DEPTH_MAX {
            let Some((before, rest)) = text.split_once("${") else {
                break;
            };
            let Some((name, after)) = rest.split_once('}') else {
                break;
            };
            let Some(value) = self.property(name) else {
                break;
            };
            let length = before
                .len()
                .saturating_add(value.len())
                .saturating_add(after.len());
            if length > TEXT_BYTES_MAX {
                break;
            }
            text = format!("{before}{value}{after}");
        }
        text
    }

    fn property(&self, name: &str) -> Option<&str> {
        let first = self.0.first()?;
        if let Some(key) = name.strip_prefix("project.parent.") {
            return first.parent.as_ref()?.get(key).map(String::as_str);
        }
        let of_project = name
            .strip_prefix("project.")
            .or_else(|| name.strip_prefix("pom."));
        if let Some(key) = of_project {
            return first.text(key);
        }
        let mut values = self.0.iter().filter_map(|pom| pom.properties.get(name));
        values.next().map(String::as_str)
    }
}

/// Where a parent is, as a project names its place: a file, or the directory that it is in.
fn beside(path: &str, other: &str) -> String {
    let at = super::beside(path, other);
    match (other.strip_suffix(".xml").is_some(), at.as_str()) {
        (true, _) => at,
        (false, "") => "pom.xml".to_owned(),
        (false, at) => format!("{at}/pom.xml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project that manages one dependency and has these properties.
    fn project(properties: &str) -> Poms {
        let text = format!(
            "<project><artifactId>a</artifactId><version>1</version><properties>{properties}</properties>\
             <dependencyManagement><dependencies><dependency><groupId>g</groupId>\
             <artifactId>x</artifactId><version>1</version></dependency></dependencies>\
             </dependencyManagement></project>"
        );
        let pom = Pom::new(&Element::parse(&text).unwrap());
        Poms::new([("pom.xml".to_owned(), pom)].into())
    }

    #[test]
    fn properties_are_filled_in_to_a_depth() {
        let chain = |length: usize| -> String {
            let each = (0..length).map(|n| format!("<p{n}>${{p{}}}</p{n}>", n + 1));
            each.collect::<Vec<_>>().concat()
        };
        let poms = project(&format!("{}<p{}>1</p{}>", chain(15), 15, 15));
        assert_eq!(poms.scope("pom.xml").filled("${p0}"), "1");
        let poms = project(&format!("{}<p{}>1</p{}>", chain(16), 16, 16));
        assert_eq!(poms.scope("pom.xml").filled("${p0}"), "${p16}");
        assert_eq!(poms.scope("pom.xml").filled("${p0"), "${p0");
    }

    #[test]
    fn a_text_grows_to_a_bound() {
        let poms = project(&format!("<p>{}</p>", "x".repeat(TEXT_BYTES_MAX)));
        let scope = poms.scope("pom.xml");
        assert_eq!(scope.filled("${p}").len(), TEXT_BYTES_MAX);
        assert_eq!(scope.filled("-${p}"), "-${p}");
    }

    #[test]
    fn managed_dependencies_are_gone_through_to_a_bound() {
        let poms = project("");
        poms.steps.set(STEPS_MAX - 1);
        assert_eq!(poms.managed(&poms.scope("pom.xml")).len(), 1);
        assert!(poms.managed(&poms.scope("pom.xml")).is_empty());
        assert!(poms.steps.get() > STEPS_MAX);
    }
}
