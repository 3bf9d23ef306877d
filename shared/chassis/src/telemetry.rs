//! Traces, metrics and logs: readable lines on stderr, Prometheus text for scrapers, OTLP over
//! HTTP for a collector.
//!
//! Telemetry never stops work: exports run on threads of their own, batches are dropped when the
//! collector is slow, and a collector that is away costs one warning every five minutes.

mod context;
mod export;
mod line;
mod process;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, time::Duration};

use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_sdk::{
    Resource,
    logs::SdkLoggerProvider,
    metrics::SdkMeterProvider,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use prometheus::{Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

pub use self::context::{extract, inject, set_parent};
use crate::{SecretError, SecretRef, config};

/// What the exporter itself uses: its own lines and spans would come back as new exports.
const OWN_MEANS: &str = "opentelemetry=off,hyper=off,hyper_util=off,h2=off,reqwest=off,rustls=off";

/// How and where telemetry goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which lines are logged, as `info,bus=debug`.
    pub log: String,
    /// How lines look.
    pub log_format: LogFormat,
    /// The base URL of an OTLP/HTTP collector, as `http://collector:4318`. Without it the standard
    /// variable `OTEL_EXPORTER_OTLP_ENDPOINT` counts, and without that nothing is exported.
    pub otlp_endpoint: Option<String>,
    /// Headers for the collector, their values by reference.
    pub otlp_headers: BTreeMap<String, SecretRef>,
    /// The share of traces that begin here and are exported, 0 to 1.
    pub trace_ratio: f64,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter cannot be read.
    #[error("`{filter}` is not a log filter like `info,bus=debug`: {why}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong.
        why: String,
    },
    /// The collector's address or headers cannot be used.
    #[error("exporting telemetry to `{endpoint}`: {why}")]
    Exporter {
        /// The collector.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// A header's value cannot be read.
    #[error("header `{name}` for the telemetry collector")]
    Header {
        /// The header.
        name: String,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// Somebody set up logging before.
    #[error("logging is set up already")]
    Twice,
    /// The Prometheus registry refused.
    #[error("metrics for Prometheus: {0}")]
    Prometheus(String),
}

/// Telemetry that is set up. Keep it until the end, then call [`Telemetry::shutdown`].
pub struct Telemetry {
    registry: Registry,
    meters: SdkMeterProvider,
    tracers: Option<SdkTracerProvider>,
    loggers: Option<SdkLoggerProvider>,
    exporter: Option<export::Exporter>,
}

/// Sets up logging, tracing and metrics of this process; once.
pub fn init(
    config: &Config,
    service_name: &str,
    version: &str,
) -> Result<Telemetry, TelemetryError> {
    let resource = Resource::builder()
        .with_service_name(service_name.to_owned())
        .with_attribute(KeyValue::new("service.version", version.to_owned()))
        .build();
    let telemetry = providers(config, resource)?;
    // It fails where this has been called before; then the rest must stay as it is.
    subscribe(config, &telemetry)?;
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_meter_provider(telemetry.meters.clone());
    process::watch(&global::meter("process"));
    log_panics();
    Ok(telemetry)
}

/// Builds what produces and exports, without making it global.
fn providers(config: &Config, resource: Resource) -> Result<Telemetry, TelemetryError> {
    let registry = Registry::new();
    let prometheus = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()
        .map_err(|error| TelemetryError::Prometheus(error.to_string()))?;
    let meters = SdkMeterProvider::builder()
        .with_resource(resource.clone())
        .with_reader(prometheus);
    let endpoint = config.otlp_endpoint.clone();
    let Some(endpoint) = endpoint.or_else(|| config::env_var("OTEL_EXPORTER_OTLP_ENDPOINT")) else {
        let meters = meters.build();
        return Ok(Telemetry {
            registry,
            meters,
            tracers: None,
            loggers: None,
            exporter: None,
        });
    };
    let exporter = export::Exporter::new(&endpoint, &config.otlp_headers)?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
        config.trace_ratio.clamp(0.0, 1.0),
    )));
    let tracers = SdkTracerProvider::builder()
        .with_resource(resource.clone())
        .with_sampler(sampler)
        .with_batch_exporter(exporter.spans()?)
        .build();
    let loggers = SdkLoggerProvider::builder()
        .with_resource(resource)
        .with_batch_exporter(exporter.logs()?)
        .build();
    let meters = meters.with_periodic_exporter(exporter.metrics()?).build();
    Ok(Telemetry {
        registry,
        meters,
        tracers: Some(tracers),
        loggers: Some(loggers),
        exporter: Some(exporter),
    })
}

/// Makes the layers of `tracing` global: lines, spans, log records.
fn subscribe(config: &Config, telemetry: &Telemetry) -> Result<(), TelemetryError> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Text => lines.with_ansi(false).event_format(line::Sentence).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let spans = telemetry.tracers.as_ref().map(|tracers| {
        tracing_opentelemetry::layer()
            .with_tracer(tracers.tracer("tidewaiter"))
            .with_location(false)
            .with_threads(false)
            .with_filter(EnvFilter::new(format!("info,{OWN_MEANS}")))
    });
    let records = telemetry
        .loggers
        .as_ref()
        .map(opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge::new);
    tracing_subscriber::registry()
        // Spans first: log records take trace and span id from them.
        .with(spans)
        .with(records.with_filter(filter(&config.log)?))
        .with(lines.with_filter(filter(&config.log)?))
        .try_init()
        .map_err(|_| TelemetryError::Twice)
}

fn filter(log: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(format!("{OWN_MEANS},{log}"))
        .map_err(|error| TelemetryError::Filter {
            filter: log.to_owned(),
            why: error.to_string(),
        })
}

/// Panics become log lines like all others; where they are caught, only what follows is logged.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let why = crate::cx::panic_text(panic.payload());
        tracing::error!(panic = why, place, "panic at {place}: {why}");
    }));
}

// === impl Telemetry ===

impl Telemetry {
    /// Metrics as Prometheus reads them.
    pub fn prometheus_text(&self) -> String {
        prometheus_text(&self.registry)
    }

    /// The registry behind [`Telemetry::prometheus_text`]: for [`crate::http::metrics`].
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Exports what is waiting; gives up after `deadline`.
    pub async fn flush(&self, deadline: Duration) {
        let (tracers, loggers) = (self.tracers.clone(), self.loggers.clone());
        let meters = self.exporter.as_ref().map(|_| self.meters.clone());
        within(deadline, move || {
            // Failures were reported by the exporter.
            drop(tracers.map(|tracers| tracers.force_flush()));
            drop(loggers.map(|loggers| loggers.force_flush()));
            drop(meters.map(|meters| meters.force_flush()));
        })
        .await;
    }

    /// Exports what is waiting and ends; gives up after `deadline`.
    pub async fn shutdown(self, deadline: Duration) {
        // Where nothing is exported nothing waits.
        if self.exporter.is_none() {
            return;
        }
        self.flush(deadline).await;
        within(deadline, move || {
            drop(
                self.tracers
                    .map(|tracers| tracers.shutdown_with_timeout(deadline)),
            );
            drop(
                self.loggers
                    .map(|loggers| loggers.shutdown_with_timeout(deadline)),
            );
            drop(self.meters.shutdown_with_timeout(deadline));
            drop(self.exporter);
        })
        .await;
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("exports", &self.exporter.is_some())
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            otlp_headers: BTreeMap::new(),
            trace_ratio: 1.0,
        }
    }
}

pub(crate) fn prometheus_text(registry: &Registry) -> String {
    TextEncoder::new()
        .encode_to_string(&registry.gather())
        .inspect_err(|error| tracing::warn!(%error, "writing metrics: {error}"))
        .unwrap_or_default()
}

/// Runs work that blocks on the exporters' threads, and leaves it behind when it takes too long.
async fn within(deadline: Duration, work: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("telemetry-flush".to_owned())
        .spawn(move || {
            work();
            sender.send(()).ok();
        });
    let ended = match thread {
        Ok(_) => tokio::time::timeout(deadline, receiver).await.is_ok(),
        Err(_) => false,
    };
    if !ended {
        tracing::warn!("telemetry that was waiting is given up after {deadline:?}");
    }
}
