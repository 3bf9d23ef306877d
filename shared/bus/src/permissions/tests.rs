mod denials;
mod fleet;
mod rights;

use std::collections::BTreeSet;

use model::{Partition, Slug, event::Event as _, event::images_bucket, runtime::Shard};

use super::*;
use crate::{Config, testing::pushed};

/// A subject of a partition as one of all partitions, for people.
fn of_any_partition(text: &str) -> String {
    let mut text = text.to_owned();
    for partition in Partition::all() {
        text = text.replace(&images_bucket(partition), "tw_images_<part>");
        for shard in Shard::all() {
            text = text.replace(&format!(".behavior_{shard}"), ".behavior_<shard>");
        }
        for durable in ["matcher", "policy_assessed", "policy_known"] {
            let end = format!(".{durable}_{partition}");
            text = text.replace(&end, &format!(".{durable}_<part>"));
        }
    }
    text
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/testdata"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn rights_of_each_role() {
    let mut table = String::new();
    for role in Role::ALL {
        let grants = Grants::of([role]);
        let mut list = |name: &str, subjects: Vec<&str>| {
            let subjects: BTreeSet<_> = subjects.into_iter().map(of_any_partition).collect();
            for subject in subjects {
                table.extend([format!("{role} {name} {subject}\n")]);
            }
        };
        list("publishes", grants.publish().collect());
        list("never publishes", grants.deny().collect());
        list("subscribes", grants.subscribe().collect());
    }
    snapshot("permissions", &table);
}

#[test]
fn accounts_are_printed_as_nats_server_reads_them() {
    let user = |holder: Holder, letter: &str| User {
        holder,
        public_key: format!("U{}", letter.repeat(8)),
    };
    let agent = |tenant: &str| Holder::Agent {
        tenant: tenant.parse().unwrap(),
        node: "n1".parse().unwrap(),
    };
    let users = [
        user(Holder::Roles([Role::Subscriber].into()), "A"),
        user(agent("default"), "B"),
        user(agent("acme"), "C"),
    ];
    snapshot("accounts", &accounts(&users));
}

#[test]
fn every_stream_is_somebodys_and_nothing_else_is_granted() {
    let streams = topology::streams(&Config::default());
    let all: BTreeSet<&str> = streams.iter().map(|stream| &*stream.name).collect();
    let work = |role: &Role| *role != Role::Provisioner;
    for stream in &all {
        let mut workers = Role::ALL.into_iter().filter(work);
        let used = workers.any(|role| Grants::of([role]).streams().contains(*stream));
        assert!(used, "nobody uses `{stream}`");
    }
    let taken: Vec<&str> = streams
        .iter()
        .flat_map(topology::Stream::subjects)
        .collect();
    for role in Role::ALL {
        let grants = Grants::of([role]);
        for subject in grants.publish().chain(grants.deny()) {
            let tokens: Vec<&str> = subject.split('.').collect();
            let of_known_stream = tokens.iter().any(|token| all.contains(token));
            let stored = taken.iter().any(|filter| covers(filter, subject));
            let is_question = subject == "tw.req.*.blob.*";
            let wakes = role == Role::Policy && subject == crate::command::EVERY;
            assert!(
                of_known_stream || stored || is_question || wakes,
                "{role}: {subject}"
            );
            assert!(!subject.starts_with('>') && subject != "$JS.>", "{role}");
        }
    }
}

#[test]
fn every_consumer_is_served_by_the_one_role_that_may() {
    for role in Role::ALL {
        for spec in topology::consumers_of(role) {
            let (stream, durable) = (&spec.stream, &spec.durable);
            let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}");
            let ack = format!("$JS.ACK.{stream}.{durable}.1.2.3.4.5");
            let letter = format!("tw.dlq.{stream}.{durable}");
            let attempts = format!("$KV.tw_attempts.{stream}.{durable}.7");
            for subject in [next, ack, letter, attempts] {
                let may = |role: &Role| Grants::of([*role]).may_publish(&subject);
                let who: Vec<Role> = Role::ALL.into_iter().filter(may).collect();
                assert_eq!(who, [role], "{subject}");
            }
        }
    }
}

#[test]
fn who_reads_a_stream_takes_nothing_from_the_consumers_of_others() {
    let inventory = Grants::of([Role::Inventory]);
    let next = |durable: &str| format!("$JS.API.CONSUMER.MSG.NEXT.KV_tw_images_0.{durable}");
    assert!(inventory.may_publish(&next("R4nd0m")));
    assert!(!inventory.may_publish(&next("matcher_0")));
    let delete = "$JS.API.CONSUMER.DELETE.KV_tw_images_0.matcher_0";
    for role in Role::ALL {
        assert!(!Grants::of([role]).may_publish(delete), "{role}");
    }
    // Roles that live together take from what is any of theirs.
    let both = Grants::of([Role::Inventory, Role::Matcher]);
    assert!(both.may_publish(&next("matcher_0")) && !both.may_publish(&next("policy_known_0")));
    assert!(!both.may_publish(delete));
}

#[test]
fn each_event_is_published_by_those_who_make_it() {
    let who = |subject: &str| {
        let may = |role: &Role| Grants::of([*role]).may_publish(subject);
        let roles = Role::ALL.into_iter().filter(may).map(Role::as_str);
        roles.collect::<Vec<_>>().join(" ")
    };
    let tenant = Slug::default_tenant();
    // The operator sends dead letters back.
    let pushed = pushed("app").subject(&tenant);
    insta::assert_snapshot!(who(&pushed), @"gateway router operator");
    insta::assert_snapshot!(who("tw.evt.acme.ci.scan_requested.api"), @"gateway operator");
    insta::assert_snapshot!(who("tw.job.image.high.acme"), @"router operator");
    insta::assert_snapshot!(who("tw.res.acme.vulnerability.appeared"), @"matcher operator");
    insta::assert_snapshot!(who("tw.res.acme.image.judged"), @"policy operator");
    insta::assert_snapshot!(who("tw.alert.acme.critical"), @"alerting operator");
    insta::assert_snapshot!(who("$KV.tw_images_0.acme.00ff.known"), @"router operator");
    insta::assert_snapshot!(who("$KV.tw_images_0.acme.00ff.scanned"), @"scanner operator");
    insta::assert_snapshot!(who("$KV.tw_images_0.acme.00ff.assessed"), @"matcher operator");
    insta::assert_snapshot!(who("$KV.tw_images_0.acme.00ff.judged.default"), @"policy");
    insta::assert_snapshot!(who("tw.obj.tw_layers.00ff.0"), @"scanner");
    insta::assert_snapshot!(who("$KV.tw_config.tokens.00ff"), @"inventory provisioner");
    insta::assert_snapshot!(who("$KV.tw_config.policies.web"), @"policy");
    // Agents alone, in accounts of their own; and the operator, who sends dead letters back.
    insta::assert_snapshot!(who("tw.evt.acme.runtime.00.node-1"), @"operator");
    insta::assert_snapshot!(who("tw.evt.acme.node.sighted.node-1"), @"behavior operator");
    insta::assert_snapshot!(who("tw.res.acme.container.detected"), @"behavior operator");
    insta::assert_snapshot!(who("tw.req.acme.blob.node-1"), @"router scanner");
    insta::assert_snapshot!(who("$KV.tw_nodes.acme.node-1.reported"), @"behavior");
    insta::assert_snapshot!(who("$KV.tw_nodes.acme.node-1.connections"), @"behavior");
    insta::assert_snapshot!(who("$KV.tw_nodes.acme.node-1.desired"), @"policy");
    insta::assert_snapshot!(who("tw.cmd.acme.node-1"), @"policy");
    insta::assert_snapshot!(who("$KV.tw_responses.acme.00ff"), @"policy");
    insta::assert_snapshot!(who("tw.res.acme.container.responded"), @"policy operator");
    insta::assert_snapshot!(who("tw.res.acme.container.incident_opened"), @"behavior operator");
    insta::assert_snapshot!(who("tw.evt.acme.response.ordered.node-1"), @"inventory operator");
    insta::assert_snapshot!(who("tw.evt.acme.response.reported.node-1"), @"operator");
    insta::assert_snapshot!(who("tw.obj.tw_forensics.acme.node-1.00ff.0"), @"");
    insta::assert_snapshot!(who("$KV.tw_incidents.acme.00ff"), @"behavior");
}
