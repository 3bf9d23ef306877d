//! Where the bus is, and its timings.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// Connection to NATS, and the timings that tests and unusual installations change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the NATS servers, as `nats://host:4222`, several separated by commas; `tls://`
    /// goes out over TLS or not at all. Absent: a private server is started.
    pub url: Option<String>,
    /// File with an nkey seed, as `tidewaiter nats accounts` makes it, or with a JWT and a seed
    /// (`.creds`).
    pub credentials_file: Option<PathBuf>,
    /// What the subjects of answers begin with. Absent: `_INBOX_` and the public key, where
    /// `credentials_file` is an nkey seed.
    pub inbox_prefix: Option<String>,
    /// File with the certificate authority of the NATS servers, instead of the system's; TLS is
    /// needed then.
    pub ca_file: Option<PathBuf>,
    /// File with the certificate that we show NATS servers; TLS is needed then.
    pub client_certificate_file: Option<PathBuf>,
    /// File with its private key.
    pub client_key_file: Option<PathBuf>,
    /// How many servers of a cluster keep each stream: 1, 3 or 5.
    pub replicas: usize,
    /// How long a command waits for the first connection, seconds; 0 does not wait. `serve` waits
    /// for as long as it takes, and accepts webhooks meanwhile.
    pub connect_timeout_s: u64,
    /// How long a message may stay without a sign of life from its handler, milliseconds.
    pub ack_wait_ms: u64,
    /// How long a lease lives without being renewed, milliseconds.
    pub lease_ms: u64,
    /// Bytes that events which wait or were handled may take (`EVENTS`); the oldest go first, as in
    /// all streams but that of jobs. NATS reserves what streams may take when they are made.
    pub events_bytes_max: u64,
    /// Bytes that jobs which wait may take (`JOBS`); what is more is refused.
    pub jobs_bytes_max: u64,
    /// Bytes that what nodes told within a day may take (`RUNTIME`).
    pub runtime_bytes_max: u64,
    /// Bytes that what people ordered and agents answered may take (`RESPONSES`).
    pub responses_bytes_max: u64,
    /// Bytes that evidence which agents collect may take (`tw_forensics`); the oldest goes first.
    pub forensics_bytes_max: u64,
    /// Bytes that news may take (`RESULTS`).
    pub results_bytes_max: u64,
    /// Bytes that alerts may take (`ALERTS`).
    pub alerts_bytes_max: u64,
    /// Bytes that news as JSON may take (`JSON`).
    pub json_bytes_max: u64,
    /// Bytes that dead letters may take (`DLQ`).
    pub dead_letters_bytes_max: u64,
    /// Bytes that what scanners share of layers (`tw_layers`) may take; the oldest go first.
    pub layers_bytes_max: u64,
    /// How long replaced objects are kept, seconds.
    pub discard_after_s: u64,
    /// How many days after an image left its last source and node its records are kept; 0 keeps
    /// them forever.
    pub forget_after_days: u32,
    /// How long running handlers may go on after the signal to stop, milliseconds.
    pub grace_ms: u64,
    /// The first delay before a message is tried again, milliseconds; it doubles up to 10 minutes.
    pub retry_ms: u64,
    /// How long a message is tried again whose failure may be gone the next time, seconds; then it
    /// is a dead letter.
    pub retry_for_s: u64,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            credentials_file: None,
            inbox_prefix: None,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            replicas: 1,
            connect_timeout_s: 30,
            ack_wait_ms: 60_000,
            lease_ms: 15_000,
            events_bytes_max: 2 << 30,
            jobs_bytes_max: 1 << 30,
            runtime_bytes_max: 8 << 30,
            responses_bytes_max: 256 << 20,
            forensics_bytes_max: 2 << 30,
            results_bytes_max: 5 << 30,
            alerts_bytes_max: 1 << 30,
            json_bytes_max: 2 << 30,
            dead_letters_bytes_max: 1 << 30,
            layers_bytes_max: 2 << 30,
            discard_after_s: 3_600,
            forget_after_days: 30,
            grace_ms: 10_000,
            retry_ms: 5_000,
            retry_for_s: 86_400,
        }
    }
}

impl Config {
    /// [`Self::ack_wait_ms`].
    pub const fn ack_wait(&self) -> Duration {
        Duration::from_millis(self.ack_wait_ms)
    }

    /// [`Self::lease_ms`].
    pub const fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// The same, for the private server at `url`: what is for servers of others is not for it.
    #[must_use]
    pub fn for_private_server(self, url: String) -> Self {
        Self {
            url: Some(url),
            credentials_file: None,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            ..self
        }
    }

    pub(crate) const fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    pub(crate) const fn retry(&self) -> Duration {
        Duration::from_millis(self.retry_ms)
    }

    pub(crate) const fn retry_for(&self) -> Duration {
        Duration::from_secs(self.retry_for_s)
    }

    /// How long images that nobody has any more are kept; `None`: forever.
    pub(crate) fn forget_after(&self) -> Option<Duration> {
        let days = u64::from(self.forget_after_days);
        (days > 0).then(|| Duration::from_hours(24 * days))
    }

    pub(crate) const fn discard_after(&self) -> Duration {
        Duration::from_secs(self.discard_after_s)
    }
}
