//! Makes what [`crate::topology`] lists. What exists is read back and compared, and never deleted: a
//! server that silently ignores a field, or an operator's other choice, is found at the start and
//! not in the middle of the night. Only what may change without harm is changed: the bound of a
//! stream in bytes, where that takes nothing away.
//!
//! In a fleet the provisioner makes everything, and every other process compares what its roles
//! use and waits for what is missing.
//!
//! Any number of processes may do it at once: making the same thing twice is no error.

use std::time::Duration;

use chassis::Cx;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use crate::{
    Bus,
    error::BusError,
    random,
    topology::{self, ConsumerSpec, MAX_BYTES, Stream},
    wire::{PAUSE, Wire, WireError},
};

const STREAM_NOT_FOUND: u64 = 10_059;
const CONSUMER_NOT_FOUND: u64 = 10_014;
const PARALLEL: usize = 8;
/// How often a process looks again for what is missing.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How often one thing is looked for.
const LOOKS: u32 = 4;

impl Bus {
    /// Makes every stream, bucket and consumer that is missing. What exists must be as it is
    /// needed, else this is a [`BusError::Conflict`].
    pub async fn provision(&self) -> Result<(), BusError> {
        self.ensure(&topology::streams(self.config()), &topology::consumers())
            .await
    }

    /// Waits until everything that this process uses is there, as it is needed. False: `cx`
    /// stopped first. What is otherwise is a [`BusError::Conflict`].
    pub async fn provisioned(&self, cx: &Cx) -> Result<bool, BusError> {
        let mut streams = topology::streams(self.config());
        let mut consumers = topology::consumers();
        if let Some(grants) = &self.0.grants {
            streams.retain(|stream| grants.streams().contains(&stream.name));
            consumers.retain(|spec| grants.serves().contains(spec));
        }
        let mut said = false;
        while !cx.is_stopping() {
            match self.ensure(&streams, &consumers).await {
                Err(missing @ BusError::Missing { .. }) => {
                    if !said {
                        tracing::warn!("waiting: {missing}");
                    }
                    said = true;
                }
                other => return other.map(|()| true),
            }
            cx.sleep(random::jitter(LOOK_AGAIN)).await;
        }
        Ok(false)
    }

    async fn ensure(&self, streams: &[Stream], consumers: &[ConsumerSpec]) -> Result<(), BusError> {
        stream::iter(streams)
            .map(|wanted| self.ensure_stream(wanted))
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        stream::iter(consumers)
            .map(|spec| self.ensure_consumer(spec))
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await
    }

    async fn ensure_stream(&self, wanted: &Stream) -> Result<(), BusError> {
        let Stream { name, settings, .. } = wanted;
        let (info, create) = (
            format!("STREAM.INFO.{name}"),
            format!("STREAM.CREATE.{name}"),
        );
        let made = self.look_or_make(name, &info, (&create, settings)).await;
        let found = made.map_err(|error| self.explained(wanted, error))?;
        let asked = format!("STREAM.UPDATE.{name}");
        let grants = self.0.grants.as_ref();
        if wanted.setting.is_some() && grants.is_some_and(|grants| !grants.may_ask(&asked)) {
            // The bound is the provisioner's business.
            let mut settings = settings.clone();
            if let Some(settings) = settings.as_object_mut() {
                settings.remove(MAX_BYTES);
            }
            return compare(name, &settings, found);
        }
        let Some(adjusted) = adjusted(wanted, &found) else {
            return compare(name, settings, found);
        };
        let updated = self.0.wire.api(&asked, &adjusted).await;
        let updated = updated.map_err(|error| self.explained(wanted, refused(name, error)))?;
        let bound = settings.get(MAX_BYTES).unwrap_or(&Value::Null);
        tracing::info!("`{name}` has `{MAX_BYTES}` = `{bound}` from now on");
        compare(name, settings, updated)
    }

    /// Says which setting to lower where the servers have no room.
    fn explained(&self, wanted: &Stream, error: BusError) -> BusError {
        match (error, wanted.setting, wanted.bytes_max()) {
            (BusError::Full(stream), Some(setting), Some(bytes)) => {
                let streams = topology::streams(self.config());
                let all = streams.iter().filter_map(Stream::bytes_max).sum();
                BusError::NoRoom {
                    stream,
                    bytes,
                    setting,
                    all,
                }
            }
            (error, ..) => error,
        }
    }

    /// Makes one consumer if it is missing, and compares it if it exists.
    pub async fn ensure_consumer(&self, spec: &ConsumerSpec) -> Result<(), BusError> {
        let ConsumerSpec {
            stream, durable, ..
        } = spec;
        let object = format!("{stream}/{durable}");
        let settings = spec.settings(self.config());
        let info = format!("CONSUMER.INFO.{stream}.{durable}");
        let create = format!("CONSUMER.DURABLE.CREATE.{stream}.{durable}");
        let body = json!({ "stream_name": stream, "config": settings });
        let found = self.look_or_make(&object, &info, (&create, &body)).await?;
        compare(&object, &settings, found)
    }

    /// Makes what is missing, where this process may.
    async fn look_or_make(
        &self,
        object: &str,
        info: &str,
        create: (&str, &Value),
    ) -> Result<Value, BusError> {
        let grants = self.0.grants.as_ref();
        let found = if grants.is_none_or(|grants| grants.may_ask(create.0)) {
            ensure(&self.0.wire, info, create).await
        } else {
            self.0.wire.api(info, &Value::Null).await
        };
        found.map_err(|error| refused(object, error))
    }

    /// How many messages of a consumer are not acknowledged: waiting and being handled. Not the
    /// number of messages in its stream, where a server that was killed may leave acknowledged
    /// ones behind until they expire.
    pub async fn backlog(&self, stream: &str, durable: &str) -> Result<u64, BusError> {
        let asked = format!("CONSUMER.INFO.{stream}.{durable}");
        let info = self.0.wire.api(&asked, &Value::Null).await;
        let info = info.map_err(|error| error.about(&format!("{stream}/{durable}")))?;
        let number = |field: &str| info.get(field).and_then(Value::as_u64).unwrap_or(0);
        Ok(number("num_pending") + number("num_ack_pending"))
    }
}

/// The configuration that a stream shall have, where its bound is another and can be had without
/// losing what is stored.
fn adjusted(wanted: &Stream, answer: &Value) -> Option<Value> {
    wanted.setting?;
    let bound = wanted.settings.get(MAX_BYTES)?;
    let mut config = answer.get("config")?.as_object()?.clone();
    if config.get(MAX_BYTES) == Some(bound) {
        return None;
    }
    let stored = answer.pointer("/state/bytes").and_then(Value::as_u64);
    let all_fits = stored.unwrap_or_default() <= wanted.bytes_max()?;
    config.insert(MAX_BYTES.to_owned(), bound.clone());
    (all_fits || wanted.evicts).then_some(Value::Object(config))
}

/// Why there is no such object.
fn refused(object: &str, error: WireError) -> BusError {
    match error {
        WireError::Refused {
            code: STREAM_NOT_FOUND | CONSUMER_NOT_FOUND,
            ..
        } => BusError::Missing {
            object: object.to_owned(),
        },
        WireError::Full(_) => BusError::Full(object.to_owned()),
        error => error.about(object),
    }
}

/// Makes what is missing. Where another process makes it this very moment the server refuses for
/// one reason or another, and a little later it is there.
async fn ensure(
    wire: &Wire,
    info: &str,
    (create, body): (&str, &Value),
) -> Result<Value, WireError> {
    let mut refused = None;
    for _ in 0..LOOKS {
        match wire.api(info, &Value::Null).await {
            Err(WireError::Refused {
                code: STREAM_NOT_FOUND | CONSUMER_NOT_FOUND,
                ..
            }) => {}
            other => return other,
        }
        match wire.api(create, body).await {
            Err(error @ WireError::Refused { .. }) => refused = Some(error),
            other => return other,
        }
        sleep(random::jitter(PAUSE)).await;
    }
    Err(refused.unwrap_or(WireError::TimedOut))
}

/// Compares the fields that we set with what the server says they are.
fn compare(object: &str, wanted: &Value, mut answer: Value) -> Result<(), BusError> {
    let found = answer
        .get_mut("config")
        .map(Value::take)
        .unwrap_or_default();
    let empty = Map::new();
    for (field, wanted) in wanted.as_object().unwrap_or(&empty) {
        let found = found.get(field).unwrap_or(&Value::Null);
        if wanted != found && !(found.is_null() && is_default(wanted)) {
            return Err(BusError::Conflict {
                object: object.to_owned(),
                field: field.clone(),
                wanted: wanted.to_string(),
                found: found.to_string(),
            });
        }
    }
    Ok(())
}

/// Whether the server leaves a field with this value out.
fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_u64() == Some(0),
        Value::String(value) => value.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, testing::World};

    #[test]
    fn a_conflict_names_object_field_and_both_values() {
        let wanted = json!({ "max_age": 0, "discard": "new", "allow_direct": true });
        let same = json!({ "config": { "discard": "new", "allow_direct": true, "more": 1 } });
        compare("JOBS", &wanted, same).unwrap();
        let other = json!({ "config": { "discard": "new" } });
        let error = compare("JOBS", &wanted, other).unwrap_err();
        insta::assert_snapshot!(error, @"`JOBS` exists with `allow_direct` = `null`, but `true` is needed; change the configuration or the stream, nothing was changed");
    }

    #[test]
    fn a_filter_that_nobody_asked_for_is_a_conflict() {
        let spec = ConsumerSpec::new("EVENTS", "router", "", 512);
        let settings = spec.settings(&Config::default());
        let mut found = settings.clone();
        found["filter_subject"] = json!("tw.evt.a.>");
        assert!(compare("EVENTS/router", &settings, json!({ "config": found })).is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn provisioning_again_and_at_once_changes_nothing() {
        let Some(world) = World::start().await else {
            return;
        };
        let (_cx, other) = world.other().await;
        let (one, two) = tokio::join!(world.bus.provision(), other.provision());
        one.unwrap();
        two.unwrap();
        let spec = ConsumerSpec::new("ALERTS", "sink_log", "", 100);
        world.bus.ensure_consumer(&spec).await.unwrap();
        world.bus.ensure_consumer(&spec).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_processes_provision_an_empty_server_at_once() {
        let Some(server) = crate::testing::Server::start().await else {
            return;
        };
        let cx = Cx::for_tests();
        let connect = async || Bus::connect(&cx, &server.config(), "test").await.unwrap();
        let (one, two) = tokio::join!(connect(), connect());
        let (one, two) = tokio::join!(one.provision(), two.provision());
        one.unwrap();
        two.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cache_of_another_size_is_adjusted_and_all_else_is_left_alone() {
        let Some(world) = World::start().await else {
            return;
        };
        let size = async || {
            let wire = &world.bus.0.wire;
            let info = wire.api("STREAM.INFO.OBJ_tw_layers", &Value::Null).await;
            info.unwrap().pointer("/config/max_bytes").cloned()
        };
        for bytes in [3 << 30, 1 << 30] {
            let config = Config {
                layers_bytes_max: bytes,
                ..world.bus.config().clone()
            };
            let cx = Cx::for_tests();
            let other = Bus::connect(&cx, &config, "other").await.unwrap();
            other.provision().await.unwrap();
            assert_eq!(size().await, Some(json!(bytes)));
        }
        let config = Config {
            lease_ms: 7_000,
            layers_bytes_max: 5 << 30,
            ..world.bus.config().clone()
        };
        let other = Bus::connect(&world.cx, &config, "other").await.unwrap();
        let error = other.provision().await.unwrap_err();
        assert!(matches!(error, BusError::Conflict { .. }), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_is_made_smaller_only_where_all_that_it_holds_stays() {
        let Some(world) = World::start().await else {
            return;
        };
        let tenant = model::Slug::default_tenant();
        let told = crate::testing::alert("told");
        world.bus.publish(&tenant, &told).await.unwrap();
        let with = async |alerts_bytes_max| {
            let config = Config {
                alerts_bytes_max,
                ..world.bus.config().clone()
            };
            let other = Bus::connect(&world.cx, &config, "other").await.unwrap();
            other.provision().await
        };
        let look = async |what: &str| {
            let info = world.bus.0.wire.api("STREAM.INFO.ALERTS", &Value::Null);
            info.await.unwrap().pointer(what).and_then(Value::as_u64)
        };
        let held = look("/state/bytes").await.unwrap();
        with(held).await.unwrap();
        assert_eq!(look("/config/max_bytes").await, Some(held));
        let error = with(held - 1).await.unwrap_err();
        assert!(matches!(error, BusError::Conflict { .. }), "{error}");
        assert_eq!(look("/config/max_bytes").await, Some(held));
        assert_eq!(look("/state/messages").await, Some(1));
        with(held + 1).await.unwrap();
        assert_eq!(look("/config/max_bytes").await, Some(held + 1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_with_little_room_says_what_to_lower_and_then_takes_all() {
        let room = "jetstream { max_file_store: 20MB }";
        let Some(server) = crate::testing::Server::start_with(room).await else {
            return;
        };
        let cx = Cx::for_tests();
        let mut config = server.config();
        for bound in [
            &mut config.events_bytes_max,
            &mut config.jobs_bytes_max,
            &mut config.responses_bytes_max,
            &mut config.forensics_bytes_max,
            &mut config.results_bytes_max,
            &mut config.alerts_bytes_max,
            &mut config.json_bytes_max,
            &mut config.dead_letters_bytes_max,
            &mut config.layers_bytes_max,
        ] {
            *bound = 2_000_000;
        }
        let provision = async |config: &Config| {
            let bus = Bus::connect(&cx, config, "test").await.unwrap();
            bus.provision().await
        };
        let error = provision(&config).await.unwrap_err();
        insta::assert_snapshot!(error, @"nats-server has no room for stream `RUNTIME`, which may take 8589934592 bytes: lower `bus.runtime_bytes_max`, or raise `max_file_store` of the servers or the limit of the account; all streams together may take 8607934592 bytes");
        config.runtime_bytes_max = 2_000_000;
        provision(&config).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_exists_otherwise_is_refused_and_left_alone() {
        let Some(world) = World::start().await else {
            return;
        };
        let wire = &world.bus.0.wire;
        wire.api("STREAM.DELETE.KV_tw_refs", &Value::Null)
            .await
            .unwrap();
        let other = json!({ "name": "KV_tw_refs", "subjects": ["$KV.tw_refs.>"], "max_msgs": 7 });
        wire.api("STREAM.CREATE.KV_tw_refs", &other).await.unwrap();
        let error = world.bus.provision().await.unwrap_err();
        insta::assert_snapshot!(error, @r#"`KV_tw_refs` exists with `discard` = `"old"`, but `"new"` is needed; change the configuration or the stream, nothing was changed"#);
        let info = wire
            .api("STREAM.INFO.KV_tw_refs", &Value::Null)
            .await
            .unwrap();
        assert_eq!(info.pointer("/config/max_msgs"), Some(&json!(7)));
    }
}
