//! Log lines for people: when, how bad, where, and one sentence.

use std::fmt;

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

/// Writes an event's sentence. Its fields say the same to programs: they are in JSON lines and in
/// what goes out by OTLP, and so are the spans.
pub(super) struct Sentence;

/// The text of an event.
#[derive(Default)]
struct Message(String);

impl<S, N> FormatEvent<S, N> for Sentence
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _cx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = Message::default();
        event.record(&mut message);
        SystemTime.format_time(&mut writer)?;
        let meta = event.metadata();
        writeln!(
            writer,
            " {:>5} {}: {}",
            meta.level(),
            meta.target(),
            message.0
        )
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}").replace(['\n', '\r'], " ");
        }
    }
}
