//! Labels without secrets: people put tokens where they should not be.

use std::collections::BTreeMap;

/// Words in a label's name that say what its value is.
const NAMES: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "private_key",
    "private-key",
    "credential",
    "access_key",
    "access-key",
];
/// How values of well-known services begin.
const PREFIXES: &[&str] = &[
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "ASIA",
    "sk_live_",
    "eyJhbGciOi",
    "-----BEGIN",
    "npm_",
    "AIza",
    "hvs.",
];

/// Takes out the labels whose value looks like a secret.
pub(super) fn strip(labels: &mut BTreeMap<String, String>) {
    labels.retain(|name, value| !looks_secret(name, value));
}

fn looks_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let named = NAMES.iter().any(|word| name.contains(word));
    // `uses-token: true` says nothing.
    let is_word = value.len() < 8 || matches!(value, "true" | "false" | "enabled" | "disabled");
    let known = PREFIXES.iter().any(|prefix| value.contains(prefix));
    let has_login = value.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split('/').next().unwrap_or_default();
        authority
            .rsplit_once('@')
            .is_some_and(|(user, _)| user.contains(':'))
    });
    (named && !is_word) || known || has_login
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out_and_the_rest_stays() {
        for (name, value) in [
            ("deploy.token", "0123456789abcdef"),
            ("x", "ghp_0123456789"),
            ("DB_PASSWORD", "correct horse"),
            ("database", "postgres://app:secret@db/app"),
            ("key", "-----BEGIN RSA PRIVATE KEY-----"),
        ] {
            assert!(looks_secret(name, value), "{name}");
        }
        for (name, value) in [
            ("team", "web"),
            ("uses-token", "true"),
            ("org.opencontainers.image.source", "https://example.org/a@b"),
            (
                "io.kubernetes.pod.uid",
                "2f5c0a4c-5d0f-4a89-9d3c-bfb4d2d1d2a1",
            ),
        ] {
            assert!(!looks_secret(name, value), "{name}");
        }
        let mut labels = BTreeMap::from([
            ("a".to_owned(), "b".to_owned()),
            ("secret".to_owned(), "0123456789".to_owned()),
        ]);
        strip(&mut labels);
        assert_eq!(labels.into_keys().collect::<Vec<_>>(), ["a"]);
    }
}
