//! The kinds of events that subscribers get: one visible list. The JSON Schemas and the AsyncAPI
//! document are made from it; `tidewaiter events` and `GET /v1/events` select by it.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::Value;

use super::{
    ALERTS, Alert, EVENTS, Event, ImageDeleted, ImageJudged, ImagePushed, RESULTS, ScanRequested,
    VulnerabilityChanged,
};
use crate::{
    Slug,
    runtime::{ContainerDetected, ContainerResponded, ImageSighted, IncidentChanged},
};

/// What every type of ours begins with.
const PREFIX: &str = "io.tidewaiter.";

/// The example of each kind: the golden file that has every field.
macro_rules! golden {
    ($folder:literal) => {
        include_str!(concat!("../../testdata/events/", $folder, "/v1.json"))
    };
}

/// The streams that hold news, in the order of [`NEWS`]. The queue of jobs is not among them: it
/// has one reader.
pub const NEWS_STREAMS: [&str; 3] = [EVENTS, RESULTS, ALERTS];

/// What subscribers get.
pub static NEWS: &[Kind] = &[
    Kind::of::<ImagePushed>(
        "tw.evt.{tenant}.registry.pushed.{source}",
        "A registry says that something was pushed",
        golden!("io.tidewaiter.image.pushed"),
    ),
    Kind::of::<ImageDeleted>(
        "tw.evt.{tenant}.registry.deleted.{source}",
        "A registry says that something was deleted",
        golden!("io.tidewaiter.image.deleted"),
    ),
    Kind::of::<ScanRequested>(
        "tw.evt.{tenant}.ci.scan_requested.{system}",
        "Somebody asked for a scan over the API",
        golden!("io.tidewaiter.scan.requested"),
    ),
    Kind::of::<ImageSighted>(
        "tw.evt.{tenant}.node.sighted.{node}",
        "A node holds an image that was not scanned yet",
        golden!("io.tidewaiter.image.sighted"),
    ),
    Kind::of::<ImageJudged>(
        "tw.res.{tenant}.image.judged",
        "An image has its first verdict, or another decision",
        golden!("io.tidewaiter.image.judged"),
    ),
    Kind::of::<VulnerabilityChanged>(
        "tw.res.{tenant}.vulnerability.{change}",
        "A vulnerability appeared in or left an image that was assessed before",
        golden!("io.tidewaiter.vulnerability.changed"),
    ),
    Kind::of::<ContainerDetected>(
        "tw.res.{tenant}.container.detected",
        "A container did what it should not",
        golden!("io.tidewaiter.container.detected"),
    ),
    Kind::of::<IncidentChanged>(
        "tw.res.{tenant}.container.{incident}",
        "What was detected in a container became an incident, grew worse, or is over",
        golden!("io.tidewaiter.incident.changed"),
    ),
    Kind::of::<ContainerResponded>(
        "tw.res.{tenant}.container.responded",
        "A response to an incident was proposed, held back, decided, begun, or ended",
        golden!("io.tidewaiter.container.responded"),
    ),
    Kind::of::<Alert>(
        "tw.alert.{tenant}.{severity}",
        "An alert was raised or resolved",
        golden!("io.tidewaiter.alert"),
    ),
];

/// A kind of event.
#[derive(Debug)]
pub struct Kind {
    /// Its `ce-type`.
    pub ce_type: &'static str,
    /// The stream that stores it.
    pub stream: &'static str,
    /// Its subject, with what varies in braces.
    pub address: &'static str,
    /// What it says, in one line.
    pub summary: &'static str,
    root: fn(&mut SchemaGenerator) -> Schema,
    pub(super) part: fn(&mut SchemaGenerator) -> Schema,
    sample: fn(&str) -> Sample,
    golden: &'static str,
}

/// An event by example.
pub(super) struct Sample {
    pub(super) body: Value,
    pub(super) subject: String,
    pub(super) id: String,
    pub(super) origin: String,
}

// === impl Kind ===

impl Kind {
    const fn of<E: Event + JsonSchema>(
        address: &'static str,
        summary: &'static str,
        golden: &'static str,
    ) -> Self {
        Self {
            ce_type: E::TYPE,
            stream: E::STREAM,
            address,
            summary,
            root: SchemaGenerator::root_schema_for::<E>,
            part: SchemaGenerator::subschema_for::<E>,
            sample: sample::<E>,
            golden,
        }
    }

    /// The kind with a name like `image.judged`, or with a whole type.
    pub fn find(name: &str) -> Option<&'static Self> {
        NEWS.iter()
            .find(|kind| kind.name() == name || kind.ce_type == name)
    }

    /// How people call it: its type without what all types have and without the version.
    pub fn name(&self) -> &'static str {
        let name = self.ce_type.strip_prefix(PREFIX).unwrap_or(self.ce_type);
        name.rsplit_once(".v").map_or(name, |(name, _)| name)
    }

    /// The JSON Schema of its body (draft 2020-12). What it requires was written by every version;
    /// a reader ignores what it does not name.
    pub fn schema(&self) -> Value {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let mut schema = (self.root)(&mut generator);
        schema.insert("$id".to_owned(), format!("urn:{}", self.ce_type).into());
        schema.to_value()
    }

    /// An example of its body, as JSON.
    pub fn example(&self) -> Value {
        self.sample().body
    }

    pub(super) fn sample(&self) -> Sample {
        (self.sample)(self.golden)
    }
}

fn sample<E: Event>(golden: &str) -> Sample {
    let event: E = serde_json::from_str(golden).expect("a test reads every golden file");
    let tenant = Slug::default_tenant();
    Sample {
        body: serde_json::from_str(golden).expect("it was read a line above"),
        subject: event.subject(&tenant),
        id: event.message_id(&tenant),
        origin: event.origin(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_each_example_fits_the_address_of_its_kind() {
        for kind in NEWS {
            let subject = kind.sample().subject;
            let (tokens, pattern) = (subject.split('.'), kind.address.split('.'));
            assert_eq!(tokens.clone().count(), pattern.clone().count(), "{subject}");
            for (token, wanted) in tokens.zip(pattern) {
                assert!(wanted.starts_with('{') || wanted == token, "{subject}");
            }
        }
    }

    #[test]
    fn kinds_are_found_by_their_names() {
        let names: Vec<&str> = NEWS.iter().map(Kind::name).collect();
        let expected = [
            "image.pushed",
            "image.deleted",
            "scan.requested",
            "image.sighted",
            "image.judged",
            "vulnerability.changed",
            "container.detected",
            "incident.changed",
            "container.responded",
            "alert",
        ];
        assert_eq!(names, expected);
        for kind in NEWS {
            assert!(NEWS_STREAMS.contains(&kind.stream));
            assert_eq!(Kind::find(kind.name()).unwrap().ce_type, kind.ce_type);
            assert_eq!(Kind::find(kind.ce_type).unwrap().ce_type, kind.ce_type);
        }
        assert!(Kind::find("image.scan").is_none());
    }
}
