//! Packages × advisories → vulnerabilities and gaps.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::civil::Date;
use model::{
    AdvisoryStamp, Assessment, Gap, GapCode, Hides, Os, Package, PackageId, ScannedPackages,
    ShardKey, Vulnerability,
};

use crate::{
    ecosystems::{self, Ecosystem, Query},
    evaluate::{Evaluation, evaluate},
    finding::{self, Affecting},
    memo::Matched,
    names::{self, Names},
    os,
    shard::{Shard, ShardAdvisory, ShardError, Shards},
};

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
}

/// One image being matched.
struct Matching<'a> {
    os: Option<&'a Os>,
    shards: &'a dyn Shards,
    limits: &'a Limits,
    /// Operating system packages whose distribution's advisories are there.
    covered: BTreeSet<&'a PackageId>,
}

/// What is found, package by package.
#[derive(Default)]
struct Found {
    vulnerabilities: Vec<Vulnerability>,
    gaps: Vec<Gap>,
    /// How many packages of which ecosystem have no feed.
    uncovered: BTreeMap<String, u64>,
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
}

/// An advisory about a package, and the question that led to it.
struct Candidate<'a> {
    advisory: &'a ShardAdvisory,
    query: &'a Query,
}

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
    let mut matching = Matching {
        os: scanned.os.as_ref(),
        shards,
        limits,
        covered: BTreeSet::new(),
    };
    for package in scanned
        .packages
        .iter()
        .filter(|package| package.kind.is_os())
    {
        if matching
            .queries(package)
            .iter()
            .any(|q| shards.covers(&q.lookup.ecosystem))
        {
            matching.covered.insert(&package.id);
        }
    }
    let mut found = Found {
        gaps: scanned.gaps.clone(),
        ..Found::default()
    };
    for package in &scanned.packages {
        matching.package(package, &mut found)?;
    }
    let os_ends = scanned.os.as_ref().and_then(os::ends_at);
    let os = scanned
        .os
        .clone()
        .map(|os| with_end_of_life(os, today, &mut found));
    found.note_unknown_os(os.as_ref());
    found.note_uncovered();
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

fn with_end_of_life(mut os: Os, today: Date, found: &mut Found) -> Os {
    let last_day = os::end_of_life(&os);
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
    fn queries(&self, package: &Package) -> Vec<Query> {
        let family = ecosystems::family_of(package);
        family
            .map(|family| family.queries(package, self.os))
            .unwrap_or_default()
    }

    fn package(&self, package: &Package, found: &mut Found) -> Result<(), ShardError> {
        let Some(family) = ecosystems::family_of(package) else {
            if package.kind.is_os() {
                found.without_release = found.without_release.saturating_add(1);
            } else {
                found.count_uncovered(package.kind.as_str());
            }
            return Ok(());
        };
        if family.is_exempt(package) || self.is_spoken_for(package) {
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
        let mut shards: Vec<(&Query, Arc<Shard>)> = Vec::new();
        for query in &queries {
            let key = ShardKey::of(query.lookup.ecosystem.as_str(), &query.lookup.name);
            if let Some(shard) = self.shards.shard(&key)? {
                shards.push((query, shard));
            }
        }
        let about =
            |(query, shard): &(&Query, Arc<Shard>)| shard.of_package(&query.lookup.name).len();
        let comparisons = shards.iter().map(about).sum();
        let comparisons = found.comparisons.saturating_add(comparisons);
        if comparisons > self.limits.comparisons_max {
            found.unmatched = found.unmatched.saturating_add(1);
            return Ok(());
        }
        found.comparisons = comparisons;
        found.take(&self.matched(package, family, &shards));
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
        shards: &[(&Query, Arc<Shard>)],
    ) -> Arc<Matched> {
        let memo = self.shards.memo();
        if let Some(known) = memo.and_then(|memo| memo.get(package, shards)) {
            return known;
        }
        let candidates: Vec<Candidate<'_>> = shards
            .iter()
            .flat_map(|(query, shard)| {
                let about = shard.of_package(&query.lookup.name);
                about.iter().map(|advisory| Candidate { advisory, query })
            })
            .collect();
        let matched = Arc::new(judge(package, family, &candidates));
        if let Some(memo) = memo {
            memo.put(package, shards, Arc::clone(&matched));
        }
        matched
    }

    /// A language package that an operating system package owns is the distribution's: it patches
    /// without changing the version, and its advisories decide, where there are any.
    fn is_spoken_for(&self, package: &Package) -> bool {
        let owner = package.owned_by.as_ref();
        !package.kind.is_os() && owner.is_some_and(|owner| self.covered.contains(owner))
    }
}

/// Judges one package: its candidates by vulnerability, and per vulnerability one finding.
fn judge(package: &Package, family: &dyn Ecosystem, candidates: &[Candidate<'_>]) -> Matched {
    let mut found = Matched::default();
    let mut names = Names::default();
    for candidate in candidates {
        names.join(candidate.advisory);
    }
    let mut by_name: BTreeMap<String, Vec<(&Candidate<'_>, Evaluation)>> = BTreeMap::new();
    for candidate in candidates
        .iter()
        .filter(|candidate| !candidate.advisory.withdrawn)
    {
        let evaluation = match family.speaks_of(candidate.advisory, package) {
            Some(true) => evaluate(family, candidate.advisory, &candidate.query.version),
            Some(false) => continue,
            None => Evaluation::Undecided("its module stream is not known".to_owned()),
        };
        for subject in names::subjects(candidate.advisory) {
            let about = by_name.entry(names.root(subject)).or_default();
            about.push((candidate, evaluation.clone()));
        }
    }
    let classes = names.classes();
    let mut undecided: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (root, about) in by_name {
        let class = classes
            .get(&root)
            .cloned()
            .unwrap_or_else(|| BTreeSet::from([root]));
        let vulnerability = decide(package, family, &class, &about);
        if let Some(vulnerability) = vulnerability {
            found.vulnerabilities.push(vulnerability);
            continue;
        }
        for (candidate, evaluation) in about {
            if let Evaluation::Undecided(why) = evaluation {
                undecided
                    .entry(why)
                    .or_default()
                    .push(candidate.advisory.id.clone());
            }
        }
    }
    for (why, ids) in undecided {
        found.undecided.push(undecided_gap(package, &why, ids));
    }
    found
}

/// Weighs what several advisories say of one vulnerability. In a distribution a vendor's "never
/// affected" ends it, and the vulnerability's own record outranks a bulletin that contains it.
fn decide(
    package: &Package,
    family: &dyn Ecosystem,
    class: &BTreeSet<String>,
    about: &[(&Candidate<'_>, Evaluation)],
) -> Option<Vulnerability> {
    let is_own = |candidate: &Candidate<'_>| !names::is_bulletin(candidate.advisory);
    let own_says_no = about
        .iter()
        .any(|(candidate, evaluation)| is_own(candidate) && *evaluation == Evaluation::Unaffected);
    let never = about
        .iter()
        .any(|(_, evaluation)| *evaluation == Evaluation::Never);
    if family.is_distribution() && never {
        return None;
    }
    let mut affecting = Vec::new();
    let mut others = Vec::new();
    for (candidate, evaluation) in about {
        match evaluation {
            Evaluation::Affected(hit)
                if is_own(candidate) || !(family.is_distribution() && own_says_no) =>
            {
                affecting.push(Affecting {
                    advisory: candidate.advisory,
                    hit: hit.clone(),
                    ecosystem: &candidate.query.lookup.ecosystem,
                    version: &candidate.query.version,
                    method: candidate.query.method,
                });
            }
            _ => others.push(candidate.advisory),
        }
    }
    finding::finding(package, class, affecting, &others)
}

fn undecided_gap(package: &Package, why: &str, ids: Vec<String>) -> Gap {
    let ids: BTreeSet<String> = ids.into_iter().collect();
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
        }
    }
}

// === impl Found ===

impl Found {
    fn take(&mut self, matched: &Matched) {
        self.vulnerabilities
            .extend_from_slice(&matched.vulnerabilities);
        self.undecided.extend_from_slice(&matched.undecided);
    }

    /// Sorts by risk and drops what is beyond the limit.
    fn keep_worst(&mut self, most: usize) {
        finding::sort_by_risk(&mut self.vulnerabilities);
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
    }
}

#[cfg(test)]
mod tests;
