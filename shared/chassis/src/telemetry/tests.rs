use std::sync::{Arc, Mutex, PoisonError};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::Message as _;
use tokio::net::TcpListener;

use super::*;
use crate::{Cx, http};

const SOON: Duration = Duration::from_secs(20);

/// What a collector received.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    traces: Vec<ExportTraceServiceRequest>,
    logs: Vec<ExportLogsServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    headers: Vec<String>,
}

impl Collector {
    fn router(&self) -> Router {
        let with = Router::new()
            .route(
                "/v1/traces",
                post(
                    async |State(to): State<Self>, headers: HeaderMap, body: Bytes| {
                        let mut to = to.0.lock().unwrap();
                        to.traces
                            .push(ExportTraceServiceRequest::decode(body).unwrap());
                        to.headers
                            .extend(headers.get("x-key").map(|v| v.to_str().unwrap().to_owned()));
                    },
                ),
            )
            .route(
                "/v1/logs",
                post(async |State(to): State<Self>, body: Bytes| {
                    let request = ExportLogsServiceRequest::decode(body).unwrap();
                    to.0.lock().unwrap().logs.push(request);
                }),
            )
            .route(
                "/v1/metrics",
                post(async |State(to): State<Self>, body: Bytes| {
                    let request = ExportMetricsServiceRequest::decode(body).unwrap();
                    to.0.lock().unwrap().metrics.push(request);
                }),
            );
        with.with_state(self.clone())
    }

    fn read<T>(&self, ask: impl FnOnce(&Received) -> T) -> T {
        ask(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn work(parent: opentelemetry::Context) -> Vec<(String, String)> {
    let span = tracing::info_span!("pull", otel.name = "pull layer");
    set_parent(&span, parent);
    let mut headers = Vec::new();
    span.in_scope(|| {
        tracing::info!(answer = 42, "a line inside");
        tracing::info!(target: "hyper::client", "a line of the exporter's own means");
        inject(&mut |name, value| headers.push((name.to_owned(), value)));
    });
    global::meter("chassis")
        .u64_counter("tidewaiter.test")
        .build()
        .add(3, &[]);
    headers
}

/// The only test that makes telemetry global, hence one test for all of it.
#[tokio::test(flavor = "multi_thread")]
async fn one_trace_with_its_lines_and_metrics_reaches_a_collector() {
    let cx = Cx::for_tests();
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (server_cx, router) = (cx.clone(), collector.router());
    cx.spawn("collector", async move {
        http::serve(&server_cx, listener, router).await;
    });

    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "letmein\n").unwrap();
    let config = Config {
        otlp_endpoint: Some(format!("http://{address}/")),
        otlp_headers: [("x-key".to_owned(), SecretRef::File(key))].into(),
        ..Config::default()
    };
    let telemetry = init(&config, "tidewaiter", "1.2.3").unwrap();
    assert!(matches!(
        init(&config, "tidewaiter", "1.2.3"),
        Err(TelemetryError::Twice)
    ));

    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let parent = extract(&|name| (name == "traceparent").then(|| traceparent.to_owned()));
    assert!(parent.span().span_context().is_remote());
    let headers = work(parent);
    let sent = &headers
        .iter()
        .find(|(name, _)| name == "traceparent")
        .unwrap()
        .1;
    assert!(
        sent.starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
        "{sent}"
    );
    assert_ne!(sent, traceparent);

    let text = telemetry.prometheus_text();
    assert!(text.contains("tidewaiter_test_total 3"), "{text}");
    assert!(text.contains("service_name=\"tidewaiter\""), "{text}");
    for of_process in [
        "process_cpu_time_seconds_total{cpu_mode=\"user\"",
        "process_memory_usage_bytes",
        "process_thread_count",
        "process_unix_file_descriptor_count",
        "process_uptime_seconds",
    ] {
        assert!(text.contains(of_process), "{of_process} in {text}");
    }
    telemetry.flush(SOON).await;

    check_traces(&collector);
    check_lines(&collector);
    let resource = collector.read(|received| format!("{:?}", received.metrics));
    assert!(
        resource.contains("tidewaiter.test") && resource.contains("1.2.3"),
        "{resource}"
    );
    telemetry.shutdown(SOON).await;
    cx.stop();
    assert!(cx.finish(SOON).await);
}

fn check_traces(collector: &Collector) {
    let spans: Vec<_> = collector.read(|received| {
        assert_eq!(
            received.headers.first().map(String::as_str),
            Some("letmein")
        );
        let resources = received
            .traces
            .iter()
            .flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    });
    let span = spans.iter().find(|span| span.name == "pull layer").unwrap();
    assert_eq!(hex(&span.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&span.parent_span_id), "b7ad6b7169203331");
}

fn check_lines(collector: &Collector) {
    let records: Vec<_> = collector.read(|received| {
        let resources = received
            .logs
            .iter()
            .flat_map(|request| &request.resource_logs);
        let scopes = resources.flat_map(|resource| &resource.scope_logs);
        scopes.flat_map(|scope| scope.log_records.clone()).collect()
    });
    let said = |text: &str| {
        records
            .iter()
            .find(|record| format!("{:?}", record.body).contains(text))
    };
    let record = said("a line inside").unwrap();
    assert_eq!(hex(&record.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert!(said("the exporter's own means").is_none());
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    let config = Config {
        otlp_endpoint: Some("http://127.0.0.1:1".to_owned()),
        ..Config::default()
    };
    let telemetry = providers(&config, Resource::builder_empty().build()).unwrap();
    let tracer = telemetry.tracers.as_ref().unwrap().tracer("test");
    drop(opentelemetry::trace::Tracer::start(&tracer, "lost"));
    tokio::time::timeout(SOON, telemetry.shutdown(Duration::from_secs(1)))
        .await
        .unwrap();
}

#[test]
fn a_bad_filter_is_an_error_that_shows_it() {
    let error = filter("info,=x=y").unwrap_err().to_string();
    assert!(
        error.starts_with("`info,=x=y` is not a log filter"),
        "{error}"
    );
    assert!(filter("warn,bus=debug").is_ok());
}

#[test]
fn config_reads_what_it_writes() {
    let text = serde_json::to_string(&Config::default()).unwrap();
    assert_eq!(
        serde_json::from_str::<Config>(&text).unwrap(),
        Config::default()
    );
}
