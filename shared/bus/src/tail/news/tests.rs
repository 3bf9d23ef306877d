use model::event::{Alert, ImagePushed};

use super::*;
use crate::testing::{World, alert, pushed, soon};

fn tenant(name: &str) -> Slug {
    name.parse().unwrap()
}

async fn push(world: &World, whose: &str, repository: &str) {
    let event = pushed(repository);
    world.bus.publish(&tenant(whose), &event).await.unwrap();
}

async fn raise(world: &World, whose: &str, title: &str) {
    world
        .bus
        .publish(&tenant(whose), &alert(title))
        .await
        .unwrap();
}

/// The next piece of news: stream, what it says, position.
async fn next(news: &mut News) -> (&'static str, String, Position) {
    loop {
        let told = soon(news.next()).await.unwrap();
        let Piece::News { stream, message } = told.piece else {
            continue;
        };
        let body = message.body.unwrap();
        let text = match stream {
            EVENTS => crate::decode::<ImagePushed>(&body).unwrap().repository,
            _ => crate::decode::<Alert>(&body).unwrap().title,
        };
        return (stream, text, told.position);
    }
}

#[test]
fn positions_are_three_numbers() {
    let position: Position = "12.45.7".parse().unwrap();
    assert_eq!(position, Position::new([12, 45, 7]));
    assert_eq!(position.to_string(), "12.45.7");
    for bad in [
        "",
        "12",
        "12.45",
        "1.2.3.4",
        "2026-01-02",
        "1--3",
        "+1.2.3",
        "1.2.x",
        "1.2.18446744073709551615",
        "1.2.99999999999999999999",
    ] {
        assert!(bad.parse::<Position>().is_err(), "{bad}");
    }
}

#[test]
fn a_beginning_is_a_word_a_position_or_a_time() {
    let check = |text: &str| text.parse::<Begin>().unwrap();
    assert_eq!(check("start"), Begin::After(Position::default()));
    assert_eq!(check("now"), Begin::New);
    assert_eq!(check("1.2.3"), Begin::After(Position::new([1, 2, 3])));
    let time = "2026-01-02T03:04:05Z";
    assert_eq!(check(time), Begin::Time(time.parse().unwrap()));
    for bad in ["", "12", "yesterday", "2026-01-02"] {
        assert!(bad.parse::<Begin>().is_err(), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_merged_in_the_order_of_storing_and_reading_goes_on_at_any_position() {
    let Some(world) = World::start().await else {
        return;
    };
    let World { bus, cx, .. } = &world;
    let mut written = Vec::new();
    for n in 0..4 {
        push(&world, "default", &format!("app-{n}")).await;
        raise(&world, "default", &format!("alert-{n}")).await;
        written.extend([format!("app-{n}"), format!("alert-{n}")]);
    }
    let begin = Begin::After(Position::default());
    let mut news = bus.news(cx, begin, Selection::default()).await.unwrap();
    let mut read = Vec::new();
    let mut positions = Vec::new();
    for _ in 0..written.len() {
        let (_, text, position) = next(&mut news).await;
        read.push(text);
        positions.push(position);
    }
    assert_eq!(read, written);
    loop {
        if soon(news.next()).await.unwrap().piece == Piece::CaughtUp {
            break;
        }
    }
    // Behind each position comes what followed it, and nothing else.
    for (index, position) in positions.iter().enumerate().take(written.len() - 1) {
        let begin = Begin::After(*position);
        let mut rest = bus.news(cx, begin, Selection::default()).await.unwrap();
        for expected in written.iter().skip(index + 1) {
            assert_eq!(next(&mut rest).await.1, *expected, "after {position}");
        }
    }
    // What is new comes as it arrives.
    let mut new = bus
        .news(cx, Begin::New, Selection::default())
        .await
        .unwrap();
    assert_eq!(new.position(), *positions.last().unwrap());
    push(&world, "default", "late").await;
    for news in [&mut news, &mut new] {
        assert_eq!(next(news).await.1, "late");
    }
    cx.stop();
    while soon(new.next()).await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_a_position_too() {
    let Some(world) = World::start().await else {
        return;
    };
    let World { bus, cx, .. } = &world;
    push(&world, "default", "before").await;
    raise(&world, "default", "before").await;
    let begin = Begin::After(Position::default());
    let mut news = bus.news(cx, begin, Selection::default()).await.unwrap();
    next(&mut news).await;
    next(&mut news).await;
    push(&world, "default", "after").await;
    let Piece::News { message, .. } = (loop {
        let piece = soon(news.next()).await.unwrap().piece;
        if matches!(piece, Piece::News { .. }) {
            break piece;
        }
    }) else {
        return;
    };
    let begin = Begin::Time(message.time);
    let since = bus.news(cx, begin, Selection::default()).await.unwrap();
    // Of the stream that has nothing new, everything is behind the reader.
    assert_eq!(since.position(), Position::new([1, 0, 1]));
    let mut since = since;
    assert_eq!(next(&mut since).await.1, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_takes_one_tenant_and_some_kinds() {
    let Some(world) = World::start().await else {
        return;
    };
    let World { bus, cx, .. } = &world;
    for whose in ["acme", "other"] {
        push(&world, whose, &format!("{whose}-app")).await;
        raise(&world, whose, &format!("{whose}-alert")).await;
    }
    let begin = Begin::After(Position::default());
    let selection = |tenant: Option<&str>, kinds: &[&str]| Selection {
        tenant: tenant.map(|tenant| tenant.parse().unwrap()),
        kinds: kinds.iter().map(|kind| Kind::find(kind).unwrap()).collect(),
    };
    let theirs = selection(Some("other"), &[]);
    let mut theirs = bus.news(cx, begin, theirs).await.unwrap();
    assert_eq!(next(&mut theirs).await.1, "other-app");
    assert_eq!(next(&mut theirs).await.1, "other-alert");
    let alerts = selection(None, &["alert"]);
    let mut alerts = bus.news(cx, begin, alerts).await.unwrap();
    assert_eq!(next(&mut alerts).await.1, "acme-alert");
    let (stream, text, position) = next(&mut alerts).await;
    assert_eq!((stream, text.as_str()), (ALERTS, "other-alert"));
    assert_eq!(position, Position::new([0, 0, 2]));
    // A kind that shares its stream with others.
    let deleted = selection(None, &["image.deleted"]);
    let mut deleted = bus.news(cx, begin, deleted).await.unwrap();
    loop {
        let told = soon(deleted.next()).await.unwrap();
        assert!(!matches!(told.piece, Piece::News { .. }));
        if told.piece == Piece::CaughtUp {
            assert_eq!(told.position, Position::new([2, 0, 0]));
            break;
        }
    }
}
