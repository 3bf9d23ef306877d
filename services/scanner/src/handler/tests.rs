use std::sync::atomic::{AtomicU32, Ordering};

use analyzers::PreparedLayer;
use futures::{FutureExt as _, future::BoxFuture};
use model::{AnalyzerId, ScannedPackages};

use super::*;
use crate::{Claim, Config, LayerSections, sections};

/// An image in a folder.
struct Folder(Arc<dyn Source>);

impl SourceOf for Folder {
    fn source(&self, _name: &Slug) -> Option<Arc<dyn Source>> {
        Some(Arc::clone(&self.0))
    }

    fn on_node(&self, _tenant: &Slug, _at: &OnNode) -> Option<Arc<dyn Source>> {
        Some(Arc::clone(&self.0))
    }

    fn count(&self) -> usize {
        2
    }
}

/// Nothing is known here, and nothing is to be had.
struct Nowhere(AtomicU32);

impl SourceOf for Nowhere {
    fn source(&self, _name: &Slug) -> Option<Arc<dyn Source>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        None
    }

    fn on_node(&self, _tenant: &Slug, _at: &OnNode) -> Option<Arc<dyn Source>> {
        None
    }

    fn count(&self) -> usize {
        1
    }
}

struct Empty;

impl Sections for Empty {
    fn of_size(&self, _bytes: u64) -> &dyn Sections {
        self
    }

    fn get<'a>(
        &'a self,
        _blob: Digest,
        wanted: &'a sections::Wanted,
    ) -> BoxFuture<'a, anyhow::Result<sections::Stored>> {
        let known = LayerSections {
            sections: vec![None; wanted.analyzers.len()],
            ..LayerSections::default()
        };
        Box::pin(async { Ok(sections::Stored::Part(known)) })
    }

    fn put<'a>(
        &'a self,
        _wanted: &'a sections::Wanted,
        _layer: Arc<PreparedLayer>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn claim<'a>(
        &'a self,
        _blob: Digest,
        _wanted: &'a sections::Wanted,
    ) -> BoxFuture<'a, anyhow::Result<Option<Claim>>> {
        Box::pin(async { Ok(Some(Claim::default())) })
    }

    fn ended<'a>(
        &'a self,
        _blob: Digest,
        _wanted: &'a sections::Wanted,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// A reader that stays in force.
fn in_force(reader: Reader) -> watch::Receiver<Reader> {
    watch::channel(reader).1
}

fn job(image: Digest) -> ImageScan {
    ImageScan {
        image,
        source: "main".parse().unwrap(),
        repository: "app".to_owned(),
        reference: "r.example/app:1".to_owned(),
        index: None,
        cause: "event".to_owned(),
        priority: Priority::Norm,
        force: false,
        manifest: None,
        on_node: None,
    }
}

async fn gaps(store: &Store, record: &Scanned) -> Vec<Gap> {
    let packages = store.object(REPORT_OBJECTS, &record.packages).await;
    let packages: ScannedPackages = packages.unwrap().unwrap();
    packages.gaps
}

#[tokio::test]
async fn an_image_that_kills_its_scanner_has_a_record_with_a_gap_and_can_be_tried_again() {
    let (store, tenant) = (Store::memory(), Slug::default_tenant());
    let sources = Arc::new(Nowhere(AtomicU32::new(0)));
    let reader = Reader::new(Config::default().settings().unwrap());
    let ids: Vec<AnalyzerId> = reader.ids();
    let of_jobs: Arc<dyn SourceOf> = sources.clone();
    let jobs = ImageJobs::new(
        Cx::for_tests(),
        store.clone(),
        (in_force(reader), &Slots::new(4, 0, 0)),
        of_jobs,
        Empty,
    );
    let job = job(Digest::of(b"image"));
    let delivery = || Delivery::of_event(&tenant, job.clone());
    let why = GivenUp::Broken("it killed its process".to_owned());
    let outcome = jobs.given_up(delivery(), &why).await;
    store.apply(&outcome.unwrap()).await.unwrap();
    let key = RecordKey::new(&tenant, job.image, What::Scanned);
    let record = store.record::<Scanned>(&key).await.unwrap().unwrap().body;
    let gaps = gaps(&store, &record).await;
    let [gap] = gaps.as_slice() else {
        panic!("one gap, not {gaps:?}");
    };
    assert_eq!(
        (gap.code, gap.hides),
        (GapCode::ScanAborted, Hides::Entries)
    );
    assert_eq!(gap.detail, "it killed its process");

    // A second push of it is no reason to die again; somebody's explicit wish is.
    assert_eq!(record.analyzers, ids);
    assert!(jobs.handle(delivery()).await.unwrap().is_empty());
    assert_eq!(sources.0.load(Ordering::SeqCst), 0);
    let retried = Delivery {
        retried: true,
        ..delivery()
    };
    assert!(!jobs.handle(retried).await.unwrap().is_empty());
    assert_eq!(sources.0.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_image_whose_source_stays_away_has_a_record_that_asks_for_another_scan() {
    let (store, tenant) = (Store::memory(), Slug::default_tenant());
    let reader = Reader::new(Config::default().settings().unwrap());
    let ids: BTreeSet<AnalyzerId> = reader.ids().into_iter().collect();
    let nowhere = Arc::new(Nowhere(AtomicU32::new(0)));
    let jobs = ImageJobs::new(
        Cx::for_tests(),
        store.clone(),
        (in_force(reader), &Slots::new(4, 0, 0)),
        nowhere,
        Empty,
    );
    let job = job(Digest::of(b"image"));
    let key = RecordKey::new(&tenant, job.image, What::Scanned);
    let delivery = || Delivery::of_event(&tenant, job.clone());
    let why = GivenUp::Away("given up after 86400 s: 503".to_owned());
    let outcome = jobs.given_up(delivery(), &why).await.unwrap();
    store.apply(&outcome).await.unwrap();
    let record = store.record::<Scanned>(&key).await.unwrap().unwrap();
    let gaps = gaps(&store, &record.body).await;
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(
        (gaps[0].code, gaps[0].hides),
        (GapCode::LayerUnavailable, Hides::Entries)
    );
    assert!(record.body.unfinished && !record.body.is_good(&ids));

    // What is known of an image is not lost because its source is away.
    let known = Scanned {
        unfinished: false,
        ..record.body
    };
    store
        .put_record(&key, &known, record.revision)
        .await
        .unwrap();
    assert!(jobs.given_up(delivery(), &why).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_is_read_with_low_limits_and_counts_as_scanned() {
    let (cx, store, tenant) = (Cx::for_tests(), Store::memory(), Slug::default_tenant());
    let files = (0..20).fold(testkit::LayerBuilder::new(), |layer, n| {
        layer.file(&format!("srv/{n}"), "x")
    });
    let image = testkit::ImageBuilder::new().layer(files.build(), "COPY . /srv");
    let (dir, image) = (testkit::temp_dir(), image.build());
    let digest = image.digest;
    testkit::Artifact::from(image).write_layout(dir.path(), "1");
    let source = oci::OciLayout::open(&cx, dir.path()).await.unwrap();
    let mut settings = Config::default().settings().unwrap();
    settings.limits.entries_max = 40;
    let reader = Reader::new(settings);
    let ids: BTreeSet<AnalyzerId> = reader.ids().into_iter().collect();
    let folder = Arc::new(Folder(Arc::new(source)));
    let jobs = ImageJobs::new(
        cx,
        store.clone(),
        (in_force(reader), &Slots::new(4, 0, 0)),
        folder,
        Empty,
    );
    let key = RecordKey::new(&tenant, digest, What::Scanned);
    for (alone, cause) in [(false, "one"), (true, "two")] {
        let job = ImageScan {
            cause: cause.to_owned(),
            force: true,
            ..job(digest)
        };
        let delivery = Delivery {
            alone,
            ..Delivery::of_event(&tenant, job)
        };
        let outcome = jobs.handle(delivery).await.unwrap();
        store.apply(&outcome).await.unwrap();
        let record = store.record::<Scanned>(&key).await.unwrap().unwrap().body;
        let gaps = gaps(&store, &record).await;
        let is_cut = gaps.iter().any(|gap| gap.code == GapCode::LimitEntries);
        assert_eq!(is_cut, alone, "{gaps:?}");
        assert!(record.is_good(&ids), "{:?}", record.analyzers);
    }
}

#[test]
fn a_record_has_as_many_labels_as_there_is_room_for() {
    let target = |labels: usize, chars: usize| {
        let mut report = unreadable(
            &Reader::new(Config::default().settings().unwrap()),
            Digest::of(b"image"),
            None,
            String::new(),
            Gap::new(GapCode::ScanAborted, Hides::Entries, ""),
        );
        let label = |number: usize| (format!("{number:03}"), "é".repeat(chars));
        report.target.config.labels = (0..labels).map(label).collect();
        report.target.platform = "linux/arm64".parse().unwrap();
        report.target
    };
    let kept = config(&target(LABELS_MAX, LABEL_CHARS_MAX));
    let whole = target(LABELS_MAX, LABEL_CHARS_MAX);
    assert_eq!(kept.labels, whole.config.labels);
    assert_eq!(kept.platform, whole.platform);
    let cut = config(&target(LABELS_MAX + 1, LABEL_CHARS_MAX + 1));
    assert_eq!(cut, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_or_hangs_is_a_gap_of_the_image_and_the_worker_goes_on() {
    let (cx, store, tenant) = (Cx::for_tests(), Store::memory(), Slug::default_tenant());
    for (number, (script, said)) in [("exit 1", "ended"), ("exec sleep 60", "longer than")]
        .into_iter()
        .enumerate()
    {
        let program = malware::Program {
            path: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            ..malware::Program::default()
        };
        let config = Config {
            malware: malware::Config {
                program: Some(program),
                start_time_ms: 1000,
                ..malware::Config::default()
            },
            ..Config::default()
        };
        let files = testkit::LayerBuilder::new().file_mode("bin/a", 0o755, "#!/bin/sh\n");
        let image = testkit::ImageBuilder::new().layer(files.build(), "COPY a /bin");
        let (dir, image) = (testkit::temp_dir(), image.build());
        let digest = image.digest;
        testkit::Artifact::from(image).write_layout(dir.path(), "1");
        let source = oci::OciLayout::open(&cx, dir.path()).await.unwrap();
        let reader = Reader::new(config.settings().unwrap());
        let ids: BTreeSet<AnalyzerId> = reader.ids().into_iter().collect();
        let jobs = ImageJobs::new(
            cx.clone(),
            store.clone(),
            (in_force(reader), &Slots::new(4, 0, 0)),
            Arc::new(Folder(Arc::new(source))),
            Empty,
        );
        let key = RecordKey::new(&tenant, digest, What::Scanned);
        // Twice: the second job finds the same worker at work.
        for cause in ["one", "two"] {
            let job = ImageScan {
                cause: format!("{cause} {number}"),
                force: true,
                ..job(digest)
            };
            let outcome = jobs.handle(Delivery::of_event(&tenant, job)).await.unwrap();
            store.apply(&outcome).await.unwrap();
            let record = store.record::<Scanned>(&key).await.unwrap().unwrap().body;
            let gaps = gaps(&store, &record).await;
            let failed = gaps.iter().find(|gap| gap.code == GapCode::EngineFailed);
            let failed = failed.unwrap_or_else(|| panic!("{gaps:?}"));
            assert_eq!(failed.path.as_deref(), Some("bin/a"));
            // One that dies may do so before it was told anything.
            let is_pipe = failed.detail.contains("pipe");
            assert!(is_pipe || failed.detail.contains(said), "{failed:?}");
            // Somebody has to look again.
            assert!(record.unfinished && !record.is_good(&ids));
        }
    }
}

/// A source that never answers.
struct Hanging;

impl Source for Hanging {
    fn resolve<'a>(
        &'a self,
        _wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<oci::Resolved, OciError>> {
        Box::pin(std::future::pending())
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        _blob: &'a oci::Descriptor,
    ) -> BoxFuture<'a, Result<oci::BlobReader, OciError>> {
        panic!("no image is resolved")
    }
}

#[tokio::test]
async fn a_source_that_does_not_answer_leaves_slots_of_each_class_to_others() {
    let (store, tenant) = (Store::memory(), Slug::default_tenant());
    let reader = Reader::new(Config::default().settings().unwrap());
    let slots = Slots::new(16, 2, 4);
    let folder = Arc::new(Folder(Arc::new(Hanging)));
    let jobs = ImageJobs::new(
        Cx::for_tests(),
        store,
        (in_force(reader), &slots),
        folder,
        Empty,
    );
    for priority in Priority::ALL {
        let job = |number: usize, source: &str| ImageScan {
            priority,
            source: source.parse().unwrap(),
            ..job(Digest::of(&number.to_be_bytes()))
        };
        let mut begun = Vec::new();
        let beyond = loop {
            let delivery = Delivery::of_event(&tenant, job(begun.len(), "slow"));
            let mut scanning = Box::pin(jobs.handle(delivery));
            match scanning.as_mut().now_or_never() {
                None => begun.push(scanning),
                Some(ended) => break ended,
            }
        };
        assert!(matches!(beyond, Err(Failure::Later(_))), "{beyond:?}");
        let left = slots.limit(priority) - begun.len();
        assert!(left > 0 && !begun.is_empty(), "{priority}: {left} left");
        let other = Delivery::of_event(&tenant, job(0, "other"));
        assert!(jobs.handle(other).now_or_never().is_none(), "it is at work");
    }
}

#[tokio::test]
async fn an_image_that_only_a_node_has_is_read_from_that_node() {
    let (store, tenant) = (Store::memory(), Slug::default_tenant());
    let reader = Reader::new(Config::default().settings().unwrap());
    let nowhere = Arc::new(Nowhere(AtomicU32::new(0)));
    let of_jobs: Arc<dyn SourceOf> = nowhere.clone();
    let jobs = ImageJobs::new(
        Cx::for_tests(),
        store.clone(),
        (in_force(reader), &Slots::new(4, 0, 0)),
        of_jobs,
        Empty,
    );
    let job = ImageScan {
        on_node: Some(OnNode {
            node: "node-1".parse().unwrap(),
            id: Digest::of(b"config"),
        }),
        ..job(Digest::of(b"image"))
    };
    let outcome = jobs.handle(Delivery::of_event(&tenant, job.clone())).await;
    store.apply(&outcome.unwrap()).await.unwrap();
    // No source was asked, whatever its name is.
    assert_eq!(nowhere.0.load(Ordering::SeqCst), 0);
    let key = RecordKey::new(&tenant, job.image, What::Scanned);
    let record = store.record::<Scanned>(&key).await.unwrap().unwrap().body;
    let gaps = gaps(&store, &record).await;
    assert_eq!(gaps[0].detail, "no line leads to node `node-1`");
    assert_eq!(party(&tenant, &job), "node default/node-1");
}
