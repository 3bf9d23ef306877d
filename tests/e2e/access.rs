//! Who may ask what, and whether the answers are those of the document.

use serde_json::{Value, json};
use testkit::{Answered, Contract, ImageBuilder, clean_image, debian_layer, python_layer};

use crate::fabric::{Advisory, Fabric, Options};

/// The processes of these tests: who takes requests, and who answers questions.
const GATEWAY: usize = 0;
const INVENTORY: usize = 1;

async fn fleet() -> Option<Fabric> {
    let workers = vec![
        "gateway", "router", "scanner", "matcher", "policy", "alerting",
    ];
    let processes = vec![workers, vec!["inventory"]];
    let options = Options {
        processes,
        api: INVENTORY,
        ..Options::default()
    };
    Fabric::start(options).await
}

fn stdout(output: &std::process::Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_is_refused_by_every_process() {
    let Some(fabric) = fleet().await else {
        return;
    };
    let secret =
        stdout(&fabric.tidewaiter(&["tokens", "create", "ci", "--role", "ci", "--expires", "1h"]));
    let secret = secret.trim();
    let body = json!({"image": fabric.push(clean_image(), "team/app", "1")});
    let scan = async |token: &str| {
        let asked = fabric
            .ask(GATEWAY, ("POST", "/v1/scans"), token, Some(&body))
            .await;
        asked.0
    };
    let read = async |token: &str| {
        fabric
            .ask(INVENTORY, ("GET", "/v1/images"), token, None)
            .await
            .0
    };
    assert_eq!((scan(secret).await, read(secret).await), (202, 200));
    let listed = stdout(&fabric.tidewaiter(&["tokens", "list"]));
    assert!(
        listed.contains("ci") && !listed.contains(secret),
        "{listed}"
    );
    // It may not make tokens or revoke any, and the only administrator stays.
    let denied = fabric
        .ask(INVENTORY, ("GET", "/v1/tokens"), secret, None)
        .await;
    assert_eq!(denied.0, 403);
    let last = fabric.tidewaiter(&["tokens", "revoke", "admin"]);
    let why = String::from_utf8_lossy(&last.stderr).into_owned();
    assert!(
        !last.status.success() && why.contains("is the last token"),
        "{why}"
    );

    stdout(&fabric.tidewaiter(&["tokens", "revoke", "ci"]));
    assert_eq!((scan(secret).await, read(secret).await), (401, 401));
}

/// Holds what a fabric answers against what it says of itself.
struct Reader<'a> {
    fabric: &'a Fabric,
    contract: Contract,
}

impl<'a> Reader<'a> {
    async fn new(fabric: &'a Fabric) -> Self {
        let path = ("GET", "/v1/openapi.json");
        let (status, _, document) = fabric.ask(INVENTORY, path, "", None).await;
        assert_eq!(status, 200);
        let document = serde_json::from_slice(&document).expect("JSON");
        let contract = Contract::new(document);
        Self { fabric, contract }
    }

    async fn ask(&self, index: usize, request: &str, token: &str, body: Option<Value>) -> u16 {
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let asked = self
            .fabric
            .ask(index, (method, path), token, body.as_ref())
            .await;
        self.contract.check(&Answered {
            method,
            path: path.split('?').next().unwrap_or(path),
            status: asked.0,
            media: asked.1.as_deref(),
            body: &asked.2,
        });
        asked.0
    }

    async fn get(&self, index: usize, path: &str, token: &str) -> u16 {
        self.ask(index, &format!("GET {path}"), token, None).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_answers_are_those_of_the_document() {
    let Some(mut fabric) = fleet().await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let image = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(python_layer(&[("requests", "2.19.1")]).build(), "RUN pip")
        .build();
    let digest = image.digest;
    let reference = fabric.push(image, "team/app", "1");
    fabric.decision(&reference, "deny").await;
    fabric.idle().await;

    // A sender that does not prove itself is warned of.
    fabric.expect_log("it is not authenticated");
    let (reader, token) = (Reader::new(&fabric).await, fabric.token());
    for path in ["/healthz", "/readyz", "/metrics", "/v1/openapi.json"] {
        for token in ["", "a guess"] {
            assert_eq!(reader.get(INVENTORY, path, token).await, 200, "{path}");
        }
    }
    for (index, path) in [
        (INVENTORY, "/v1/images?limit=1"),
        (INVENTORY, &format!("/v1/images/{reference}")),
        (INVENTORY, &format!("/v1/images/{digest}/report")),
        (INVENTORY, "/v1/vulnerabilities/CVE-2018-18074/images"),
        (INVENTORY, &format!("/v1/verdicts?image={reference}")),
        (INVENTORY, "/v1/scans/none"),
        (INVENTORY, "/v1/advisories"),
        (INVENTORY, "/v1/health"),
        (INVENTORY, "/v1/tokens"),
        (GATEWAY, "/v1/policies"),
        (GATEWAY, "/v1/policies/default"),
    ] {
        assert_eq!(reader.get(index, path, &token).await, 200, "{path}");
        for token in ["", "a guess"] {
            assert_eq!(reader.get(index, path, token).await, 401, "{path}");
        }
    }
    let (scan, hook) = ("POST /v1/scans", "POST /hooks/main");
    let body = json!({"image": reference});
    assert_eq!(reader.ask(GATEWAY, scan, &token, Some(body)).await, 202);
    assert_eq!(
        reader.ask(GATEWAY, scan, &token, Some(json!({}))).await,
        422
    );
    assert_eq!(
        reader.ask(GATEWAY, hook, "wrong", Some(json!({}))).await,
        401
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_every_process_and_the_role_that_nobody_runs() {
    let Some(mut fabric) = fleet().await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let health = fabric
        .until("an installation without problems", async || {
            let health = fabric.get("/v1/health").await?;
            (health["status"] == "ok").then_some(health)
        })
        .await;
    assert_eq!(health["processes"].as_array().map(Vec::len), Some(2));
    let spools = health["processes"].as_array().into_iter().flatten();
    let spools = spools.filter(|process| process["spool"]["bytes_max"].is_u64());
    assert_eq!(spools.count(), 1, "the gateway has one: {health:#}");
    assert!(
        health["queues"]
            .as_array()
            .is_some_and(|queues| queues.len() > 50),
        "{health:#}"
    );
    let shown = stdout(&fabric.tidewaiter(&["status"]));
    assert!(
        shown.starts_with("ok\n") && shown.contains("queues are empty"),
        "{shown}"
    );
    fabric.kill(GATEWAY);
    fabric
        .until("a problem for each role that is gone", async || {
            let shown = stdout(&fabric.tidewaiter(&["status"]));
            let all = [
                "gateway", "router", "scanner", "matcher", "policy", "alerting",
            ];
            let is_named =
                |role: &&str| shown.contains(&format!("no process runs the role `{role}`"));
            (all.iter().all(is_named) && shown.starts_with("degraded")).then_some(())
        })
        .await;
}
