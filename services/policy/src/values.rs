//! Values of policy documents. Each refuses what is wrong where it stands in the text, so that the
//! error names line and column, and cannot be wrong from there on.

use std::{fmt, str::FromStr};

use globset::{Glob, GlobBuilder, GlobSet};
use jiff::{SignedDuration, Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use model::{GapCode, LicenseCategory, PackageType, Severity};
use serde::{Deserialize, Deserializer, de};

/// A severity as gates write it: a word of reports, or a level from 0 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(pub Severity);

/// Shell patterns over package names. A `*` matches any characters.
#[derive(Clone, Debug, Default)]
pub struct NameGlobs(Globs);

/// Shell patterns over `registry/repository`. A `*` stays inside one path segment, a `**` does not.
#[derive(Clone, Debug, Default)]
pub struct RepositoryGlobs(Globs);

/// A length of time, as `90m`, `12h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(pub SignedDuration);

/// A share of all, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

/// A limit of age; `never` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgeLimit(pub Option<Age>);

/// The last day on which something holds, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastDay(pub Date);

/// The code of a gap that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownGap(pub GapCode);

/// The type of a package that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownType(pub PackageType);

/// A kind of licences that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownCategory(pub LicenseCategory);

/// Text with something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

#[derive(Clone, Debug, Default)]
struct Globs {
    texts: Vec<String>,
    set: GlobSet,
}

/// A gap's code as reports print it.
pub(crate) fn gap_code(code: GapCode) -> String {
    let printed = serde_json::to_value(code).ok();
    printed
        .as_ref()
        .and_then(|value| value.as_str())
        .unwrap_or("unknown")
        .to_owned()
}

// === impl Level ===

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Level;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a severity, or a level from 0 to 5")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Level, E> {
                text.parse().map(Level).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, level: u64) -> Result<Level, E> {
                self.visit_str(&level.to_string())
            }
            fn visit_i64<E: de::Error>(self, level: i64) -> Result<Level, E> {
                self.visit_str(&level.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

// === impl NameGlobs, RepositoryGlobs ===

impl NameGlobs {
    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.0.texts.is_empty()
    }

    /// Whether one of the patterns fits.
    pub fn fits(&self, name: &str) -> bool {
        self.0.set.is_match(name)
    }
}

impl RepositoryGlobs {
    /// The patterns as written.
    pub fn texts(&self) -> &[String] {
        &self.0.texts
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.0.texts.is_empty()
    }

    /// Whether one of the patterns fits `registry/repository`.
    pub fn fits(&self, repository: &str) -> bool {
        self.0.set.is_match(repository)
    }
}

impl fmt::Display for NameGlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.texts.join(", "))
    }
}

impl<'de> Deserialize<'de> for NameGlobs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One(Glob);
        impl<'de> Deserialize<'de> for One {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parsed(deserializer, |text| GlobBuilder::new(text).build()).map(Self)
            }
        }
        let globs = Vec::<One>::deserialize(deserializer)?;
        Globs::new(globs.into_iter().map(|one| one.0).collect())
            .map(Self)
            .map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for RepositoryGlobs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One(Glob);
        impl<'de> Deserialize<'de> for One {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let build = |text: &str| GlobBuilder::new(text).literal_separator(true).build();
                parsed(deserializer, build).map(Self)
            }
        }
        let globs = Vec::<One>::deserialize(deserializer)?;
        Globs::new(globs.into_iter().map(|one| one.0).collect())
            .map(Self)
            .map_err(de::Error::custom)
    }
}

impl Globs {
    fn new(globs: Vec<Glob>) -> Result<Self, globset::Error> {
        let texts = globs.iter().map(|glob| glob.glob().to_owned()).collect();
        let mut set = GlobSet::builder();
        for glob in globs {
            set.add(glob);
        }
        Ok(Self {
            texts,
            set: set.build()?,
        })
    }
}

// === impl Age, AgeLimit, LastDay ===

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a length of time like `90m`, `12h` or `7d`");
        let unit_s: i64 = match text.chars().last() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(wrong()),
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let count: u32 = digits.parse().map_err(|_| wrong())?;
        if digits.len() + 1 != text.len() {
            return Err(wrong());
        }
        Ok(Self(SignedDuration::from_secs(i64::from(count) * unit_s)))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (count, unit) = match seconds {
            s if s % 86_400 == 0 && s != 0 => (s / 86_400, "day"),
            s if s % 3600 == 0 && s != 0 => (s / 3600, "hour"),
            s if s % 60 == 0 => (s / 60, "minute"),
            s => (s, "second"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, Self::from_str)
    }
}

impl<'de> Deserialize<'de> for AgeLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, |text| match text {
            "never" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|age| Self(Some(age)))
                .map_err(|error| error + ", or `never`"),
        })
    }
}

impl LastDay {
    /// The first moment at which it no longer holds.
    pub fn end(self) -> Timestamp {
        let after = self
            .0
            .checked_add(1.day())
            .and_then(|day| day.to_zoned(TimeZone::UTC));
        after.map_or(Timestamp::MAX, |midnight| midnight.timestamp())
    }
}

impl<'de> Deserialize<'de> for LastDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, |text| {
            let day = text.parse().map(Self);
            day.map_err(|_| format!("`{text}` is not a date like `2026-12-31`"))
        })
    }
}

// === impl Share ===

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(deserializer)?;
        if (0.0..=1.0).contains(&share) {
            return Ok(Self(share));
        }
        Err(de::Error::custom(format!(
            "`{share}` is not a share from 0 to 1"
        )))
    }
}

// === impl KnownGap, KnownType, Text ===

impl<'de> Deserialize<'de> for KnownGap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, |text| {
            // The model reads codes that it does not know as `unknown`: right for reports of a
            // newer version, wrong for a slip of the pen.
            let code: GapCode = from_word(text)?;
            let known = gap_code(code) == text;
            known
                .then_some(Self(code))
                .ok_or_else(|| format!("`{text}` is not the code of a gap"))
        })
    }
}

impl<'de> Deserialize<'de> for KnownType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, |text| {
            let kind: PackageType = from_word(text)?;
            let known = kind.as_str() == text;
            known
                .then_some(Self(kind))
                .ok_or_else(|| format!("`{text}` is not a type of packages"))
        })
    }
}

impl<'de> Deserialize<'de> for KnownCategory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, |text| {
            let mut all = LicenseCategory::ALL.into_iter();
            let known = all.find(|category| category.as_str() == text);
            known
                .map(Self)
                .ok_or_else(|| format!("`{text}` is not a kind of licenses"))
        })
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, |text| match text.trim() {
            "" => Err("must not be empty"),
            text => Ok(Self(text.to_owned())),
        })
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn parsed<'de, D, T, E>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    E: fmt::Display,
{
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(de::Error::custom)
}

fn from_word<T: for<'de> Deserialize<'de>>(word: &str) -> Result<T, String> {
    let deserializer = de::value::StrDeserializer::<de::value::Error>::new(word);
    T::deserialize(deserializer).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(yaml: &str) -> Result<T, String> {
        serde_saphyr::from_str(yaml).map_err(|error| error.without_snippet().to_string())
    }

    #[test]
    fn severities_are_words_or_levels() {
        for yaml in ["high", "HIGH", "4", "\"4\""] {
            assert_eq!(read::<Level>(yaml), Ok(Level(Severity::High)), "{yaml}");
        }
        assert!(read::<Level>("6").is_err());
        assert!(read::<Level>("grave").is_err());
    }

    #[test]
    fn ages_round_to_the_unit_they_were_written_in() {
        let check = |yaml: &str, expected: &str| {
            assert_eq!(read::<Age>(yaml).unwrap().to_string(), expected, "{yaml}");
        };
        check("7d", "7 days");
        check("1h", "1 hour");
        check("90m", "90 minutes");
        check("0s", "0 minutes");
        for wrong in ["7", "d", "-1d", "7 d", "7dd", "1w", "99999999999d"] {
            assert!(read::<Age>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(read::<AgeLimit>("never"), Ok(AgeLimit(None)));
    }

    #[test]
    fn the_last_day_ends_at_midnight_utc() {
        let day = read::<LastDay>("2026-12-31").unwrap();
        assert_eq!(day.end().to_string(), "2027-01-01T00:00:00Z");
        assert!(read::<LastDay>("2026-02-30").is_err());
    }

    #[test]
    fn repository_patterns_stay_inside_a_segment() {
        let globs: RepositoryGlobs = read("[r.example/team/*, r.example/all/**]").unwrap();
        assert!(globs.fits("r.example/team/app"));
        assert!(!globs.fits("r.example/team/app/sub"));
        assert!(globs.fits("r.example/all/app/sub"));
        assert!(!globs.fits("evil.example/r.example/team/app"));
        let names: NameGlobs = read("['@scope/*']").unwrap();
        assert!(names.fits("@scope/a/b"));
    }

    #[test]
    fn shares_are_from_0_to_1() {
        assert_eq!(read::<Share>("0.1"), Ok(Share(0.1)));
        assert_eq!(read::<Share>("1"), Ok(Share(1.0)));
        for wrong in ["1.5", "-0.1", "10 %", ".nan"] {
            assert!(read::<Share>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn slips_of_the_pen_are_refused() {
        assert_eq!(
            read::<KnownGap>("truncated"),
            Ok(KnownGap(GapCode::Truncated))
        );
        assert!(read::<KnownGap>("truncted").is_err());
        assert_eq!(read::<KnownType>("deb"), Ok(KnownType(PackageType::Deb)));
        assert!(read::<KnownType>("debian").is_err());
        assert!(read::<Text>("'  '").is_err());
    }
}
