//! Conditions: what a rule looks for.
//!
//! | condition | holds where |
//! |---|---|
//! | `vulnerability: {severity, fixable, cves, packages, types, kev, epss}` | a vulnerability that no waiver accepts fits everything that is given |
//! | `secret: {severity, rules}` | a secret fits everything that is given |
//! | `misconfiguration: {severity, rules, clauses}` | a failed check fits everything that is given |
//! | `malware: {severity, rules}` | a piece of malware fits everything that is given |
//! | `license: {licenses, allowed, categories, packages, types, except_packages}` | a package cannot be had without a licence that fits `licenses`, without one that does not fit `allowed`, and without one of `categories`; of a choice one good side is enough |
//! | `package: {names, types}` | a package fits everything that is given |
//! | `image: {root, layers_more_than, base, base_other_than, older_than, lacks_labels}` | the image is all that is given |
//! | `gap: {hides, codes}` | something could not be looked at |
//! | `advisories_older_than: 3d` | the oldest advisory data are older, or there are none |

mod image;

use std::fmt;

use analyzers::licenses;
use jiff::Timestamp;
use model::{Gap, Hides, License, LicenseCategory, Severity, Target, Vulnerability};
use serde::Deserialize;

use crate::{
    evidence::{Evidence, Finding, Standing},
    values::{Age, KnownCategory, KnownGap, KnownType, Level, NameGlobs, Share, Text},
};

pub use self::image::{ImageFilter, Trait};

/// What a rule looks for. What is not given in a filter does not matter.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// Vulnerabilities that no waiver accepts.
    Vulnerability(VulnerabilityFilter),
    /// Secrets.
    Secret(FindingFilter),
    /// Failed checks.
    Misconfiguration(FindingFilter),
    /// Malware.
    Malware(FindingFilter),
    /// Licences of packages.
    License(LicenseFilter),
    /// Packages.
    Package(PackageFilter),
    /// The image itself.
    Image(ImageFilter),
    /// What could not be looked at.
    Gap(GapFilter),
    /// Advisory data older than this, or none at all.
    AdvisoriesOlderThan(Age),
}

/// Which vulnerabilities.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VulnerabilityFilter {
    /// At least this bad.
    pub severity: Option<Level>,
    /// With a fix, or without one.
    pub fixable: Option<bool>,
    /// One of these, by any of its names.
    pub cves: Vec<Text>,
    /// In packages with such names.
    pub packages: NameGlobs,
    /// In packages of these types.
    pub types: Vec<KnownType>,
    /// In the catalog of known exploited vulnerabilities, or not.
    pub kev: Option<bool>,
    /// At least this likely to be exploited (FIRST EPSS); what has no prediction does not fit.
    pub epss: Option<Share>,
}

/// Which secrets, failed checks or malware.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FindingFilter {
    /// At least this bad.
    pub severity: Option<Level>,
    /// Found by rules or checks with such ids.
    pub rules: NameGlobs,
    /// Part of such clauses of benchmarks, as `CIS Docker 4.*`; only failed checks have any.
    pub clauses: NameGlobs,
}

/// Which licences. `licenses`, `allowed` and `categories` each ask whether the package can be had
/// without what they refuse.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LicenseFilter {
    /// Refused, as `AGPL-*`, with or without an exception behind.
    pub licenses: NameGlobs,
    /// All that are not refused. What declares nothing is `NOASSERTION`.
    pub allowed: NameGlobs,
    /// Refused kinds.
    pub categories: Vec<KnownCategory>,
    /// Of packages with such names.
    pub packages: NameGlobs,
    /// Of packages of these types.
    pub types: Vec<KnownType>,
    /// But not of packages with such names.
    pub except_packages: NameGlobs,
}

/// Which packages.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PackageFilter {
    /// With such names.
    pub names: NameGlobs,
    /// Of these types.
    pub types: Vec<KnownType>,
}

/// Which gaps.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GapFilter {
    /// Hiding one of these.
    pub hides: Vec<Hides>,
    /// With one of these codes.
    pub codes: Vec<KnownGap>,
}

// === impl Condition ===

impl Condition {
    /// What speaks for the condition; `None` where it does not hold.
    pub(crate) fn evidence(&self, facts: &Standing<'_>) -> Option<Evidence> {
        match self {
            Self::Vulnerability(filter) => {
                let fits = |found: &&&Vulnerability| filter.fits(found);
                let found: Vec<_> = facts.vulnerabilities.iter().filter(fits).copied().collect();
                Evidence::of_vulnerabilities(&filter.to_string(), &found)
            }
            Self::Secret(filter) => Evidence::of_findings(
                "secret",
                "secrets",
                facts.secrets.iter().filter(|found| filter.fits(found)),
            ),
            Self::Misconfiguration(filter) => Evidence::of_findings(
                "failed check",
                "failed checks",
                facts
                    .misconfigurations
                    .iter()
                    .filter(|found| filter.fits(found)),
            ),
            Self::Malware(filter) => Evidence::of_findings(
                "piece of malware",
                "pieces of malware",
                facts.malware.iter().filter(|found| filter.fits(found)),
            ),
            Self::License(filter) => {
                let found = facts.licenses.iter().filter(|found| filter.fits(found));
                Evidence::of_licenses(&found.copied().collect::<Vec<_>>())
            }
            Self::Package(filter) => {
                let found = facts.packages.iter().filter(|found| filter.fits(found));
                Evidence::of_packages(found)
            }
            Self::Image(filter) => filter.evidence(facts.target, &facts.accepted_traits, facts.now),
            Self::Gap(filter) => {
                let found: Vec<_> = facts.gaps.iter().filter(|gap| filter.fits(gap)).collect();
                Evidence::of_gaps(&found, "look at the layer or file that the gap names")
            }
            Self::AdvisoriesOlderThan(limit) => facts.stale_advisories(*limit),
        }
    }

    /// The greatest age of advisory data with which the condition does not hold.
    pub(crate) const fn age_max(&self) -> Option<Age> {
        match self {
            Self::AdvisoriesOlderThan(limit) => Some(*limit),
            Self::Vulnerability(_)
            | Self::Secret(_)
            | Self::Misconfiguration(_)
            | Self::Malware(_)
            | Self::License(_)
            | Self::Package(_)
            | Self::Image(_)
            | Self::Gap(_) => None,
        }
    }

    /// When it begins to hold, if only time is missing.
    pub(crate) fn holds_from(&self, target: &Target, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Image(filter) => filter.fits_from(target, now),
            Self::Vulnerability(_)
            | Self::Secret(_)
            | Self::Misconfiguration(_)
            | Self::Malware(_)
            | Self::License(_)
            | Self::Package(_)
            | Self::Gap(_)
            | Self::AdvisoriesOlderThan(_) => None,
        }
    }

    /// What it holds against the image itself.
    pub(crate) fn traits(&self, target: &Target, now: Timestamp) -> Vec<Trait> {
        let Self::Image(filter) = self else {
            return Vec::new();
        };
        let fits = filter.fits(target, now).unwrap_or_default();
        fits.iter().map(|fit| fit.of).collect()
    }

    /// Why it cannot mean what it says.
    pub(crate) fn misfit(&self) -> Option<&'static str> {
        match self {
            Self::Image(filter) if filter.is_empty() => {
                Some("`image` asks for nothing, which every image is")
            }
            Self::Secret(filter) | Self::Malware(filter) if !filter.clauses.is_empty() => {
                Some("only a `misconfiguration` has `clauses`")
            }
            _ => None,
        }
    }
}

// === impl VulnerabilityFilter ===

impl VulnerabilityFilter {
    fn fits(&self, found: &Vulnerability) -> bool {
        // Every field is named, so that a new one is not forgotten here.
        let Self {
            severity,
            fixable,
            cves,
            packages,
            types,
            kev,
            epss,
        } = self;
        severity.is_none_or(|Level(least)| found.severity >= least)
            && fixable.is_none_or(|wanted| found.is_fixable() == wanted)
            && (cves.is_empty() || cves.iter().any(|cve| is_called(found, &cve.0)))
            && (packages.is_empty() || packages.fits(&found.package))
            && (types.is_empty() || types.contains(&KnownType(found.kind)))
            && kev.is_none_or(|wanted| found.kev == wanted)
            && epss.is_none_or(|Share(least)| found.epss.is_some_and(|epss| epss >= least))
    }
}

/// Whether `name` is one of the names of a vulnerability; case does not matter.
pub(crate) fn is_called(found: &Vulnerability, name: &str) -> bool {
    let same = |other: &String| other.eq_ignore_ascii_case(name);
    same(&found.id) || found.aliases.iter().any(same)
}

impl fmt::Display for VulnerabilityFilter {
    /// As it stands behind "vulnerabilities": `of severity high or worse with a fix`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            severity,
            fixable,
            cves: _,
            packages,
            types,
            kev,
            epss,
        } = self;
        if let Some(Level(least)) = severity {
            match least {
                Severity::Critical => write!(f, " of severity critical")?,
                _ => write!(f, " of severity {least} or worse")?,
            }
        }
        match fixable {
            Some(true) => f.write_str(" with a fix")?,
            Some(false) => f.write_str(" without a fix")?,
            None => {}
        }
        if *kev == Some(true) {
            f.write_str(" known to be exploited")?;
        }
        if let Some(Share(least)) = epss {
            write!(f, " likely to be exploited by {least} or more")?;
        }
        if !packages.is_empty() {
            write!(f, " in `{packages}`")?;
        }
        if !types.is_empty() {
            let types: Vec<_> = types.iter().map(|kind| kind.0.as_str()).collect();
            write!(f, " in {} packages", types.join(", "))?;
        }
        Ok(())
    }
}

// === impl FindingFilter ===

impl FindingFilter {
    fn fits(&self, found: &Finding<'_>) -> bool {
        let Self {
            severity,
            rules,
            clauses,
        } = self;
        severity.is_none_or(|Level(least)| found.severity >= least)
            && (rules.is_empty() || rules.fits(found.rule))
            && (clauses.is_empty() || found.clauses.iter().any(|clause| clauses.fits(clause)))
    }
}

// === impl LicenseFilter, PackageFilter ===

impl LicenseFilter {
    fn fits(&self, found: &License) -> bool {
        let Self {
            licenses,
            allowed,
            categories,
            packages,
            types,
            except_packages,
        } = self;
        let can_be_had = |wanted: &dyn Fn(&str, LicenseCategory) -> bool| {
            licenses::is_satisfied(&found.expression, wanted)
        };
        (packages.is_empty() || packages.fits(&found.package))
            && (types.is_empty() || types.contains(&KnownType(found.kind)))
            && !except_packages.fits(&found.package)
            && (licenses.is_empty() || !can_be_had(&|name, _| !licenses.fits(name)))
            && (allowed.is_empty() || !can_be_had(&|name, _| allowed.fits(name)))
            && (categories.is_empty()
                || !can_be_had(&|_, category| !categories.contains(&KnownCategory(category))))
    }
}

impl PackageFilter {
    fn fits(&self, found: &License) -> bool {
        let Self { names, types } = self;
        (names.is_empty() || names.fits(&found.package))
            && (types.is_empty() || types.contains(&KnownType(found.kind)))
    }
}

// === impl GapFilter ===

impl GapFilter {
    fn fits(&self, gap: &Gap) -> bool {
        let Self { hides, codes } = self;
        (hides.is_empty() || hides.contains(&gap.hides))
            && (codes.is_empty() || codes.contains(&KnownGap(gap.code)))
    }
}
