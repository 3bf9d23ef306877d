//! The order of findings: what to look at first.
//!
//! `risk = 10 × impact × likelihood × remedy`, from 0 to 100:
//!
//! | factor | is |
//! |---|---|
//! | impact | the CVSS base score, kept within the band of the finding's severity (its source may rate lower or higher than the vector): critical 9–10, high 7–8.9, medium 4–6.9, low 0.1–3.9, negligible 0.1; the upper third of the band without a score; 3 where nobody rated it, for unknown is not harmless |
//! | likelihood | 1 where it is known to be exploited (KEV); else 0.4 + 0.5 × EPSS, so that no prediction outweighs knowledge; 0.4 without either |
//! | remedy | 1 where a fix can be installed, 0.9 where not: of two equals the one that can be ended comes first |
//!
//! So a medium one that is exploited (at least 40) stands before a critical one that nobody is
//! known to use (at most 40, with a low EPSS). How exposed a container is does not follow from its
//! image, so it is no factor here.

use model::{Severity, Vulnerability};

const LIKELIHOOD: f64 = 0.4;
const BY_PREDICTION: f64 = 0.5;
const WITHOUT_FIX: f64 = 0.9;
const UNRATED: f64 = 3.0;

/// How urgent a finding is, 0 to 100; the formula stands in the module's documentation.
pub fn risk(found: &Vulnerability) -> f64 {
    let likelihood = if found.kev {
        1.0
    } else {
        let predicted = found
            .epss
            .filter(|epss| epss.is_finite())
            .unwrap_or_default();
        BY_PREDICTION.mul_add(predicted.clamp(0.0, 1.0), LIKELIHOOD)
    };
    let remedy = if found.is_fixable() { 1.0 } else { WITHOUT_FIX };
    10.0 * impact(found) * likelihood * remedy
}

/// Orders findings: the highest risk first, then by name.
pub(crate) fn sort(found: &mut [Vulnerability]) {
    found.sort_by_cached_key(|one| {
        // Thousandths, so that the order is total.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "from 0 to 100,000 and rounded"
        )]
        let risk = (risk(one) * 1000.0).round() as i64;
        (
            std::cmp::Reverse(risk),
            one.id.clone(),
            one.package.clone(),
            one.package_id.clone(),
        )
    });
}

fn impact(found: &Vulnerability) -> f64 {
    let (least, most) = match found.severity {
        Severity::Critical => (9.0, 10.0),
        Severity::High => (7.0, 8.9),
        Severity::Medium => (4.0, 6.9),
        Severity::Low => (0.1, 3.9),
        Severity::Negligible => (0.1, 0.1),
        Severity::Unknown => (UNRATED, UNRATED),
    };
    let newest = found.cvss.iter().max_by(|a, b| a.version.cmp(&b.version));
    let score = newest.map_or(least + (most - least) * 2.0 / 3.0, |cvss| cvss.score);
    score.clamp(least, most)
}

#[cfg(test)]
mod tests {
    use model::{Cvss, FixState};

    use super::*;
    use crate::matching::tests::vulnerability;

    fn rated(severity: Severity, score: Option<f64>) -> Vulnerability {
        let mut found = vulnerability("CVE-2024-1");
        found.severity = severity;
        found.fix_state = FixState::Fixed;
        found.cvss = score
            .map(|score| Cvss {
                source: "NVD".to_owned(),
                version: "3.1".to_owned(),
                vector: String::new(),
                score,
            })
            .into_iter()
            .collect();
        found
    }

    #[test]
    fn what_is_exploited_comes_before_what_is_only_bad() {
        let mut exploited = rated(Severity::Medium, Some(5.0));
        exploited.kev = true;
        let critical = rated(Severity::Critical, Some(9.8));
        let mut predicted = rated(Severity::Critical, Some(9.8));
        predicted.epss = Some(0.97);
        assert!(risk(&predicted) > risk(&exploited) && risk(&exploited) > risk(&critical));
        let highest = Vulnerability {
            kev: true,
            ..rated(Severity::Critical, Some(10.0))
        };
        assert!((risk(&highest) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn the_vendors_word_bounds_the_score_and_a_fix_breaks_ties() {
        let by_word = rated(Severity::Low, Some(9.8));
        assert!(risk(&by_word) < risk(&rated(Severity::Medium, Some(4.0))));
        let unrated = rated(Severity::Unknown, None);
        assert!(risk(&unrated) > risk(&rated(Severity::Negligible, Some(9.0))));
        let mut unfixed = rated(Severity::High, Some(8.0));
        unfixed.fix_state = FixState::NotFixed;
        assert!(risk(&unfixed) < risk(&rated(Severity::High, Some(8.0))));
        let mut found = vec![unfixed, by_word.clone(), unrated];
        sort(&mut found);
        assert_eq!(found[0].severity, Severity::High);
    }
}
