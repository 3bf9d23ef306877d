//! `events`: what subscribers need. `tail` follows the news; the others print their description.
//!
//! `tail` knows two places to read from and treats them alike: a server, over server-sent events,
//! and NATS. Each gives [`Item`]s with the position behind them.

mod line;
mod output;
mod sse;
mod stream;

use anyhow::{Context as _, bail};
use bus::{Begin, Bus, BusError, News, Piece, Position, PrivateServer, Selection, cloud_event};
use chassis::Cx;
use futures::{StreamExt as _, stream::BoxStream};
use jiff::SignedDuration;
use model::event::{ALERTS, JSON, Kind, NEWS, asyncapi};
use serde_json::{Map, Value};

use self::output::{Output, reader_gone};
use crate::{
    cli::{
        Global,
        events::{EventsCommand, From, TailArgs},
    },
    commands::print,
    complain,
    config::Config,
    exit::Exit,
};

/// What is printed at once.
const CHUNK: usize = 64;

/// What a place to read from gives.
#[derive(Debug)]
struct Item {
    /// Behind it.
    position: Position,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A CloudEvent.
    Event(Value),
    /// A part of a stream is not held any more, though it was not shown.
    Gap {
        stream: String,
        from: u64,
        to: Option<u64>,
    },
    /// Everything that was there at the start has been given.
    CaughtUp,
    /// Nothing to show; the position moved.
    Passed,
}

type Items = BoxStream<'static, anyhow::Result<Item>>;

pub(crate) async fn run(
    config: Config,
    global: &Global,
    command: EventsCommand,
) -> anyhow::Result<Exit> {
    match command {
        EventsCommand::Tail(args) => {
            let cx = Cx::system();
            let ended = Box::pin(tail(&cx, config, global, *args)).await;
            cx.stop();
            ended
        }
        EventsCommand::Asyncapi => show(&asyncapi()),
        EventsCommand::Schema { kind: Some(kind) } => show(&kind.schema()),
        EventsCommand::Schema { kind: None } => {
            let all = NEWS
                .iter()
                .map(|kind| (kind.name().to_owned(), kind.schema()));
            show(&Value::Object(all.collect::<Map<_, _>>()))
        }
    }
}

fn show(document: &Value) -> anyhow::Result<Exit> {
    print(&format!("{document:#}\n"))?;
    Ok(Exit::Ok)
}

async fn tail(cx: &Cx, config: Config, global: &Global, args: TailArgs) -> anyhow::Result<Exit> {
    let begin = match args.from {
        From::At(begin) => begin,
        From::Ago(ago) => {
            let ago = SignedDuration::try_from(ago).context("`--from` is too long ago")?;
            let time = cx.now().checked_sub(ago);
            Begin::Time(time.context("`--from` is too long ago")?)
        }
    };
    let mut output = Output::open(args.json)?;
    let follow = async {
        let items = if args.nats_url.is_some() || args.data_dir.is_some() {
            from_nats(cx, config, &args, begin).await?
        } else {
            stream::from_server(&args, begin, global.quiet).await?
        };
        follow(items, &args, &mut output, global.quiet).await
    };
    tokio::select! {
        ended = follow => ended,
        () = reader_gone() => Ok(Exit::Ok),
        signal = chassis::shutdown_signal() => {
            signal.context("waiting for signals")?;
            Ok(Exit::Interrupted)
        }
    }
}

/// Shows items to their end, or to that of the flags.
async fn follow(
    items: Items,
    args: &TailArgs,
    output: &mut Output,
    quiet: bool,
) -> anyhow::Result<Exit> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut chunks = items.ready_chunks(CHUNK);
    while let Some(chunk) = chunks.next().await {
        let mut ended = None;
        for item in chunk {
            match item {
                Err(error) => ended = Some(Err(error)),
                Ok(item) => match item.what {
                    What::Event(event) => {
                        output.add(event, item.position);
                        left -= 1;
                        if left == 0 {
                            ended = Some(Ok(Exit::Ok));
                        }
                    }
                    What::Gap { stream, from, to } => say_gap(&stream, from, to, quiet),
                    What::CaughtUp if args.once => ended = Some(Ok(Exit::Ok)),
                    What::CaughtUp | What::Passed => {}
                },
            }
            if ended.is_some() {
                break;
            }
        }
        if !output.write().await? {
            return Ok(Exit::Ok);
        }
        if let Some(ended) = ended {
            return ended;
        }
    }
    Ok(Exit::Ok)
}

fn say_gap(stream: &str, from: u64, to: Option<u64>, quiet: bool) {
    if quiet {
        return;
    }
    complain(&match to {
        Some(to) => format!("{stream}: messages {from} to {to} are not held any more"),
        None => format!("{stream} holds no message {from}: it was made anew, or lost its end"),
    });
}

/// Reads NATS.
async fn from_nats(
    cx: &Cx,
    config: Config,
    args: &TailArgs,
    begin: Begin,
) -> anyhow::Result<Items> {
    let mut bus = config.bus;
    if let Some(url) = &args.nats_url {
        bus.url = Some(url.clone());
    } else if let Some(dir) = &args.data_dir {
        let Some(url) = PrivateServer::find(dir) else {
            bail!(
                "`{}` holds no private NATS server that this user may read",
                dir.display()
            );
        };
        bus.url = Some(url);
    }
    bus.connect_timeout_s = bus.connect_timeout_s.clamp(1, 10);
    let bus = Bus::connect(cx, &bus, "tidewaiter-events").await;
    let bus = bus.context("connecting to NATS")?;
    let selection = Selection {
        tenant: args.tenant.clone(),
        kinds: args.kinds.clone(),
    };
    let news = bus.news(cx, begin, selection).await;
    let hint = match &news {
        Err(BusError::Denied(_)) => format!("; {}", denied_hint()),
        _ => String::new(),
    };
    let news = news.with_context(|| format!("reading the streams of news{hint}"))?;
    Ok(items_of(news))
}

/// What somebody can do whose credential does not read every stream: a subscriber's reads no
/// `ALERTS`.
fn denied_hint() -> String {
    let others = NEWS.iter().filter(|kind| kind.stream != ALERTS);
    let others: Vec<&'static Kind> = others.collect();
    format!(
        "a subscriber's key does not read {ALERTS}: leave alerts out with `--kind {}`, read them in \
         the stream `{JSON}` (`alerting.json_bridge`), or ask a server (`--server`) instead of NATS",
        kind_names(&others)
    )
}

fn items_of(news: News) -> Items {
    news.map(|told| {
        let what = match told.piece {
            Piece::News { stream, message } => What::Event(cloud_event(stream, &message)),
            Piece::Missed { stream, missed } => What::Gap {
                stream: stream.to_owned(),
                from: missed.from,
                to: missed.to,
            },
            Piece::CaughtUp => What::CaughtUp,
            Piece::Passed => What::Passed,
        };
        let position = told.position;
        Ok(Item { position, what })
    })
    .boxed()
}

/// The kinds as a query takes them.
fn kind_names(kinds: &[&'static Kind]) -> String {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_alerts_is_told_how_to_read_the_rest() {
        let hint = denied_hint();
        let kinds = hint.split('`').nth(1).unwrap();
        let kinds = kinds.strip_prefix("--kind ").unwrap();
        for kind in kinds.split(',') {
            let kind = NEWS.iter().find(|known| known.name() == kind).unwrap();
            assert_ne!(kind.stream, ALERTS);
        }
        assert!(kinds.contains("image.judged"), "{hint}");
    }
}
