//! The handler of news: keeps the state of each alert, and tells where it changes.

use std::sync::Arc;

use bus::{DecodeError, Delivery, Failure, Handler, Input, Outcome, Store, decode};
use chassis::Clock;
use jiff::Timestamp;
use model::{
    AlertRecord, AlertState, Digest, Judged, RecordKey, Slug, What,
    event::{
        ALERT_STATES, Alert, Change, Event as _, INCIDENTS, ImageJudged, VulnerabilityChanged,
        images_bucket,
    },
    runtime::{
        ContainerResponded, Incident, IncidentChanged, IncidentState, RESPONSE_RECORDS,
        ResponseRecord,
    },
};

use crate::{
    config::{AlertOn, Config},
    metrics,
    signal::{self, Signal},
    state::{Step, step},
};

/// News that may raise an alert.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// An image's verdict.
    Judged(ImageJudged),
    /// A vulnerability that appeared or left.
    Vulnerability(Box<VulnerabilityChanged>),
    /// An incident that was opened, grew worse, or is over.
    Incident(Box<IncidentChanged>),
    /// A response that was proposed, decided, done, or did not work.
    Response(Box<ContainerResponded>),
}

/// Takes news.
pub(crate) struct NewsHandler {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Arc<Config>,
}

// === impl News ===

impl Input for News {
    fn decode(kind: &str, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        match kind {
            ImageJudged::TYPE => decode(body).map(|news| Some(Self::Judged(news))),
            VulnerabilityChanged::TYPE => {
                decode(body).map(|news| Some(Self::Vulnerability(Box::new(news))))
            }
            IncidentChanged::TYPE => decode(body).map(|news| Some(Self::Incident(Box::new(news)))),
            ContainerResponded::TYPE => {
                decode(body).map(|news| Some(Self::Response(Box::new(news))))
            }
            // What was detected is told with its incident.
            _ => Ok(None),
        }
    }
}

// === impl NewsHandler ===

impl Handler for NewsHandler {
    type Input = News;

    async fn handle(&self, delivery: Delivery<News>) -> Result<Outcome, Failure> {
        let Delivery {
            tenant,
            id,
            body,
            attempt,
            ..
        } = delivery;
        let signals = match body {
            News::Judged(news) => Vec::from_iter(self.of_verdict(&tenant, news).await?),
            News::Vulnerability(news) => {
                Vec::from_iter(self.of_vulnerability(&tenant, &news).await?)
            }
            News::Incident(news) => self.of_incident(&tenant, &news).await?,
            News::Response(news) => self.of_response(&tenant, &news).await?,
        };
        let mut out = Outcome::none();
        for signal in signals {
            out = self
                .settle(&tenant, (&id, attempt > 1), signal, out)
                .await?;
        }
        Ok(out)
    }
}

impl NewsHandler {
    /// The record decides, for news may come late and in another order; a newer verdict with the
    /// same decision gives no news of its own.
    async fn of_verdict(
        &self,
        tenant: &Slug,
        mut news: ImageJudged,
    ) -> Result<Option<Signal>, Failure> {
        if !self.config.alert_on.contains(&AlertOn::Verdict) {
            return Ok(None);
        }
        let key = RecordKey::new(tenant, news.image, What::Judged(news.policy.clone()));
        let stored = self.store.record::<Judged>(&key).await?;
        // A read may be older than the news; then they are right.
        let newer = stored.filter(|stored| stored.body.verdict.evaluated_at > news.judged_at);
        if let Some(Judged {
            verdict, counts, ..
        }) = newer.map(|stored| stored.body)
        {
            news.decision = verdict.decision;
            news.reasons = verdict
                .reasons
                .into_iter()
                .map(|reason| reason.message)
                .collect();
            news.counts = counts;
            news.judged_at = verdict.evaluated_at;
        }
        Ok(Some(signal::of_verdict(
            tenant,
            &news,
            &self.config.decisions,
        )))
    }

    /// What was raised is resolved, whatever the settings are now.
    async fn of_incident(
        &self,
        tenant: &Slug,
        news: &IncidentChanged,
    ) -> Result<Vec<Signal>, Failure> {
        let Config {
            alert_on,
            incident_severity,
            ..
        } = &*self.config;
        let is_wanted =
            alert_on.contains(&AlertOn::Incident) && news.incident.severity >= *incident_severity;
        let is_over = news.incident.state == IncidentState::Closed;
        let mut signals = Vec::new();
        if is_wanted || is_over {
            signals.push(signal::of_incident(news));
        }
        if is_over {
            let key = ResponseRecord::key(tenant, &news.incident.id);
            let record = self
                .store
                .get::<ResponseRecord>(RESPONSE_RECORDS, &key)
                .await?;
            let settled = record.map(|stored| signal::of_closed(tenant, news, &stored.body));
            signals.extend(settled.into_iter().flatten());
        }
        Ok(signals)
    }

    /// What was raised is resolved, whatever the settings are now.
    async fn of_response(
        &self,
        tenant: &Slug,
        news: &ContainerResponded,
    ) -> Result<Vec<Signal>, Failure> {
        let (mut record, mut incident) = (None, None);
        if !news.incident.is_empty() {
            let key = ResponseRecord::key(tenant, &news.incident);
            record = self
                .store
                .get::<ResponseRecord>(RESPONSE_RECORDS, &key)
                .await?;
            incident = self.store.get::<Incident>(INCIDENTS, &key).await?;
        }
        let known = signal::Known {
            record: record.as_ref().map(|stored| &stored.body),
            incident: incident.as_ref().map(|stored| &stored.body),
        };
        let mut signals = signal::of_response(tenant, news, known);
        if !self.config.alert_on.contains(&AlertOn::Response) {
            signals.retain(|signal| signal.state == AlertState::Resolved);
        }
        Ok(signals)
    }

    async fn of_vulnerability(
        &self,
        tenant: &Slug,
        news: &VulnerabilityChanged,
    ) -> Result<Option<Signal>, Failure> {
        let Config {
            alert_on,
            vulnerability_severity,
            ..
        } = &*self.config;
        if !alert_on.contains(&AlertOn::Vulnerability) {
            return Ok(None);
        }
        if news.change == Change::Appeared {
            if news.vulnerability.severity < *vulnerability_severity {
                return Ok(None);
            }
            let verdicts_alert = alert_on.contains(&AlertOn::Verdict);
            if verdicts_alert
                && !self
                    .stood_before(tenant, &news.image, news.changed_at)
                    .await?
            {
                return Ok(None);
            }
        }
        Ok(Some(signal::of_vulnerability(tenant, news)))
    }

    /// Whether an alert on one of the image's verdicts stood before `at`.
    async fn stood_before(
        &self,
        tenant: &Slug,
        image: &Digest,
        at: Timestamp,
    ) -> Result<bool, Failure> {
        // Only what judged the image can have alerted on it.
        let bucket = images_bucket(image.partition());
        let prefix = format!("{tenant}.{}.judged.", image.hex());
        for (key, _) in self.store.list::<Judged>(&bucket, &prefix).await? {
            let Ok(What::Judged(policy)) = key.parse().map(|key: RecordKey| key.what) else {
                continue;
            };
            let fingerprint = signal::verdict_fingerprint(tenant, image, &policy);
            let key = format!("{tenant}.{fingerprint}");
            let stored = self.store.get::<AlertRecord>(ALERT_STATES, &key).await?;
            let stands = |record: &AlertRecord| record.state == AlertState::Raised;
            if stored.is_some_and(|stored| stands(&stored.body) && stored.body.since < at) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Compares with the state that the alert has, and tells what is new.
    async fn settle(
        &self,
        tenant: &Slug,
        (event, is_again): (&str, bool),
        signal: Signal,
        out: Outcome,
    ) -> Result<Outcome, Failure> {
        let key = format!("{tenant}.{}", signal.fingerprint);
        let stored = self.store.get::<AlertRecord>(ALERT_STATES, &key).await?;
        let (expected, known) = match stored {
            Some(stored) => (stored.revision, Some(stored.body)),
            None => (0, None),
        };
        // News that come once more may be of before what followed them, which is known already. A
        // first delivery is never judged by its time: clocks of machines differ.
        let is_past = |known: &AlertRecord| known.event != event && signal.at < known.since;
        if is_again && known.as_ref().is_some_and(is_past) {
            return Ok(out);
        }
        let once = signal.once;
        let alert = Alert {
            fingerprint: signal.fingerprint,
            state: signal.state,
            severity: signal.severity,
            title: signal.title,
            text: signal.text,
            image: signal.image,
            references: signal.references,
            event: event.to_owned(),
            at: signal.at,
            policy: signal.policy,
            reminder: 0,
        };
        let step = step(
            known.as_ref(),
            alert,
            self.config.windows(),
            self.clock.now(),
        );
        let (record, alert) = match step {
            Step::Nothing => return Ok(out),
            Step::TellAgain(alert) => return Ok(out.emit(tenant, &alert)?),
            Step::Keep(record) => {
                metrics::alert_kept_quiet(record.state);
                (record, None)
            }
            Step::Change(record, alert) => {
                metrics::alert_changed(record.state);
                (record, Some(alert))
            }
        };
        let record = AlertRecord { once, ..record };
        let out = out.put_kv(ALERT_STATES, &key, &record, Some(expected))?;
        Ok(match alert {
            Some(alert) => out.emit(tenant, &alert)?,
            None => out,
        })
    }
}

#[cfg(test)]
mod tests;
