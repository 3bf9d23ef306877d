use std::os::unix::fs::symlink;

use super::*;

#[test]
fn capabilities_have_the_names_of_the_header() {
    assert_eq!(names(1), ["CAP_CHOWN"]);
    assert_eq!(
        names(1 << 21 | 1 << 40),
        ["CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]
    );
    assert_eq!(names(u64::MAX).len(), CAPABILITIES.len());
}

#[test]
fn one_socket_under_two_names_is_asked_once() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, link) = (
        dir.path().join("podman.sock"),
        dir.path().join("docker.sock"),
    );
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    symlink(&socket, &link).unwrap();
    let engines = Engines {
        sockets: vec![
            (Engine::Podman, socket.clone()),
            (Engine::Docker, link),
            (Engine::Docker, dir.path().join("none")),
        ],
        namespaces: Vec::new(),
    };
    assert_eq!(present(&engines), [(Engine::Podman, socket)]);
}

#[test]
fn a_start_that_no_runtime_tells_is_the_first_process_own() {
    let cx = Cx::system();
    let booted_at = node::booted_at(&*cx.clock());
    let started = started_at(std::process::id(), booted_at).unwrap();
    let ago = cx.now().duration_since(started);
    // Both are told in hundredths of a second.
    assert!(ago > SignedDuration::from_millis(-100), "{ago}");
    assert!(ago < SignedDuration::from_mins(10), "{ago}");
    assert_eq!(started_at(u32::MAX, booted_at), None);
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_named_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let engines = Engines {
        sockets: vec![(Engine::Docker, socket)],
        namespaces: Vec::new(),
    };
    let around = Around {
        root: Path::new("/"),
        layout: &Layout::here(),
        booted_at: Timestamp::UNIX_EPOCH,
    };
    let held = look(&Cx::for_tests(), &engines, &around).await;
    let runtime = &held.host.runtimes[0];
    assert_eq!(runtime.name, "docker");
    assert!(runtime.error.as_ref().unwrap().contains("refused"));
    assert!(held.containers.is_empty());
}
