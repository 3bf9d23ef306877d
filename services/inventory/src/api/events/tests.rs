use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bus::{Headers, Missed, Piece, Tailed, Told};
use chassis::{
    Cx,
    http::{Grant, Tokens, TokensAway},
};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use jiff::Timestamp;
use model::event::{EVENTS, Event as _, ImagePushed, Priority, RESULTS};

use super::{
    places::Pace,
    pump::{End, Pump},
    *,
};

/// Longer than any test runs.
const NEVER: Duration = Duration::from_hours(1);
const PATIENCE: Duration = Duration::from_secs(20);

struct Client {
    cx: Cx,
    pump: Option<Pump>,
    frames: mpsc::Receiver<Bytes>,
}

/// One whose stream waits for `room` frames at most.
fn client(room: usize, heartbeat: Duration, slow: Duration) -> Client {
    let cx = Cx::for_tests();
    let (sender, frames) = mpsc::channel(room);
    let pump = Pump {
        cx: cx.clone(),
        position: Position::new([1, 2, 3]),
        frames: sender,
        standing: None,
        tenant: Slug::default_tenant(),
        pace: Pace { heartbeat, slow },
    };
    Client {
        cx,
        pump: Some(pump),
        frames,
    }
}

impl Client {
    fn start(
        &mut self,
        news: impl Stream<Item = Told> + Unpin + Send + 'static,
    ) -> oneshot::Receiver<End> {
        let pump = self.pump.take().unwrap();
        let (ended, end) = oneshot::channel();
        self.cx.spawn("pump", async move {
            let _gone = ended.send(pump.run(news).await).is_err();
        });
        end
    }

    async fn frame(&mut self) -> String {
        let frame = soon(self.frames.recv()).await.unwrap();
        String::from_utf8(frame.to_vec()).unwrap()
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

fn pushed(sequence: u64, repository: &str) -> Told {
    let event = ImagePushed {
        source: "main".parse().unwrap(),
        repository: repository.to_owned(),
        tag: Some("line\nbreak".to_owned()),
        digest: None,
        sender_id: None,
        occurred_at: Timestamp::UNIX_EPOCH,
        priority: Priority::Norm,
    };
    let headers = [
        ("ce-id", "an-id"),
        ("ce-source", "/registries/main"),
        ("ce-type", ImagePushed::TYPE),
        ("ce-tenant", "default"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let message = Tailed {
        sequence,
        time: Timestamp::UNIX_EPOCH,
        subject: "tw.evt.default.registry.pushed.main".to_owned(),
        headers: headers.into_iter().collect::<Headers>(),
        body: Some(bus::encode(&event).unwrap()),
    };
    Told {
        position: Position::new([sequence, 2, 3]),
        piece: Piece::News {
            stream: EVENTS,
            message: Box::new(message),
        },
    }
}

fn piece(position: [u64; 3], piece: Piece) -> Told {
    Told {
        position: Position::new(position),
        piece,
    }
}

#[tokio::test]
async fn frames_say_what_happened_and_where_to_go_on() {
    let mut client = client(16, NEVER, NEVER);
    let missed = Missed {
        from: 3,
        to: Some(9),
        next: 10,
    };
    let news = [
        pushed(2, "app"),
        piece([2, 2, 3], Piece::CaughtUp),
        piece([2, 5, 3], Piece::Passed),
        piece(
            [2, 9, 3],
            Piece::Missed {
                stream: RESULTS,
                missed,
            },
        ),
    ];
    let end = client.start(stream::iter(news));
    assert_eq!(soon(end).await, Ok(End::Stopping), "the news ended");
    let mut text = String::new();
    while let Some(frame) = client.frames.recv().await {
        text += std::str::from_utf8(&frame).unwrap();
    }
    insta::assert_snapshot!(text, @r#"
    retry: 2000
    id: 1.2.3

    id: 2.2.3
    event: image.pushed
    data: {"id":"an-id","source":"/registries/main","time":"1970-01-01T00:00:00Z","type":"io.tidewaiter.image.pushed.v1","tenant":"default","specversion":"1.0","datacontenttype":"application/json","stream":"EVENTS","streamsequence":"2","data":{"source":"main","repository":"app","tag":"line\nbreak","digest":null,"sender_id":null,"occurred_at":"1970-01-01T00:00:00Z"}}

    id: 2.2.3
    event: caught-up
    data: {}

    id: 2.9.3
    event: gap
    data: {"stream":"RESULTS","from":3,"to":9,"next":10}
    "#);
}

#[tokio::test]
async fn a_sign_of_life_carries_the_position_that_nothing_was_told_of() {
    let mut client = client(16, Duration::from_millis(5), NEVER);
    let passed = stream::iter([piece([1, 8, 3], Piece::Passed)]).chain(stream::pending());
    let _end = client.start(passed);
    assert_eq!(client.frame().await, "retry: 2000\nid: 1.2.3\n\n");
    loop {
        let frame = client.frame().await;
        if frame == ": 1.8.3\nid: 1.8.3\n\n" {
            break;
        }
        assert_eq!(frame, ": 1.2.3\nid: 1.2.3\n\n");
    }
    client.cx.stop();
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off_and_can_go_on_behind_his_last_event() {
    let mut client = client(2, NEVER, Duration::from_millis(5));
    let end = client.start(stream::iter((2..100).map(|n| pushed(n, "app"))));
    assert_eq!(soon(end).await, Ok(End::Slow));
    // What waits for him is the beginning of the stream, without a hole.
    assert!(client.frame().await.contains("id: 1.2.3\n"));
    assert!(client.frame().await.contains("id: 2.2.3\n"));
    assert_eq!(client.frames.recv().await, None);
    let last = frame::end(End::Slow).unwrap();
    let last = std::str::from_utf8(&last).unwrap();
    assert!(last.starts_with("event: end\ndata: {"), "{last}");
    assert!(last.contains(r#""reason":"slow""#), "{last}");
    assert!(!last.contains("id:"), "the last id stays: {last}");
}

#[tokio::test]
async fn it_ends_when_the_client_leaves_and_when_the_process_stops() {
    let mut leaving = client(16, NEVER, NEVER);
    let end = leaving.start(stream::pending());
    leaving.frame().await;
    drop(leaving.frames);
    assert_eq!(soon(end).await, Ok(End::Left));

    let mut staying = client(1, NEVER, NEVER);
    let end = staying.start(stream::iter([pushed(2, "app")]).chain(stream::pending()));
    staying.cx.stop();
    assert_eq!(soon(end).await, Ok(End::Stopping));
}

/// Tokens that can be revoked and be away.
#[derive(Default)]
struct Known {
    grant: Mutex<Option<Grant>>,
    away: AtomicBool,
    asked: tokio::sync::Notify,
}

impl Tokens for Known {
    fn find(&self, _: &str) -> BoxFuture<'_, Result<Option<Grant>, TokensAway>> {
        self.asked.notify_one();
        let answer = if self.away.load(Ordering::Relaxed) {
            Err(TokensAway)
        } else {
            Ok(self.grant.lock().unwrap().clone())
        };
        std::future::ready(answer).boxed()
    }
}

#[tokio::test]
async fn it_ends_when_the_token_does_and_not_while_nobody_can_say() {
    let grant = |scope: &str, tenant: &str| Grant {
        name: "ci".to_owned(),
        tenant: tenant.to_owned(),
        scopes: vec![scope.to_owned()],
    };
    for revoked in [
        None,
        Some(grant("scan", "default")),
        Some(grant("read", "other")),
    ] {
        let known = std::sync::Arc::new(Known::default());
        *known.grant.lock().unwrap() = Some(grant("read", "default"));
        let mut client = client(1000, Duration::from_millis(5), NEVER);
        let standing = Standing::new(std::sync::Arc::<Known>::clone(&known), "ab".to_owned());
        client.pump.as_mut().unwrap().standing = Some(standing);
        let mut end = client.start(stream::pending());
        soon(known.asked.notified()).await;
        known.away.store(true, Ordering::Relaxed);
        *known.grant.lock().unwrap() = revoked;
        soon(known.asked.notified()).await;
        soon(known.asked.notified()).await;
        assert!(end.try_recv().is_err(), "nobody can say that it is revoked");
        known.away.store(false, Ordering::Relaxed);
        assert_eq!(soon(end).await, Ok(End::Token));
    }
}

#[test]
fn a_client_says_where_to_begin_and_what_he_wants() {
    let query = |from: Option<&str>| EventsQuery {
        from: from.map(str::to_owned),
        ..EventsQuery::default()
    };
    let none = HeaderMap::new();
    assert_eq!(begin(&none, &query(None)).unwrap(), Begin::New);
    let start = begin(&none, &query(Some("start"))).unwrap();
    assert_eq!(start, Begin::After(Position::default()));
    assert!(begin(&none, &query(Some("yesterday"))).is_err());
    let mut returning = HeaderMap::new();
    returning.insert(LAST_EVENT_ID, HeaderValue::from_static("4.5.6"));
    let back = begin(&returning, &query(Some("start"))).unwrap();
    assert_eq!(back, Begin::After(Position::new([4, 5, 6])));
    returning.insert(LAST_EVENT_ID, HeaderValue::from_static("an-id"));
    assert!(begin(&returning, &query(None)).is_err());

    let tenant = Slug::default_tenant();
    let asked = |kind: Option<&str>, tenant: Option<&str>| EventsQuery {
        kind: kind.map(str::to_owned),
        tenant: tenant.map(str::to_owned),
        from: None,
    };
    let both = asked(Some("alert, image.judged"), Some("default"));
    let both = selection(&tenant, &both).unwrap();
    assert_eq!(both.kinds.len(), 2);
    assert_eq!(both.tenant, Some(tenant.clone()));
    assert!(selection(&tenant, &asked(Some("image.scan"), None)).is_err());
    let other = selection(&tenant, &asked(None, Some("other"))).unwrap_err();
    assert_eq!(other.into_response().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_last_frame_comes_behind_all_that_waited() {
    let (frames, waiting) = mpsc::channel(4);
    let (last, last_frame) = oneshot::channel();
    frames.send(Bytes::from_static(b"one ")).await.unwrap();
    frames.send(Bytes::from_static(b"two ")).await.unwrap();
    drop(frames);
    last.send(Bytes::from_static(b"last")).unwrap();
    let text = axum::body::to_bytes(Body::from_stream(body(waiting, last_frame)), 100);
    assert_eq!(text.await.unwrap(), Bytes::from_static(b"one two last"));
}
