use model::runtime::{ProcessKey, Stdio, Transport};

use super::*;

const ID: &str = "9927f49113033b6a04e376219116410e7ab272b8717ce2a43979d4c52e220d87";
const CGROUP: u64 = 158;

fn pipeline() -> Pipeline {
    let mut pipeline = Pipeline::new(&SensorConfig::default(), &HashConfig::default()).unwrap();
    assert_eq!(
        pipeline.take(raw(What::CgroupMade(format!("/libpod_parent/libpod-{ID}")))),
        None
    );
    pipeline
}

/// An event of a process that does not live any more: nothing of it is read from this machine.
fn raw(what: What) -> Raw {
    Raw {
        at_ns: 7,
        cgroup: CGROUP,
        process: ProcessKey {
            pid: u32::MAX,
            started_ns: 5,
        },
        what,
    }
}

fn exec(flags: u16) -> What {
    What::Exec(Box::new(RawExec {
        flags,
        path: "usr/bin/x".to_owned(),
        ..RawExec::default()
    }))
}

fn told(pipeline: &mut Pipeline, what: What) -> Activity {
    let told = pipeline.take(raw(what)).unwrap();
    assert_eq!((told.container.as_str(), told.at_ns), (ID, 7));
    told.activity
}

fn told_exec(pipeline: &mut Pipeline, what: What) -> Exec {
    match told(pipeline, what) {
        Activity::Exec(exec) => *exec,
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_of_a_cgroup_that_is_no_container_are_not_told() {
    let mut pipeline = pipeline();
    let mut other = raw(What::Exit(0));
    other.cgroup = 1;
    assert_eq!(pipeline.take(other), None);
    assert!(pipeline.take_changed() && !pipeline.take_changed());
    // The last events of a container may come after its end.
    assert_eq!(pipeline.take(raw(What::CgroupGone(String::new()))), None);
    assert!(pipeline.take_changed());
    assert!(pipeline.take(raw(What::Exit(0))).is_some());
}

#[test]
fn the_first_program_is_the_entry_point_and_a_later_one_from_outside_is_injected() {
    let mut pipeline = pipeline();
    let outside = raw::FROM_OUTSIDE;
    assert!(!told_exec(&mut pipeline, exec(outside)).injected);
    assert!(!told_exec(&mut pipeline, exec(0)).injected);
    assert!(told_exec(&mut pipeline, exec(outside)).injected);
    assert!(!told_exec(&mut pipeline, exec(outside | raw::FIRST)).injected);
}

#[test]
fn a_script_is_told_beside_its_interpreter() {
    let mut pipeline = pipeline();
    let what = What::Exec(Box::new(RawExec {
        origin: Origin::Lower,
        path: "usr/bin/dash".to_owned(),
        cwd: "srv/app".to_owned(),
        args: ["sh", "../x.sh"].map(str::to_owned).into(),
        ..RawExec::default()
    }));
    let exec = told_exec(&mut pipeline, what);
    assert_eq!(exec.file.origin, Origin::Lower);
    let script = exec.script.unwrap();
    assert_eq!(
        (script.path.as_str(), script.origin),
        ("srv/x.sh", Origin::Unknown)
    );
}

#[test]
fn of_files_that_are_open_the_content_is_told_though_their_process_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let open = |text: &str| {
        let path = dir.path().join(text);
        fs::write(&path, text).unwrap();
        std::sync::Arc::new(File::open(path).unwrap())
    };
    let mut pipeline = pipeline();
    let (program, script) = (open("program"), open("script"));
    let mut run = |origin| {
        let what = What::Exec(Box::new(RawExec {
            origin,
            path: "tmp/x".to_owned(),
            ..RawExec::default()
        }));
        let told = ExecutedFile {
            path: "tmp/s".to_owned(),
            origin,
            ..ExecutedFile::default()
        };
        let opened = Opened {
            program: Some(program.clone()),
            script: Some((told, Some(script.clone()))),
        };
        let told = pipeline.take_opened(raw(what), opened).unwrap();
        match told.activity {
            Activity::Exec(exec) => (exec.file, exec.script.unwrap()),
            other => panic!("{other:?}"),
        }
    };
    let digest = |text: &str| Some(model::Digest::of(text.as_bytes()));
    // Twice: another process has the same file open.
    for _ in 0..2 {
        let (file, script) = run(Origin::Upper);
        assert_eq!(
            (file.path.as_str(), file.digest),
            ("tmp/x", digest("program"))
        );
        assert_eq!(
            (script.path.as_str(), script.digest),
            ("tmp/s", digest("script"))
        );
    }
    let (file, script) = run(Origin::Lower);
    assert_eq!((file.digest, script.digest), (None, None));
}

#[test]
fn what_ran_before_is_known_when_its_cgroup_is_told_of() {
    let mut pipeline = Pipeline::new(&SensorConfig::default(), &HashConfig::default()).unwrap();
    pipeline.learn(&Found {
        cgroup: CGROUP,
        container: ID.to_owned(),
        inner: Vec::new(),
        pids: vec![1],
    });
    let made = What::CgroupMade(format!("/libpod_parent/libpod-{ID}"));
    assert_eq!(pipeline.take(raw(made)), None);
    assert!(told_exec(&mut pipeline, exec(raw::FROM_OUTSIDE)).injected);
}

#[test]
fn a_file_of_the_root_mount_that_is_no_overlay_is_unknown_and_a_volume_is_named() {
    let mut pipeline = pipeline();
    let what = |flags, mount: Option<&str>| {
        What::Exec(Box::new(RawExec {
            origin: Origin::Other,
            mount: mount.map(str::to_owned),
            flags,
            path: "data/x".to_owned(),
            ..RawExec::default()
        }))
    };
    let file = told_exec(&mut pipeline, what(raw::ON_ROOT_MOUNT, None)).file;
    assert_eq!((file.origin, file.mount), (Origin::Unknown, None));
    let file = told_exec(&mut pipeline, what(0, Some("data"))).file;
    assert_eq!(
        (file.origin, file.mount.as_deref()),
        (Origin::Other, Some("data"))
    );
}

#[test]
fn long_arguments_are_shortened() {
    let what = What::Exec(Box::new(RawExec {
        args: vec!["a".repeat(ARG_MAX), "b".repeat(ARG_MAX + 1)],
        ..RawExec::default()
    }));
    let args = told_exec(&mut pipeline(), what).args;
    assert_eq!(args[0].chars().count(), ARG_MAX);
    assert!(args[1].ends_with("b…") && args[1].chars().count() == ARG_MAX + 1);
}

#[test]
fn only_watched_files_are_told() {
    let mut pipeline = pipeline();
    let open_in = |base: Option<&str>, path: &str, flags| What::Open {
        flags,
        path: path.to_owned(),
        base: base.map(str::to_owned),
    };
    let open = |path: &str, flags| open_in(None, path, flags);
    let activity = told(&mut pipeline, open("/etc/./x/../shadow", 1));
    let expected = FileOpen {
        path: "etc/shadow".to_owned(),
        write: true,
    };
    assert_eq!(activity, Activity::Open(expected));
    assert_eq!(pipeline.take(raw(open("/srv/shadow", 0))), None);
    // The kernel says where a relative path begins: the process may be gone.
    let activity = told(&mut pipeline, open_in(Some("etc/cron.d"), "../shadow", 0));
    let expected = FileOpen {
        path: "etc/shadow".to_owned(),
        write: false,
    };
    assert_eq!(activity, Activity::Open(expected));
    // Of some files only writing is told.
    assert_eq!(pipeline.take(raw(open("/etc/passwd", 0))), None);
    told(&mut pipeline, open("/etc/passwd", 2));
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    let mut pipeline = pipeline();
    let exit = |code, signal| Activity::Exit { code, signal };
    assert_eq!(told(&mut pipeline, What::Exit(3 << 8)), exit(3, 0));
    assert_eq!(told(&mut pipeline, What::Exit(9 | 0x80)), exit(0, 9));
}

#[test]
fn calls_have_the_arguments_that_say_something() {
    let mut pipeline = pipeline();
    let call = |number, text: &str| What::Syscall {
        number,
        args: [16, 99],
        text: text.to_owned(),
    };
    let Activity::Syscall(made) = told(&mut pipeline, call(libc::SYS_ptrace, "")) else {
        panic!("a call");
    };
    assert_eq!(
        (made.call, made.args, made.text),
        (RareCall::Ptrace, vec![16, 99], None)
    );
    let Activity::Syscall(made) = told(&mut pipeline, call(libc::SYS_mount, "/mnt")) else {
        panic!("a call");
    };
    assert_eq!((made.args.len(), made.text.as_deref()), (0, Some("/mnt")));
    assert_eq!(pipeline.take(raw(call(libc::SYS_read, ""))), None);
}

/// An event as the kernel side writes it.
fn bytes(kind: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(u32::MAX.to_ne_bytes());
    for number in [7_u64, CGROUP, 5] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(rest);
    bytes
}

#[test]
fn bytes_of_an_exec_are_read_and_half_of_them_are_not() {
    let mut rest = Vec::new();
    for number in [4_u64, 0xff, 11, 12] {
        rest.extend(number.to_ne_bytes());
    }
    for number in [3_u32, 1_000, 1_001] {
        rest.extend(number.to_ne_bytes());
    }
    rest.extend(1_u16.to_ne_bytes());
    // Upper; a pipe in, a socket out; one part below its mount.
    rest.extend([1, 2, 3, 1]);
    let data = b"x\0bin\0usr\0srv\0/usr/bin/x\0x\0-a\0";
    for end in [10_u16, 14, 25, 30] {
        rest.extend(end.to_ne_bytes());
    }
    rest.extend([0; 6]);
    rest.extend(data);
    let bytes = bytes(1, &rest);
    let decoded = raw::decode(&bytes).unwrap();
    let What::Exec(exec) = decoded.what else {
        panic!("an exec");
    };
    assert_eq!(exec.path, "usr/bin/x");
    assert_eq!(exec.mount.as_deref(), Some("usr/bin"));
    assert_eq!(
        (exec.cwd.as_str(), exec.named.as_str()),
        ("srv", "/usr/bin/x")
    );
    assert_eq!(exec.args, ["x", "-a"]);
    assert_eq!((exec.stdin, exec.stdout), (Stdio::Pipe, Stdio::Socket));
    assert_eq!(
        (exec.origin, exec.uid, exec.parent.pid),
        (Origin::Upper, 1_000, 3)
    );
    for length in 0..bytes.len() - 3 {
        assert_eq!(raw::decode(&bytes[..length]), None, "{length}");
    }
}

#[test]
fn bytes_of_a_connection_are_read() {
    let flow = |address: [u8; 16], is_v6: u8, protocol: u8| {
        let mut rest = address.to_vec();
        rest.extend(443_u16.to_ne_bytes());
        rest.extend([is_v6, protocol, 0, 0, 0, 0]);
        let decoded = raw::decode(&bytes(4, &rest)).unwrap();
        let What::Connect(flow) = decoded.what else {
            panic!("a connection");
        };
        (flow.address.to_string(), flow.port, flow.transport)
    };
    let mut v4 = [0; 16];
    v4[..4].copy_from_slice(&[169, 254, 169, 254]);
    assert_eq!(
        flow(v4, 0, 6),
        ("169.254.169.254".to_owned(), 443, Transport::Tcp)
    );
    let mut mapped = [0; 16];
    mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
    assert_eq!(
        flow(mapped, 1, 17),
        ("10.0.0.1".to_owned(), 443, Transport::Udp)
    );
    let mut v6 = [0; 16];
    v6[15] = 1;
    assert_eq!(flow(v6, 1, 132), ("::1".to_owned(), 443, Transport::Other));
    assert_eq!(raw::decode(&bytes(99, &[0; 64])), None);
}
