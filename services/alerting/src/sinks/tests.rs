use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use bus::{Delivery, Failure, Handler as _};
use chassis::{Cx, SecretRef};
use model::{
    AlertState, Severity, Slug,
    event::{Alert, Event as _},
};
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    Item, Outgoing, Rendered, Sink, SinkConfig, SinkHandler, email, log, outgoing::LISTED_MAX,
    send, slack, webhook,
};
pub(crate) use crate::testing::example;
use crate::testing::{Receiver, assert_signed, ended, numbered};

fn webhook(url: &str) -> webhook::Config {
    serde_json::from_value(serde_json::json!({
        "url": url, "headers": { "x-team": "blue" }, "timeout_ms": 500,
    }))
    .unwrap()
}

fn one(alert: Alert) -> Outgoing {
    let tenant = Slug::default_tenant();
    let id = alert.message_id(&tenant);
    Outgoing::one(&tenant, Item { id, alert })
}

/// So many alerts on one repository, the last of them resolved.
fn several(count: u32) -> Outgoing {
    let (tenant, sink) = (Slug::default_tenant(), "team".parse().unwrap());
    let items = (0..count).map(|number| {
        let mut alert = numbered(number);
        if number + 1 == count {
            alert.state = AlertState::Resolved;
        }
        let id = alert.message_id(&tenant);
        Item { id, alert }
    });
    let about = "repository r.example/app".to_owned();
    Outgoing::several(&sink, &tenant, about, items.collect()).unwrap()
}

/// What a sink sends.
fn rendered(config: &SinkConfig, outgoing: &Outgoing) -> String {
    match config.render(outgoing).unwrap() {
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
        Rendered::Mail(mail) => String::from_utf8(mail.message.formatted()).unwrap(),
    }
}

fn secret(text: &str) -> (tempfile::NamedTempFile, SecretRef) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let reference = SecretRef::File(file.path().to_owned());
    (file, reference)
}

fn slack_sink() -> (tempfile::NamedTempFile, SinkConfig) {
    let (file, url) = secret("https://hooks.slack.example/services/T/B/secret");
    let config = SinkConfig::Slack(slack::Config {
        url,
        timeout_ms: 500,
    });
    (file, config)
}

#[test]
fn log_writes_a_line() {
    assert_eq!(
        rendered(&SinkConfig::Log(log::Config::default()), &one(example())),
        "a line in the log"
    );
}

#[test]
fn webhook_posts_a_cloud_event() {
    let config = SinkConfig::Webhook(webhook("https://hooks.example/tidewaiter"));
    insta::assert_snapshot!(rendered(&config, &one(example())), @r#"
    POST https://hooks.example/tidewaiter
    x-team: blue
    content-type: application/cloudevents+json

    {
      "specversion": "1.0",
      "id": "alert:default:fbaa94a57ba748ea1b1d8a0cc49c117b:raised:judged:1",
      "source": "/alerting",
      "type": "io.tidewaiter.alert.v1",
      "subject": "fbaa94a57ba748ea1b1d8a0cc49c117b",
      "time": "1970-01-01T00:00:00Z",
      "tenant": "default",
      "datacontenttype": "application/json",
      "data": {
        "fingerprint": "fbaa94a57ba748ea1b1d8a0cc49c117b",
        "state": "raised",
        "severity": "critical",
        "title": "r.example/app:1: deny by policy default",
        "text": "1 vulnerability: CVE-2024-0001 (critical) in openssl 3.0.1",
        "image": "sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d",
        "references": [
          "r.example/app:1"
        ],
        "event": "judged:1",
        "at": "1970-01-01T00:00:00Z",
        "policy": "default"
      }
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
    let read = |json: &str| serde_json::from_str::<Sink>(json).map_err(|e| e.to_string());
    assert_eq!(
        read(r#"{"type": "log"}"#),
        Ok(Sink::of(SinkConfig::Log(log::Config::default())))
    );
    insta::assert_snapshot!(read(r#"{"type": "fax"}"#).unwrap_err(), @"unknown variant `fax`, expected one of `log`, `webhook`, `slack`, `email`");
    insta::assert_snapshot!(read(r#"{"type": "webhook"}"#).unwrap_err(), @"missing field `url`");
    let typo = r#"{"type": "webhook", "url": "http://h.example", "timout_ms": 1}"#;
    insta::assert_snapshot!(read(typo).unwrap_err(), @"unknown field `timout_ms`, expected one of `url`, `bearer`, `signing_secrets`, `headers`, `timeout_ms`");
    let secret = r#"{"type": "webhook", "url": "http://h.example", "bearer": "hunter2"}"#;
    assert!(!read(secret).unwrap_err().contains("hunter2"));
}

async fn delivered(cx: &Cx, config: webhook::Config) -> String {
    let sink = Sink::of(SinkConfig::Webhook(config));
    let handler = SinkHandler::new(
        cx,
        &"hook".parse().unwrap(),
        &sink,
        &send::client().unwrap(),
    );
    let handler = handler.unwrap().holding(Duration::ZERO);
    let delivery = Delivery::of_event(&Slug::default_tenant(), example());
    ended(handler.handle(delivery).await)
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
    let ids = receiver.ids();
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
async fn the_receiver_gets_token_type_headers_and_signature() {
    let cx = Cx::for_tests();
    let receiver = Receiver::default();
    let url = receiver.start(&cx).await;
    let (bearer_file, bearer) = secret("s3cret\n");
    let (_old_file, old) = secret("old");
    let (_new_file, new) = secret("new");
    let config = webhook::Config {
        bearer: Some(bearer),
        signing_secrets: vec![old, new],
        ..webhook(&format!("{url}/200"))
    };
    assert_eq!(delivered(&cx, config.clone()).await, "delivered");
    let (headers, body) = receiver.seen().pop().unwrap();
    assert_eq!(headers["authorization"], "Bearer s3cret");
    assert_eq!(headers["content-type"], "application/cloudevents+json");
    assert_eq!(headers["x-team"], "blue");
    // Who knows either secret can verify.
    assert_signed(&headers, &body, "old");
    assert_signed(&headers, &body, "new");
    drop(bearer_file);
    assert!(
        delivered(&cx, config)
            .await
            .starts_with("retry: sink `hook`: reading its bearer token")
    );
    cx.stop();
}

#[test]
fn webhook_lists_alerts_that_go_together() {
    let config = SinkConfig::Webhook(webhook("https://hooks.example/tidewaiter"));
    let text = rendered(&config, &several(3));
    let body: serde_json::Value = serde_json::from_str(text.split_once("\n\n").unwrap().1).unwrap();
    assert_eq!(body["type"], "io.tidewaiter.alerts.v1");
    assert_eq!(
        body["data"]["title"],
        "2 alerts and 1 resolved: repository r.example/app"
    );
    let alerts = body["data"]["alerts"].as_array().unwrap();
    assert_eq!((alerts.len(), &body["data"]["more"]), (3, &json!(0)));
    let state = |alert: &serde_json::Value| alert["state"].as_str().unwrap().to_owned();
    assert_eq!(state(&alerts[2]), "resolved");
    assert!(alerts.iter().all(|alert| alert["id"].is_string()));
}

#[test]
fn a_group_has_one_id_in_whatever_order_its_alerts_came() {
    let (tenant, sink): (_, Slug) = (Slug::default_tenant(), "team".parse().unwrap());
    let item = |number: u32| {
        let alert = numbered(number);
        let id = alert.message_id(&tenant);
        Item { id, alert }
    };
    let group = |numbers: &[u32]| {
        let items = numbers.iter().map(|number| item(*number)).collect();
        Outgoing::several(&sink, &tenant, String::new(), items)
    };
    let id = |numbers: &[u32]| group(numbers).unwrap().id;
    assert_eq!(id(&[1, 2, 3]), id(&[3, 1, 2, 2]));
    assert_ne!(id(&[1, 2, 3]), id(&[1, 2]));
    // An alert that nothing joined is what it would have been without a window.
    assert_eq!(id(&[1]), item(1).id);
    assert!(group(&[]).is_none());
}

#[test]
fn slack_gets_blocks() {
    let (_file, config) = slack_sink();
    let hostile = Alert {
        title: "r.example/<!channel>:1: deny".to_owned(),
        ..example()
    };
    insta::assert_snapshot!(rendered(&config, &one(hostile)), @r#"
    POST https://hooks.slack.example/services/T/B/secret
    content-type: application/json

    {
      "text": "r.example/&lt;!channel&gt;:1: deny",
      "blocks": [
        {
          "type": "header",
          "text": {
            "type": "plain_text",
            "text": ":red_circle: r.example/&lt;!channel&gt;:1: deny",
            "emoji": true
          }
        },
        {
          "type": "section",
          "text": {
            "type": "mrkdwn",
            "text": "1 vulnerability: CVE-2024-0001 (critical) in openssl 3.0.1",
            "verbatim": true
          }
        },
        {
          "type": "section",
          "text": {
            "type": "mrkdwn",
            "text": "*Name* r.example/app:1\n*Image* `sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d`",
            "verbatim": true
          }
        },
        {
          "type": "context",
          "elements": [
            {
              "type": "plain_text",
              "text": "critical · tenant default · alert:default:fbaa94a57ba748ea1b1d8a0cc49c117b:raised:judged:1",
              "emoji": false
            }
          ]
        }
      ]
    }
    "#);
}

#[test]
fn slack_messages_stay_within_slacks_limits() {
    let (_file, config) = slack_sink();
    let mut long = example();
    (long.title, long.text) = ("<".repeat(10_000), "&".repeat(100_000));
    long.references = vec!["x".repeat(5_000); 50];
    for outgoing in [one(long), several(200)] {
        let text = rendered(&config, &outgoing);
        let body = text.split_once("\n\n").unwrap().1;
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let blocks = body["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50, "{}", blocks.len());
        let length = |text: &serde_json::Value| text.as_str().unwrap().chars().count();
        assert!(length(&blocks[0]["text"]["text"]) <= 150);
        for block in blocks.iter().filter(|block| block["type"] == "section") {
            assert!(length(&block["text"]["text"]) <= 3_000);
        }
    }
    let text = rendered(&config, &several(200));
    assert!(text.contains(&format!("and {} more", 200 - LISTED_MAX)));
}

#[test]
fn email_has_a_text_a_page_and_an_id_of_its_own() {
    let config: email::Config = serde_json::from_value(json!({
        "host": "mail.example", "from": "Tidewaiter <tide@example.org>", "to": ["a@example.org"],
    }))
    .unwrap();
    let config = SinkConfig::Email(config);
    let text = rendered(&config, &one(example()));
    // Every copy is the same, byte by byte.
    assert_eq!(text, rendered(&config, &one(example())));
    insta::assert_snapshot!(text.replace('\r', ""), @r#"
    From: Tidewaiter <tide@example.org>
    Date: Thu, 01 Jan 1970 00:00:00 +0000
    Message-ID: <93d1cbaeba75a67f1e5a5aec76ea8ceb@example.org>
    Subject: r.example/app:1: deny by policy default
    To: a@example.org
    References: <ba85f8ec75b3a1b352bed36f396b3475@example.org>
    In-Reply-To: <ba85f8ec75b3a1b352bed36f396b3475@example.org>
    X-Tidewaiter-Id: alert:default:fbaa94a57ba748ea1b1d8a0cc49c117b:raised:judged:1
    X-Tidewaiter-Severity: critical
    Auto-Submitted: auto-generated
    MIME-Version: 1.0
    Content-Type: multipart/alternative;
     boundary="1c991643730162a044d75aef81ca601f"

    --1c991643730162a044d75aef81ca601f
    Content-Type: text/plain; charset=utf-8
    Content-Transfer-Encoding: quoted-printable

    r.example/app:1: deny by policy default
    Severity: critical
    Name: r.example/app:1
    Image: sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43=
    e3d
    At: 1970-01-01T00:00:00Z
    Id: alert:default:fbaa94a57ba748ea1b1d8a0cc49c117b:raised:judged:1

    1 vulnerability: CVE-2024-0001 (critical) in openssl 3.0.1


    --1c991643730162a044d75aef81ca601f
    Content-Type: text/html; charset=utf-8
    Content-Transfer-Encoding: quoted-printable

    <!doctype html>
    <html><body>
    <h3>r.example/app:1: deny by policy default</h3>
    <p>1 vulnerability: CVE-2024-0001 (critical) in openssl 3.0.1</p>
    <table>
    <tr><th align=3D"left">Severity</th><td>critical</td></tr>
    <tr><th align=3D"left">Name</th><td>r.example/app:1</td></tr>
    <tr><th align=3D"left">Image</th><td>sha256:6105d6cc76af400325e94d588ce511b=
    e5bfdbb73b437dc51eca43917d7a43e3d</td></tr>
    <tr><th align=3D"left">At</th><td>1970-01-01T00:00:00Z</td></tr>
    <tr><th align=3D"left">Id</th><td>alert:default:fbaa94a57ba748ea1b1d8a0cc49=
    c117b:raised:judged:1</td></tr>
    </table>
    </body></html>

    --1c991643730162a044d75aef81ca601f--
    "#);
}

#[test]
fn email_escapes_what_it_shows() {
    let config: email::Config = serde_json::from_value(json!({
        "host": "mail.example", "from": "tide@example.org", "to": ["a@example.org"],
    }))
    .unwrap();
    let hostile = Alert {
        title: "x\r\nBcc: everybody@example.org".to_owned(),
        text: "<script>alert(1)</script>".to_owned(),
        ..example()
    };
    let text = rendered(&SinkConfig::Email(config), &one(hostile));
    let headers = text.split_once("\r\n\r\n").unwrap().0;
    assert!(!headers.contains("\nBcc:"), "{headers}");
    let page = text.split_once("text/html").unwrap().1;
    assert!(!page.contains("<script"), "{page}");
}

#[test]
fn what_a_mail_needs_is_asked_for_at_the_start() {
    let check = |more: serde_json::Value| {
        let mut config = json!({
            "type": "email", "host": "m.example", "from": "t@example.org", "to": ["a@example.org"],
        });
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let sink: Sink = serde_json::from_value(config).unwrap();
        sink.check()
            .map_err(|error| format!("{error:#}"))
            .unwrap_err()
    };
    insta::assert_snapshot!(check(json!({"to": []})), @"`to` names nobody");
    insta::assert_snapshot!(check(json!({"username": "x"})), @"`username` and `password` are given together or not at all");
    assert!(check(json!({"from": "nobody"})).starts_with("`nobody` is not a mail address"));
    insta::assert_snapshot!(check(json!({"group_window_s": 301})), @"`group_window_s` is 301, at most 300 are allowed");
}

#[tokio::test]
async fn what_is_filtered_is_done_with() {
    let cx = Cx::for_tests();
    let receiver = Receiver::default();
    let url = receiver.start(&cx).await;
    let mut sink = Sink::of(SinkConfig::Webhook(webhook(&format!("{url}/200"))));
    sink.route.min_severity = Severity::Critical;
    sink.route.send_resolved = false;
    let name = "hook".parse().unwrap();
    let handler = SinkHandler::new(&cx, &name, &sink, &send::client().unwrap()).unwrap();
    let mut high = example();
    high.severity = Severity::High;
    let mut resolved = example();
    resolved.state = AlertState::Resolved;
    for alert in [high, resolved, example()] {
        let delivery = Delivery::of_event(&Slug::default_tenant(), alert);
        assert!(handler.handle(delivery).await.unwrap().is_empty());
    }
    assert_eq!(receiver.ids(), [one(example()).id]);
    cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_never_resolved_before_it_is_raised() {
    let cx = Cx::for_tests();
    let receiver = Receiver::failing(1);
    let url = receiver.start(&cx).await;
    let sink = Sink::of(SinkConfig::Webhook(webhook(&format!("{url}/200"))));
    let (name, client) = ("hook".parse().unwrap(), send::client().unwrap());
    let handler = SinkHandler::new(&cx, &name, &sink, &client);
    let handler = handler.unwrap().holding(Duration::ZERO);
    let resolved = Alert {
        state: AlertState::Resolved,
        ..example()
    };
    let tell = async |alert: &Alert, sequence: u64| {
        let delivery = Delivery::of_event(&Slug::default_tenant(), alert.clone());
        handler
            .handle(Delivery {
                sequence,
                ..delivery
            })
            .await
    };
    assert!(matches!(tell(&example(), 1).await, Err(Failure::Retry(_))));
    // The receiver is back when the second comes for the first time, and the first not yet again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(tell(&resolved, 2).await, Err(Failure::Retry(_))));
    let raised = example();
    let (second, first) = tokio::join!(tell(&resolved, 2), tell(&raised, 1));
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    let (raised, resolved) = (one(example()).id, one(resolved).id);
    assert_eq!(receiver.ids(), [raised.clone(), raised, resolved]);
    cx.stop();
}
