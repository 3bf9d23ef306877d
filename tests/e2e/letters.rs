//! Dead letters: listed, shown, retried and dropped from the command line.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use serde_json::Value;
use testkit::{ImageBuilder, debian_layer, python_layer};

use crate::fabric::{Advisory, Fabric, Options};

/// A receiver of alerts that refuses them, or not.
#[derive(Clone, Default)]
struct Receiver {
    is_willing: Arc<AtomicBool>,
    got: Arc<Mutex<Vec<Value>>>,
}

// === impl Receiver ===

impl Receiver {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's server has no Cx to wait for it"
    )]
    async fn start(&self) -> String {
        let routes = Router::new()
            .route("/", post(take))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}/")
    }

    /// The ids of the alerts that it was sent, refused ones too.
    fn ids(&self) -> Vec<String> {
        let got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        let id = |alert: &Value| alert["id"].as_str().unwrap_or_default().to_owned();
        got.iter().map(id).collect()
    }
}

async fn take(State(receiver): State<Receiver>, Json(alert): Json<Value>) -> StatusCode {
    let mut got = receiver.got.lock().unwrap_or_else(PoisonError::into_inner);
    got.push(alert);
    if receiver.is_willing.load(Ordering::SeqCst) {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    }
}

/// A fabric whose alerts go to a receiver.
async fn start(receiver: &Receiver) -> Option<Fabric> {
    let config = format!(
        "alerting:
  decisions: [deny]
  sinks:
    hook: {{type: webhook, url: '{}'}}
",
        receiver.start().await
    );
    let roles = vec![
        "gateway",
        "router",
        "scanner",
        "matcher",
        "policy",
        "alerting",
        "inventory",
    ];
    let options = Options {
        config,
        processes: vec![roles],
        ..Options::default()
    };
    Fabric::start(options).await
}

fn dlq(fabric: &Fabric, arguments: &[&str]) -> Value {
    let url = fabric.nats_url().expect("a broker of its own");
    let arguments = [&["dlq"], arguments, &["--nats-url", &url]].concat();
    let output = fabric.tidewaiter(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

fn letters(fabric: &Fabric) -> Vec<Value> {
    let page = dlq(fabric, &["list", "--format", "json"]);
    page["letters"].as_array().cloned().expect("a list")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_shown_retried_and_dropped() {
    let receiver = Receiver::default();
    let Some(mut fabric) = start(&receiver).await else {
        return;
    };
    fabric.expect_log("because of");
    fabric.expect_log("dead letter");
    fabric.import(&Advisory::requests()).await;
    let push = |name: &str| {
        let python = python_layer(&[("requests", "2.19.1"), (name, "1.0")]);
        let image = ImageBuilder::new()
            .layer(debian_layer(), "base")
            .layer(python.build(), "RUN pip install");
        fabric.push(image.build(), "team/app", name)
    };
    assert_eq!(dlq(&fabric, &["list"]), "no dead letters\n");
    push("one");
    let letter = fabric
        .until("a dead letter", async || letters(&fabric).pop())
        .await;
    assert_eq!(letter["consumer"], "sink_hook");
    let cause = letter["cause"].as_str().unwrap_or_default();
    assert!(cause.contains("400 Bad Request"), "{cause}");
    let number = letter["number"].to_string();
    let shown = dlq(&fabric, &["show", &number, "--format", "json"]);
    assert_eq!(shown["event"]["state"], "raised", "{shown:#}");
    assert_eq!(receiver.ids().len(), 1);

    receiver.is_willing.store(true, Ordering::SeqCst);
    let said = dlq(&fabric, &["retry", &number]);
    assert_eq!(said, format!("{number}: its message comes again\n"));
    fabric
        .until("the alert once more", async || {
            (receiver.ids().len() == 2).then_some(())
        })
        .await;
    let ids = receiver.ids();
    assert_eq!(ids[0], ids[1], "under the same id");
    assert_eq!(letters(&fabric), Vec::<Value>::new());

    receiver.is_willing.store(false, Ordering::SeqCst);
    push("two");
    let letter = fabric
        .until("another dead letter", async || letters(&fabric).pop())
        .await;
    let number = letter["number"].to_string();
    assert_eq!(
        dlq(&fabric, &["drop", &number]),
        format!("{number}: dropped\n")
    );
    assert_eq!(letters(&fabric), Vec::<Value>::new());
    assert_eq!(receiver.ids().len(), 3);
}
