//! Which alerts a sink is told, and which of them go together.

use anyhow::Context as _;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use model::{AlertState, ImageRef, event::Alert};

use crate::sinks::{GroupBy, Route};

/// The names that a route takes; everything where there is no glob.
#[derive(Clone, Debug)]
pub(crate) struct Names(Option<GlobSet>);

// === impl Route ===

impl Route {
    /// The globs, ready to use.
    pub(crate) fn names(&self) -> anyhow::Result<Names> {
        if self.repositories.is_empty() {
            return Ok(Names(None));
        }
        let mut set = GlobSetBuilder::new();
        for glob in &self.repositories {
            // `*` stays within one part of a name, `**` does not: as in policies.
            let built = GlobBuilder::new(glob).literal_separator(true).build();
            set.add(built.with_context(|| format!("`repositories`: `{glob}`"))?);
        }
        Ok(Names(Some(set.build().context("`repositories`")?)))
    }

    /// Whether the sink is told of an alert.
    pub(crate) fn wants(&self, names: &Names, alert: &Alert) -> bool {
        let bad_enough = alert.severity >= self.min_severity;
        let told = alert.state == AlertState::Raised || self.send_resolved;
        bad_enough && told && names.take(alert)
    }
}

// === impl Names ===

impl Names {
    fn take(&self, alert: &Alert) -> bool {
        let Some(set) = &self.0 else { return true };
        alert
            .references
            .iter()
            .any(|reference| set.is_match(repository(reference)))
    }
}

// === impl GroupBy ===

impl GroupBy {
    /// What an alert has in common with others, in words.
    pub(crate) fn about(self, alert: &Alert) -> String {
        let image = || match alert.image {
            Some(image) => format!("image {}", image.short()),
            None => "no image".to_owned(),
        };
        match self {
            Self::Repository => alert.references.first().map_or_else(image, |reference| {
                format!("repository {}", repository(reference))
            }),
            Self::Image => image(),
            Self::Severity => format!("severity {}", alert.severity),
            Self::Policy => match &alert.policy {
                Some(policy) => format!("policy {policy}"),
                None => "no policy".to_owned(),
            },
        }
    }
}

/// `registry/repository` of a reference.
fn repository(reference: &str) -> String {
    match reference.parse::<ImageRef>() {
        Ok(parsed) => parsed.name(),
        Err(_) => reference.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use crate::sinks::tests::example;

    #[test]
    fn filters_look_at_severity_repository_and_state() {
        let check = |json: serde_json::Value, alert: &Alert| {
            let route: Route = serde_json::from_value(json).unwrap();
            route.wants(&route.names().unwrap(), alert)
        };
        let alert = example();
        assert!(check(json!({}), &alert));
        assert!(check(json!({"min_severity": "critical"}), &alert));
        let high = Alert {
            severity: model::Severity::High,
            ..example()
        };
        assert!(!check(json!({"min_severity": "critical"}), &high));
        assert!(check(json!({"repositories": ["r.example/*"]}), &alert));
        assert!(check(json!({"repositories": ["x/y", "**/app"]}), &alert));
        assert!(!check(
            json!({"repositories": ["r.example/app/*", "*"]}),
            &alert
        ));
        let nameless = Alert {
            references: Vec::new(),
            ..example()
        };
        assert!(!check(json!({"repositories": ["**"]}), &nameless));
        let resolved = Alert {
            state: AlertState::Resolved,
            ..example()
        };
        assert!(check(json!({}), &resolved));
        assert!(!check(json!({"send_resolved": false}), &resolved));
        assert!(check(json!({"send_resolved": false}), &alert));
    }

    #[test]
    fn a_glob_that_is_none_is_named() {
        let route = Route {
            repositories: vec!["a[".to_owned()],
            ..Route::default()
        };
        let error = format!("{:#}", route.names().unwrap_err());
        assert!(error.starts_with("`repositories`: `a[`"), "{error}");
    }

    #[test]
    fn a_group_is_named_by_what_its_alerts_have_in_common() {
        let about = |by: GroupBy| by.about(&example());
        assert_eq!(about(GroupBy::Repository), "repository r.example/app");
        assert_eq!(about(GroupBy::Image), "image 6105d6cc76af");
        assert_eq!(about(GroupBy::Severity), "severity critical");
        assert_eq!(about(GroupBy::Policy), "policy default");
    }
}
