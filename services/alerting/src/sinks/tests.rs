use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::HeaderMap, routing::post};
use bus::{Delivery, Failure, Handler as _};
use chassis::{Cx, SecretRef};
use jiff::Timestamp;
use model::{
    AlertState, Digest, Fingerprint, Severity, Slug,
    event::{Alert, Event as _},
};
use tokio::net::TcpListener;

use super::{Outgoing, Rendered, SinkConfig, SinkHandler, log, send, webhook};

/// The alert of every snapshot.
fn example() -> Alert {
    Alert {
        fingerprint: Fingerprint::of(&["example"]),
        state: AlertState::Raised,
        severity: Severity::Critical,
        title: "r.example/app:1: deny by policy default".to_owned(),
        text: "1 vulnerability: CVE-2024-0001 (critical) in openssl 3.0.1".to_owned(),
        image: Some(Digest::of(b"image")),
        references: vec!["r.example/app:1".to_owned()],
        event: "judged:1".to_owned(),
        at: Timestamp::UNIX_EPOCH,
    }
}

fn webhook(url: &str) -> webhook::Config {
    serde_json::from_value(serde_json::json!({
        "url": url, "headers": { "x-team": "blue" }, "timeout_ms": 500,
    }))
    .unwrap()
}

/// What a sink sends for the example alert.
fn rendered(config: &SinkConfig) -> String {
    let (tenant, alert) = (Slug::default_tenant(), example());
    let outgoing = Outgoing {
        id: &alert.message_id(&tenant),
        tenant: &tenant,
        alert: &alert,
    };
    match config.render(&outgoing).unwrap() {
        Rendered::Logged => "a line in the log".to_owned(),
        Rendered::Request(request) => {
            let headers = request
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}\n"));
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            let headers: String = headers.collect();
            format!("POST {}\n{headers}\n{body:#}", request.url)
        }
    }
}

#[test]
fn log_writes_a_line() {
    assert_eq!(
        rendered(&SinkConfig::Log(log::Config::default())),
        "a line in the log"
    );
}

#[test]
fn webhook_posts_a_cloud_event() {
    let config = SinkConfig::Webhook(webhook("https://hooks.example/tidewaiter"));
    insta::assert_snapshot!(rendered(&config), @r#"
    POST https://hooks.example/tidewaiter
    x-team: blue
    content-type: application/cloudevents+json

    {
      "data": {
        "at": "1970-01-01T00:00:00Z",
        "event": "judged:1",
        "fingerprint": "fbaa94a57ba748ea1b1d8a0cc49c117b",
        "image": "sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d",
        "references": [
          "r.example/app:1"
        ],
        "severity": "critical",
        "state": "raised",
        "text": "1 vulnerability: CVE-2024-0001 (critical) in openssl 3.0.1",
        "title": "r.example/app:1: deny by policy default"
      },
      "datacontenttype": "application/json",
      "id": "alert:default:fbaa94a57ba748ea1b1d8a0cc49c117b:raised:judged:1",
      "source": "/alerting",
      "specversion": "1.0",
      "subject": "fbaa94a57ba748ea1b1d8a0cc49c117b",
      "tenant": "default",
      "time": "1970-01-01T00:00:00Z",
      "type": "io.tidewaiter.alert.v1"
    }
    "#);
}

#[test]
fn what_can_never_work_is_refused_at_the_start() {
    let check = |config: webhook::Config| {
        let error = SinkConfig::Webhook(config).check().unwrap_err();
        format!("{error:#}")
    };
    insta::assert_snapshot!(check(webhook("file:///etc/passwd")), @"its URL begins with `https` or `http`, not with `file`");
    let headers = BTreeMap::from([("a b".to_owned(), String::new())]);
    let config = webhook::Config {
        headers,
        ..webhook("http://h.example")
    };
    insta::assert_snapshot!(check(config), @"header `a b`: invalid HTTP header name");
}

#[test]
fn configuration_refuses_what_it_does_not_know() {
    let read = |json: &str| serde_json::from_str::<SinkConfig>(json).map_err(|e| e.to_string());
    assert_eq!(
        read(r#"{"type": "log"}"#),
        Ok(SinkConfig::Log(log::Config::default()))
    );
    insta::assert_snapshot!(read(r#"{"type": "fax"}"#).unwrap_err(), @"unknown variant `fax`, expected `log` or `webhook` at line 1 column 14");
    insta::assert_snapshot!(read(r#"{"type": "webhook"}"#).unwrap_err(), @"missing field `url`");
    let typo = r#"{"type": "webhook", "url": "http://h.example", "timout_ms": 1}"#;
    insta::assert_snapshot!(read(typo).unwrap_err(), @"unknown field `timout_ms`, expected one of `url`, `bearer`, `headers`, `timeout_ms`");
    let secret = r#"{"type": "webhook", "url": "http://h.example", "bearer": "hunter2"}"#;
    assert!(!read(secret).unwrap_err().contains("hunter2"));
}

/// A receiver that answers as its path says, and keeps what it got.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<(HeaderMap, String)>>>);

impl Receiver {
    async fn start(&self, cx: &Cx) -> String {
        async fn answer(
            State(receiver): State<Receiver>,
            axum::extract::Path(status): axum::extract::Path<u16>,
            headers: HeaderMap,
            body: String,
        ) -> (
            axum::http::StatusCode,
            [(&'static str, &'static str); 1],
            &'static str,
        ) {
            receiver.0.lock().unwrap().push((headers, body));
            if status == 599 {
                std::future::pending::<()>().await;
            }
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            (
                status,
                [("location", "http://elsewhere.example/")],
                "because of the weather",
            )
        }
        let routes = Router::new()
            .route("/{status}", post(answer))
            .with_state(self.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = {
            let cx = cx.clone();
            async move { cx.stopped().await }
        };
        cx.spawn("receiver", async move {
            tokio::select! {
                served = axum::serve(listener, routes).into_future() => served.unwrap(),
                () = stopped => {}
            }
        });
        format!("http://{address}")
    }
}

async fn delivered(cx: &Cx, config: webhook::Config) -> String {
    let handler = SinkHandler {
        cx: cx.clone(),
        name: "hook".parse().unwrap(),
        config: SinkConfig::Webhook(config),
        client: send::client().unwrap(),
    };
    let delivery = Delivery::of_event(&Slug::default_tenant(), example());
    match handler.handle(delivery).await {
        Ok(_) => "delivered".to_owned(),
        Err(Failure::Retry(error)) => format!("retry: {error:#}"),
        Err(Failure::Reject(error)) => format!("reject: {error:#}"),
    }
}

#[tokio::test]
async fn the_answer_decides_whether_an_alert_comes_again() {
    let cx = Cx::for_tests();
    let receiver = Receiver::default();
    let url = receiver.start(&cx).await;
    let answered = async |status: u16| delivered(&cx, webhook(&format!("{url}/{status}"))).await;
    assert_eq!(answered(200).await, "delivered");
    assert_eq!(answered(204).await, "delivered");
    insta::assert_snapshot!(answered(429).await, @"retry: sink `hook`: the receiver answers `429 Too Many Requests`: because of the weather");
    insta::assert_snapshot!(answered(503).await, @"retry: sink `hook`: the receiver answers `503 Service Unavailable`: because of the weather");
    insta::assert_snapshot!(answered(400).await, @"reject: sink `hook`: the receiver answers `400 Bad Request`: because of the weather");
    insta::assert_snapshot!(answered(302).await, @"reject: sink `hook`: redirects are not followed: the receiver answers `302 Found`: because of the weather");
    // It never answers.
    assert!(
        answered(599)
            .await
            .starts_with("retry: sink `hook`: the receiver cannot be reached")
    );
    let ids: Vec<_> = receiver
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|(_, body)| id(body))
        .collect();
    assert!(
        ids.len() == 7 && ids.iter().all(|id| *id == ids[0]),
        "every copy has one id: {ids:?}"
    );
    cx.stop();
}

#[tokio::test]
async fn nobody_there_is_tried_again() {
    let cx = Cx::for_tests();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let got = delivered(&cx, webhook(&format!("http://{free}/?secret=1"))).await;
    assert!(
        got.starts_with("retry: sink `hook`: the receiver cannot be reached"),
        "{got}"
    );
    assert!(!got.contains("secret"), "{got}");
}

#[tokio::test]
async fn the_receiver_gets_token_type_and_headers() {
    let cx = Cx::for_tests();
    let receiver = Receiver::default();
    let url = receiver.start(&cx).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    let bearer = Some(SecretRef::File(file.path().to_owned()));
    let config = webhook::Config {
        bearer,
        ..webhook(&format!("{url}/200"))
    };
    assert_eq!(delivered(&cx, config.clone()).await, "delivered");
    let (headers, _) = receiver.0.lock().unwrap().pop().unwrap();
    assert_eq!(headers["authorization"], "Bearer s3cret");
    assert_eq!(headers["content-type"], "application/cloudevents+json");
    assert_eq!(headers["x-team"], "blue");
    drop(file);
    assert!(
        delivered(&cx, config)
            .await
            .starts_with("retry: sink `hook`: reading its bearer token")
    );
    cx.stop();
}

fn id(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["id"].as_str().unwrap().to_owned()
}
