//! Replaced: a fresh container of the same image answers, the old one stands still.

use std::fs;

use model::runtime::{Action, Phase};
use serde_json::Value;

use crate::{
    ground::wait,
    yard::{IMAGE, Yard, read},
};

/// Answers who asks by a file, with something of its environment.
const SERVE: &str = "while :; do if [ -e /shared/ask ]; then rm /shared/ask; echo \"$GREETING $(cat /proc/sys/kernel/hostname)\" >/shared/answer; fi; sleep 0.05; done";

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_container_answers_again_and_the_old_one_stands_still() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let shared = yard.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let volume = format!("{}:/shared", shared.display());
    let options = [
        "--volume",
        &volume,
        "--env",
        "GREETING=hello",
        "--label",
        "team=shop",
        "--hostname",
        "shop",
        "--cap-drop",
        "MKNOD",
        "--restart",
        "always",
    ];
    let old = yard.container("web", &options, &["/bin/sh", "-c", SERVE]);
    let ask = || {
        drop(fs::remove_file(shared.join("answer")));
        fs::write(shared.join("ask"), "").unwrap();
        wait("an answer", || {
            Some(read(&shared.join("answer"))).filter(|text| text.ends_with('\n'))
        })
    };
    assert_eq!(ask(), "hello shop\n");
    yard.exec(
        "web",
        "cp /bin/true /tmp/dropped; printf more >>/tmp/dropped",
    );
    let inspect = |id: &str| -> Value {
        let text = yard.podman(&["inspect", id]);
        let all: Value = serde_json::from_str(&text).unwrap();
        all[0].clone()
    };
    let before = inspect(&old);

    let evidence = yard.order(&old, Action::CollectEvidence).await;
    let collected = yard.until(&evidence, Phase::Done).await;
    let object = collected.evidence.unwrap();
    let bucket = model::runtime::forensic_objects(
        &model::Slug::default_tenant(),
        &crate::yard::slug("node-1"),
    );
    let bytes = yard
        .bus
        .store()
        .object_bytes(&bucket, &object.digest, 64 << 20)
        .await;
    let bytes = bytes.unwrap().unwrap();
    assert_eq!(bytes.len() as u64, object.bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains("files/tmp/dropped") && text.contains("GREETING"));
    assert!(
        !text.contains("GREETING=hello"),
        "values of the environment are not kept"
    );

    let replace = yard.order(&old, Action::Replace).await;
    let done = yard.until(&replace, Phase::Done).await;
    let fresh = done.after.unwrap();
    assert_ne!(fresh, old);
    assert_eq!(ask(), "hello shop\n", "the fresh one answers");
    assert!(yard.is_frozen(&old) && !yard.is_frozen(&fresh));
    let (kept, after) = (inspect(&old), inspect(&fresh));
    assert_eq!(after["Name"], "web");
    assert_eq!(kept["Name"], format!("web.q-{}", &old[..12]));
    for pointer in [
        "/Image",
        "/Config/Cmd",
        "/Config/Hostname",
        "/HostConfig/Binds",
        "/HostConfig/NetworkMode",
        "/EffectiveCaps",
    ] {
        assert_eq!(after.pointer(pointer), before.pointer(pointer), "{pointer}");
    }
    let has = |value: &Value| {
        let env = value["Config"]["Env"].as_array().unwrap();
        env.contains(&Value::from("GREETING=hello"))
    };
    assert!(has(&after));
    assert_eq!(after["Config"]["Labels"]["team"], "shop");
    let (dropped, _) = yard.exec("web", "[ -e /tmp/dropped ]");
    assert!(!dropped, "nothing of the old one is in the fresh one");

    // An agent without its files makes no second one.
    yard.kill();
    fs::remove_dir_all(yard.own_dir()).unwrap();
    yard.launch();
    wait("the same again", || {
        (read(&yard.log()).matches("`replace` of").count() >= 2).then_some(())
    });
    let all = yard.podman(&["ps", "--all", "--quiet", "--no-trunc"]);
    assert_eq!(all.lines().count(), 2, "{all}");

    yard.release(&old).await;
    let lifted = yard.until(&replace, Phase::Lifted).await;
    println!("{:?}", lifted.detail);
    assert_eq!(inspect(&old)["State"]["Running"], false, "it never goes on");
    assert_eq!(ask(), "hello shop\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_podman_would_make_by_another_runtime_is_refused() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    // The same program under another name: the service does not use it.
    let found = std::process::Command::new("which").arg("runc").output();
    let runc = String::from_utf8(found.unwrap().stdout).unwrap();
    let own = yard.dir.path().join("own-runtime");
    std::os::unix::fs::symlink(runc.trim(), &own).unwrap();
    let own = own.to_str().unwrap();
    let run = ["--runtime", own, "run", "--detach", "--network", "none"];
    let limits = ["--ulimit", "nofile=64:64", "--ulimit", "nproc=64:64"];
    let id = yard.podman(&[&run[..], &limits, &[IMAGE, "/bin/sleep", "1000"]].concat());
    let response = yard.order(&id, Action::Replace).await;
    let refused = yard.until(&response, Phase::Refused).await;
    let why = refused.refusal.unwrap().to_string();
    assert!(
        why.contains("it runs by `") && why.contains("own-runtime"),
        "{why}"
    );
    assert!(!yard.is_frozen(&id));
    yard.podman(&["--runtime", own, "rm", "--force", "--time", "0", &id]);
}
