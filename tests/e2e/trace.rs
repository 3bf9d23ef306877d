//! One connected trace from the webhook to the alert, as an OTLP collector receives it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::Value;
use testkit::{ImageBuilder, debian_layer, python_layer};

use crate::fabric::{Advisory, Fabric, Options, PATIENCE};

/// Takes what the product sends out: spans by OTLP, alerts by webhook.
pub(crate) struct Collector {
    address: String,
    received: Arc<Mutex<Received>>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    alerts: Vec<Value>,
    /// The `traceparent` of each alert.
    parents: Vec<String>,
    /// Everything as it came.
    bodies: Vec<Bytes>,
}

/// What a test wants of a span.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
}

// === impl Collector ===

impl Collector {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's server has no Cx to wait for it"
    )]
    pub(crate) async fn start() -> Self {
        let received = Arc::<Mutex<Received>>::default();
        let router = Router::new()
            .route("/v1/traces", post(take_spans))
            .route("/v1/metrics", post(take))
            .route("/v1/logs", post(take))
            .route("/alerts", post(take_alert))
            .with_state(Arc::clone(&received));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = tokio::spawn(async move {
            axum::serve(listener, router)
                .await
                .expect("the collector serves");
        });
        Self {
            address,
            received,
            server,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything that came, as it came.
    pub(crate) fn bodies(&self) -> Vec<Bytes> {
        self.lock().bodies.clone()
    }

    pub(crate) fn alerts(&self) -> Vec<Value> {
        self.lock().alerts.clone()
    }

    /// Waits until the alerts received are as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&[Value]) -> bool) {
        let started = Instant::now();
        while !wanted(&self.alerts()) {
            assert!(started.elapsed() < PATIENCE, "alerts: {:#?}", self.alerts());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(received): State<Arc<Mutex<Received>>>, body: Bytes) -> &'static str {
    let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
    received.bodies.push(body);
    ""
}

async fn take_spans(State(received): State<Arc<Mutex<Received>>>, body: Bytes) -> &'static str {
    take(State(Arc::clone(&received)), body.clone()).await;
    let request = ExportTraceServiceRequest::decode(body).expect("spans in protobuf");
    let spans = request
        .resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .map(|span| Span {
            trace: model::hex(&span.trace_id),
            id: model::hex(&span.span_id),
            parent: model::hex(&span.parent_span_id),
            name: span.name,
        });
    received
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .spans
        .extend(spans);
    ""
}

async fn take_alert(
    State(received): State<Arc<Mutex<Received>>>,
    headers: HeaderMap,
    body: Bytes,
) -> &'static str {
    let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
    let parent = headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    received.parents.push(parent.unwrap_or_default().to_owned());
    received.bodies.push(body.clone());
    received
        .alerts
        .push(serde_json::from_slice(&body).expect("an alert is JSON"));
    ""
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_webhook_to_the_alert() {
    let mut collector = Collector::start().await;
    let config = format!(
        "alerting:
  sinks:
    test:
      type: webhook
      url: {}
telemetry:
  otlp_endpoint: {}
",
        collector.url("/alerts"),
        collector.url("")
    );
    let Some(fabric) = Fabric::start(Options {
        config,
        ..Options::default()
    })
    .await
    else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    let image = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            python_layer(&[("requests", "2.19.1")]).build(),
            "RUN pip install",
        )
        .build();
    let reference = fabric.push(image, "team/app", "1");
    fabric.decision(&reference, "deny").await;
    collector.until(|alerts| !alerts.is_empty()).await;

    // The alert carries the trace that it belongs to: traceparent is 00-TRACE-SPAN-FLAGS.
    let parent = collector.lock().parents[0].clone();
    let trace = parent
        .split('-')
        .nth(1)
        .expect("the alert has a traceparent")
        .to_owned();
    let spans = connected(&collector, &trace).await;
    println!("{}", tree(&spans));
}

/// Waits until the trace has a span of every step and hangs together.
async fn connected(collector: &Collector, trace: &str) -> Vec<Span> {
    let steps = [
        "/hooks/",
        "pushed",
        "job.image",
        "scanned",
        "assessed",
        "judged",
        "alert",
    ];
    let started = Instant::now();
    loop {
        let spans: Vec<Span> = collector
            .lock()
            .spans
            .iter()
            .filter(|span| span.trace == trace)
            .cloned()
            .collect();
        let missing: Vec<&str> = steps
            .into_iter()
            .filter(|step| !spans.iter().any(|span| span.name.contains(step)))
            .collect();
        if missing.is_empty() && is_connected(&spans) {
            return spans;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "no span for {missing:?} in {spans:#?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether all spans hang on one root that we know or that nobody knows.
fn is_connected(spans: &[Span]) -> bool {
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let roots: BTreeSet<&str> = spans
        .iter()
        .filter(|span| !ids.contains(span.parent.as_str()))
        .map(|span| span.parent.as_str())
        .collect();
    roots.len() == 1
}

fn tree(spans: &[Span]) -> String {
    let mut text = String::new();
    let mut children: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        children.entry(span.parent.as_str()).or_default().push(span);
    }
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let mut stack: Vec<(usize, &Span)> = spans
        .iter()
        .filter(|span| !ids.contains(span.parent.as_str()))
        .map(|span| (0, span))
        .collect();
    while let Some((depth, span)) = stack.pop() {
        text.push_str(&"  ".repeat(depth));
        text.push_str(&span.name);
        text.push('\n');
        let below = children.get(span.id.as_str()).into_iter().flatten();
        stack.extend(below.map(|child| (depth + 1, *child)));
    }
    text
}
