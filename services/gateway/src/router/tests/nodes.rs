//! What nodes tell of images.

use model::runtime::{OnNode, SightedImages, SightedRecord, Unserved};

use super::*;

fn sighted(image: Digest, references: &[&str]) -> Routed {
    Routed::Sighted(ImageSighted {
        node: "node-1".parse().unwrap(),
        image,
        references: references.iter().map(|&name| name.to_owned()).collect(),
        running: true,
        sighted_at: at(20),
    })
}

fn at_digest(repository: &str, image: Digest) -> String {
    format!("r.example/{repository}@{image}")
}

async fn why(world: &World, image: Digest) -> Option<SightedRecord> {
    let key = SightedImages::key(&tenant(), &"node-1".parse().unwrap(), image);
    let stored = world.store.get::<SightedImages>(REFS, &key).await.unwrap();
    stored?.body.images.remove(&image)
}

#[tokio::test]
async fn an_image_that_a_node_names_by_digest_is_scanned_from_its_source() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    let name = at_digest("app", digest("a"));
    let told = sighted(digest("a config"), &[&name, "elsewhere.example/app:1"]);
    let outcome = world.route(told.clone()).await;
    let jobs = outcome.events::<ImageScan>();
    let [(_, job)] = jobs.as_slice() else {
        panic!("one job, not {jobs:?}");
    };
    assert_eq!(
        (job.image, job.priority, job.source.as_str()),
        (digest("a"), Priority::Norm, "main")
    );
    assert_eq!(
        world.known(digest("a")).await.config,
        Some(digest("a config"))
    );
    assert_eq!(why(&world, digest("a config")).await, None);

    // Once it is scanned, another node's word is nothing new, and no question to the source.
    world.scanned(digest("a"), vec![analyzer("dpkg")]).await;
    world.asked();
    assert!(world.route(told).await.is_empty());
    assert_eq!(world.asked().len(), 0);
}

#[tokio::test]
async fn a_tag_counts_where_it_leads_to_what_the_node_holds() {
    let world = World::new();
    let tags = &world.registry.tags;
    tags.lock().unwrap().insert("1".to_owned(), digest("a"));
    world.answer(&digest("a").to_string(), Ok(one("a")));
    let outcome = world
        .route(sighted(digest("a config"), &["r.example/app:1"]))
        .await;
    assert_eq!(jobs(&outcome), [digest("a")]);
    assert_eq!(world.names(digest("a")).await, ["r.example/app:1"]);

    // Built on the node and named as if it were from there.
    let outcome = world
        .route(sighted(digest("built here"), &["r.example/app:1"]))
        .await;
    assert_eq!(jobs(&outcome), []);
    let record = why(&world, digest("built here")).await.unwrap();
    assert_eq!(record.why, Unserved::NotThere);
    insta::assert_snapshot!(record.detail.unwrap(), @"r.example/app:1 is another image at its source");
}

#[tokio::test]
async fn of_an_index_the_platform_that_the_node_holds_is_scanned() {
    let world = World::new();
    let name = at_digest("app", digest("both"));
    world.answer(&digest("both").to_string(), Ok(index("both", &["a", "b"])));
    let outcome = world.route(sighted(digest("b config"), &[&name])).await;
    assert_eq!(jobs(&outcome), [digest("b")]);
    // All of it is known, so that the index is not taken for less than it is.
    assert_eq!(world.known(digest("a")).await.indexes, [digest("both")]);
    // A runtime that knows images by their index means all of them, as far as we can tell.
    let outcome = world.route(sighted(digest("both"), &[&name])).await;
    assert_eq!(jobs(&outcome), [digest("a"), digest("b")]);
}

#[tokio::test]
async fn a_node_that_knows_manifests_alone_needs_no_digest_beside_the_name() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    let outcome = world
        .route(sighted(digest("a"), &["r.example/app:gone"]))
        .await;
    assert_eq!(jobs(&outcome), [digest("a")]);
}

#[tokio::test]
async fn an_image_that_no_source_serves_is_noted_and_no_host_is_asked() {
    let world = World::new();
    for references in [
        ["elsewhere.example/app:1", "localhost/app:1"].as_slice(),
        &["NOT A NAME"],
        &[],
    ] {
        let image = digest(&references.len().to_string());
        let outcome = world.route(sighted(image, references)).await;
        assert_eq!((jobs(&outcome), world.asked().len()), (vec![], 0));
        let record = why(&world, image).await.unwrap();
        assert_eq!((record.why, record.detail), (Unserved::NoSource, None));
        // Telling the same again writes nothing.
        assert!(world.route(sighted(image, references)).await.is_empty());
    }
}

#[tokio::test]
async fn what_a_source_refuses_is_noted_and_what_it_delays_comes_again() {
    let world = World::new();
    let name = at_digest("app", digest("a"));
    world.answer(&digest("a").to_string(), Err(unauthorized()));
    world.route(sighted(digest("a config"), &[&name])).await;
    let record = why(&world, digest("a config")).await.unwrap();
    assert_eq!(record.why, Unserved::Refused);

    let away = OciError::Unavailable {
        host: "r.example".to_owned(),
        detail: "503".to_owned(),
        retry_after: None,
    };
    world.answer(&digest("a").to_string(), Err(away));
    let failed = world.try_route(sighted(digest("a config"), &[&name])).await;
    assert!(matches!(failed, Err(Failure::Retry(_))), "{failed:?}");
}

#[tokio::test]
async fn a_node_cannot_make_the_router_ask_without_end() {
    let world = World::new();
    let names: Vec<String> = (0..100).map(|n| format!("r.example/app:{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.route(sighted(digest("a"), &names)).await;
    let asked = world.asked().len();
    assert!((1..=8).contains(&asked), "{asked} questions");
    let record = why(&world, digest("a")).await.unwrap();
    assert_eq!(record.references.len(), 16);
}

#[tokio::test]
async fn a_node_that_tells_of_endless_images_writes_a_bounded_number_of_keys() {
    let world = World::new();
    let told = SightedImages::KEYS * SightedImages::IMAGES_MAX * 2;
    let of = |number: usize| Digest::of(&number.to_be_bytes());
    for number in 0..told {
        world.route(sighted(of(number), &[])).await;
    }
    let kept = world.store.list::<SightedImages>(REFS, "default.sighted.");
    let kept = kept.await.unwrap();
    assert_eq!(kept.len(), SightedImages::KEYS);
    let images: Vec<usize> = kept.iter().map(|(_, one)| one.body.images.len()).collect();
    assert!(
        images
            .iter()
            .all(|count| *count <= SightedImages::IMAGES_MAX)
    );
    assert!(images.contains(&SightedImages::IMAGES_MAX));
    // What was told last is there.
    assert!(why(&world, of(told - 1)).await.is_some());
}

#[tokio::test]
async fn a_source_of_another_tenant_serves_no_node() {
    let world = World::new();
    world.answer(&digest("a").to_string(), Ok(one("a")));
    let told = sighted(digest("a"), &[&at_digest("app", digest("a"))]);
    let delivery = Delivery {
        tenant: "other".parse().unwrap(),
        body: told,
        id: "event-1".to_owned(),
        subject: String::new(),
        sequence: 1,
        key: None,
        attempt: 1,
        alone: false,
        retried: false,
    };
    let outcome = world.router.handle(delivery).await.unwrap();
    assert_eq!(
        (outcome.events::<ImageScan>().len(), world.asked().len()),
        (0, 0)
    );
}

/// What a node has, and nothing else.
pub(super) struct OfNode(pub(super) Result<Resolved, OciError>);

impl Source for OfNode {
    fn resolve<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        assert!(wanted.skip_configs && wanted.digest.is_none());
        std::future::ready(self.0.clone()).boxed()
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        _blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        panic!("the router reads no blob")
    }
}

fn missing() -> OciError {
    OciError::NotFound {
        what: "it".to_owned(),
        place: "node `node-1`".to_owned(),
        missing: oci::Missing::Unsaid,
    }
}

#[tokio::test]
async fn an_image_that_no_source_gives_is_scanned_from_the_node_under_names_of_its_own() {
    let world = World::with_nodes(|at| {
        assert_eq!((at.node.as_str(), at.id), ("node-1", digest("a config")));
        Ok(one("a"))
    });
    let told = sighted(digest("a config"), &["localhost/app:1"]);
    let outcome = world.route(told.clone()).await;
    let jobs = outcome.events::<ImageScan>();
    let [(_, job)] = jobs.as_slice() else {
        panic!("one job, not {jobs:?}");
    };
    assert_eq!((job.image, job.source.as_str()), (digest("a"), "node"));
    assert_eq!(job.reference, "node.invalid/node-1/localhost/app:1");
    let on_node = OnNode {
        node: "node-1".parse().unwrap(),
        id: digest("a config"),
    };
    assert_eq!(job.on_node, Some(on_node));
    assert_eq!(
        world.names(digest("a")).await,
        ["node.invalid/node-1/localhost/app:1"]
    );
    // It is known by its config, and why it is from nowhere is known, too.
    let key = RefRecord::key(&tenant(), digest("a config"));
    let found = world.store.get::<RefRecord>(REFS, &key).await.unwrap();
    assert_eq!(found.unwrap().body.images, [digest("a")]);
    let record = why(&world, digest("a config")).await.unwrap();
    assert_eq!(record.why, Unserved::NoSource);
    // It is told again, and not scanned yet: the same way.
    let again = world.route(told).await;
    assert!(again.events::<ImageScan>()[0].1.on_node.is_some());
}

#[tokio::test]
async fn an_index_on_a_node_leads_to_the_image_there_and_is_not_taken_for_whole() {
    let world = World::with_nodes(|_| Ok(one("a")));
    world.route(sighted(digest("both"), &[])).await;
    let key = RefRecord::key(&tenant(), digest("both"));
    let found = world.store.get::<RefRecord>(REFS, &key).await.unwrap();
    let record = found.unwrap().body;
    assert_eq!(
        (record.kind, record.images),
        (RefKind::Config, vec![digest("a")])
    );
    let known = world.known(digest("a")).await;
    assert!(known.indexes.is_empty());
    assert_eq!(
        known.names().next().unwrap().split('@').next(),
        Some("node.invalid/node-1/unnamed")
    );
    // A registry that has all of it says what it is.
    world.answer(&digest("both").to_string(), Ok(index("both", &["a", "b"])));
    world.push("1", "both", 30).await;
    let found = world.store.get::<RefRecord>(REFS, &key).await.unwrap();
    assert_eq!(found.unwrap().body.images, [digest("a"), digest("b")]);
}

#[tokio::test]
async fn a_host_has_one_name_and_it_is_no_wonder_that_no_source_gives_it() {
    let world = World::with_nodes(|at| {
        Ok(one(if at.id == digest("a config") {
            "a"
        } else {
            "b"
        }))
    });
    let name = "node.invalid/node-1/host:current";
    world.route(sighted(digest("a config"), &[name])).await;
    assert_eq!(world.names(digest("a")).await, [name]);
    assert_eq!(why(&world, digest("a config")).await, None);
    // Its packages changed.
    world.route(sighted(digest("b config"), &[name])).await;
    assert_eq!(world.names(digest("b")).await, [name]);
    assert_eq!(world.names(digest("a")).await, [] as [&str; 0]);
    // Another node's name is only one of this node's images.
    let other = "node.invalid/node-2/host:current";
    world.route(sighted(digest("c config"), &[other])).await;
    let names = world.names(digest("b")).await;
    assert!(
        names.contains(&format!("node.invalid/node-1/{other}")),
        "{names:?}"
    );
}

#[tokio::test]
async fn what_a_node_does_not_give_either_is_noted_and_what_it_delays_comes_again() {
    let world = World::with_nodes(|_| Err(missing()));
    let outcome = world
        .route(sighted(digest("a"), &["localhost/app:1"]))
        .await;
    assert_eq!(jobs(&outcome), []);
    let record = why(&world, digest("a")).await.unwrap();
    assert_eq!(record.why, Unserved::NoSource);
    assert!(record.detail.unwrap().contains("node `node-1`"));
    let world = World::with_nodes(|_| {
        Err(OciError::Unavailable {
            host: "node node-1".to_owned(),
            detail: "nobody answers".to_owned(),
            retry_after: None,
        })
    });
    let failed = world.try_route(sighted(digest("a"), &[])).await;
    assert!(matches!(failed, Err(Failure::Retry(_))), "{failed:?}");
}

#[tokio::test]
async fn an_image_of_a_source_is_never_asked_of_a_node() {
    let world = World::with_nodes(|_| panic!("its source has it"));
    world.answer(&digest("a").to_string(), Ok(one("a")));
    let outcome = world
        .route(sighted(digest("a"), &["r.example/app:gone"]))
        .await;
    assert_eq!(jobs(&outcome), [digest("a")]);
    assert_eq!(outcome.events::<ImageScan>()[0].1.on_node, None);
}
