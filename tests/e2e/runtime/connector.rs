//! A node without BPF: the process connector sees programs that start, and says what it does not.

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
    // What is of the image raises nothing, and what is not lives long enough to be looked at.
    yard.podman.exec("plain", "/bin/ls /; /bin/sleep 0.2");
    yard.podman.exec(
        "plain",
        "cp /bin/sleep /tmp/dropped; printf x >>/tmp/dropped; /tmp/dropped 1",
    );
    yard.until_detected(&id, "drift/added-executable", "tmp/dropped")
        .await;
    let detected = yard.detected(&id).await;
    assert_eq!(detected.len(), 1, "{detected:#?}");
}
