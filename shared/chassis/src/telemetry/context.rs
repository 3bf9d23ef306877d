//! W3C trace context: from messages to spans and back.

use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The headers of the propagation that is set up in `init`.
const HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// Gives the current span's trace context to a message, header by header.
pub fn inject(set: &mut dyn FnMut(&str, String)) {
    let context = Span::current().context();
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut Setter(set));
    });
}

/// The trace context of a message; an empty one where it has none or a broken one.
pub fn extract(get: &dyn Fn(&str) -> Option<String>) -> Context {
    let headers: Vec<_> = HEADERS
        .into_iter()
        .filter_map(|name| Some((name, get(name)?)))
        .collect();
    global::get_text_map_propagator(|propagator| propagator.extract(&Getter(&headers)))
}

/// Makes a span that has not been entered yet a child of `parent`.
pub fn set_parent(span: &Span, parent: Context) {
    if let Err(error) = span.set_parent(parent) {
        // Nothing listens to spans, or the span runs already.
        tracing::trace!(%error, "no parent for a span: {error}");
    }
}

struct Setter<'a>(&'a mut dyn FnMut(&str, String));

struct Getter<'a>(&'a [(&'static str, String)]);

impl Injector for Setter<'_> {
    fn set(&mut self, key: &str, value: String) {
        (self.0)(key, value);
    }
}

impl Extractor for Getter<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }
}
