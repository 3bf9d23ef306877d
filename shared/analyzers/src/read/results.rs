//! What analyzers found, brought into an order that no thread can change.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use archive::Limits;
use model::{AnalyzerId, Gap, GapCode, Hides, Section};

use crate::{Analyzer, Analyzers, File, Found, Malformed, unpack::Spent};

/// Results of all calls, in the order in which they ended.
pub(super) struct Results {
    calls: Mutex<Calls>,
    bytes_max: u64,
    /// Of a layer no more are kept than an image may have: the others would be thrown away with it.
    packages_max: usize,
    unpacked_bytes_max: u64,
    gaps_max: usize,
}

#[derive(Default)]
struct Calls {
    ended: Vec<Call>,
    bytes: u64,
    /// What archives were unpacked to, by analyzer.
    spent: HashMap<usize, Spent>,
}

/// One call of one analyzer.
struct Call {
    analyzer: usize,
    /// The number of the (first) file's entry.
    number: usize,
    /// The file's path, where it was one.
    path: Option<String>,
    found: Found,
    transient_gap: Option<Gap>,
}

// === impl Results ===

impl Results {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            calls: Mutex::default(),
            bytes_max: limits.result_bytes_max,
            packages_max: limits.image_packages_max,
            unpacked_bytes_max: limits.unpacked_bytes_max,
            gaps_max: limits.gaps_max,
        }
    }

    /// Nothing found yet, by one call.
    fn nothing(&self) -> Found {
        Found::new(self.bytes_max).with_packages(self.packages_max)
    }

    pub(super) fn analyze(
        &self,
        number: usize,
        at: usize,
        analyzer: &dyn Analyzer,
        files: &[File],
    ) {
        let mut found = self.nothing();
        found.spent = self.is_spent(number, at).then_some(self.unpacked_bytes_max);
        let mut transient_gap = None;
        let first = files.first().map(|file| file.path().to_owned());
        if let Err(error) = analyzer.analyze(files, &mut found) {
            let mut gap = Gap::new(error.gap_code(), analyzer.hides(), error.to_string());
            gap.path.clone_from(&first);
            if error.is_transient() {
                transient_gap = Some(gap);
            } else {
                found.add_gap(gap);
            }
        }
        let path = first.filter(|_| files.len() == 1);
        self.push(Call {
            analyzer: at,
            number,
            path,
            found,
            transient_gap,
        });
    }

    pub(super) fn note(&self, number: usize, analyzer: usize, gap: Gap) {
        let mut found = self.nothing();
        found.add_gap(gap);
        self.push(Call {
            analyzer,
            number,
            path: None,
            found,
            transient_gap: None,
        });
    }

    /// Whether archives before this file took all that archives may.
    fn is_spent(&self, number: usize, analyzer: usize) -> bool {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = calls.spent.get(&analyzer);
        spent.is_some_and(|spent| spent.is_over_before(number))
    }

    /// Notes that nobody got to look at a file in time.
    pub(super) fn too_late(&self, number: usize, at: usize, analyzer: &dyn Analyzer, path: &str) {
        let detail = "the time for the layer was over before it was its turn";
        let gap = Gap::new(GapCode::LimitTime, analyzer.hides(), detail).at(path);
        self.push(Call {
            analyzer: at,
            number,
            path: None,
            found: self.nothing(),
            transient_gap: Some(gap),
        });
    }

    pub(super) fn transient_gaps(&self) -> Vec<Gap> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gaps: Vec<_> = calls
            .ended
            .iter_mut()
            .filter_map(|call| call.transient_gap.take())
            .collect();
        gaps.sort();
        gaps
    }

    /// One section per analyzer.
    pub(super) fn into_sections(self, analyzers: &Analyzers) -> Vec<Section> {
        let Self {
            calls,
            bytes_max,
            packages_max,
            unpacked_bytes_max,
            gaps_max,
        } = self;
        let calls = calls.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Calls {
            ended: mut calls,
            spent,
            ..
        } = calls;
        calls.sort_by_key(|call| (call.analyzer, call.number));
        let ids = analyzers.ids();
        let nothing = || Found::new(bytes_max).with_packages(packages_max);
        let mut all: Vec<Found> = ids.iter().map(|_| nothing()).collect();
        let last = last_numbers(&calls);
        for mut call in calls {
            // It was opened before it was known that those before it take everything.
            let spent = spent.get(&call.analyzer);
            let is_late = spent.is_some_and(|spent| spent.is_over_before(call.number));
            if is_late && call.found.unpacked > 0 {
                let hides = analyzers.as_slice().get(call.analyzer);
                let hides = hides.map_or(Hides::Packages, |analyzer| analyzer.hides());
                let error = Malformed::Spent(unpacked_bytes_max);
                let mut gap = Gap::new(error.gap_code(), hides, error.to_string());
                gap.path.clone_from(&call.path);
                call.found = nothing();
                call.found.add_gap(gap);
            }
            // Of two entries with one path the later one is the file; what is wrong with the
            // other is still in the layer.
            if call
                .path
                .as_ref()
                .is_some_and(|path| last.get(path) > Some(&call.number))
            {
                call.found.os.clear();
                call.found.packages.clear();
                call.found.owned.clear();
                call.found.sums.clear();
                call.found.diversions.clear();
                call.found.licenses.clear();
                call.found.gaps.clear();
            }
            if let Some(found) = all.get_mut(call.analyzer) {
                found.merge(call.found);
            }
        }
        let sections = ids.into_iter().zip(analyzers.as_slice()).zip(all);
        sections
            .map(|((id, one), found)| {
                let cut = cut_gap(&found, one.hides(), (bytes_max, packages_max));
                section(id, found, cut, gaps_max)
            })
            .collect()
    }

    fn push(&self, mut call: Call) {
        // Each section is bounded when it is put together, in a fixed order. Until then this is
        // the bound, far above it.
        let bytes = self.bytes_max.saturating_sub(call.found.room());
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = calls.spent.entry(call.analyzer).or_default();
        spent.add(call.number, call.found.unpacked, self.unpacked_bytes_max);
        calls.bytes = calls.bytes.saturating_add(bytes);
        if calls.bytes > self.bytes_max.saturating_mul(4) {
            call.found = Found::overfull();
        }
        calls.ended.push(call);
    }
}

/// The gap of results that are not all there. No honest layer has so many, so that it is a grave one
/// also of an analyzer whose files hide nothing.
fn cut_gap(found: &Found, hides: Hides, (bytes_max, packages_max): (u64, usize)) -> Option<Gap> {
    let detail = if found.packages.len() < packages_max {
        format!("the results take more than {bytes_max} bytes")
    } else {
        format!("there are more than {packages_max} packages")
    };
    let hides = match hides {
        Hides::Secrets | Hides::Malware => hides,
        Hides::Entries | Hides::Packages | Hides::Nothing => Hides::Packages,
    };
    found
        .is_over
        .then(|| Gap::new(GapCode::LimitResults, hides, detail))
}

fn section(analyzer: AnalyzerId, found: Found, cut: Option<Gap>, gaps_max: usize) -> Section {
    let gaps = cut.into_iter().chain(found.gaps).collect();
    Section {
        analyzer,
        os: found.os,
        packages: found.packages,
        owned: found.owned,
        sums: found.sums,
        diversions: found.diversions,
        licenses: found.licenses,
        findings: found.findings,
        gaps: cap(gaps, gaps_max),
    }
}

/// At most `gaps_max` gaps; the rest are counted in one more.
pub(super) fn cap(mut gaps: Vec<Gap>, gaps_max: usize) -> Vec<Gap> {
    let rest = gaps.split_off(gaps.len().min(gaps_max));
    if let Some(worst) = rest
        .iter()
        .map(|gap| gap.hides)
        .min_by_key(|hides| rank(*hides))
    {
        let detail = format!("{} more gaps", rest.len());
        gaps.push(Gap::new(GapCode::LimitResults, worst, detail));
    }
    gaps
}

/// The lower, the worse.
pub(crate) fn rank(hides: Hides) -> u8 {
    match hides {
        Hides::Entries => 0,
        Hides::Packages => 1,
        Hides::Malware => 2,
        Hides::Secrets => 3,
        Hides::Nothing => 4,
    }
}

fn last_numbers(calls: &[Call]) -> HashMap<String, usize> {
    let mut last = HashMap::new();
    for call in calls {
        if let Some(path) = &call.path {
            let number: &mut usize = last.entry(path.clone()).or_default();
            *number = call.number.max(*number);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_are_cut_hide_what_their_analyzer_looks_for() {
        for (hides, expected) in [
            (Hides::Secrets, Hides::Secrets),
            (Hides::Malware, Hides::Malware),
            (Hides::Packages, Hides::Packages),
            (Hides::Nothing, Hides::Packages),
        ] {
            let gap = cut_gap(&Found::overfull(), hides, (600, 10)).unwrap();
            assert_eq!(gap.hides, expected);
            assert_eq!(gap.detail, "the results take more than 600 bytes");
            assert_eq!(cut_gap(&Found::new(600), hides, (600, 10)), None);
        }
        let gap = cut_gap(&Found::overfull(), Hides::Packages, (600, 0)).unwrap();
        assert_eq!(gap.detail, "there are more than 0 packages");
    }
}
