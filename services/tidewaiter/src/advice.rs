//! Errors as a person reads them: what happened, to what, and what to do next.

use anstyle::{AnsiColor, Style};
use cache::CacheError;
use oci::{Engine, LocationError, Missing, OciError};

use crate::terminal;

/// Prints an error, with what to do about it.
pub(crate) fn complain(error: &anyhow::Error) {
    let style = if terminal::color_err() {
        AnsiColor::Red.on_default().bold()
    } else {
        Style::new()
    };
    crate::complain(&format!("{style}error{style:#}: {error:#}"));
    if let Some(hint) = hint(error) {
        crate::complain(&format!("  hint: {hint}"));
    }
}

/// What to do next, where the error does not say it itself.
fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<OciError>() {
            return of_source(error);
        }
        if let Some(CacheError::Busy { .. }) = cause.downcast_ref() {
            return Some(
                "another `tidewaiter db` writes them: try again when it has ended".to_owned(),
            );
        }
        let location = cause.downcast_ref::<LocationError>()?;
        matches!(location, LocationError::Reference(_))
            .then(|| "`tidewaiter scan --help` lists what can be scanned".to_owned())
    })
}

fn of_source(error: &OciError) -> Option<String> {
    let text = match error {
        OciError::NoPlatform { .. } => {
            "choose one of these with --platform, or all of them with --platform all"
        }
        OciError::Unavailable { host, .. } if is_engine(host) => {
            "registry:NAME takes the image from its registry instead"
        }
        OciError::NotFound { what, missing, .. } => return of_missing(what, *missing),
        OciError::Unavailable { host, .. } => {
            return Some(format!(
                "`tidewaiter doctor {host}` looks at what can be reached; HTTPS_PROXY is honored, and a registry without TLS is named with --plain-http {host}"
            ));
        }
        OciError::Unsupported { .. } | OciError::Malformed { .. } => {
            "is it a container image? `tidewaiter scan --help` lists what can be scanned"
        }
        OciError::DigestMismatch { .. } => {
            "the copy is damaged or forged: fetch or push the image again, from a source you trust"
        }
        OciError::Credentials { .. } => {
            "mend or remove that entry, then log in with `docker login`"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

fn of_missing(what: &str, missing: Missing) -> Option<String> {
    let name = repository(what);
    match missing {
        Missing::Unsaid => None,
        Missing::Version => Some(format!(
            "`skopeo list-tags docker://{name}` lists the tags that there are"
        )),
        Missing::Repository => Some(format!(
            "there is no repository `{name}`: look at its spelling and at what stands before it (organization, project)"
        )),
        Missing::Registry => {
            let host = name.split('/').next().unwrap_or(name);
            Some(format!(
                "the answer is not that of a registry: does `{host}` have one? `tidewaiter doctor {host}` looks"
            ))
        }
    }
}

/// A reference without its tag and its digest.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        // Behind the colon of a port there is a path.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

/// Whether what is not available is a container engine, which says so with its socket.
fn is_engine(host: &str) -> bool {
    let name = host.split(' ').next().unwrap_or_default();
    Engine::ALL.iter().any(|engine| engine.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_where_to_look() {
        let check = |missing, expected: &str| {
            let hint = of_missing("harbor.example/team/app:2", missing).unwrap_or_default();
            assert!(hint.contains(expected), "{hint}");
        };
        check(
            Missing::Version,
            "`skopeo list-tags docker://harbor.example/team/app`",
        );
        check(
            Missing::Repository,
            "there is no repository `harbor.example/team/app`",
        );
        check(Missing::Registry, "`tidewaiter doctor harbor.example`");
        assert_eq!(of_missing("x/app", Missing::Unsaid), None);
    }

    #[test]
    fn a_repository_is_named_without_its_tag_and_digest() {
        let check = |reference, expected| assert_eq!(repository(reference), expected);
        check("localhost:5000/app:2", "localhost:5000/app");
        check("localhost:5000/app", "localhost:5000/app");
        check("ghcr.io/a/b:1@sha256:00", "ghcr.io/a/b");
        check("ghcr.io/a/b@sha256:00", "ghcr.io/a/b");
    }
}
