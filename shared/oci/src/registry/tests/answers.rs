//! What registries answer, each in its own words, and what a person is told.

use reqwest::StatusCode;

use super::super::http::{Answer, Subject};
use crate::{Missing, OciError};

fn refused(host: &str, status: u16, body: &str) -> OciError {
    let subject = Subject {
        host,
        repository: "team/app",
        authenticated: false,
    };
    let status = StatusCode::from_u16(status).unwrap();
    subject.refusal(status, &Answer::of(body.as_bytes()), None)
}

fn document(code: &str, message: &str) -> String {
    serde_json::json!({"errors": [{"code": code, "message": message, "detail": {}}]}).to_string()
}

fn missing(host: &str, body: &str, expected: Missing) -> String {
    let error = refused(host, 404, body);
    let OciError::NotFound { missing, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*missing, expected, "{host}: {body}");
    error.to_string()
}

#[test]
fn a_tag_that_is_missing_is_told_in_any_registry_s_words() {
    for (host, code, message) in [
        ("docker.io", "MANIFEST_UNKNOWN", "manifest unknown"),
        (
            "harbor.example",
            "NOT_FOUND",
            "artifact team/app:2 not found",
        ),
        (
            "1.dkr.ecr.eu-west-1.amazonaws.com",
            "MANIFEST_UNKNOWN",
            "Requested image not found",
        ),
        ("quay.io", "MANIFEST_UNKNOWN", "manifest unknown"),
        (
            "quay.io",
            "TAG_EXPIRED",
            "Tag 2 was deleted or has expired. To pull, revive via time machine",
        ),
        ("ghcr.io", "MANIFEST_UNKNOWN", "manifest unknown"),
        (
            "gcr.io",
            "MANIFEST_UNKNOWN",
            "Failed to fetch \"2\" from request \"/v2/team/app/manifests/2\".",
        ),
        (
            "team.azurecr.io",
            "MANIFEST_UNKNOWN",
            "manifest tagged by \"2\" is not found",
        ),
        (
            "team.jfrog.io",
            "MANIFEST_UNKNOWN",
            "The named manifest is not known to the registry.",
        ),
    ] {
        let text = missing(host, &document(code, message), Missing::Version);
        let expected = format!(
            "`{host}/team/app` does not exist in `{host}` (404 Not Found: {message}); check the name, the tag and the digest"
        );
        assert_eq!(text, expected);
    }
}

#[test]
fn a_repository_that_is_missing_is_told_in_any_registry_s_words() {
    for (host, code, message) in [
        (
            "harbor.example",
            "NOT_FOUND",
            "repository team/app not found",
        ),
        ("harbor.example", "NOT_FOUND", "project team not found"),
        (
            "1.dkr.ecr.eu-west-1.amazonaws.com",
            "NAME_UNKNOWN",
            "The repository with name 'team/app' does not exist in the registry with id '1'",
        ),
        (
            "quay.io",
            "NAME_UNKNOWN",
            "repository name not known to registry",
        ),
        (
            "europe-docker.pkg.dev",
            "NAME_UNKNOWN",
            "Repository \"team\" not found",
        ),
        (
            "team.azurecr.io",
            "NAME_UNKNOWN",
            "repository name not known to registry",
        ),
        (
            "registry.example",
            "NAME_INVALID",
            "invalid repository name",
        ),
    ] {
        let text = missing(host, &document(code, message), Missing::Repository);
        assert!(text.contains(message), "{text}");
    }
}

#[test]
fn what_a_registry_leaves_open_stays_open() {
    let body = document("NOT_FOUND", "nothing here");
    missing("harbor.example", &body, Missing::Unsaid);
    missing(
        "registry.example",
        &document("BLOB_UNKNOWN", "blob unknown to registry"),
        Missing::Unsaid,
    );
    // Somebody else's page: a proxy's, or a web site's.
    for body in [
        "<html><h1>Not Found</h1></html>",
        "",
        "404 page not found\n",
    ] {
        let text = missing("www.example", body, Missing::Registry);
        assert!(
            !text.contains('<') && text.starts_with("`www.example/team/app` does not exist"),
            "{text}"
        );
    }
}

/// Who refuses, with which status and body, and how one logs in there.
fn refusals() -> Vec<(&'static str, u16, String, &'static str)> {
    vec![
        (
            "docker.io",
            401,
            document("UNAUTHORIZED", "authentication required"),
            "`docker login docker.io`",
        ),
        (
            "harbor.example",
            401,
            document(
                "UNAUTHORIZED",
                "unauthorized to access repository: team/app, action: pull: unauthorized to access repository: team/app, action: pull",
            ),
            "`docker login harbor.example`",
        ),
        (
            "1.dkr.ecr.eu-west-1.amazonaws.com",
            401,
            "Not Authorized\n".to_owned(),
            "`aws ecr get-login-password | docker login --username AWS --password-stdin 1.dkr.ecr.eu-west-1.amazonaws.com`",
        ),
        (
            "quay.io",
            401,
            document(
                "UNAUTHORIZED",
                "access to the requested resource is not authorized",
            ),
            "`docker login quay.io`",
        ),
        (
            "ghcr.io",
            403,
            document("DENIED", "requested access to the resource is denied"),
            "a token that has `read:packages`",
        ),
        (
            "europe-docker.pkg.dev",
            403,
            document(
                "DENIED",
                "Permission \"artifactregistry.repositories.downloadArtifacts\" denied on resource \"projects/p\" (or it may not exist)",
            ),
            "`gcloud auth configure-docker europe-docker.pkg.dev`",
        ),
        (
            "team.azurecr.io",
            401,
            document(
                "UNAUTHORIZED",
                "authentication required, visit https://aka.ms/acr/authorization for more information.",
            ),
            "`az acr login --name team`",
        ),
        // What a token server says, in a form of its own.
        (
            "docker.io",
            401,
            r#"{"details": "incorrect username or password"}"#.to_owned(),
            "`docker login docker.io`",
        ),
    ]
}

#[test]
fn a_refusal_says_that_the_repository_may_not_be_there_and_how_to_log_in() {
    for (host, status, body, log_in) in refusals() {
        let error = refused(host, status, &body);
        assert!(error.is_auth(), "{error:?}");
        let text = error.to_string();
        let begin = format!("`{host}` refuses access to `team/app` ({status} ");
        assert!(text.starts_with(&begin), "{text}");
        let said = Answer::of(body.as_bytes());
        assert_ne!(said, Answer::default(), "{host}");
        assert!(text.contains(log_in), "{text}");
        assert!(text.contains("check the name as well"), "{text}");
    }
}

#[test]
fn credentials_that_are_not_accepted_are_named_as_such() {
    let subject = Subject {
        host: "ghcr.io",
        repository: "team/app",
        authenticated: true,
    };
    let answer = Answer::of(document("DENIED", "denied").as_bytes());
    let error = subject.refusal(StatusCode::FORBIDDEN, &answer, None);
    assert_eq!(
        error.to_string(),
        "`ghcr.io` refuses access to `team/app` (403 Forbidden: denied); check that these credentials \
         are valid and may pull it; check the name as well, for many answer so where there is no such repository"
    );
}

#[test]
fn what_a_registry_says_is_cut_and_has_no_control_characters() {
    let body = document("DENIED", &format!("a\u{1b}[31m{}", "x".repeat(1000)));
    let text = refused("registry.example", 403, &body).to_string();
    assert!(!text.contains('\u{1b}') && text.len() < 600, "{text}");
}
