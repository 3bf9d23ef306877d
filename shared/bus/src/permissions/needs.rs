//! What each role does with which stream, bucket and subject.

use model::{
    Partition,
    event::{
        ADVISORIES, ALERT_STATES, ALERTS, CLAIM_OBJECTS, CONFIG, DLQ, EVENTS, EVIDENCE_OBJECTS,
        FEED_OBJECTS, INCIDENTS, JSON, LAYER_OBJECTS, LEASES, NEWS_STREAMS, NODES, REFS,
        REPORT_OBJECTS, RESULTS, images_bucket,
    },
    runtime::{FORENSIC_OBJECTS, RESPONSE_RECORDS, RUNTIME},
};

use super::{Grants, Role};
use crate::{Config, command, topology};

// === impl Grants ===

impl Grants {
    /// Adds what a role needs.
    pub(super) fn add(&mut self, role: Role) {
        match role {
            Role::Gateway => self.gateway(),
            Role::Router => self.router(),
            Role::Scanner => self.scanner(),
            Role::Matcher => self.matcher(),
            Role::Policy => self.policy(),
            Role::Behavior => self.behavior(),
            Role::Alerting => self.alerting(),
            Role::Inventory => self.inventory(),
            Role::Provisioner => self.provisioner(),
            Role::Operator => self.operator(),
            Role::Subscriber => self.subscriber(),
        }
    }

    fn gateway(&mut self) {
        self.listens();
        // While NATS is away it answers by what it has read.
        self.follows(CONFIG);
        self.publishes_registry_events();
        self.publishes("tw.evt.*.ci.scan_requested.*");
        self.reads(REFS);
    }

    fn router(&mut self) {
        self.listens();
        self.serves_those_of(Role::Router);
        self.publishes_registry_events();
        self.publishes("tw.job.image.*.*");
        self.reads(REFS);
        self.writes(REFS, ">");
        self.writes_records("known");
        // Images are forgotten that no source and no node has any more.
        self.follows(NODES);
        self.follows(REFS);
        // What an image is that only a node has.
        self.asks_nodes();
        self.leases("crawl.*");
        self.waits_for(LEASES);
    }

    fn scanner(&mut self) {
        self.listens();
        self.serves_those_of(Role::Scanner);
        self.writes_records("scanned");
        self.writes_objects(LAYER_OBJECTS);
        self.asks_nodes();
        self.leases("layer.>");
        self.waits_for(LEASES);
    }

    fn matcher(&mut self) {
        self.listens();
        self.serves_those_of(Role::Matcher);
        self.follows_records();
        self.writes_records("assessed");
        self.publishes("tw.res.*.vulnerability.*");
        self.follows(ADVISORIES);
        for keys in ["head", "inbox.*", "swept.*"] {
            self.writes(ADVISORIES, keys);
        }
        self.writes_objects(FEED_OBJECTS);
        self.deletes_objects(FEED_OBJECTS);
        self.leases("feeds");
        self.leases("partition.matcher.*");
        // Objects that no record names are collected.
        self.reads_in_order(&topology::object_stream(REPORT_OBJECTS));
        // And markers of keys that were deleted long ago.
        self.follows(REFS);
        self.sweeps(REFS);
        for partition in Partition::all() {
            self.sweeps(&images_bucket(partition));
        }
        self.leases("collector");
        self.waits_for(LEASES);
    }

    fn policy(&mut self) {
        self.listens();
        self.serves_those_of(Role::Policy);
        self.follows_records();
        self.writes_records("judged.*");
        self.publishes("tw.res.*.image.judged");
        self.follows(CONFIG);
        self.writes(CONFIG, "policies.*");
        // For which data a verdict holds.
        self.follows(ADVISORIES);
        self.leases("partition.policy.*");
        self.responds();
    }

    /// Answers incidents: reads what runs where, decides, and writes what nodes shall do.
    fn responds(&mut self) {
        self.follows(NODES);
        self.writes(NODES, "*.*.desired");
        self.follows(INCIDENTS);
        self.follows(RESPONSE_RECORDS);
        self.writes(RESPONSE_RECORDS, ">");
        self.writes(CONFIG, "responses.*");
        self.publishes("tw.res.*.container.responded");
        // A command wakes an agent; what it says stands in `NODES`.
        self.publish.insert(command::EVERY.to_owned());
        // The images that nodes know by other digests.
        self.follows(REFS);
        self.leases("responses");
        self.waits_for(LEASES);
    }

    fn behavior(&mut self) {
        self.listens();
        self.serves_those_of(Role::Behavior);
        // A new owner of a shard reads again what its containers did last.
        self.reads_in_order(RUNTIME);
        self.reads(NODES);
        self.writes(NODES, "*.*.reported");
        self.writes(NODES, "*.*.connections");
        // A new owner of a shard looks for those that are open.
        self.follows(INCIDENTS);
        self.writes(INCIDENTS, "*.*");
        self.writes_objects(EVIDENCE_OBJECTS);
        self.deletes_objects(EVIDENCE_OBJECTS);
        // What the images hold that containers run.
        self.reads(REFS);
        self.reads_records();
        self.publishes("tw.evt.*.node.sighted.*");
        for kind in ["detected", "incident_opened", "incident_closed"] {
            self.publishes(&format!("tw.res.*.container.{kind}"));
        }
        self.leases("partition.behavior.*");
    }

    fn alerting(&mut self) {
        self.listens();
        self.serves_those_of(Role::Alerting);
        // One consumer per sink: sinks are its configuration, so it makes them itself.
        self.takes(ALERTS, "*");
        self.api(&format!("CONSUMER.NAMES.{ALERTS}"));
        self.api(&format!("CONSUMER.DURABLE.CREATE.{ALERTS}.*"));
        self.publishes("tw.alert.*.*");
        self.follows(ALERT_STATES);
        self.writes(ALERT_STATES, ">");
        // How bad an incident is, and how far what is done about it.
        self.reads(INCIDENTS);
        self.reads(RESPONSE_RECORDS);
        self.reads(ADVISORIES);
        self.waits_for(REFS);
        self.waits_for_records();
        // The JSON bridge.
        self.reads_news();
        self.publishes("tw.json.>");
        self.api(&format!("DIRECT.GET.{JSON}"));
        self.leases("json_bridge");
        self.waits_for(LEASES);
    }

    fn inventory(&mut self) {
        self.listens();
        self.follows_records();
        self.waits_for_records();
        self.waits_for(REFS);
        self.reads(ADVISORIES);
        self.follows(NODES);
        self.follows(INCIDENTS);
        self.reads_objects(EVIDENCE_OBJECTS);
        self.follows(RESPONSE_RECORDS);
        self.reads_objects(FORENSIC_OBJECTS);
        // What people order; policy carries it out.
        self.publishes("tw.evt.*.response.ordered.*");
        // Tokens that are made, listed and revoked.
        self.follows(CONFIG);
        self.writes(CONFIG, "tokens.*");
        self.reads_news();
        self.surveys();
        // Advisories that are handed in.
        self.writes(ADVISORIES, "inbox.*");
        self.writes_objects(FEED_OBJECTS);
    }

    /// How long every queue is, how old its oldest message, and what the stores hold.
    fn surveys(&mut self) {
        for spec in topology::consumers() {
            let (stream, durable) = (&spec.stream, &spec.durable);
            self.looks_at(stream);
            self.api(&format!("CONSUMER.INFO.{stream}.{durable}"));
            self.api(&format!("DIRECT.GET.{stream}"));
        }
        self.looks_at(DLQ);
        for bucket in [LAYER_OBJECTS, REPORT_OBJECTS, FEED_OBJECTS, CLAIM_OBJECTS] {
            self.looks_at(&topology::object_stream(bucket));
        }
    }

    fn provisioner(&mut self) {
        for stream in topology::streams(&Config::default()) {
            self.looks_at(&stream.name);
            if stream.setting.is_some() {
                self.api(&format!("STREAM.UPDATE.{}", stream.name));
            }
            self.api(&format!("STREAM.CREATE.{}", stream.name));
        }
        for spec in topology::consumers() {
            let (stream, durable) = (&spec.stream, &spec.durable);
            self.api(&format!("CONSUMER.INFO.{stream}.{durable}"));
            self.api(&format!("CONSUMER.DURABLE.CREATE.{stream}.{durable}"));
        }
        self.follows(CONFIG);
        self.writes(CONFIG, "tokens.*");
        // Of those who make the first token one does.
        self.leases("first_token");
        self.waits_for(LEASES);
    }

    fn operator(&mut self) {
        self.looks_at(DLQ);
        self.api(&format!("DIRECT.GET.{DLQ}"));
        self.api(&format!("STREAM.MSG.DELETE.{DLQ}"));
        // A letter that is retried goes where its message came from.
        for spec in topology::consumers() {
            for subjects in topology::taken(&spec) {
                self.publishes(&subjects);
            }
        }
        self.publishes("tw.alert.*.*");
        self.claims();
        // Whether a record was replaced since.
        for partition in Partition::all() {
            self.reads(&images_bucket(partition));
        }
    }

    /// Not `ALERTS`: whoever reads a stream may take from consumers of others, and those of sinks
    /// are not in the topology, so they could not be denied. Alerts are in `JSON`.
    fn subscriber(&mut self) {
        for stream in [EVENTS, RESULTS, JSON] {
            self.reads_in_order(stream);
        }
        self.reads_objects(CLAIM_OBJECTS);
    }

    fn reads_news(&mut self) {
        for stream in NEWS_STREAMS {
            self.reads_in_order(stream);
        }
        self.reads_objects(CLAIM_OBJECTS);
    }

    /// Every process has an HTTP listener, looks the tokens up that come with requests, and tells
    /// how it does.
    fn listens(&mut self) {
        self.reads_keys(CONFIG, "tokens.*");
        // When they were used last.
        self.reads_keys(CONFIG, "used.*");
        self.writes(CONFIG, "used.*");
        self.leases("process.status.*");
    }

    fn publishes_registry_events(&mut self) {
        for kind in ["pushed", "deleted"] {
            self.publishes(&format!("tw.evt.*.registry.{kind}.*"));
        }
    }

    /// Reads records, the bodies of large ones, and the objects that they name.
    fn reads_records(&mut self) {
        for partition in Partition::all() {
            self.reads(&images_bucket(partition));
        }
        self.reads_objects(REPORT_OBJECTS);
    }

    fn follows_records(&mut self) {
        self.reads_records();
        for partition in Partition::all() {
            self.follows(&images_bucket(partition));
        }
    }

    fn waits_for_records(&mut self) {
        self.reads_records();
        for partition in Partition::all() {
            self.waits_for(&images_bucket(partition));
        }
    }

    /// Writes one kind of record, with its objects, and deletes those that it replaced, and those of
    /// images that are not known any more.
    fn writes_records(&mut self, what: &str) {
        self.follows_records();
        self.leases(&format!("retention.{}", what.trim_end_matches(".*")));
        self.waits_for(LEASES);
        for partition in Partition::all() {
            self.writes(&images_bucket(partition), &format!("*.*.{what}"));
        }
        self.writes_objects(REPORT_OBJECTS);
        self.deletes_objects(REPORT_OBJECTS);
    }
}
