//! News from a server, over server-sent events: `GET /v1/events`. A connection that breaks is made
//! again behind the last id.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use bus::{Begin, Position};
use futures::{StreamExt as _, stream};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{
    Item, Items, What, kind_names,
    sse::{Event, Parser},
};
use crate::{cli::events::TailArgs, client::Client, complain};

/// A server that gives no sign of life for so long is away: it gives one every 15 s.
const SILENCE: Duration = Duration::from_mins(1);
/// Pauses before a connection is made again.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// A server's stream, over all its connections.
struct Remote {
    client: Client,
    query: Vec<(&'static str, String)>,
    /// Behind what was given last; absent until the server has said where it begins.
    position: Option<Position>,
    connection: Option<Connection>,
    ready: VecDeque<Item>,
    pause: Duration,
    quiet: bool,
}

struct Connection {
    answer: reqwest::Response,
    parser: Parser,
}

/// Asks a server; an answer that is an error is one here, and what breaks later is tried again.
pub(super) async fn from_server(
    args: &TailArgs,
    begin: Begin,
    quiet: bool,
) -> anyhow::Result<Items> {
    let from = match begin {
        Begin::New => "now".to_owned(),
        Begin::After(position) => position.to_string(),
        Begin::Time(time) => time.to_string(),
    };
    let mut query = vec![("from", from)];
    if !args.kinds.is_empty() {
        query.push(("kind", kind_names(&args.kinds)));
    }
    if let Some(tenant) = &args.tenant {
        query.push(("tenant", tenant.to_string()));
    }
    let mut remote = Remote {
        client: Client::new(&args.server)?,
        query,
        position: None,
        connection: None,
        ready: VecDeque::new(),
        pause: PAUSE_MIN,
        quiet,
    };
    remote.connect().await?;
    let items = stream::unfold(Some(remote), async |remote| {
        let mut remote = remote?;
        match remote.next().await {
            Ok(item) => Some((Ok(item), Some(remote))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(items.boxed())
}

// === impl Remote ===

impl Remote {
    async fn connect(&mut self) -> anyhow::Result<()> {
        let position = self.position.map(|position| position.to_string());
        let last = position.as_deref().map(|id| ("Last-Event-ID", id));
        let answer = self.client.open("/v1/events", &self.query, last).await?;
        self.connection = Some(Connection {
            answer,
            parser: Parser::default(),
        });
        Ok(())
    }

    /// The next item, over as many connections as it takes.
    async fn next(&mut self) -> anyhow::Result<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            let Err(error) = self.receive().await else {
                continue;
            };
            if self.connection.take().is_some() && !self.quiet {
                complain(&format!("the server is away, trying again: {error:#}"));
            }
            self.reconnect().await?;
        }
    }

    async fn reconnect(&mut self) -> anyhow::Result<()> {
        loop {
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            match self.connect().await {
                Ok(()) => return Ok(()),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => tracing::debug!(%error, "the server is still away: {error:#}"),
            }
        }
    }

    /// Takes what the connection gives next. An error ends the connection.
    async fn receive(&mut self) -> anyhow::Result<()> {
        let connection = self.connection.as_mut().context("not connected")?;
        let chunk = timeout(SILENCE, connection.answer.chunk()).await;
        let chunk = chunk.map_err(|_| anyhow!("no sign of life within {SILENCE:?}"))?;
        let chunk = chunk.context("reading the server's answer")?;
        let chunk = chunk.context("the server ended the stream")?;
        let mut events = Vec::new();
        connection.parser.take(&chunk, &mut events)?;
        self.pause = PAUSE_MIN;
        for event in events {
            self.event(&event)?;
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        let data = || serde_json::from_str::<Value>(&event.data).context("reading an event");
        if event.name == "end" {
            let data = data()?;
            bail!("{}", data["detail"].as_str().unwrap_or("it said so"));
        }
        let position: Position = event.id.parse()?;
        self.position = Some(position);
        let what = match event.name.as_str() {
            "" => What::Passed,
            "caught-up" => What::CaughtUp,
            "gap" => {
                let data = data()?;
                What::Gap {
                    stream: data["stream"].as_str().unwrap_or_default().to_owned(),
                    from: data["from"].as_u64().unwrap_or_default(),
                    to: data["to"].as_u64(),
                }
            }
            _ => What::Event(data()?),
        };
        self.ready.push_back(Item { position, what });
        Ok(())
    }
}

/// Whether asking again would give the same answer.
fn is_final(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<crate::client::Refused>();
    refused.is_some_and(|refused| refused.status.is_client_error() && refused.status != 429)
}
