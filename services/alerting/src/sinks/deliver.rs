//! The handler of one sink's consumer: what is filtered, what waits for others, what is sent.

use std::time::Duration;

use anyhow::anyhow;
use bus::{Delivery, Failure, Handler, Outcome};
use chassis::Cx;
use model::{Slug, event::Alert};

use crate::{
    metrics,
    sinks::{
        Item, Outgoing, Pace, Rendered, Sink,
        group::{Ended, Groups, Joined, Key, Lead, Member, PLACES},
        order::Orders,
        route::Names,
        send::{self, Later, Sent},
    },
};

/// How long a delivery waits for a receiver that fails before it goes back to the stream. Short,
/// for a handler that runs keeps its process from letting a suspect run alone.
const HOLD: Duration = Duration::from_secs(20);

/// Takes alerts to one sink.
#[derive(Debug)]
pub(crate) struct SinkHandler {
    cx: Cx,
    name: Slug,
    sink: Sink,
    names: Names,
    client: reqwest::Client,
    pace: Pace,
    groups: Groups,
    orders: Orders,
}

// === impl SinkHandler ===

impl SinkHandler {
    pub(crate) fn new(
        cx: &Cx,
        name: &Slug,
        sink: &Sink,
        client: &reqwest::Client,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            cx: cx.clone(),
            name: name.clone(),
            names: sink.route.names()?,
            sink: sink.clone(),
            client: client.clone(),
            pace: Pace::new(HOLD),
            groups: Groups::default(),
            orders: Orders::default(),
        })
    }

    /// Waits no longer than `hold` for a receiver that fails.
    #[cfg(test)]
    pub(crate) fn holding(mut self, hold: Duration) -> Self {
        self.pace = Pace::new(hold);
        self
    }

    /// How many alerts wait for a window's end.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.groups.waiting()
    }

    /// How many alerts are handled at once: those that wait for a window's end have a place each.
    pub(crate) fn places(&self, concurrency: usize) -> usize {
        if self.window().is_zero() {
            concurrency
        } else {
            PLACES
        }
    }

    const fn window(&self) -> Duration {
        Duration::from_secs(self.sink.route.group_window_s as u64)
    }
}

impl Handler for SinkHandler {
    type Input = Alert;

    /// A group whose members are told one by one would go out under other ids than before.
    const IS_HAZARDOUS: bool = false;

    /// A receiver that is away gets everything in the end: alerts wait for as long as their stream
    /// has room for them.
    const GIVES_UP: bool = false;

    /// The one place that decides what is tried again.
    async fn handle(&self, delivery: Delivery<Alert>) -> Result<Outcome, Failure> {
        let Delivery {
            tenant,
            id,
            body: alert,
            attempt,
            sequence,
            ..
        } = delivery;
        let name = self.name.as_str();
        let place = |why: String| anyhow!(why).context(format!("sink `{name}`"));
        if !self.sink.route.wants(&self.names, &alert) {
            metrics::delivered(name, "filtered");
            return Ok(Outcome::none());
        }
        let about = (tenant.clone(), alert.fingerprint.clone());
        let is_alone = self.window().is_zero();
        // Those of one group go out together.
        let Some(turn) = self.orders.turn(about, sequence, is_alone).await else {
            metrics::delivered(name, "retry");
            let why = "what was to be told before of the same alert is not delivered yet";
            return Err(Failure::Retry(place(why.to_owned())));
        };
        let item = Item { id, alert };
        let ended = if is_alone {
            self.deliver(&Outgoing::one(&tenant, item)).await
        } else {
            let key = Key {
                about: self.sink.route.group_by.about(&item.alert),
                tenant,
                again: attempt > 1,
            };
            self.group(key, item).await
        };
        if !matches!(ended, Ended::Later(_)) {
            turn.done();
        }
        match ended {
            Ended::Delivered => {
                metrics::delivered(name, "delivered");
                Ok(Outcome::none())
            }
            Ended::Later(why) => {
                metrics::delivered(name, "retry");
                Err(Failure::Retry(place(why)))
            }
            Ended::Refused(why) => {
                metrics::delivered(name, "refused");
                Err(Failure::Reject(place(why)))
            }
        }
    }
}

impl SinkHandler {
    async fn group(&self, key: Key, item: Item) -> Ended {
        match self.groups.join(key.clone(), item) {
            Joined::Leads(lead) => self.lead(key, lead).await,
            Joined::Waits(ended) => ended
                .await
                .unwrap_or_else(|_| Ended::Later("stopping".to_owned())),
        }
    }

    /// Waits for the window's end, sends, and tells every member how it ended. A process that
    /// stops sends what it has.
    async fn lead(&self, key: Key, lead: Lead<'_>) -> Ended {
        tokio::select! {
            _ = self.cx.sleep(self.window()) => {}
            () = lead.is_full() => {}
        }
        let (mut items, mut waiting) = (Vec::new(), Vec::new());
        for Member { item, ended } in lead.close() {
            items.push(item);
            waiting.push(ended);
        }
        metrics::grouped(self.name.as_str(), items.len());
        let ended = match Outgoing::several(&self.name, &key.tenant, key.about, items) {
            Some(outgoing) => self.deliver(&outgoing).await,
            None => Ended::Later("the group is gone".to_owned()),
        };
        for member in waiting {
            // Who does not listen any more takes it again.
            drop(member.send(ended.clone()));
        }
        ended
    }

    async fn deliver(&self, outgoing: &Outgoing) -> Ended {
        let sent = self
            .pace
            .deliver(&self.cx, move || self.send(outgoing))
            .await;
        let note = format!("sink {}", self.name);
        match sent {
            Sent::Delivered => {
                self.cx.notes().set(&note, None);
                Ended::Delivered
            }
            Sent::Later(later) => {
                let why = format!("{:#}", later.error);
                if !self.cx.is_stopping() {
                    let text = format!("alerts wait for it, and others go on: {why}");
                    self.cx.notes().set(&note, Some(text));
                }
                Ended::Later(why)
            }
            Sent::Refused(error) => {
                self.cx.notes().set(&note, None);
                Ended::Refused(format!("{error:#}"))
            }
        }
    }

    async fn send(&self, outgoing: &Outgoing) -> Sent {
        match self.sink.target.render(outgoing) {
            Ok(Rendered::Logged) => Sent::Delivered,
            Ok(Rendered::Request(request)) => send::send(&self.cx, &self.client, &request).await,
            Ok(Rendered::Mail(mail)) => send::mail(&self.cx, &mail).await,
            // What cannot be rendered waits for the operator: a secret that is not there yet.
            Err(error) => Sent::Later(Later::of(error)),
        }
    }
}
