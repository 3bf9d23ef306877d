//! Packages × advisories → vulnerabilities and gaps.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::civil::Date;
use model::{
    AdvisoryStamp, Assessment, Confidence, EPSS, Gap, GapCode, Hides, KEV, Os, Package, PackageId,
    PackageType, ScannedPackages, ShardKey, Vulnerability,
};
use serde::{Deserialize, Serialize};

use crate::{
    ecosystems::{self, Ecosystem, Query},
    evaluate::{Evaluation, Installed, Why, evaluate},
    finding::{self, Affecting},
    memo::Matched,
    names::{self, Names},
    os, risk,
    shard::{Exploitation, Shard, ShardAdvisory, ShardError, Shards},
    subscription, support,
};

/// Raised when packages and advisories give another result than before: then whoever keeps results
/// makes them anew.
pub const RULES: u32 = 1;

/// How many advisories a gap names.
const NAMED_MAX: usize = 5;

/// How much one image may ask for. Its package database is written by whoever built it, and a
/// hundred thousand stanzas that all name the kernel as their source would be worth hours and all
/// memory. What is beyond a limit is a gap that hides packages, never silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many findings are kept: the worst.
    pub findings_max: usize,
    /// How many advisories are compared with packages.
    pub comparisons_max: usize,
    /// How many gaps tell of versions that cannot be compared.
    pub undecided_max: usize,
    /// Whose word decides about the severity of a finding.
    pub severity: SeverityBy,
}

/// Whose word decides about the severity of a finding. Every rating is kept, whoever decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeverityBy {
    /// The distribution's, where there is one; then the first source's newest CVSS; then its word.
    #[default]
    Vendor,
    /// The first source's newest CVSS; then the distribution's; then the source's word.
    Cvss,
    /// The worst of all that were given.
    Highest,
}

/// One image being matched.
struct Matching<'a> {
    os: Option<&'a Os>,
    shards: &'a dyn Shards,
    limits: &'a Limits,
    /// Operating system packages that speak for the language packages that they own.
    covered: BTreeSet<&'a PackageId>,
}

/// What is found, package by package.
#[derive(Default)]
struct Found {
    vulnerabilities: Vec<Vulnerability>,
    gaps: Vec<Gap>,
    /// How many packages of which ecosystem have no feed.
    uncovered: BTreeMap<String, u64>,
    /// How much software was recognized that no package manager installed: nobody's advisories go by
    /// such names.
    guessed: u64,
    /// How many operating system packages cannot be looked up at all.
    without_release: u64,
    /// How many advisories were compared with packages.
    comparisons: usize,
    /// How many packages were not compared with all their advisories, for there were too many.
    unmatched: u64,
    /// How many findings were dropped, for there were worse ones.
    dropped: u64,
    /// Versions that cannot be compared.
    undecided: Vec<Gap>,
    /// How many more there were.
    undecided_more: u64,
    /// What is known of CVEs that were met.
    exploitation: HashMap<String, Arc<[Exploitation]>>,
}

/// An advisory about a package, and the question that led to it.
pub(crate) struct Candidate<'a> {
    pub(crate) advisory: &'a ShardAdvisory,
    pub(crate) query: &'a Query,
}

/// A question about a package, and the shard that answers it.
pub(crate) type Asked<'a> = (&'a Query, Arc<Shard>);

/// Matches an image's packages with advisories. `today` decides about the end of life.
///
/// The scan revision of the result is 0: who knows it sets it.
pub fn match_packages(
    scanned: &ScannedPackages,
    shards: &dyn Shards,
    stamp: &AdvisoryStamp,
    today: Date,
    limits: &Limits,
) -> Result<Assessment, ShardError> {
    let matching = Matching {
        os: scanned.os.as_ref(),
        shards,
        limits,
        covered: covered(scanned, shards),
    };
    let mut found = Found {
        gaps: scanned.gaps.clone(),
        ..Found::default()
    };
    for package in &scanned.packages {
        matching.package(package, &mut found)?;
    }
    let os_ends = scanned.os.as_ref().and_then(support::ends_at);
    let os = scanned
        .os
        .clone()
        .map(|os| with_end_of_life(os, today, &mut found));
    found.note_unknown_os(os.as_ref());
    found.note_uncovered();
    found
        .gaps
        .extend(support::runtime_gaps(&scanned.packages, today));
    found.keep_worst(limits.findings_max);
    found.note_limits(limits);
    Ok(Assessment {
        image: scanned.image,
        scan: 0,
        advisories: stamp.clone(),
        os,
        os_ends,
        vulnerabilities: found.vulnerabilities,
        gaps: found.gaps,
    })
}

/// Operating system packages that own language packages, and whose distribution's advisories are
/// there.
pub(crate) fn covered<'a>(
    scanned: &'a ScannedPackages,
    shards: &dyn Shards,
) -> BTreeSet<&'a PackageId> {
    let os = scanned.os.as_ref();
    let packages = scanned.packages.iter();
    // Of most images no language package is owned, and then nobody asks.
    let languages = packages.clone().filter(|package| !package.kind.is_os());
    let owners: BTreeSet<&PackageId> = languages
        .filter_map(|package| package.owned_by.as_ref())
        .collect();
    let is_covered = |package: &&Package| {
        let queries = queries(package, os);
        let mut ecosystems = queries.iter().map(|query| &query.lookup.ecosystem);
        ecosystems.any(|ecosystem| shards.covers(ecosystem))
    };
    packages
        .filter(|package| package.kind.is_os() && owners.contains(&package.id))
        .filter(is_covered)
        .map(|package| &package.id)
        .collect()
}

/// A language package that an operating system package owns is the distribution's: it patches
/// without changing the version, and its advisories decide, where there are any.
pub(crate) fn is_spoken_for(package: &Package, covered: &BTreeSet<&PackageId>) -> bool {
    let owner = package.owned_by.as_ref();
    !package.kind.is_os() && owner.is_some_and(|owner| covered.contains(owner))
}

/// Under which names a package is looked up.
pub(crate) fn queries(package: &Package, os: Option<&Os>) -> Vec<Query> {
    let family = ecosystems::family_of(package);
    family
        .map(|family| family.queries(package, os))
        .unwrap_or_default()
}

/// The shards that answer some questions.
pub(crate) fn asked<'a>(
    queries: &'a [Query],
    shards: &dyn Shards,
) -> Result<Vec<Asked<'a>>, ShardError> {
    let mut asked: Vec<Asked<'_>> = Vec::new();
    for query in queries {
        let key = ShardKey::of(query.lookup.ecosystem.as_str(), &query.lookup.name);
        if let Some(shard) = shards.shard(&key)? {
            asked.push((query, shard));
        }
    }
    Ok(asked)
}

/// The advisories about a package. A record that two feeds have, or two names lead to, comes once.
pub(crate) fn candidates<'a>(asked: &'a [Asked<'a>]) -> Vec<Candidate<'a>> {
    let mut known = BTreeSet::new();
    let mut candidates = Vec::new();
    for (query, shard) in asked {
        for advisory in shard.of_package(&query.lookup.name) {
            let ecosystem = query.lookup.ecosystem.as_str();
            if known.insert((&advisory.id, ecosystem, &advisory.modules)) {
                candidates.push(Candidate { advisory, query });
            }
        }
    }
    subscription::yield_to_everybodys(&mut candidates);
    candidates
}

/// What is known of the exploitation of a CVE.
pub(crate) fn exploitation(
    shards: &dyn Shards,
    cve: &str,
) -> Result<Vec<Exploitation>, ShardError> {
    let kev = ShardKey::of(KEV, cve);
    let epss = ShardKey {
        ecosystem: EPSS.to_owned(),
        byte: kev.byte,
    };
    let mut found = Vec::new();
    for key in [kev, epss] {
        if let Some(shard) = shards.shard(&key)? {
            found.extend_from_slice(shard.exploitation_of(cve));
        }
    }
    Ok(found)
}

fn with_end_of_life(mut os: Os, today: Date, found: &mut Found) -> Os {
    let last_day = support::end_of_life(&os);
    os.eol = last_day.map(|last_day| today > last_day).or(os.eol);
    if os.eol == Some(true) {
        let since = match last_day {
            Some(day) if day > Date::ZERO => format!(" since {day}"),
            _ => String::new(),
        };
        let detail = format!(
            "{} {} gets no security updates{since}",
            os.id, os.version_id
        );
        found
            .gaps
            .push(Gap::new(GapCode::EndOfLifeOs, Hides::Packages, detail));
    }
    os
}

// === impl Matching ===

impl Matching<'_> {
    fn package(&self, package: &Package, found: &mut Found) -> Result<(), ShardError> {
        if package.kind == PackageType::Generic && package.confidence == Confidence::Low {
            found.guessed = found.guessed.saturating_add(1);
            return Ok(());
        }
        let Some(family) = ecosystems::family_of(package) else {
            if package.kind.is_os() {
                found.without_release = found.without_release.saturating_add(1);
            } else {
                found.count_uncovered(package.kind.as_str());
            }
            return Ok(());
        };
        if family.is_exempt(package) || is_spoken_for(package, &self.covered) {
            return Ok(());
        }
        let queries = family.queries(package, self.os);
        if queries.is_empty() {
            found.without_release = found.without_release.saturating_add(1);
            return Ok(());
        }
        let covered = queries
            .iter()
            .any(|query| self.shards.covers(&query.lookup.ecosystem));
        if let Some(query) = queries.first().filter(|_| !covered) {
            found.count_uncovered(&query.lookup.ecosystem);
        }
        let asked = asked(&queries, self.shards)?;
        let about = |(query, shard): &Asked<'_>| shard.of_package(&query.lookup.name).len();
        let comparisons = asked.iter().map(about).sum();
        let comparisons = found.comparisons.saturating_add(comparisons);
        if comparisons > self.limits.comparisons_max {
            found.unmatched = found.unmatched.saturating_add(1);
            return Ok(());
        }
        found.comparisons = comparisons;
        found.take(package, &self.matched(package, family, &asked), self.shards)?;
        // Between the two the worst are kept, so memory is bounded and sorting is rare.
        if found.vulnerabilities.len() >= self.limits.findings_max.saturating_mul(2) {
            found.keep_worst(self.limits.findings_max);
        }
        found.drop_undecided(self.limits.undecided_max);
        Ok(())
    }

    /// What its advisories say of a package, remembered or judged now.
    fn matched(
        &self,
        package: &Package,
        family: &dyn Ecosystem,
        asked: &[Asked<'_>],
    ) -> Arc<Matched> {
        if !asked.iter().any(|(query, shard)| {
            // Most packages have no advisories at all.
            !shard.of_package(&query.lookup.name).is_empty()
        }) {
            return Arc::default();
        }
        let memo = self.shards.memo();
        if let Some(known) = memo.and_then(|memo| memo.get(package, asked)) {
            return known;
        }
        let matched = Arc::new(judge(
            package,
            family,
            &candidates(asked),
            self.limits.severity,
        ));
        if let Some(memo) = memo {
            memo.put(package, asked, Arc::clone(&matched));
        }
        matched
    }
}

/// Judges one package: its candidates by vulnerability, and per vulnerability one finding. Of the
/// package only what a [`crate::Memo`] knows it by may decide.
pub(crate) fn judge(
    package: &Package,
    family: &dyn Ecosystem,
    candidates: &[Candidate<'_>],
    severity: SeverityBy,
) -> Matched {
    let judged = evaluated(package, family, candidates);
    // Of most packages nothing is to be told, and then names do not matter.
    if !judged.iter().any(Judged::is_to_be_told) {
        return Matched::default();
    }
    let mut found = Matched::default();
    let mut names = Names::default();
    for candidate in candidates {
        names.join(candidate.advisory);
    }
    let mut by_name: BTreeMap<usize, Vec<&Judged<'_>>> = BTreeMap::new();
    for one in &judged {
        for subject in names::subjects(one.candidate.advisory) {
            let about = by_name.entry(names.root(subject)).or_default();
            about.push(one);
        }
    }
    let classes = names.classes();
    let mut undecided: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (root, about) in &by_name {
        let Some(class) = classes.get(root) else {
            continue;
        };
        let affecting = decide(family, about);
        let vulnerability = affecting.and_then(|(affecting, others)| {
            finding::finding(package, class, affecting, &others, severity)
        });
        if let Some(vulnerability) = vulnerability {
            found.vulnerabilities.push(vulnerability);
            continue;
        }
        for one in about {
            if let Evaluation::Undecided(why) = &one.says {
                let ids = undecided.entry(why).or_default();
                ids.push(&one.candidate.advisory.id);
            }
        }
    }
    for (why, ids) in undecided {
        found.undecided.push(undecided_gap(package, why, ids));
    }
    found
}

/// What each candidate says that was not taken back.
fn evaluated<'a>(
    package: &Package,
    family: &dyn Ecosystem,
    candidates: &'a [Candidate<'a>],
) -> Vec<Judged<'a>> {
    let mut judged = Vec::with_capacity(candidates.len());
    // Candidates of one question stand together.
    let mut read: Option<(&Query, Installed<'_>)> = None;
    for candidate in candidates {
        let Candidate { advisory, query } = *candidate;
        if advisory.withdrawn {
            continue;
        }
        let (_, installed) = match read.take() {
            Some(known) if std::ptr::eq(known.0, query) => read.insert(known),
            _ => read.insert((query, Installed::of(family, package, &query.version))),
        };
        let mut says = evaluate(family, advisory, package, installed);
        subscription::take_fixes(query, &mut says);
        judged.push(Judged { candidate, says });
    }
    judged
}

/// An advisory, and what it says.
struct Judged<'a> {
    candidate: &'a Candidate<'a>,
    says: Evaluation,
}

impl Judged<'_> {
    /// Whether it makes a finding or a gap.
    fn is_to_be_told(&self) -> bool {
        matches!(
            self.says,
            Evaluation::Affected(_) | Evaluation::Undecided(_)
        )
    }
}

/// Weighs what several advisories say of one vulnerability. In a distribution a vendor's "never
/// affected" ends it, and the vulnerability's own record outranks a bulletin that contains it.
fn decide<'a>(
    family: &dyn Ecosystem,
    about: &[&'a Judged<'a>],
) -> Option<(Vec<Affecting<'a>>, Vec<&'a ShardAdvisory>)> {
    let is_affected = |one: &&&Judged<'_>| matches!(one.says, Evaluation::Affected(_));
    if !about.iter().any(|one| is_affected(&one)) {
        return None;
    }
    let is_own = |one: &Judged<'_>| !names::is_bulletin(one.candidate.advisory);
    let says_no = Evaluation::Unaffected(Why::Outside);
    let own_says_no = about.iter().any(|one| one.says == says_no && is_own(one));
    let never = about.iter().any(|one| one.says == Evaluation::Never);
    if family.is_distribution() && never {
        return None;
    }
    let mut affecting = Vec::new();
    let mut others = Vec::new();
    for one in about {
        let Candidate { advisory, query } = one.candidate;
        match &one.says {
            Evaluation::Affected(hit)
                if !(family.is_distribution() && own_says_no) || is_own(one) =>
            {
                affecting.push(Affecting {
                    advisory,
                    hit,
                    ecosystem: &query.lookup.ecosystem,
                    version: &query.version,
                    method: query.method,
                });
            }
            _ => others.push(*advisory),
        }
    }
    Some((affecting, others))
}

fn undecided_gap(package: &Package, why: &str, ids: Vec<&str>) -> Gap {
    let ids: BTreeSet<&str> = ids.into_iter().collect();
    let more = ids.len().saturating_sub(NAMED_MAX);
    let mut named = ids
        .into_iter()
        .take(NAMED_MAX)
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        named = format!("{named} and {more} more");
    }
    let detail = format!(
        "{} `{}`: {why}; undecided: {named}",
        package.kind, package.name
    );
    Gap::new(GapCode::UndecidedVersion, Hides::Packages, detail)
        .at(package.path.as_str())
        .in_layer(package.layer)
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            // An image with the packages of a whole desktop has a tenth of it.
            findings_max: 20_000,
            // A few seconds of work.
            comparisons_max: 1_000_000,
            undecided_max: 1_000,
            severity: SeverityBy::default(),
        }
    }
}

// === impl Found ===

impl Found {
    /// Takes what is said of a package; it may have been said where the package was elsewhere.
    fn take(
        &mut self,
        package: &Package,
        matched: &Matched,
        shards: &dyn Shards,
    ) -> Result<(), ShardError> {
        for vulnerability in &matched.vulnerabilities {
            let mut vulnerability = vulnerability.clone();
            finding::place(&mut vulnerability, package);
            self.add_exploitation(&mut vulnerability, shards)?;
            self.vulnerabilities.push(vulnerability);
        }
        let undecided = matched.undecided.iter().cloned();
        let here = |gap: Gap| gap.at(package.path.as_str()).in_layer(package.layer);
        self.undecided.extend(undecided.map(here));
        Ok(())
    }

    /// Adds what is known of exploitation: it is by CVE and not by package, and changes every day,
    /// so it is not part of what is remembered.
    fn add_exploitation(
        &mut self,
        vulnerability: &mut Vulnerability,
        shards: &dyn Shards,
    ) -> Result<(), ShardError> {
        let names = vulnerability.aliases.iter().chain([&vulnerability.id]);
        for cve in names.filter(|name| names::is_whole_cve(name)) {
            let known = if let Some(known) = self.exploitation.get(cve) {
                Arc::clone(known)
            } else {
                let known: Arc<[Exploitation]> = exploitation(shards, cve)?.into();
                self.exploitation.insert(cve.clone(), Arc::clone(&known));
                known
            };
            for one in known.iter() {
                vulnerability.kev |= one.known_since.is_some();
                vulnerability.epss = match (vulnerability.epss, one.epss) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    (a, b) => a.or(b),
                };
            }
        }
        Ok(())
    }

    /// Sorts by risk and drops what is beyond the limit.
    fn keep_worst(&mut self, most: usize) {
        risk::sort(&mut self.vulnerabilities);
        let beyond = self.vulnerabilities.len().saturating_sub(most);
        self.vulnerabilities.truncate(most);
        self.dropped = self.dropped.saturating_add(beyond as u64);
    }

    fn drop_undecided(&mut self, most: usize) {
        let beyond = self.undecided.len().saturating_sub(most);
        self.undecided.truncate(most);
        self.undecided_more = self.undecided_more.saturating_add(beyond as u64);
    }

    fn note_limits(&mut self, limits: &Limits) {
        self.gaps.append(&mut self.undecided);
        let Limits {
            findings_max,
            comparisons_max,
            undecided_max,
            severity: _,
        } = limits;
        let mut note = |count: u64, detail: String| {
            if count > 0 {
                self.gaps
                    .push(Gap::new(GapCode::LimitResults, Hides::Packages, detail));
            }
        };
        let (dropped, unmatched, more) = (self.dropped, self.unmatched, self.undecided_more);
        note(
            dropped,
            format!(
                "more than {findings_max} vulnerabilities: {dropped} less severe ones are left out"
            ),
        );
        note(
            unmatched,
            format!(
                "more than {comparisons_max} advisories to compare: {unmatched} packages are not matched"
            ),
        );
        note(
            more,
            format!(
                "more than {undecided_max} versions cannot be compared: {more} more are not listed"
            ),
        );
    }

    fn count_uncovered(&mut self, ecosystem: &str) {
        let count = self.uncovered.entry(ecosystem.to_owned()).or_default();
        *count = count.saturating_add(1);
    }

    /// Packages of an operating system that we cannot name, or an operating system without rules:
    /// its packages may even be in a database that nobody reads.
    fn note_unknown_os(&mut self, os: Option<&Os>) {
        let detail = match os {
            Some(os) if !os::is_known(os) => {
                let Os { id, version_id, .. } = os;
                format!("no rules for operating system `{id}`, version `{version_id}`")
            }
            None if self.without_release > 0 => "no os-release".to_owned(),
            _ if self.without_release > 0 => "packages of another operating system".to_owned(),
            _ => return,
        };
        let count = self.without_release;
        let detail = format!("{detail}: {count} operating system packages are not matched");
        self.gaps
            .push(Gap::new(GapCode::UnknownOs, Hides::Packages, detail));
    }

    fn note_uncovered(&mut self) {
        for (ecosystem, count) in &self.uncovered {
            let noun = if *count == 1 { "package" } else { "packages" };
            let detail = format!("no advisory feed covers `{ecosystem}` ({count} {noun})");
            self.gaps
                .push(Gap::new(GapCode::NoAdvisories, Hides::Packages, detail));
        }
        if self.guessed > 0 {
            let noun = if self.guessed == 1 {
                "program"
            } else {
                "programs"
            };
            let detail = format!(
                "no advisories go by what no package manager installed ({} {noun})",
                self.guessed
            );
            self.gaps
                .push(Gap::new(GapCode::NoAdvisories, Hides::Nothing, detail));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
