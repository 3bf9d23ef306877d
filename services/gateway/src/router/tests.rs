//! Events in, records and jobs out, with a registry in memory.

mod nodes;
mod requests;

use std::sync::Mutex;

use bus::PutError;
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use model::{
    ImageConfig, Known, Platform, RefKind, RefRecord, ScanRequestRecord, SeenReference, TagRecord,
    event::REFS,
};
use oci::{
    BlobReader, Descriptor, Image, Manifest, OciError, Page, Resolved, Source, Unreadable, Wanted,
};

use super::*;
use crate::sources::Client;

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Answers from a list and notes what it was asked.
#[derive(Default)]
struct Fake {
    answers: Mutex<BTreeMap<String, Result<Resolved, OciError>>>,
    tags: Mutex<BTreeMap<String, Digest>>,
    asked: Mutex<Vec<String>>,
    /// It never answers where a tag leads.
    hangs: bool,
}

impl Source for Fake {
    fn resolve<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        let name = match (&wanted.digest, &wanted.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => panic!("neither tag nor digest"),
        };
        assert!(wanted.skip_configs, "the scanner reads configs");
        self.asked.lock().unwrap().push(name.clone());
        let tagged = self.tags.lock().unwrap().get(&name).copied();
        let answers = self.answers.lock().unwrap();
        let answer = answers.get(&name).or_else(|| {
            let digest = tagged?.to_string();
            answers.get(&digest)
        });
        let answer = answer.cloned();
        let missing = OciError::NotFound {
            what: name,
            place: "a test".to_owned(),
        };
        std::future::ready(answer.unwrap_or(Err(missing))).boxed()
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        _blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        panic!("the router reads no blob")
    }
}

impl Client for Fake {
    fn peek<'a>(
        &'a self,
        _repository: &'a str,
        tag: &'a str,
    ) -> BoxFuture<'a, Result<Option<Digest>, OciError>> {
        if self.hangs {
            return std::future::pending().boxed();
        }
        let tags = self.tags.lock().unwrap();
        let found = match tag.parse::<Digest>() {
            Ok(digest) => tags.values().copied().find(|known| *known == digest),
            Err(_) => tags.get(tag).copied(),
        };
        std::future::ready(Ok(found)).boxed()
    }

    fn repositories<'a>(&'a self, _page: Option<&'a str>) -> BoxFuture<'a, Result<Page, OciError>> {
        panic!("the router asks for no catalog")
    }

    fn tags<'a>(
        &'a self,
        _repository: &'a str,
        _page: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, OciError>> {
        panic!("the router asks for no list")
    }
}

/// A router with its registry and its store.
struct World {
    registry: Arc<Fake>,
    store: Store,
    router: Router,
}

impl World {
    fn new() -> Self {
        Self::made(|sources| sources)
    }

    /// The same, with nodes that have this.
    fn with_nodes(
        has: impl Fn(OnNode) -> Result<Resolved, OciError> + Send + Sync + 'static,
    ) -> Self {
        Self::made(|sources| {
            sources.and_nodes(Arc::new(move |_: &Slug, at| {
                Arc::new(nodes::OfNode(has(at)))
            }))
        })
    }

    fn made(change: impl FnOnce(Sources) -> Sources) -> Self {
        let registry = Arc::new(Fake::default());
        let store = Store::memory();
        let configs = [("main", "r.example"), ("slow", "slow.example")].map(|(name, registry)| {
            let config = serde_json::json!({"name": name, "registry": registry});
            serde_json::from_value(config).unwrap()
        });
        let client: Arc<dyn Client> = Arc::<Fake>::clone(&registry);
        let slow = Arc::new(Fake {
            hangs: true,
            ..Fake::default()
        });
        let sources = Sources::of("main", client).and("slow", slow);
        let sources = Arc::new(change(sources));
        let cx = Cx::for_tests();
        let router = Router::new(
            &cx,
            store.clone(),
            (&configs, 4),
            sources,
            vec![analyzer("dpkg")],
        );
        Self {
            registry,
            store,
            router,
        }
    }

    fn answer(&self, name: &str, answer: Result<Resolved, OciError>) {
        self.registry
            .answers
            .lock()
            .unwrap()
            .insert(name.to_owned(), answer);
    }

    /// The registry takes a push and tells of it.
    async fn push(&self, tag: &str, name: &str, second: i64) -> Arc<Outcome> {
        self.registry
            .tags
            .lock()
            .unwrap()
            .insert(tag.to_owned(), digest(name));
        self.route(pushed(Some(tag), Some(name), second)).await
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.registry.asked.lock().unwrap())
    }

    /// Handles an event and writes what follows, as the bus does.
    async fn route(&self, event: Routed) -> Arc<Outcome> {
        // As the bus does it: who loses runs again.
        for _ in 0..3 {
            let routed = self.try_route(event.clone()).await;
            let outcome = routed.expect("the event is handled");
            match self.store.apply(&outcome).await {
                Ok(_) => return Arc::new(outcome),
                Err(PutError::Conflict) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("it loses again and again");
    }

    async fn try_route(&self, event: Routed) -> Result<Outcome, Failure> {
        let delivery = Delivery {
            tenant: tenant(),
            body: event,
            id: "event-1".to_owned(),
            subject: String::new(),
            sequence: 1,
            key: None,
            attempt: 1,
            alone: false,
            retried: false,
        };
        self.router.handle(delivery).await
    }

    async fn known(&self, image: Digest) -> Known {
        let key = RecordKey::new(&tenant(), image, What::Known);
        self.store
            .record::<Known>(&key)
            .await
            .unwrap()
            .expect("the image is known")
            .body
    }

    async fn names(&self, image: Digest) -> Vec<String> {
        self.known(image).await.names().collect()
    }

    async fn tag(&self, tag: &str) -> TagRecord {
        let key = TagRecord::key(&tenant(), "r.example", "app", tag);
        self.store
            .get(REFS, &key)
            .await
            .unwrap()
            .expect("the tag is known")
            .body
    }

    async fn scan_request(&self) -> ScanRequestRecord {
        let key = ScanRequestRecord::key(&tenant(), "request-1");
        self.store
            .get(REFS, &key)
            .await
            .unwrap()
            .expect("the request is answered")
            .body
    }

    async fn scanned(&self, image: Digest, analyzers: Vec<AnalyzerId>) -> u64 {
        let record = Scanned {
            analyzers,
            packages: image,
            findings: image,
            package_count: 0,
            gap_count: 0,
            scanned_at: at(1),
            duration_ms: 1,
            layers_read: 1,
            unfinished: false,
            cause: String::new(),
            contents: model::ScannedContents::default(),
            files: Vec::new(),
            config: model::ScannedConfig::default(),
        };
        let key = RecordKey::new(&tenant(), image, What::Scanned);
        self.store.put_record(&key, &record, 0).await.unwrap()
    }
}

fn tenant() -> Slug {
    Slug::default_tenant()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn analyzer(name: &str) -> AnalyzerId {
    AnalyzerId {
        name: name.to_owned(),
        version: 1,
        config: digest("config"),
    }
}

fn descriptor(name: &str, media_type: &str) -> Descriptor {
    Descriptor {
        digest: digest(name),
        size: 1,
        media_type: media_type.to_owned(),
    }
}

fn image(name: &str, index: Option<Digest>) -> Image {
    let config = descriptor(&format!("{name} config"), OCI_CONFIG);
    Image {
        digest: digest(name),
        reference: format!("r.example/app:{name}"),
        repository: "app".to_owned(),
        platform: "linux/amd64".parse().unwrap(),
        image_id: config.digest,
        manifest: Manifest {
            config,
            layers: vec![descriptor("layer", OCI_LAYER)],
        },
        config: ImageConfig::default(),
        has_registry_manifest: true,
        index,
        gaps: Vec::new(),
    }
}

fn one(name: &str) -> Resolved {
    Resolved {
        index: None,
        images: vec![image(name, None)],
        unreadable: Vec::new(),
    }
}

fn index(name: &str, images: &[&str]) -> Resolved {
    let index = Some(digest(name));
    let images = images.iter().map(|name| image(name, index)).collect();
    Resolved {
        index,
        images,
        unreadable: Vec::new(),
    }
}

fn pushed(tag: Option<&str>, name: Option<&str>, second: i64) -> Routed {
    Routed::Pushed(ImagePushed {
        source: "main".parse().unwrap(),
        repository: "app".to_owned(),
        tag: tag.map(ToOwned::to_owned),
        digest: name.map(digest),
        sender_id: None,
        occurred_at: at(second),
        priority: Priority::Norm,
    })
}

fn deleted(tag: Option<&str>, name: Option<&str>, second: i64) -> Routed {
    Routed::Deleted(ImageDeleted {
        source: "main".parse().unwrap(),
        repository: "app".to_owned(),
        tag: tag.map(ToOwned::to_owned),
        digest: name.map(digest),
        sender_id: None,
        occurred_at: at(second),
    })
}

fn requested(reference: &str, force: bool) -> Routed {
    Routed::Requested(ScanRequested {
        id: "request-1".to_owned(),
        reference: reference.parse().unwrap(),
        source: "main".parse().unwrap(),
        system: "ci".parse().unwrap(),
        priority: Priority::High,
        force,
        requested_at: at(50),
        callback: None,
        content: None,
    })
}

fn jobs(outcome: &Arc<Outcome>) -> Vec<Digest> {
    outcome
        .events::<ImageScan>()
        .into_iter()
        .map(|(_, job)| job.image)
        .collect()
}

fn malformed() -> OciError {
    OciError::Malformed {
        what: "manifest".to_owned(),
        detail: "no JSON".to_owned(),
    }
}

fn unauthorized() -> OciError {
    OciError::Unauthorized {
        host: "r.example".to_owned(),
        repository: "app".to_owned(),
        detail: "401".to_owned(),
        authenticated: false,
    }
}

#[tokio::test]
async fn a_push_makes_the_image_known_and_a_job() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    let outcome = world.push("1", "a", 10).await;
    insta::assert_json_snapshot!(outcome.events::<ImageScan>());
    insta::assert_json_snapshot!(world.known(digest("a")).await);
    assert_eq!(world.tag("1").await.images, [digest("a")]);
    let key = RefRecord::key(&tenant(), digest("a config"));
    let config = world
        .store
        .get::<RefRecord>(REFS, &key)
        .await
        .unwrap()
        .unwrap()
        .body;
    assert_eq!(
        config,
        RefRecord {
            kind: RefKind::Config,
            images: vec![digest("a")]
        }
    );
}

#[tokio::test]
async fn a_new_image_with_the_config_of_a_known_one_is_added_to_it() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    world.push("1", "a", 10).await;
    // The same layers, compressed anew: another manifest, the same config.
    let mut again = one("b");
    again.images[0].image_id = digest("a config");
    world.answer(&digest("b").to_string(), Ok(again));
    let outcome = world.push("2", "b", 20).await;
    assert_eq!(outcome.events::<ImageScan>().len(), 1);
    let key = RefRecord::key(&tenant(), digest("a config"));
    let config = world.store.get::<RefRecord>(REFS, &key).await.unwrap();
    let mut images = config.unwrap().body.images;
    images.sort();
    let mut both = [digest("a"), digest("b")];
    both.sort();
    assert_eq!(images, both);
}

#[tokio::test]
async fn an_image_that_is_known_and_scanned_is_not_asked_for_again() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    world.push("1", "a", 10).await;
    world.scanned(digest("a"), vec![analyzer("dpkg")]).await;
    world.asked();
    let outcome = world.push("2", "a", 11).await;
    assert_eq!((jobs(&outcome), world.asked().len()), (vec![], 0));
    assert_eq!(
        world.names(digest("a")).await,
        ["r.example/app:1", "r.example/app:2"]
    );
    assert!(world.push("2", "a", 11).await.is_empty());
}

#[tokio::test]
async fn a_fresh_push_costs_one_question() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    world.push("1", "a", 10).await;
    assert_eq!(world.asked(), ["1"]);
    // The tag has moved on already: what was told is looked up by its digest.
    world.answer(&digest("b").to_string(), Ok(one("b")));
    world.route(pushed(Some("1"), Some("b"), 11)).await;
    assert_eq!(world.asked(), ["1", &digest("b").to_string()]);
    assert_eq!(world.names(digest("b")).await, ["r.example/app"]);
}

#[test]
fn a_small_manifest_goes_with_the_job() {
    let check = |bytes: usize, expected: bool| {
        let manifest = vec![b' '; bytes];
        let image = Image {
            digest: Digest::of(&manifest),
            ..image("a", None)
        };
        let kept = oci::Kept::of([manifest]);
        assert_eq!(lead::manifest(&image, &kept).is_some(), expected);
    };
    check(16 << 10, true);
    check((16 << 10) + 1, false);
}

#[tokio::test]
async fn an_image_that_other_analyzers_scanned_is_scanned_again() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    world.scanned(digest("a"), vec![analyzer("apk")]).await;
    assert_eq!(
        jobs(&world.route(pushed(None, Some("a"), 10)).await),
        [digest("a")]
    );
}

#[tokio::test]
async fn an_index_leads_to_its_platforms() {
    let world = World::new();
    world.answer(&digest("i").to_string(), Ok(index("i", &["a", "b"])));
    let outcome = world.push("1", "i", 10).await;
    assert_eq!(jobs(&outcome), [digest("a"), digest("b")]);
    let key = RefRecord::key(&tenant(), digest("i"));
    let record = world
        .store
        .get::<RefRecord>(REFS, &key)
        .await
        .unwrap()
        .unwrap()
        .body;
    assert_eq!(
        record,
        RefRecord {
            kind: RefKind::Index,
            images: vec![digest("a"), digest("b")]
        }
    );
    assert_eq!(world.tag("1").await.digest, Some(digest("i")));
    world.asked();
    // The same index again, from its platforms' records.
    assert_eq!(jobs(&world.push("2", "i", 12).await).len(), 2);
    assert_eq!(world.asked().len(), 0);
}

#[tokio::test]
async fn a_tag_that_moves_leaves_its_old_image() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    world.answer(&digest("b").to_string(), Ok(one("b")));
    world.push("1", "a", 10).await;
    world.push("1", "b", 20).await;
    assert_eq!(world.names(digest("a")).await, [""; 0]);
    assert_eq!(
        world.known(digest("a")).await.references[0].gone_at,
        Some(at(20))
    );
    assert_eq!(world.names(digest("b")).await, ["r.example/app:1"]);
}

#[tokio::test]
async fn an_event_that_comes_late_does_not_move_a_tag_back() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    world.answer(&digest("b").to_string(), Ok(one("b")));
    world.push("1", "b", 20).await;
    let outcome = world.route(pushed(Some("1"), Some("a"), 10)).await;
    assert_eq!(jobs(&outcome), [digest("a")]);
    assert_eq!(world.names(digest("a")).await, ["r.example/app"]);
    // The tag moved back and on again between the event and the question.
    world.push("1", "a", 10).await;
    assert_eq!(world.tag("1").await.digest, Some(digest("b")));
    assert_eq!(world.names(digest("a")).await, ["r.example/app"]);
    assert_eq!(
        world.known(digest("a")).await.references[1].gone_at,
        Some(at(20))
    );
    assert_eq!(world.names(digest("b")).await, ["r.example/app:1"]);
}

#[tokio::test]
async fn a_tag_is_where_its_source_says_whatever_the_event_says() {
    let world = World::new();
    world.answer(&digest("clean").to_string(), Ok(one("clean")));
    world.answer(&digest("bad").to_string(), Ok(one("bad")));
    world.push("1", "bad", 10).await;
    world.route(pushed(Some("1"), Some("clean"), 11)).await;
    assert_eq!(world.tag("1").await.digest, Some(digest("bad")));
    world.route(pushed(Some("1"), None, 12)).await;
    assert_eq!(world.names(digest("bad")).await, ["r.example/app:1"]);
}

#[tokio::test]
async fn deletions_end_the_names_they_mean() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    let tagged = async |tag: &str, second| {
        world.push(tag, "a", second).await;
    };
    let untag = |tag: &str| world.registry.tags.lock().unwrap().remove(tag);
    tagged("1", 10).await;
    tagged("2", 11).await;
    untag("1");
    world.route(deleted(Some("1"), None, 12)).await;
    assert_eq!(world.names(digest("a")).await, ["r.example/app:2"]);
    assert_eq!(world.tag("1").await.digest, None);
    // Older than the tag's last move: not meant.
    world.route(deleted(Some("2"), None, 5)).await;
    assert_eq!(world.names(digest("a")).await, ["r.example/app:2"]);
    tagged("1", 13).await;
    untag("1");
    untag("2");
    world.route(deleted(None, Some("a"), 14)).await;
    assert_eq!(world.names(digest("a")).await, [""; 0]);
    tagged("3", 15).await;
    untag("3");
    world.route(deleted(None, None, 16)).await;
    assert_eq!(world.names(digest("a")).await, [""; 0]);
}

#[tokio::test]
async fn what_is_said_to_be_deleted_and_is_there_stays() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    world.push("1", "a", 10).await;
    // Deleted at 12 and pushed again at 14, and the deletion comes last.
    world.push("1", "a", 14).await;
    for late in [
        deleted(Some("1"), None, 12),
        deleted(None, Some("a"), 12),
        deleted(None, None, 12),
    ] {
        world.route(late).await;
        assert_eq!(world.names(digest("a")).await, ["r.example/app:1"]);
        assert_eq!(world.tag("1").await.digest, Some(digest("a")));
    }
}

#[tokio::test]
async fn an_image_that_is_gone_is_dropped_and_one_that_is_refused_is_a_dead_letter() {
    let world = World::new();
    assert!(world.push("1", "a", 10).await.is_empty());
    world.answer(&digest("b").to_string(), Err(unauthorized()));
    let failure = world
        .try_route(pushed(Some("1"), Some("b"), 10))
        .await
        .unwrap_err();
    assert!(matches!(failure, Failure::Reject(_)));
    let host = "r.example".to_owned();
    let away = OciError::Unavailable {
        host,
        detail: "503".to_owned(),
        retry_after: None,
    };
    world.answer(&digest("c").to_string(), Err(away));
    let failure = world
        .try_route(pushed(Some("1"), Some("c"), 10))
        .await
        .unwrap_err();
    assert!(matches!(failure, Failure::Retry(_)));
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_still_gets_its_job() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Err(malformed()));
    let outcome = world.push("1", "a", 10).await;
    assert_eq!(jobs(&outcome), [digest("a")]);
    assert_eq!(world.names(digest("a")).await, ["r.example/app:1"]);

    let platform: Platform = "linux/arm64".parse().unwrap();
    let broken = Unreadable {
        digest: digest("c"),
        platform: Some(platform.clone()),
        error: malformed(),
    };
    let mut resolved = index("i", &["b"]);
    resolved.unreadable.push(broken);
    world.answer(&digest("i").to_string(), Ok(resolved));
    let outcome = world.push("2", "i", 11).await;
    assert_eq!(jobs(&outcome), [digest("b"), digest("c")]);
    assert_eq!(world.known(digest("c")).await.platform, platform);
}

#[tokio::test]
async fn a_chart_is_no_image_and_a_strange_layer_is_one() {
    let world = World::new();
    let mut chart = image("a", None);
    chart.manifest.config.media_type = "application/vnd.cncf.helm.config.v1+json".to_owned();
    let resolved = |image| Resolved {
        index: None,
        images: vec![image],
        unreadable: Vec::new(),
    };
    world.answer(&digest("a").to_string(), Ok(resolved(chart)));
    assert!(world.push("1", "a", 10).await.is_empty());
    let mut strange = image("b", None);
    strange.manifest.layers[0].media_type = "application/x.new.layer".to_owned();
    world.answer(&digest("b").to_string(), Ok(resolved(strange)));
    assert_eq!(jobs(&world.push("1", "b", 10).await), [digest("b")]);
}

#[tokio::test]
async fn what_the_crawler_found_makes_way_for_what_was_told() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    let mut found = pushed(Some("1"), Some("a"), 10);
    if let Routed::Pushed(event) = &mut found {
        event.priority = Priority::Low;
    }
    world
        .registry
        .tags
        .lock()
        .unwrap()
        .insert("1".to_owned(), digest("a"));
    let outcome = world.route(found).await;
    let jobs = outcome.events::<ImageScan>();
    assert_eq!(jobs[0].1.priority, Priority::Low);
}

#[tokio::test]
async fn a_source_of_another_tenant_is_no_source() {
    let world = World::new();
    let mut event = requested("r.example/app:1", false);
    if let Routed::Requested(event) = &mut event {
        event.source = "other".parse().unwrap();
    }
    assert!(matches!(
        world.try_route(event).await,
        Err(Failure::Reject(_))
    ));
}

#[test]
fn names_are_bounded_and_gone_ones_go_first() {
    let seen = |tag: u32, gone: bool| SeenReference {
        source: "main".parse().unwrap(),
        registry: "r.example".to_owned(),
        repository: "app".to_owned(),
        tag: Some(tag.to_string()),
        since: at(i64::from(tag)),
        gone_at: gone.then(|| at(5000)),
    };
    let mut references: Vec<_> = (0..1001).map(|tag| seen(tag, tag == 700)).collect();
    names::bound(&mut references);
    assert_eq!(references.len(), 1000);
    assert!(references.iter().all(|seen| seen.gone_at.is_none()));
}

#[tokio::test]
async fn a_source_that_does_not_answer_leaves_room_for_the_others() {
    let world = World::new();
    let of_slow = |tag: &str| {
        let Routed::Pushed(event) = pushed(Some(tag), None, 1) else {
            panic!("it is a push")
        };
        let source = "slow".parse().unwrap();
        Routed::Pushed(ImagePushed { source, ..event })
    };
    let mut hanging = Vec::new();
    for tag in ["1", "2", "3"] {
        let mut routing = Box::pin(world.try_route(of_slow(tag)));
        assert!(routing.as_mut().now_or_never().is_none(), "{tag}");
        hanging.push(routing);
    }
    let beyond = world.try_route(of_slow("4")).now_or_never();
    assert!(matches!(beyond, Some(Err(Failure::Later(_)))), "{beyond:?}");
    world.answer(&digest("a").to_string(), Ok(one("a")));
    world.push("1", "a", 1).await;
    assert_eq!(world.names(digest("a")).await.len(), 1);
    drop(hanging);
    let mut again = Box::pin(world.try_route(of_slow("4")));
    assert!(again.as_mut().now_or_never().is_none());
}
