//! What always applies (architecture, "Which decision"), each line as a rule of its own.
//!
//! A gap belongs to exactly one line, so that whoever turns a line off is rid of it: a decision for
//! its own code first, then what its code means, then what it hides.

use model::{Decision, Gap, GapCode, Hides, Reason};

use crate::{
    document::Defaults,
    evidence::{Evidence, Standing},
    values::KnownGap,
};

/// The advisory data are too old.
pub(crate) const STALE_ADVISORIES: &str = "stale-advisories";
const HIDDEN: &str = "hidden-content";
const LIMITS: &str = "limits";
const UNKNOWN_OS: &str = "unknown-os";
const END_OF_LIFE_OS: &str = "end-of-life-os";
const MISSING_ADVISORIES: &str = "missing-advisories";
const UNDECIDED_VERSIONS: &str = "undecided-versions";
const GAPS: &str = "gaps";

/// Their names, which no rule of a document may have.
pub(crate) const RULES: [&str; 8] = [
    HIDDEN,
    LIMITS,
    UNKNOWN_OS,
    END_OF_LIFE_OS,
    MISSING_ADVISORIES,
    STALE_ADVISORIES,
    UNDECIDED_VERSIONS,
    GAPS,
];

/// The reasons that the defaults of a policy give.
pub(crate) fn reasons(defaults: &Defaults, facts: &Standing<'_>, out: &mut Vec<Reason>) {
    for (rule, decision, remediation) in lines(defaults) {
        let belongs = |gap: &&Gap| line_of(defaults, gap) == Some(rule);
        let gaps: Vec<_> = facts.gaps.iter().filter(belongs).collect();
        let evidence = Evidence::of_gaps(&gaps, remediation);
        push(
            rule,
            decision,
            evidence.or_else(|| beyond_gaps(rule, facts, remediation)),
            out,
        );
    }
    for (code, decision) in &defaults.gaps {
        let gaps: Vec<_> = facts.gaps.iter().filter(|gap| gap.code == code.0).collect();
        push(
            GAPS,
            *decision,
            Evidence::of_gaps(&gaps, remediation_of_code(code.0)),
            out,
        );
    }
    let stale = defaults
        .max_advisory_age
        .0
        .filter(|_| facts.data_age.is_some());
    let stale = stale.and_then(|limit| facts.stale_advisories(limit));
    push(STALE_ADVISORIES, defaults.stale_advisories, stale, out);
}

fn lines(defaults: &Defaults) -> [(&'static str, Decision, &'static str); 6] {
    let Defaults {
        hidden,
        limits,
        unknown_os,
        end_of_life_os,
        missing_advisories,
        stale_advisories: _,
        max_advisory_age: _,
        undecided_versions,
        gaps: _,
    } = defaults;
    [
        (
            HIDDEN,
            *hidden,
            "build and push the image again; what cannot be read cannot be judged",
        ),
        (
            LIMITS,
            *limits,
            "make the image smaller, or raise the scanner's limit",
        ),
        (
            UNKNOWN_OS,
            *unknown_os,
            "keep `/etc/os-release` in the image",
        ),
        (
            END_OF_LIFE_OS,
            *end_of_life_os,
            "move to a release that gets security updates",
        ),
        (
            MISSING_ADVISORIES,
            *missing_advisories,
            "fetch advisories for these packages: `tidewaiter db update`",
        ),
        (
            UNDECIDED_VERSIONS,
            *undecided_versions,
            "look at the advisories that it names (`tidewaiter explain IMAGE ID`), and let the build state a version: a Go program's does with Go 1.24 in a checkout with its tags, and with `-ldflags '-X main.version=1.2.3'` without `-trimpath`",
        ),
    ]
}

/// What shows in the facts even where the matcher left no gap.
fn beyond_gaps(rule: &str, facts: &Standing<'_>, remediation: &str) -> Option<Evidence> {
    match rule {
        END_OF_LIFE_OS => {
            let os = facts.os.filter(|_| facts.os_has_ended)?;
            let piece = format!("{} {}", os.id, os.version_id);
            let subject = "the operating system gets no security updates any more";
            Some(Evidence::plain(subject, vec![piece], remediation))
        }
        MISSING_ADVISORIES if facts.data_age.is_none() => {
            let piece = format!("revision {}", facts.advisories.revision);
            Some(Evidence::plain(
                "there are no advisory data",
                vec![piece],
                remediation,
            ))
        }
        _ => None,
    }
}

fn line_of(defaults: &Defaults, gap: &Gap) -> Option<&'static str> {
    if defaults.gaps.contains_key(&KnownGap(gap.code)) {
        return None;
    }
    match gap.code {
        GapCode::UnknownOs => Some(UNKNOWN_OS),
        GapCode::EndOfLifeOs => Some(END_OF_LIFE_OS),
        // Software that is only guessed has no advisories anywhere.
        GapCode::NoAdvisories if gap.hides == Hides::Nothing => None,
        GapCode::NoAdvisories => Some(MISSING_ADVISORIES),
        // Our own finding: see `STALE_ADVISORIES`.
        GapCode::StaleAdvisories => None,
        GapCode::UndecidedVersion => Some(UNDECIDED_VERSIONS),
        code if code.is_limit() => Some(LIMITS),
        _ => match gap.hides {
            Hides::Packages | Hides::Entries => Some(HIDDEN),
            Hides::Secrets | Hides::Malware | Hides::Nothing => None,
        },
    }
}

fn remediation_of_code(code: GapCode) -> &'static str {
    if code.is_limit() {
        "make the image smaller, or raise the scanner's limit"
    } else {
        "look at the layer or file that the gap names"
    }
}

fn push(rule: &str, decision: Decision, evidence: Option<Evidence>, out: &mut Vec<Reason>) {
    if decision == Decision::Allow {
        return;
    }
    out.extend(evidence.map(|evidence| evidence.into_reason(rule, decision, None, None)));
}
