use std::{fs, sync::Arc};

use chassis::{CxLimits, FixedClock};

use super::*;

/// What an engine says that has the rules: that it is ready, and what it compiled. It reads on.
const READY: &str = r"printf '\006\000\000\000\245Ready\001\000\000\000x'; exec cat >/dev/null";

struct World {
    clock: Arc<FixedClock>,
    home: tempfile::TempDir,
    lookout: Lookout,
}

impl World {
    /// A lookout whose engines run a script, which notes that it was started.
    fn new(script: &str) -> Self {
        let clock = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
        let limits = CxLimits {
            compute_threads: 1,
            blocking_threads: 1,
        };
        let home = testkit::temp_dir();
        fs::create_dir(home.path().join("rules")).unwrap();
        let noted = format!("echo x >>{}; {script}", home.path().join("log").display());
        let config = malware::Config {
            program: Some(malware::Program {
                path: "/bin/sh".into(),
                arguments: vec!["-c".into(), noted.into()],
                ..malware::Program::default()
            }),
            rules: Some(home.path().join("rules")),
            ..malware::Config::default()
        };
        let cx = Cx::new(Arc::<FixedClock>::clone(&clock), limits);
        let mut lookout = Lookout::new(&cx, config.clone(), home.path().join("bundle"));
        let first = Malware::open(&config).unwrap().unwrap();
        lookout.in_force = Some(first.revision());
        Self {
            clock,
            home,
            lookout,
        }
    }

    fn write(&self, text: &str) {
        fs::write(self.home.path().join("rules/a.yar"), text).unwrap();
    }

    async fn look(&mut self) -> Result<bool, String> {
        let looked = self.lookout.look().await;
        let other = looked.map_err(|error| format!("{error:#}"))?;
        let revision = other.as_ref().map(Malware::revision);
        assert!(other.is_none() || revision == self.lookout.in_force);
        Ok(other.is_some())
    }

    fn starts(&self) -> u64 {
        let log = fs::metadata(self.home.path().join("log"));
        log.map_or(0, |log| log.len() / 2)
    }
}

#[tokio::test]
async fn rules_that_stay_the_same_for_two_looks_and_work_are_taken_up_once() {
    let mut world = World::new(READY);
    assert!(world.lookout.has_work());
    assert_eq!(world.look().await, Ok(false));
    world.write("rule a { condition: false }");
    assert_eq!(world.look().await, Ok(false), "they may be half written");
    world.write("rule a { condition: true }");
    assert_eq!(world.look().await, Ok(false), "they were");
    assert_eq!(world.starts(), 0);
    assert_eq!(world.look().await, Ok(true));
    assert_eq!(world.look().await, Ok(false));
    assert_eq!(world.starts(), 1);
}

#[tokio::test]
async fn rules_that_do_not_work_are_not_taken_up_and_tried_again_later() {
    let mut world = World::new("exit 1");
    world.write("rule a {");
    assert_eq!(world.look().await, Ok(false));
    let refused = world.look().await.unwrap_err();
    assert!(refused.contains("do not compile"), "{refused}");
    assert_eq!(world.look().await, Err(refused));
    assert_eq!(world.starts(), 1);
    world.clock.advance(AGAIN);
    // One that ends at once may do so before or after it was told the rules.
    assert!(world.look().await.is_err());
    assert_eq!(world.starts(), 2);
    // The old ones are there again.
    fs::remove_file(world.home.path().join("rules/a.yar")).unwrap();
    assert_eq!(world.look().await, Ok(false));
    assert_eq!(world.look().await, Ok(false));
}

#[tokio::test]
async fn a_directory_that_is_away_leaves_the_rules_in_force() {
    let mut world = World::new(READY);
    fs::remove_dir(world.home.path().join("rules")).unwrap();
    let away = world.look().await.unwrap_err();
    assert!(away.contains("reading the rules in"), "{away}");
    fs::create_dir(world.home.path().join("rules")).unwrap();
    assert_eq!(world.look().await, Ok(false));
}

#[tokio::test]
async fn a_bundle_that_is_not_to_be_had_is_asked_for_again_after_a_while() {
    let mut world = World::new(READY);
    let key = model::SigningKey::generate().unwrap().verifying();
    world.lookout.config.bundle = Some(malware::BundleAt {
        url: "http://127.0.0.1:9/rules".to_owned(),
        keys: vec![key],
        refresh_hours: 24,
    });
    let asked = world.look().await.unwrap_err();
    assert!(asked.contains("127.0.0.1:9"), "{asked}");
    let not_asked = world.look().await.unwrap_err();
    assert!(not_asked.contains("a short while ago"), "{not_asked}");
    world.clock.advance(AGAIN);
    let asked = world.look().await.unwrap_err();
    assert!(!asked.contains("a short while ago"), "{asked}");
}
