use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use chassis::Cx;
use model::{
    Digest, Partition, Slug,
    event::{ImageScan, JOBS, LEASES, Priority},
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    Bus, Config, Consume, Delivery, Failure, Handler, Outcome,
    testing::{Server, World, eventually},
};

/// Who serves which partition, over all processes of a test; and whether two ever served one.
#[derive(Clone, Default)]
struct Served(
    Arc<Mutex<BTreeMap<Partition, &'static str>>>,
    Arc<Mutex<Vec<String>>>,
);

/// A process with threads of its own, so that it can be killed: nothing of it runs on then.
struct Process {
    name: &'static str,
    cx: Cx,
    runtime: Option<Runtime>,
    served: Served,
}

impl Served {
    fn of(&self, name: &str) -> BTreeSet<Partition> {
        let served = self.0.lock().unwrap();
        served
            .iter()
            .filter(|(_, by)| **by == name)
            .map(|(partition, _)| *partition)
            .collect()
    }

    fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for by in self.0.lock().unwrap().values() {
            *counts.entry(*by).or_default() += 1;
        }
        counts
    }

    fn begin(&self, partition: Partition, name: &'static str) {
        if let Some(other) = self.0.lock().unwrap().insert(partition, name) {
            let told = format!("{name} took {partition} while {other} had it");
            self.1.lock().unwrap().push(told);
        }
    }

    async fn become_counts(&self, expected: &[(&'static str, usize)]) {
        let expected = expected.iter().copied().collect();
        eventually(&format!("shares of {expected:?}"), async || {
            self.counts() == expected
        })
        .await;
    }

    fn assert_never_twice(&self) {
        assert_eq!(*self.1.lock().unwrap(), Vec::<String>::new());
    }
}

impl Process {
    fn start(broker: &Server, served: &Served, name: &'static str) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (cx, config) = (Cx::for_tests(), broker.config());
        let (task_cx, task_served) = (cx.clone(), served.clone());
        runtime.spawn(async move {
            let bus = Bus::connect(&task_cx, &config, name).await.unwrap();
            bus.own_partitions(&task_cx, "matcher", move |partition, child| {
                let served = task_served.clone();
                Box::pin(async move {
                    served.begin(partition, name);
                    child.stopped().await;
                    served.0.lock().unwrap().remove(&partition);
                })
            });
        });
        Self {
            name,
            cx,
            runtime: Some(runtime),
            served: served.clone(),
        }
    }

    /// As `kill -9`: no lease is given back.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let mut served = self.served.0.lock().unwrap();
        served.retain(|_, by| *by != self.name);
    }

    async fn leave(&self) {
        self.cx.stop();
        assert!(self.cx.finish(Duration::from_secs(5)).await);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_joins_gets_its_share_and_leaves_it_to_the_others() {
    let Some(world) = World::start().await else {
        return;
    };
    let served = Served::default();
    let one = Process::start(&world.server, &served, "one");
    served.become_counts(&[("one", 16)]).await;
    let two = Process::start(&world.server, &served, "two");
    served.become_counts(&[("one", 8), ("two", 8)]).await;
    let three = Process::start(&world.server, &served, "three");
    eventually("three processes share", async || {
        let counts = served.counts();
        let all: usize = counts.values().sum();
        counts.len() == 3 && all == 16 && counts.values().all(|count| *count <= 6)
    })
    .await;
    // What is at rest stays at rest.
    let before = served.0.lock().unwrap().clone();
    tokio::time::sleep(world.bus.config().lease() * 2).await;
    assert_eq!(*served.0.lock().unwrap(), before);

    two.leave().await;
    served.become_counts(&[("one", 8), ("three", 8)]).await;
    one.leave().await;
    served.become_counts(&[("three", 16)]).await;
    served.assert_never_twice();
    drop(three);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_share_of_a_process_that_dies_is_taken_when_its_leases_expire() {
    let Some(world) = World::start().await else {
        return;
    };
    let served = Served::default();
    let mut one = Process::start(&world.server, &served, "one");
    served.become_counts(&[("one", 16)]).await;
    let two = Process::start(&world.server, &served, "two");
    served.become_counts(&[("one", 8), ("two", 8)]).await;
    let kept = served.of("two");
    one.kill();
    let died = Instant::now();
    served.become_counts(&[("two", 16)]).await;
    let took = died.elapsed();
    let life = world.bus.config().lease();
    // It renewed a third of a life ago at most.
    assert!(took > life / 2 && took < life * 2, "{took:?}");
    assert!(served.of("two").is_superset(&kept));
    // It comes back as a new process.
    let again = Process::start(&world.server, &served, "again");
    served.become_counts(&[("two", 8), ("again", 8)]).await;
    served.assert_never_twice();
    drop((two, again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_finds_every_partition_served_again() {
    let Some(mut world) = World::start().await else {
        return;
    };
    let served = Served::default();
    let one = Process::start(&world.server, &served, "one");
    served.become_counts(&[("one", 16)]).await;
    let two = Process::start(&world.server, &served, "two");
    served.become_counts(&[("one", 8), ("two", 8)]).await;
    world.server.down();
    // Without a broker nobody may go on: another could have taken over.
    served.become_counts(&[]).await;
    world.server.up().await;
    served.become_counts(&[("one", 8), ("two", 8)]).await;
    served.assert_never_twice();
    drop((one, two));
}

/// The first time it goes on for a little after it is asked to stop; from then on it never ends.
struct Slow {
    cx: Cx,
    begun: Arc<AtomicU32>,
    ended: Arc<AtomicU32>,
}

impl Handler for Slow {
    type Input = ImageScan;

    async fn handle(&self, _: Delivery<ImageScan>) -> Result<Outcome, Failure> {
        if self.begun.fetch_add(1, Ordering::SeqCst) > 0 {
            std::future::pending::<()>().await;
        }
        self.cx.stopped().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.ended.fetch_add(1, Ordering::SeqCst);
        Ok(Outcome::none())
    }
}

/// Serves a partition whose handler is at work, then takes the partition away. How many handlers
/// came to their end.
async fn ended_after(take_away: impl AsyncFnOnce(&World)) -> Option<u32> {
    let world = World::with(|config| Config {
        grace_ms: 20_000,
        ..config
    })
    .await?;
    let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (bus, counted) = (world.bus.clone(), (Arc::clone(&begun), Arc::clone(&ended)));
    world
        .bus
        .own_partitions(&world.cx, "matcher", move |partition, child| {
            let (bus, (begun, ended)) = (bus.clone(), counted.clone());
            Box::pin(async move {
                if partition == Partition::all().next().unwrap() {
                    let consume = Consume::new(&bus, JOBS, "image_norm", 1);
                    let cx = child.clone();
                    bus.consume(&child, consume, Arc::new(Slow { cx, begun, ended }));
                }
            })
        });
    let job = ImageScan {
        image: Digest::of(b"image"),
        source: "main".parse().unwrap(),
        repository: "app".to_owned(),
        reference: "r.example/app:1".to_owned(),
        index: None,
        cause: "event".to_owned(),
        priority: Priority::Norm,
        force: false,
        manifest: None,
        on_node: None,
    };
    let tenant = Slug::default_tenant();
    world.bus.publish(&tenant, &job).await.unwrap();
    eventually("the handler begins", async || {
        begun.load(Ordering::SeqCst) == 1
    })
    .await;
    take_away(&world).await;
    Some(ended.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_of_a_partition_that_is_lost_have_no_grace() {
    let ended = ended_after(async |world| {
        let name = format!("partition.matcher.{}", Partition::all().next().unwrap());
        let store = world.bus.store();
        // As another process that found the lease expired.
        store.put(LEASES, &name, &"another", None).await.unwrap();
        // It is served again when that one is gone, and takes the job again: the first is dropped.
        eventually("another delivery", async || {
            let state = crate::attempts::Ledger::new(&world.bus, JOBS, "image_norm", 1);
            state.read().await.is_ok_and(|(_, revision)| revision > 0)
        })
        .await;
    })
    .await;
    assert_ne!(ended, Some(1), "it went on with what is not its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_of_a_partition_that_is_given_up_have_their_grace() {
    let ended = ended_after(async |world| {
        world.cx.stop();
        assert!(world.cx.finish(Duration::from_secs(15)).await);
    })
    .await;
    assert_ne!(ended, Some(0), "it was cut off");
}
