//! A node without BPF: the process connector and fanotify see programs that start, and say what they
//! do not.

use super::{NODE, Yard};

#[tokio::test(flavor = "multi_thread")]
async fn without_bpf_a_dropped_binary_is_seen_by_the_process_connector() {
    let Some(yard) = Yard::start_with(1, "process-connector").await else {
        return;
    };
    let id = yard.container("plain", &[]).await;
    let node = yard.fabric.get(&format!("/v1/nodes/{NODE}")).await;
    let sensors = node.expect("the node")["sensors"].clone();
    assert_eq!(sensors["tier"], "process-connector", "{sensors:#}");
    assert!(sensors["missing"]["connect"].is_string(), "{sensors:#}");
    // What is of the image raises nothing.
    yard.engine.exec("plain", "/bin/ls /; /bin/sleep 0.2");
    yard.engine.exec(
        "plain",
        "cp /bin/sleep /tmp/dropped; printf x >>/tmp/dropped; /tmp/dropped 1",
    );
    yard.until_detected(&id, "drift/added-executable", "tmp/dropped")
        .await;
    let mut expected = 1;
    if sensors["missing"]["exec-file"].is_null() {
        // It is gone long before anybody looks at it, and so is its script.
        yard.engine.exec(
            "plain",
            "cp /bin/chmod /tmp/brief; printf x >>/tmp/brief; /tmp/brief --version; \
             printf '#!/tmp/brief\n' >/tmp/script; chmod +x /tmp/script; /tmp/script",
        );
        for what in ["tmp/brief", "tmp/script"] {
            yard.until_detected(&id, "drift/added-executable", what)
                .await;
        }
        expected += 2;
    }
    let detected = yard.detected(&id).await;
    assert_eq!(detected.len(), expected, "{detected:#?}");
}
