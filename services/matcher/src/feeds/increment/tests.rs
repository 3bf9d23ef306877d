//! Against a server in OSV.dev's layout on this machine.

use std::collections::BTreeSet;

use axum::http::HeaderMap;
use jiff::Timestamp;
use model::{EPSS, KEV};

use super::{Latest, List};
use crate::{
    Advisories, FeedLimits, Feeds, Fetched, Import, Mode, Source, Update, feeds::tests::Site,
    stage, stage::tests::shown,
};

fn feeds(url: &str) -> Feeds {
    Feeds::new(url, &[], &FeedLimits::default()).unwrap()
}

/// Takes what was fetched into a local copy.
fn take(advisories: &Advisories, feed: &str, fetched: Fetched, second: i64) {
    let import = Import {
        feed: feed.to_owned(),
        mode: fetched.mode,
        fetched_at: Timestamp::from_second(second).unwrap(),
        revision: fetched.revision,
    };
    let source = Source::Bytes(fetched.zip);
    stage::import(advisories, &import, &source, &FeedLimits::default()).unwrap();
}

#[tokio::test]
async fn a_feed_is_fetched_whole_once_and_then_by_what_changed() {
    let (site, dir) = (Site::default(), tempfile::tempdir().unwrap());
    let url = site.start().await;
    let advisories = Advisories::open(dir.path()).unwrap();
    let latest = || advisories.latest("npm").unwrap();
    site.export("npm", &[(1, "A", "x", "1.0.0"), (2, "B", "y", "1.0.0")]);
    let fetched = feeds(&url).fetch("npm", &latest()).await.unwrap();
    assert_eq!(site.asked(), ["/npm/modified_id.csv", "/npm/all.zip"]);
    take(&advisories, "npm", fetched, 10);
    assert_eq!(shown(&advisories).len(), 2);
    // Nothing changed: the age of the data is another one, and that is all.
    let fetched = feeds(&url).fetch("npm", &latest()).await.unwrap();
    assert_eq!(
        (site.asked(), fetched.changes),
        (vec!["/npm/modified_id.csv".to_owned()], Some(0))
    );
    take(&advisories, "npm", fetched, 20);
    let feed = advisories.manifest().feeds[0].clone();
    assert_eq!(
        (feed.fetched_at.as_second(), feed.advisories, feed.coverage),
        (20, 2, vec!["npm".to_owned()])
    );
    // One came. What is as new as our newest is fetched again.
    site.export(
        "npm",
        &[
            (1, "A", "x", "1.0.0"),
            (2, "B", "y", "1.0.0"),
            (3, "C", "z", "9.0.0"),
        ],
    );
    let fetched = feeds(&url).fetch("npm", &latest()).await.unwrap();
    assert_eq!(
        site.asked(),
        ["/npm/modified_id.csv", "/npm/B.json", "/npm/C.json"]
    );
    take(&advisories, "npm", fetched, 30);
    let feed = advisories.manifest().feeds[0].clone();
    assert_eq!((feed.fetched_at.as_second(), feed.advisories), (30, 3));
    let listed = shown(&advisories);
    assert!(
        listed.iter().any(|line| line.contains("9.0.0")),
        "{listed:?}"
    );
}

#[tokio::test]
async fn a_record_that_is_gone_or_too_many_that_changed_make_it_whole_again() {
    let (site, dir) = (Site::default(), tempfile::tempdir().unwrap());
    let url = site.start().await;
    let advisories = Advisories::open(dir.path()).unwrap();
    site.export("npm", &[(1, "A", "x", "1.0.0"), (2, "B", "y", "1.0.0")]);
    let fetched = feeds(&url).fetch("npm", &Latest::default()).await.unwrap();
    take(&advisories, "npm", fetched, 10);
    site.export("npm", &[(3, "B", "y", "2.0.0")]);
    let latest = advisories.latest("npm").unwrap();
    let fetched = feeds(&url).fetch("npm", &latest).await.unwrap();
    assert_eq!(fetched.mode, Mode::Replace);
    take(&advisories, "npm", fetched, 20);
    assert_eq!(shown(&advisories).len(), 1);
    site.export("npm", &[(4, "B", "y", "2.0.0"), (5, "C", "y", "2.0.0")]);
    let limits = FeedLimits {
        increment_records_max: 1,
        ..FeedLimits::default()
    };
    let few = Feeds::new(&url, &[], &limits).unwrap();
    let latest = advisories.latest("npm").unwrap();
    assert_eq!(few.fetch("npm", &latest).await.unwrap().mode, Mode::Replace);
}

#[tokio::test]
async fn a_download_that_breaks_off_is_taken_up_where_it_was() {
    let site = Site::default();
    let url = site.start().await;
    site.export("npm", &[(1, "A", "x", "1.0.0")]);
    let list = site.0.lock().unwrap().files.remove("/npm/modified_id.csv");
    assert!(list.is_some());
    site.0.lock().unwrap().cut = Some(20);
    let fetched = feeds(&url).fetch("npm", &Latest::default()).await.unwrap();
    assert_eq!(
        fetched.zip,
        site.0.lock().unwrap().files["/npm/all.zip"],
        "whole, and of one piece"
    );
    let asked = site.asked();
    assert_eq!(asked.last().unwrap(), "/npm/all.zip bytes=20-");
    // A mirror without the list has no revision, so the whole is fetched the next time.
    assert_eq!(fetched.revision, None);
}

#[tokio::test]
async fn what_is_not_as_the_server_says_is_refused() {
    let site = Site::default();
    let url = site.start().await;
    site.export("npm", &[(1, "A", "x", "1.0.0")]);
    let error = async |header: &'static str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header, value.parse().unwrap());
        site.0.lock().unwrap().headers = headers;
        let fetched = feeds(&url).fetch("npm", &Latest::default()).await;
        format!("{:#}", fetched.unwrap_err())
    };
    let wrong = error("x-goog-hash", "crc32c=AAAAAA==,md5=x").await;
    assert!(wrong.contains("its CRC-32C is"), "{wrong}");
    site.0.lock().unwrap().headers.clear();
    site.0.lock().unwrap().redirect = Some("http://127.0.0.2:9/elsewhere".to_owned());
    let wrong = feeds(&url)
        .fetch("npm", &Latest::default())
        .await
        .unwrap_err();
    assert!(format!("{wrong:#}").contains("another host"), "{wrong:#}");
    site.0.lock().unwrap().redirect = None;
    let limits = FeedLimits {
        archive_bytes_max: 10,
        ..FeedLimits::default()
    };
    let small = Feeds::new(&url, &[], &limits).unwrap();
    let wrong = small.fetch("npm", &Latest::default()).await.unwrap_err();
    assert!(
        format!("{wrong:#}").contains("more than 10 bytes"),
        "{wrong:#}"
    );
}

#[tokio::test]
async fn a_mirror_answers_where_the_first_server_does_not() {
    let site = Site::default();
    let url = site.start().await;
    site.export("npm", &[(1, "A", "x", "1.0.0")]);
    // Nobody listens on a port that was free a moment ago.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let feeds = Feeds::new(&first, &[url], &FeedLimits::default()).unwrap();
    assert!(feeds.fetch("npm", &Latest::default()).await.is_ok());
}

#[tokio::test]
async fn a_list_and_its_records_are_of_one_server() {
    let (first, mirror) = (Site::default(), Site::default());
    let urls = (first.start().await, mirror.start().await);
    // The mirror is behind, and the first server has lost its records.
    mirror.export("npm", &[(1, "A", "x", "1.0.0")]);
    first.export("npm", &[(1, "A", "x", "1.0.0"), (2, "B", "y", "1.0.0")]);
    let list = {
        let mut site = first.0.lock().unwrap();
        site.files
            .retain(|path, _| path.ends_with("modified_id.csv"));
        site.files.len()
    };
    assert_eq!(list, 1);
    let feeds = Feeds::new(&urls.0, &[urls.1], &FeedLimits::default()).unwrap();
    let fetched = feeds.fetch("npm", &Latest::default()).await.unwrap();
    let revision = fetched.revision.unwrap();
    assert!(revision.starts_with("1970-01-01T00:00:01Z"), "{revision}");
}

#[tokio::test]
async fn catalogs_are_fetched_and_known_by_their_tag() {
    let (site, dir) = (Site::default(), tempfile::tempdir().unwrap());
    let url = site.start().await;
    let advisories = Advisories::open(dir.path()).unwrap();
    site.put(
        "/kev.json",
        r#"{"vulnerabilities": [{"cveID": "CVE-2024-1", "dateAdded": "2024-01-02"}]}"#,
    );
    site.put("/epss.csv", "cve,epss,percentile\nCVE-2024-1,0.5,0.9\n");
    let update = Update {
        url: url.clone(),
        kev_url: Some(format!("{url}/kev.json")),
        epss_url: Some(format!("{url}/epss.csv")),
        ..Update::default()
    };
    let limits = FeedLimits::default();
    for feed in [KEV, EPSS] {
        let latest = advisories.latest(feed).unwrap();
        let fetched = update.fetch(feed, &latest, &limits).await.unwrap();
        take(&advisories, feed, fetched, 10);
        let latest = advisories.latest(feed).unwrap();
        let fetched = update.fetch(feed, &latest, &limits).await.unwrap();
        assert_eq!((fetched.changes, fetched.mode), (Some(0), Mode::Increment));
        // One that did not change stays.
        take(&advisories, feed, fetched, 20);
    }
    let manifest = advisories.manifest();
    let names: Vec<_> = manifest
        .feeds
        .iter()
        .map(|feed| feed.name.as_str())
        .collect();
    assert_eq!(names, [EPSS, KEV]);
    assert_eq!(
        manifest.stamp().data_at(),
        None,
        "a catalog is no advisory data"
    );
}

#[tokio::test]
async fn lists_name_records_and_nothing_else() {
    let file = |text: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        super::Download {
            file,
            etag: None,
            modified: None,
        }
    };
    for wrong in [
        "x",
        "2024-01-01T00:00:00Z,../A",
        "2024-01-01T00:00:00Z,",
        "yesterday,A",
    ] {
        assert!(List::read(file(wrong)).is_err(), "{wrong}");
    }
    let list = List::read(file("2024-01-02T00:00:00Z,B\n2024-01-01T00:00:00Z,A\n")).unwrap();
    let since: Timestamp = "2024-01-02T00:00:00Z".parse().unwrap();
    assert_eq!(
        list.since(since, &BTreeSet::new(), 9),
        Some(vec!["B".to_owned()])
    );
    assert_eq!(
        list.since(since, &BTreeSet::from(["C".to_owned()]), 9),
        None
    );
    assert_eq!(list.revision().as_deref(), Some("2024-01-02T00:00:00Z"));
}
