//! Exporters over HTTP, on a small runtime of their own: a busy or stopping process does not hold
//! up its telemetry, and the other way round.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    LogExporter, MetricExporter, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
};
use tokio::runtime::{Builder, Handle, Runtime};

use super::TelemetryError;
use crate::SecretRef;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const WARN_PAUSE: Duration = Duration::from_mins(5);

/// Makes the exporters of one collector; they work while this lives.
pub(super) struct Exporter {
    endpoint: String,
    headers: HashMap<String, String>,
    client: Arc<Client>,
    /// Taken when this ends: a runtime may not be dropped the plain way in asynchronous code.
    runtime: Option<Runtime>,
}

struct Client {
    endpoint: String,
    http: reqwest::Client,
    handle: Handle,
    complaints: Complaints,
}

/// Failures since the last warning.
#[derive(Default)]
struct Complaints {
    warned: Mutex<Option<Instant>>,
    unreported: AtomicU64,
}

// === impl Exporter ===

impl Exporter {
    pub(super) fn new(
        endpoint: &str,
        headers: &BTreeMap<String, SecretRef>,
    ) -> Result<Self, TelemetryError> {
        let wrong = |why: String| TelemetryError::Exporter {
            endpoint: endpoint.to_owned(),
            why,
        };
        let values = headers.iter().map(|(name, value)| match value.read() {
            Ok(value) => Ok((name.clone(), value.expose().to_owned())),
            Err(source) => Err(TelemetryError::Header {
                name: name.clone(),
                source,
            }),
        });
        let headers = values.collect::<Result<HashMap<_, _>, _>>()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let client = Client {
            endpoint: endpoint.to_owned(),
            http,
            handle: runtime.handle().clone(),
            complaints: Complaints::default(),
        };
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            headers,
            client: Arc::new(client),
            runtime: Some(runtime),
        })
    }

    pub(super) fn spans(&self) -> Result<SpanExporter, TelemetryError> {
        let builder = SpanExporter::builder().with_http();
        let built = self.set_up(builder, "v1/traces").build();
        built.map_err(|error| self.wrong(&error))
    }

    pub(super) fn metrics(&self) -> Result<MetricExporter, TelemetryError> {
        let builder = MetricExporter::builder().with_http();
        let built = self.set_up(builder, "v1/metrics").build();
        built.map_err(|error| self.wrong(&error))
    }

    pub(super) fn logs(&self) -> Result<LogExporter, TelemetryError> {
        let builder = LogExporter::builder().with_http();
        let built = self.set_up(builder, "v1/logs").build();
        built.map_err(|error| self.wrong(&error))
    }

    fn set_up<B>(&self, builder: B, path: &str) -> B
    where
        B: WithExportConfig + WithHttpConfig,
    {
        builder
            .with_endpoint(format!("{}/{path}", self.endpoint))
            .with_timeout(REQUEST_TIMEOUT)
            .with_headers(self.headers.clone())
            .with_retry_policy(RetryPolicy::recommended())
            .with_shared_http_client(Arc::clone(&self.client) as Arc<dyn HttpClient>)
    }

    fn wrong(&self, error: &dyn fmt::Display) -> TelemetryError {
        TelemetryError::Exporter {
            endpoint: self.endpoint.clone(),
            why: error.to_string(),
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

// === impl Client ===

#[async_trait]
impl HttpClient for Client {
    /// Sends on the exporters' runtime, whatever thread asks: the batch processors are plain
    /// threads, and the client needs tokio.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self
            .handle
            .spawn(async move { http.send_bytes(request).await });
        let result = sent
            .await
            .map_err(HttpError::from)
            .and_then(|result| result);
        match &result {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => self.complain(&format!("it answers {}", response.status())),
            Err(error) => self.complain(&chain(error.as_ref())),
        }
        result
    }
}

impl Client {
    fn complain(&self, why: &str) {
        if let Some(failures) = self.complaints.due(Instant::now()) {
            tracing::warn!(
                endpoint = self.endpoint,
                failures,
                "telemetry does not reach `{}` ({failures} times): {why}",
                self.endpoint
            );
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

// === impl Complaints ===

impl Complaints {
    /// How many failures to report now; `None` while the last report is fresh.
    fn due(&self, now: Instant) -> Option<u64> {
        self.unreported.fetch_add(1, Ordering::Relaxed);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|at| now.duration_since(at) < WARN_PAUSE) {
            return None;
        }
        *warned = Some(now);
        Some(self.unreported.swap(0, Ordering::Relaxed))
    }
}

/// An error with its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_reported_at_once_and_then_once_in_a_while() {
        let complaints = Complaints::default();
        let start = Instant::now();
        assert_eq!(complaints.due(start), Some(1));
        assert_eq!(complaints.due(start + Duration::from_secs(10)), None);
        assert_eq!(complaints.due(start + Duration::from_secs(20)), None);
        assert_eq!(complaints.due(start + WARN_PAUSE), Some(3));
    }

    #[tokio::test]
    async fn headers_and_addresses_are_checked_at_the_start() {
        let headers = [(
            "x".to_owned(),
            SecretRef::Env("TIDEWAITER_NO_SUCH".to_owned()),
        )];
        let error = Exporter::new("http://127.0.0.1:1", &headers.into()).err();
        assert!(matches!(error, Some(TelemetryError::Header { .. })));
        let exporter = Exporter::new("not a url", &BTreeMap::new()).unwrap();
        assert!(matches!(
            exporter.spans(),
            Err(TelemetryError::Exporter { .. })
        ));
    }
}
