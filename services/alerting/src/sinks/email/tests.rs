//! Against a small mail server that keeps what it gets.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use bus::{Delivery, Handler as _};
use chassis::{Cx, SecretRef};
use model::Slug;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::{
    sinks::{Sink, SinkHandler, send},
    testing::{ended, example},
};

#[derive(Clone, Default)]
struct MailServer {
    /// What it answers to a recipient.
    recipient: &'static str,
    lines: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    async fn start(&self, cx: &Cx) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (server, stopped) = (self.clone(), cx.clone());
        cx.spawn("mail server", async move {
            loop {
                tokio::select! {
                    () = stopped.stopped() => return,
                    accepted = listener.accept() => server.talk(accepted.unwrap().0).await,
                }
            }
        });
        port
    }

    async fn talk(&self, stream: TcpStream) {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        writer.write_all(b"220 mail.example\r\n").await.unwrap();
        let mut is_data = false;
        while let Ok(Some(line)) = lines.next_line().await {
            let word = line.split([' ', ':']).next().unwrap_or_default();
            let answer = match word {
                "." if is_data => {
                    is_data = false;
                    "250 kept"
                }
                _ if is_data => "",
                "EHLO" => "250-mail.example\r\n250 AUTH PLAIN",
                "RCPT" => self.recipient,
                "DATA" => {
                    is_data = true;
                    "354 go on"
                }
                "AUTH" => "235 welcome",
                "QUIT" => "221 bye",
                _ => "250 good",
            };
            self.lines.lock().unwrap().push(line);
            if !answer.is_empty() {
                let answer = format!("{answer}\r\n");
                if writer.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }

    fn heard(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

async fn delivered(cx: &Cx, port: u16, more: serde_json::Value) -> String {
    let mut config = json!({
        "type": "email", "host": "127.0.0.1", "port": port, "encryption": "none",
        "from": "tide@example.org", "to": ["a@example.org"], "timeout_ms": 3000,
    });
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let sink: Sink = serde_json::from_value(config).unwrap();
    let name = "mail".parse().unwrap();
    let handler = SinkHandler::new(cx, &name, &sink, &send::client().unwrap()).unwrap();
    let handler = handler.holding(std::time::Duration::ZERO);
    let delivery = Delivery::of_event(&Slug::default_tenant(), example());
    ended(handler.handle(delivery).await)
}

#[tokio::test]
async fn a_mail_is_handed_over_with_the_same_id_on_every_copy() {
    let cx = Cx::for_tests();
    let server = MailServer {
        recipient: "250 good",
        ..MailServer::default()
    };
    let port = server.start(&cx).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret").unwrap();
    let login = json!({
        "username": "tide", "password": SecretRef::File(file.path().to_owned()),
    });
    for _ in 0..2 {
        assert_eq!(delivered(&cx, port, login.clone()).await, "delivered");
    }
    let heard = server.heard();
    let starting = |start: &str| -> Vec<String> {
        let found = heard.iter().filter(|line| line.starts_with(start));
        found.cloned().collect()
    };
    assert_eq!(starting("RCPT"), vec!["RCPT TO:<a@example.org>"; 2]);
    // "\0tide\0s3cret"
    assert_eq!(starting("AUTH"), vec!["AUTH PLAIN AHRpZGUAczNjcmV0"; 2]);
    let ids = starting("Message-ID:");
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    assert_eq!(starting("X-Tidewaiter-Id:").len(), 2);
    cx.stop();
}

#[tokio::test]
async fn the_servers_answer_decides_whether_a_mail_comes_again() {
    let cx = Cx::for_tests();
    for (recipient, expected) in [
        (
            "451 later",
            "retry: sink `mail`: the mail server does not take it now",
        ),
        ("550 nobody", "reject: sink `mail`: the mail server refuses"),
    ] {
        let server = MailServer {
            recipient,
            ..MailServer::default()
        };
        let port = server.start(&cx).await;
        let got = delivered(&cx, port, json!({})).await;
        assert!(got.starts_with(expected), "{got}");
    }
    cx.stop();
}

#[tokio::test]
async fn without_encryption_nothing_is_said_unless_the_operator_says_so() {
    let cx = Cx::for_tests();
    let server = MailServer {
        recipient: "250 good",
        ..MailServer::default()
    };
    let port = server.start(&cx).await;
    let got = delivered(&cx, port, json!({ "encryption": "starttls" })).await;
    assert!(got.starts_with("retry: sink `mail`"), "{got}");
    let said = |word: &str| server.heard().iter().any(|line| line.starts_with(word));
    assert!(!said("MAIL") && !said("AUTH"), "{:?}", server.heard());
    cx.stop();
}
