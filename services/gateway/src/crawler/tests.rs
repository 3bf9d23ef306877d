//! Against a real registry, with the router behind the crawler and nobody between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    sync::atomic::{AtomicUsize, Ordering},
};

use bus::{Delivery, Handler as _};
use chassis::{Clock as _, CxLimits, FixedClock};
use model::{
    AnalyzerId, Catalog, CheckRecord, Digest, ImageRef, Known, RecordKey, Scanned, TagRecord, What,
    event::{Event, ImageScan, Priority},
};
use oci::{BlobReader, Descriptor, Page, Registry, RegistryConfig, Resolved, Source, Wanted};
use testkit::{ImageBuilder, LayerBuilder, RegistryOptions, RegistryServer, index};
use tokio::sync::watch;

use super::*;
use crate::{
    config::{CrawlConfig, CrawlRepository},
    router::{Routed, Router},
};

/// Keeps what was told, and fails once in a while if it is asked to.
#[derive(Default)]
struct Told {
    events: Mutex<Vec<Accepted>>,
    /// After so many events the bus is away; 0 is never.
    fails_after: AtomicUsize,
}

impl Tell for Told {
    fn tell<'a>(
        &'a self,
        _tenant: &'a Slug,
        event: &'a Accepted,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        let mut events = self.events.lock().unwrap();
        let room = self.fails_after.load(Ordering::Relaxed);
        let result = if room > 0 && events.len() >= room {
            Err(anyhow::anyhow!("the bus is away"))
        } else {
            events.push(event.clone());
            Ok(())
        };
        Box::pin(std::future::ready(result))
    }
}

struct World {
    clock: Arc<FixedClock>,
    store: Store,
    told: Arc<Told>,
    crawler: Crawler,
    router: Router,
}

impl World {
    fn new(registry: &str, client: &Arc<dyn Client>, crawl: CrawlConfig) -> Self {
        let source = serde_json::json!({"name": "main", "registry": registry});
        let mut source: SourceConfig = serde_json::from_value(source).unwrap();
        source.crawl = CrawlConfig {
            requests_per_second: 10_000,
            ..crawl
        };
        let clock = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
        let limits = CxLimits {
            compute_threads: 1,
            blocking_threads: 1,
        };
        let cx = Cx::new(Arc::<FixedClock>::clone(&clock), limits);
        let (store, told) = (Store::memory(), Arc::<Told>::default());
        let (_, analyzers) = watch::channel([analyzer("dpkg")].into());
        let sources = Arc::new(Sources::of("main", Arc::clone(client)));
        let configs = [source.clone()];
        let told_at_once = (configs.as_slice(), 16);
        let router = Router::new(&cx, store.clone(), told_at_once, sources, analyzers.clone());
        let crawler = Crawler {
            cx,
            source,
            client: Arc::clone(client),
            store: store.clone(),
            tell: Arc::<Told>::clone(&told),
            analyzers,
        };
        Self {
            clock,
            store,
            told,
            crawler,
            router,
        }
    }

    fn of(server: &RegistryServer, crawl: CrawlConfig) -> Self {
        let config = RegistryConfig {
            host: server.host(),
            ..RegistryConfig::default()
        };
        let registry = Registry::new(&Cx::for_tests(), config).unwrap();
        let client: Arc<dyn Client> = Arc::new(registry);
        Self::new(&server.host(), &client, crawl)
    }

    /// A pass, a day later; what it told.
    async fn pass(&self) -> Vec<Accepted> {
        self.clock.advance(SignedDuration::from_hours(24));
        self.crawler.pass().await.expect("a whole pass");
        self.told.events.lock().unwrap().split_off(0)
    }

    /// Hands events to the router, and writes what follows. The jobs.
    async fn route(&self, events: Vec<Accepted>) -> Vec<ImageScan> {
        let tenant = Slug::default_tenant();
        let mut jobs = Vec::new();
        for event in events {
            let delivery = match event {
                Accepted::Pushed(event) => Delivery::of_event(&tenant, event).map(Routed::Pushed),
                Accepted::Deleted(event) => Delivery::of_event(&tenant, event).map(Routed::Deleted),
                Accepted::Requested(_) => panic!("a crawler asks for no scan"),
            };
            let outcome = self.router.handle(delivery).await.unwrap();
            self.store.apply(&outcome).await.unwrap();
            jobs.extend(
                outcome
                    .events::<ImageScan>()
                    .into_iter()
                    .map(|(_, job)| job),
            );
        }
        jobs
    }

    async fn scan(&self, jobs: &[ImageScan], by: &str) {
        for job in jobs {
            let key = RecordKey::new(&Slug::default_tenant(), job.image, What::Scanned);
            let old = self.store.record::<Scanned>(&key).await.unwrap();
            let record = Scanned {
                analyzers: vec![analyzer(by)],
                packages: job.image,
                findings: job.image,
                package_count: 0,
                gap_count: 0,
                scanned_at: self.clock.now(),
                duration_ms: 1,
                layers_read: 1,
                unfinished: false,
                cause: job.cause.clone(),
                contents: model::ScannedContents::default(),
                files: Vec::new(),
                config: model::ScannedConfig::default(),
            };
            let old = old.map_or(0, |old| old.revision);
            self.store.put_record(&key, &record, old).await.unwrap();
        }
    }

    async fn record(&self) -> CrawlRecord {
        let key = CrawlRecord::key(&Slug::default_tenant(), &"main".parse().unwrap());
        self.store
            .get(REFS, &key)
            .await
            .unwrap()
            .expect("a pass began")
            .body
    }

    async fn check(&self, repository: &str) -> Option<CheckRecord> {
        let tenant = Slug::default_tenant();
        let key = CheckRecord::key(&tenant, &self.crawler.source.name, repository);
        let found = self.store.get(REFS, &key).await.unwrap();
        found.map(|stored| stored.body)
    }

    async fn names(&self, image: Digest) -> Vec<String> {
        let key = RecordKey::new(&Slug::default_tenant(), image, What::Known);
        let known = self.store.record::<Known>(&key).await.unwrap();
        known.expect("the image is known").body.names().collect()
    }
}

fn analyzer(name: &str) -> AnalyzerId {
    AnalyzerId {
        name: name.to_owned(),
        version: 1,
        config: Digest::of(b"config"),
    }
}

fn image(name: &str) -> testkit::Image {
    let layer = LayerBuilder::new().file("name", name).build();
    ImageBuilder::new().layer(layer, "COPY name").build()
}

fn ids(events: &[Accepted]) -> Vec<String> {
    let tenant = Slug::default_tenant();
    let id = |event: &Accepted| match event {
        Accepted::Pushed(event) => event.message_id(&tenant),
        Accepted::Deleted(event) => event.message_id(&tenant),
        Accepted::Requested(event) => event.message_id(&tenant),
    };
    events.iter().map(id).collect()
}

#[tokio::test]
async fn without_any_webhook_everything_is_found_and_nothing_twice() {
    let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    let arm = ImageBuilder::for_platform("linux/arm64").build();
    let both = index(vec![image("b"), arm]);
    server.push(image("a"), "team/app", "1");
    server.push(image("a"), "team/app", "latest");
    server.push(&both, "team/multi", "1");
    for number in 0..120 {
        server.push(image("c"), &format!("many/repository-{number:03}"), "1");
    }
    for number in 0..150 {
        server.push(image("d"), "many/tags", &format!("build-{number}"));
    }
    let world = World::of(&server, CrawlConfig::default());
    let told = world.pass().await;
    assert_eq!(told.len(), 2 + 1 + 120 + 150);
    let jobs = world.route(told).await;
    let images: BTreeSet<Digest> = jobs.iter().map(|job| job.image).collect();
    let mut expected: BTreeSet<Digest> = ["a", "c", "d"].map(|name| image(name).digest).into();
    expected.extend(both.images.iter().map(|image| image.digest));
    assert_eq!(images, expected);
    assert!(jobs.iter().all(|job| job.priority == Priority::Low));
    world.scan(&jobs, "dpkg").await;

    assert_eq!(ids(&world.pass().await), [""; 0]);
    let record = world.record().await;
    assert_eq!((record.catalog, record.cursor), (Catalog::Listed, None));
    let last = record.last_pass.unwrap();
    assert_eq!(
        (
            last.number,
            last.repositories,
            last.tags,
            last.found,
            last.errors
        ),
        (2, 123, 273, 0, 0)
    );
    let check = world.check("many/tags").await.unwrap();
    assert_eq!((check.tags, check.checked_at), (150, world.clock.now()));
}

#[tokio::test]
async fn tags_that_move_and_tags_that_go_are_found() {
    let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    let (a, b, c) = (image("a"), image("b"), image("c"));
    server.push(a.clone(), "app", "1");
    server.push(c.clone(), "app", "2");
    let world = World::of(&server, CrawlConfig::default());
    let jobs = world.route(world.pass().await).await;
    world.scan(&jobs, "dpkg").await;

    server.push(b.clone(), "app", "1");
    server.delete_manifest("app", c.digest);
    let told = world.pass().await;
    assert_eq!(told.len(), 2, "{told:?}");
    let jobs = world.route(told).await;
    assert_eq!(
        jobs.iter().map(|job| job.image).collect::<Vec<_>>(),
        [b.digest]
    );
    world.scan(&jobs, "dpkg").await;
    assert_eq!(world.names(a.digest).await, [""; 0]);
    assert_eq!(
        world.names(b.digest).await,
        [format!("{}/app:1", server.host())]
    );
    assert_eq!(world.names(c.digest).await, [""; 0]);
    let pass = world.record().await.pass;
    assert_eq!((pass.found, pass.gone), (1, 1));
    assert_eq!(ids(&world.pass().await), [""; 0]);

    // Back to where it was: told again, and under another id.
    server.push(a.clone(), "app", "1");
    world.route(world.pass().await).await;
    assert_eq!(
        world.names(a.digest).await,
        [format!("{}/app:1", server.host())]
    );
}

#[tokio::test]
async fn an_image_is_scanned_again_by_new_analyzers_and_where_its_scan_got_lost() {
    let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    server.push(image("a"), "app", "1");
    let world = World::of(&server, CrawlConfig::default());
    let jobs = world.route(world.pass().await).await;
    let again = world.pass().await;
    assert_eq!(world.route(again).await.len(), 1, "it was never scanned");
    world.scan(&jobs, "apk").await;
    let again = world.pass().await;
    assert_eq!(world.route(again).await.len(), 1, "others have scanned it");
    world.scan(&jobs, "dpkg").await;
    assert_eq!(ids(&world.pass().await), [""; 0]);
}

#[tokio::test]
async fn a_pass_that_was_interrupted_goes_on_where_it_stopped() {
    let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    for number in 0..8 {
        server.push(image("a"), &format!("app-{number}"), "1");
    }
    let world = World::of(&server, CrawlConfig::default());
    world.told.fails_after.store(3, Ordering::Relaxed);
    let interrupted = world.crawler.pass().await.unwrap_err();
    assert!(
        matches!(interrupted, Interrupted::Failed(_)),
        "{interrupted:?}"
    );
    let cursor = world.record().await.cursor.unwrap();
    assert_eq!(cursor.after.as_deref(), Some("app-2"));
    assert_eq!(world.crawler.until_due().await.unwrap(), Duration::ZERO);
    world.told.fails_after.store(0, Ordering::Relaxed);
    let told = ids(&world.pass().await);
    assert_eq!(
        (told.len(), told.iter().collect::<BTreeSet<_>>().len()),
        (8, 8)
    );
    assert_eq!(world.record().await.last_pass.unwrap().number, 1);
    // Then a day passes.
    let wait = world.crawler.until_due().await.unwrap();
    assert!(wait.is_zero(), "it began a day ago: {wait:?}");
}

/// A registry that keeps its catalog to itself.
#[derive(Default)]
struct Shy(BTreeMap<&'static str, Vec<&'static str>>);

impl Source for Shy {
    fn resolve<'a>(&'a self, _wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        panic!("nothing is asked for")
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        _blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        panic!("no blob is read")
    }
}

impl Client for Shy {
    fn peek<'a>(
        &'a self,
        repository: &'a str,
        tag: &'a str,
    ) -> BoxFuture<'a, Result<Option<Digest>, OciError>> {
        let digest = Digest::of(format!("{repository}:{tag}").as_bytes());
        Box::pin(std::future::ready(Ok(Some(digest))))
    }

    fn repositories<'a>(&'a self, _page: Option<&'a str>) -> BoxFuture<'a, Result<Page, OciError>> {
        let refused = OciError::Unauthorized {
            host: "r.example".to_owned(),
            repository: String::new(),
            detail: "401 Unauthorized".to_owned(),
            authenticated: true,
        };
        Box::pin(std::future::ready(Err(refused)))
    }

    fn tags<'a>(
        &'a self,
        repository: &'a str,
        _page: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, OciError>> {
        let tags = self.0.get(repository).map(|tags| Page {
            names: tags.iter().map(|&tag| tag.to_owned()).collect(),
            next: None,
        });
        let missing = OciError::NotFound {
            what: repository.to_owned(),
            place: "r.example".to_owned(),
            missing: oci::Missing::Repository,
        };
        Box::pin(std::future::ready(tags.ok_or(missing)))
    }
}

fn shy(repositories: &[(&str, &[&str])]) -> World {
    let tags = ["1.0", "1.1", "2.0", "dev", "not a tag"].into();
    let client: Arc<dyn Client> = Arc::new(Shy(BTreeMap::from([("team/app", tags)])));
    let repositories = repositories.iter().map(|(name, tags)| CrawlRepository {
        name: (*name).to_owned(),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
    });
    let crawl = CrawlConfig {
        repositories: repositories.collect(),
        ..CrawlConfig::default()
    };
    World::new("r.example", &client, crawl)
}

fn tags(told: &[Accepted]) -> Vec<&str> {
    let pushed = told.iter().filter_map(|event| match event {
        Accepted::Pushed(event) => event.tag.as_deref(),
        _ => None,
    });
    let pushed: Vec<_> = pushed.collect();
    assert_eq!(pushed.len(), told.len(), "{told:?}");
    pushed
}

#[tokio::test]
async fn where_the_catalog_is_refused_configured_repositories_are_looked_at() {
    let world = shy(&[("team/app", &["1.*", "dev"])]);
    let told = world.pass().await;
    assert_eq!(tags(&told), ["1.0", "1.1", "dev"]);
    let record = world.record().await;
    let Catalog::Refused { detail } = record.catalog else {
        panic!("{record:?}")
    };
    assert!(detail.contains("401 Unauthorized"), "{detail}");
    assert!(detail.contains("`crawl.repositories`"), "{detail}");
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_counted_and_harms_nothing_else() {
    let world = shy(&[("gone", &[]), ("team/app", &[])]);
    let told = world.pass().await;
    assert_eq!(tags(&told), ["1.0", "1.1", "2.0", "dev"]);
    // The repository that is not there, the tag that is no tag, the catalog.
    let record = world.record().await;
    assert_eq!(record.pass.errors, 3, "{record:?}");
    assert_eq!(world.check("team/app").await.unwrap().errors, 1);
    assert_eq!(world.check("gone").await, None);
}

#[tokio::test]
async fn tags_of_another_source_are_not_missed() {
    let world = shy(&[("team/app", &[])]);
    let tenant = Slug::default_tenant();
    let reference: ImageRef = "r.example/team/app:old".parse().unwrap();
    for (source, tag) in [("main", "old"), ("other", "foreign")] {
        let record = TagRecord {
            source: source.parse().unwrap(),
            reference: format!("{}/{}:{tag}", reference.registry, reference.repository),
            digest: Some(Digest::of(b"a")),
            images: vec![Digest::of(b"a")],
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        let key = TagRecord::key(&tenant, "r.example", "team/app", tag);
        world.store.put(REFS, &key, &record, None).await.unwrap();
    }
    let told = world.pass().await;
    let deleted: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Accepted::Deleted(event) => event.tag.as_deref(),
            _ => None,
        })
        .collect();
    assert_eq!(deleted, ["old"]);
}
