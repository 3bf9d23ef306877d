//! Answers to scan requests that named a callback.
//!
//! A request is waited for until every image that it led to has its verdict, or a day is over; then
//! the answer is posted, as an event in `CloudEvents` JSON whose id is computed from the request's,
//! and signed (`signature`). What counts as an answer is the same as for who asks
//! `GET /v1/scans/{id}`.
//!
//! The URL was given by who asked, so it is looked at again: it must be on a host that the operator
//! listed, redirects are not followed, and a listed name does not lead to addresses that only this
//! machine or its link can mean. Waiting takes one of a bounded number of places, for a short while
//! at a time; whoever finds none, and whoever waited long enough, is looked at again later.

mod answer;
mod guard;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use bus::{Bus, Delivery, Failure, Handler, Outcome, Store, StoreError};
use chassis::{Cx, SecretRef, http::Hosts};
use jiff::SignedDuration;
use model::{
    ScanRequestRecord, Slug,
    event::{REFS, ScanRequested, images_bucket},
};
use tokio::{sync::Semaphore, time::Instant};

use self::answer::Answered;
use crate::{
    config::Config,
    metrics,
    sinks::{
        Pace,
        send::{self, Request, Sent},
        webhook::read_secrets,
    },
};

/// How long a request may take.
const PATIENCE: SignedDuration = SignedDuration::from_hours(24);
/// How long a request is waited for at a time. Short, for a handler that runs keeps its process
/// from letting a suspect run alone.
const WAIT: Duration = Duration::from_secs(45);
/// How long an answer waits for a receiver that fails.
const HOLD: Duration = Duration::from_secs(10);

/// Takes scan requests and sends their answers.
pub(crate) struct CallbackHandler {
    cx: Cx,
    bus: Bus,
    store: Store,
    hosts: Hosts,
    client: reqwest::Client,
    secrets: Vec<SecretRef>,
    timeout: Duration,
    places: Semaphore,
    /// By place; no more of them than hosts that are listed.
    paces: Mutex<BTreeMap<String, Arc<Pace>>>,
}

// === impl CallbackHandler ===

impl CallbackHandler {
    pub(crate) fn new(cx: &Cx, bus: &Bus, config: &Config) -> anyhow::Result<Self> {
        let hosts = Hosts::new(&config.callback_hosts)?;
        let client = send::builder().dns_resolver(Arc::new(guard::Guard));
        Ok(Self {
            cx: cx.clone(),
            bus: bus.clone(),
            store: bus.store(),
            hosts,
            client: client.build().context("making the client of callbacks")?,
            secrets: config.callbacks.signing_secrets.clone(),
            timeout: Duration::from_millis(config.callbacks.timeout_ms),
            places: Semaphore::new(config.callbacks.waiting_max.max(1)),
            paces: Mutex::default(),
        })
    }
}

impl Handler for CallbackHandler {
    type Input = ScanRequested;

    /// As with every receiver: the answer waits for as long as the stream keeps the request.
    const GIVES_UP: bool = false;

    async fn handle(&self, delivery: Delivery<ScanRequested>) -> Result<Outcome, Failure> {
        let Delivery { tenant, body, .. } = delivery;
        let Some(callback) = &body.callback else {
            return Ok(Outcome::none());
        };
        let (place, url) = match self.hosts.check(callback) {
            Ok(found) => found,
            Err(error) => {
                let about = format!("the callback of scan request `{}`", body.id);
                return Err(Failure::Reject(anyhow!(error).context(about)));
            }
        };
        let answered = self.answer(&tenant, &body).await?;
        let event = answered.event(&tenant, &body);
        let request = Request {
            url,
            headers: vec![(
                "content-type".to_owned(),
                "application/cloudevents+json".to_owned(),
            )],
            bearer: None,
            signing: read_secrets(&self.secrets).map_err(Failure::Retry)?,
            body: serde_json::to_vec(&event).map_err(Failure::reject)?,
            timeout: self.timeout,
        };
        self.post(&place, &body, &request).await
    }
}

impl CallbackHandler {
    /// The answer, as soon as there is one.
    async fn answer(&self, tenant: &Slug, request: &ScanRequested) -> Result<Answered, Failure> {
        let waited = self.cx.now().duration_since(request.requested_at);
        let is_late = waited >= PATIENCE;
        let asked = (
            self.store.clone(),
            self.cx.clone(),
            tenant.clone(),
            request.clone(),
        );
        let look = move || {
            let (store, cx, tenant, request) = asked.clone();
            async move {
                let found = Answered::find(&store, &tenant, &request, cx.now()).await?;
                Ok::<_, StoreError>(Some(found).filter(|found| found.is_final() || is_late))
            }
        };
        if let Some(answered) = look().await? {
            return Ok(answered);
        }
        let Ok(_place) = self.places.try_acquire() else {
            return Err(Failure::Retry(anyhow!(
                "scan request `{}` has no verdict yet, and all places to wait are taken",
                request.id
            )));
        };
        let keys = self.keys(tenant, request).await?;
        let waiting = self.bus.wait(&keys, Instant::now() + WAIT, look);
        let found = tokio::select! {
            found = waiting => found?,
            () = self.cx.stopped() => None,
        };
        found.ok_or_else(|| {
            Failure::Retry(anyhow!("scan request `{}` has no verdict yet", request.id))
        })
    }

    /// What changes when the answer changes. What the request led to may not be known yet: then its
    /// images are found by a look at its own record, once more after that was written.
    async fn keys(&self, tenant: &Slug, request: &ScanRequested) -> Result<Vec<String>, Failure> {
        let own = ScanRequestRecord::key(tenant, &request.id);
        let key = format!("{REFS}/{own}");
        let store = self.store.clone();
        let find = move || {
            let (store, own) = (store.clone(), own.clone());
            async move { store.get::<ScanRequestRecord>(REFS, &own).await }
        };
        let waiting = self
            .bus
            .wait(std::slice::from_ref(&key), Instant::now() + WAIT, find);
        let record = tokio::select! {
            found = waiting => found?,
            () = self.cx.stopped() => None,
        };
        let record = record.ok_or_else(|| {
            Failure::Retry(anyhow!("scan request `{}` is not resolved yet", request.id))
        })?;
        let images = record.body.images.iter().map(|image| {
            let bucket = images_bucket(image.partition());
            format!("{bucket}/{tenant}.{}.judged", image.hex())
        });
        Ok(images.chain([key]).collect())
    }

    async fn post(
        &self,
        place: &str,
        asked: &ScanRequested,
        request: &Request,
    ) -> Result<Outcome, Failure> {
        let about = format!("the answer to scan request `{}`", asked.id);
        let receiver = {
            let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Pace::new(HOLD));
            Arc::clone(paces.entry(place.to_owned()).or_insert_with(new))
        };
        let send = move || send::send(&self.cx, &self.client, request);
        match receiver.deliver(&self.cx, send).await {
            Sent::Delivered => {
                metrics::answered("delivered");
                Ok(Outcome::none())
            }
            Sent::Later(later) => {
                metrics::answered("retry");
                Err(Failure::Retry(later.error.context(about)))
            }
            Sent::Refused(error) => {
                metrics::answered("refused");
                Err(Failure::Reject(error.context(about)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
