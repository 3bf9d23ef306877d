use std::{cell::RefCell, collections::BTreeSet};

use archive::Limits;
use model::{
    Assessment, Digest, Findings, ImageConfig, ImageReport, LayerReport, Misconfiguration, Os,
    Report, RuntimeConfig, Tool,
};

use super::{
    Benchmark, Outcome, Status, benchmark,
    catalog::{CHECKS, OF_SETUID},
    check_dockerfile, check_image, end_of_life,
    instruction::Instruction,
};
use crate::{
    Analyzers, Config, LayerBlob, PreparedLayer, SecretsConfig, Subject, image_report, read_layer,
    secrets::samples::expand,
};

thread_local! {
    /// Checks that fired on this thread.
    static FIRED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

fn ids<'a>(found: impl IntoIterator<Item = &'a Misconfiguration>) -> Vec<String> {
    let all: BTreeSet<_> = found.into_iter().map(|one| one.id.clone()).collect();
    FIRED.with_borrow_mut(|fired| fired.extend(all.iter().cloned()));
    all.into_iter().collect()
}

/// Each of these says of every case what fires, and so of every other check that it does not.
#[test]
fn every_check_there_is_fires_in_one_of_these_tests() {
    each_check_of_a_dockerfile_fires_and_stays_silent();
    what_a_dockerfile_leaves_out_is_found();
    each_check_of_files_fires_and_stays_silent();
    each_check_of_the_config_fires_and_stays_silent();
    the_end_of_an_operating_system_is_a_finding();
    let fired = FIRED.take();
    let all = CHECKS
        .iter()
        .map(|check| check.id)
        .chain(OF_SETUID.iter().copied());
    let (mut silent, mut count) = (Vec::new(), 0);
    for id in all {
        count += 1;
        if !fired.contains(id) {
            silent.push(id);
        }
    }
    assert!(silent.is_empty(), "{silent:?}");
    assert_eq!(count, fired.len(), "{fired:?}");
}

fn of_dockerfile(text: &str) -> Vec<Misconfiguration> {
    check_dockerfile("Dockerfile", &expand(text, 1), &SecretsConfig::default()).0
}

const CLEAN: &str = "FROM debian:12.8\nRUN make\nUSER 1000\nHEALTHCHECK CMD true\n";

#[test]
fn each_check_of_a_dockerfile_fires_and_stays_silent() {
    assert!(
        of_dockerfile(CLEAN).is_empty(),
        "{:?}",
        of_dockerfile(CLEAN)
    );
    let check = |id: &str, bad: &str, good: &str| {
        let with =
            |line: &str| format!("FROM debian:12.8\n{line}\nUSER 1000\nHEALTHCHECK CMD true\n");
        let found = of_dockerfile(&with(bad));
        assert_eq!(ids(&found), [id], "{bad}");
        assert_eq!(
            (found[0].path.as_deref(), found[0].line),
            (Some("Dockerfile"), Some(2)),
            "{bad}"
        );
        let found = of_dockerfile(&with(good));
        assert!(found.is_empty(), "{good}: {found:?}");
    };
    check(
        "add-remote",
        "ADD https://example.org/a /a",
        "ADD --checksum=sha256:aa https://example.org/a /a",
    );
    check("add-local", "ADD app /app", "COPY app /app");
    check("add-local", r#"ADD ["app", "/app"]"#, "ADD rootfs.tar.xz /");
    check(
        "package-cache",
        "RUN apt-get update && apt-get install -y curl",
        "RUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*",
    );
    for clean in [
        "apt-get dist-clean",
        "apt-get -y distclean",
        "rm -rf /var/lib/{apt,dpkg,cache,log}/",
        "rm -r /var/lib/apt",
        "find /var/lib/apt/lists -type f -delete",
    ] {
        check(
            "package-cache",
            "RUN apt-get update && apt-get install -y curl && apt-get clean",
            &format!("RUN apt-get update && apt-get install -y curl && {clean}"),
        );
    }
    check(
        "package-cache",
        "RUN dnf -y install curl && rm -rf /var/log/*",
        "RUN dnf -y install curl && rm -rf /var/log/* /var/cache/*",
    );
    check(
        "package-cache",
        "RUN pip install c",
        "RUN pip install --no-cache c",
    );
    check(
        "package-cache",
        "RUN apk add curl",
        "RUN apk add --no-cache curl",
    );
    check(
        "package-cache",
        "RUN dnf -y install curl",
        "RUN dnf -y install curl && dnf clean all",
    );
    check(
        "package-cache",
        "RUN pip install a",
        "RUN pip install --no-cache-dir a",
    );
    check(
        "package-cache",
        "RUN pip install b",
        "RUN --mount=type=cache,target=/root/.cache pip install b",
    );
    check(
        "update-alone",
        "RUN apt-get update",
        "RUN apt-get update && apt-get upgrade -y",
    );
    check(
        "pipe-to-shell",
        "RUN curl -fsSL https://example.org/i.sh | sh",
        "RUN curl -fsSLo i.sh https://example.org/i.sh && sha256sum -c s && sh i.sh",
    );
    check(
        "pipe-to-shell",
        "RUN wget -qO- https://example.org/i | sudo -E bash -",
        "RUN curl https://example.org/a | tar xz",
    );
    check(
        "pipe-to-shell",
        "RUN bash <(curl -s https://example.org/i)",
        "RUN curl https://example.org | jq .",
    );
    check(
        "pipe-to-shell",
        "RUN sh -c \"$(curl -fsSL https://example.org/i)\"",
        "RUN echo hi | sh",
    );
    for (bad, good) in [
        ("sh", "sh -c 'read v && install-it $v'"),
        ("bash -ex", "bash -euc 'cat >v'"),
        ("bash -es stable 2>&1", "bash ./install.sh"),
        ("sudo -E A=b sh -", "A=b sh install.sh"),
        ("python3.11 -u", "python3.11 get.py"),
        (
            "python3 -",
            "python3 -c 'import json, sys; print(json.load(sys.stdin)[0])'",
        ),
        ("python3", "python3 -m json.tool"),
        ("perl", "perl -ne 'print if /v1/'"),
        ("perl -w", "perl list.pl"),
        (
            "ruby >/log",
            "ruby -rjson -e 'puts JSON.parse(ARGF.read)[0]'",
        ),
        ("node", "node -p 'JSON.parse(fs.readFileSync(0)).tag'"),
        ("node --no-warnings", "node --eval 'tag()'"),
    ] {
        let fetched = "RUN curl -fsSL https://example.org/i";
        check(
            "pipe-to-shell",
            &format!("{fetched} | {bad}"),
            &format!("{fetched} | {good} && true"),
        );
    }
    check(
        "pipe-to-shell",
        "RUN curl https://example.org/a | python3 -m json.tool; wget -O- https://example.org/b | sh",
        "RUN curl https://example.org/a | python3 -m json.tool; wget -O b https://example.org/b",
    );
    check(
        "unsigned-packages",
        "RUN printf '[a]\\ngpgcheck=0\\nrepo_gpgcheck=0' > /etc/yum.repos.d/a.repo",
        "RUN printf '[a]\\nrepo_gpgcheck=0\\ngpgcheck=1' > /etc/yum.repos.d/a.repo",
    );
    check(
        "unsigned-packages",
        "RUN apt-get -o Acquire::AllowInsecureRepositories=true upgrade",
        "RUN apt-get -o Acquire::AllowInsecureRepositories=false upgrade",
    );
    check(
        "unsigned-packages",
        "RUN apt-get --allow-unauthenticated upgrade",
        "RUN apt-get upgrade",
    );
    check(
        "unsigned-packages",
        "RUN echo 'deb [trusted=yes] http://x y z' > l",
        "RUN echo 'deb [signed-by=k] http://x y z' > l",
    );
    check(
        "unsigned-packages",
        "RUN rpm -i --nosignature a.rpm",
        "RUN rpm -i a.rpm",
    );
    check(
        "insecure-download",
        "RUN curl -k https://example.org -o a",
        "RUN curl --keepalive-time 2 https://example.org -o a",
    );
    check(
        "insecure-download",
        "RUN wget --no-check-certificate https://example.org",
        "RUN wget https://example.org",
    );
    check(
        "world-writable-build",
        "RUN chmod -R 777 /app",
        "RUN chmod -R 775 /app",
    );
    check(
        "world-writable-build",
        "RUN chmod o+w /app",
        "RUN chmod u+w /app && chmod 1777 /tmp/a || chmod a+x b",
    );
    check(
        "sudo-without-password",
        "RUN echo 'app ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/a",
        "RUN echo app",
    );
    check("empty-password", "RUN passwd -d app", "RUN passwd -l app");
    check("ssh-server", "EXPOSE 22", "EXPOSE 2222");
    check(
        "ssh-server",
        "RUN apk add --no-cache openssh",
        "RUN apk add --no-cache openssh-client",
    );
    check("privileged-port", "EXPOSE 80/tcp", "EXPOSE 8080/tcp");
    check("volume-over-system-path", "VOLUME /etc", "VOLUME /data");
    check(
        "volume-over-system-path",
        r#"VOLUME ["/data", "/usr/"]"#,
        "VOLUME /usr/src/app/data",
    );
    check("secret-in-build", "ENV API_TOKEN={w:40}", "ENV API_TOKEN=");
    check(
        "secret-in-build",
        "ARG DB_PASSWORD={w:16}",
        "ARG DB_PASSWORD",
    );
}

#[test]
fn what_stands_before_an_instruction_matters() {
    let check = |lines: &[&str], expected: &[&str]| {
        let steps = lines.iter().map(|text| model::HistoryStep {
            created_by: (*text).to_owned(),
            empty_layer: true,
        });
        let config = ImageConfig {
            history: steps.collect(),
            ..good_config()
        };
        let report = image(&[&layer(&[])], &config);
        assert_eq!(
            ids(&report.findings.misconfigurations),
            expected,
            "{lines:?}"
        );
    };
    let base = "/bin/sh -c #(nop) ADD file:aa in / ";
    check(&["/bin/sh -c #(nop)  ARG RELEASE", base], &[]);
    check(&["RUN /bin/sh -c true # buildkit", base], &["add-local"]);
    let install = "RUN /bin/sh -c pip install a # buildkit";
    check(&["ENV PIP_NO_CACHE_DIR=1", install], &[]);
    check(&[install, "ENV PIP_NO_CACHE_DIR=1"], &["package-cache"]);
}

#[test]
fn what_a_dockerfile_leaves_out_is_found() {
    let check =
        |text: &str, expected: &[&str]| assert_eq!(ids(&of_dockerfile(text)), expected, "{text}");
    check("FROM debian:12\nHEALTHCHECK CMD true", &["user-root"]);
    check(
        "FROM debian:12\nUSER root\nHEALTHCHECK CMD true",
        &["user-root"],
    );
    check("FROM debian:12\nUSER app", &["no-healthcheck"]);
    check(
        "FROM debian:12\nUSER app\nHEALTHCHECK NONE",
        &["no-healthcheck"],
    );
    let rest = "USER app\nHEALTHCHECK CMD true";
    check(&format!("FROM debian\n{rest}"), &["latest-base"]);
    check(
        &format!("FROM r.example:5000/a:latest\n{rest}"),
        &["latest-base"],
    );
    check(&format!("FROM r.example:5000/a:1\n{rest}"), &[]);
    check(&format!("FROM debian@sha256:aa\n{rest}"), &[]);
    check(
        &format!("ARG V=1\nFROM debian:$V AS build\nRUN make\nFROM build\n{rest}"),
        &[],
    );
    check(&format!("FROM scratch\n{rest}"), &[]);
    // Only the last stage is the image.
    check(
        &format!("FROM debian:12 AS build\nUSER root\nEXPOSE 80\nFROM debian:12\n{rest}"),
        &[],
    );
}

fn layer(entries: &[(&str, u32, Option<&str>)]) -> PreparedLayer {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        let content = content.unwrap_or_default();
        header.set_size(content.len() as u64);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        builder
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    let blob = builder.into_inner().unwrap();
    let limits = Limits::default();
    let expected = LayerBlob {
        digest: Digest::of(&blob),
        size: blob.len() as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
    };
    let analyzers = Analyzers::all(&Config::default(), &limits);
    let read = read_layer(&blob[..], &expected, &analyzers, &limits, None);
    assert!(read.complete);
    PreparedLayer::new(read.report)
}

fn subject() -> Subject {
    Subject {
        image: Digest::of(b"image"),
        reference: "test".to_owned(),
        index_digest: None,
        manifest_digest: None,
        image_id: Digest::of(b"config"),
        platform: model::Platform::default(),
        layer_sizes: Vec::new(),
    }
}

fn image(layers: &[&PreparedLayer], config: &ImageConfig) -> ImageReport {
    let diff_ids = layers
        .iter()
        .filter_map(|layer| layer.entries.diff_id)
        .collect();
    let config = ImageConfig {
        diff_ids,
        ..config.clone()
    };
    image_report(
        layers,
        &config,
        subject(),
        &Limits::default(),
        &Config::default(),
    )
}

fn good_config() -> ImageConfig {
    ImageConfig {
        runtime: RuntimeConfig {
            user: Some("1000".to_owned()),
            healthcheck: Some(vec!["CMD".to_owned(), "true".to_owned()]),
            ..RuntimeConfig::default()
        },
        ..ImageConfig::default()
    }
}

const STATUS: &str =
    "Package: gcc-12\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n";
const LIBRARY: &str =
    "Package: gcc-12-base\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n";
const APT: &str = "Package: apt\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n";

/// A file with its mode and content, and the check that refuses it.
type FileCase = (Option<&'static str>, &'static str, u32, &'static str);

const FILES: &[FileCase] = &[
    (Some("world-writable-file"), "app/a", 0o666, ""),
    (None, "app/a", 0o664, ""),
    (None, "tmp/a", 0o666, ""),
    (Some("world-writable-directory"), "app/", 0o777, ""),
    (None, "app/", 0o1777, ""),
    (None, "var/tmp/", 0o777, ""),
    (Some("ssh-server"), "usr/sbin/sshd", 0o755, ""),
    (None, "usr/bin/ssh", 0o755, ""),
    (
        Some("sudo-without-password"),
        "etc/sudoers",
        0o440,
        "app ALL=(ALL) NOPASSWD: ALL\n",
    ),
    (
        Some("sudo-without-password"),
        "etc/sudoers.d/app",
        0o440,
        "%app ALL=(ALL) NOPASSWD: ALL\n",
    ),
    (
        None,
        "etc/sudoers",
        0o440,
        "# app ALL=(ALL) NOPASSWD: ALL\napp ALL=(ALL) ALL\n",
    ),
    (
        None,
        "etc/sudoers.d/app.bak",
        0o440,
        "app ALL=(ALL) NOPASSWD: ALL\n",
    ),
    (
        Some("empty-password"),
        "etc/shadow",
        0o640,
        "root:*:1::::::\nada::1::::::\n",
    ),
    (None, "etc/shadow", 0o640, "root:*:1::::::\nada:!:1::::::\n"),
    (
        Some("empty-password"),
        "etc/passwd",
        0o644,
        "ada::1000:1000::/:/bin/sh\n",
    ),
    (
        Some("uid-0-duplicate"),
        "etc/passwd",
        0o644,
        "root:x:0:0::/:\nada:x:0:0::/:/bin/sh\n",
    ),
    (
        None,
        "etc/passwd",
        0o644,
        "root:x:0:0::/:\nada:x:1000:0::/:/bin/sh\n",
    ),
    (Some("setuid-file"), "app/su", 0o4755, ""),
    (Some("setgid-file"), "app/su", 0o2755, ""),
    (None, "app/su", 0o755, ""),
    (Some("build-tools"), "var/lib/dpkg/status", 0o644, STATUS),
    (None, "var/lib/dpkg/status", 0o644, LIBRARY),
    (
        Some("package-manager-left"),
        "var/lib/dpkg/status",
        0o644,
        APT,
    ),
];

#[test]
fn each_check_of_files_fires_and_stays_silent() {
    for (id, path, mode, content) in FILES {
        let report = image(&[&layer(&[(path, *mode, Some(content))])], &good_config());
        let expected: Vec<&str> = id.iter().copied().collect();
        let found = ids(&report.findings.misconfigurations);
        assert_eq!(found, expected, "{path} {mode:o}");
    }
}

#[test]
fn a_directory_has_no_config_to_be_judged() {
    let config = ImageConfig {
        is_written: true,
        ..ImageConfig::default()
    };
    let root = layer(&[("etc/os-release", 0o666, None)]);
    let mut directory = report(image(&[&root], &config));
    assert_eq!(
        ids(&directory.misconfigurations),
        ["world-writable-file"],
        "its files are"
    );
    directory.target.platform.architecture = "unknown".to_owned();
    insta::assert_snapshot!(statuses(Benchmark::DockerCis, &directory), @"4.1 not applicable, 4.2 not applicable, 4.3 pass, 4.4 pass, 4.5 not applicable, 4.6 not applicable, 4.7 not applicable, 4.8 pass, 4.9 not applicable, 4.10 pass, 4.11 not applicable, 4.12 not applicable");
    directory.target.manifest_digest = Some(Digest::of(b"pushed"));
    insta::assert_snapshot!(statuses(Benchmark::DockerCis, &directory), @"4.1 pass, 4.2 not applicable, 4.3 pass, 4.4 pass, 4.5 not applicable, 4.6 pass, 4.7 pass, 4.8 pass, 4.9 pass, 4.10 pass, 4.11 pass, 4.12 not applicable");
}

#[test]
fn what_a_later_layer_mends_is_no_finding() {
    let lower = layer(&[
        ("etc/passwd", 0o666, Some("ada::0:0::/:/bin/sh\n")),
        ("app/", 0o777, None),
    ]);
    let upper = layer(&[
        ("etc/passwd", 0o644, Some("root:x:0:0::/:\n")),
        ("app/", 0o755, None),
    ]);
    let report = image(&[&lower], &good_config());
    assert_eq!(
        ids(&report.findings.misconfigurations),
        [
            "empty-password",
            "uid-0-duplicate",
            "world-writable-directory",
            "world-writable-file"
        ]
    );
    let report = image(&[&lower, &upper], &good_config());
    assert_eq!(ids(&report.findings.misconfigurations), [] as [&str; 0]);
}

#[test]
fn each_check_of_the_config_fires_and_stays_silent() {
    let none = LayerReport {
        blob: Digest::of(b"l"),
        entries: std::sync::Arc::default(),
        sections: Vec::new(),
        transient_gaps: Vec::new(),
    };
    let none = PreparedLayer::new(none);
    let of = |change: &dyn Fn(&mut ImageConfig)| {
        let mut config = good_config();
        change(&mut config);
        ids(&image(&[&none], &config).findings.misconfigurations)
    };
    assert_eq!(of(&|_| {}), [] as [&str; 0]);
    assert_eq!(of(&|config| config.runtime.user = None), ["user-root"]);
    assert_eq!(
        of(&|config| config.runtime.user = Some("0:0".to_owned())),
        ["user-root"]
    );
    assert_eq!(
        of(&|config| config.runtime.healthcheck = None),
        ["no-healthcheck"]
    );
    assert_eq!(
        of(&|config| config.runtime.exposed_ports = vec!["443/tcp".to_owned()]),
        ["privileged-port"]
    );
    assert_eq!(
        of(&|config| config.runtime.exposed_ports = vec!["22/tcp".to_owned()]),
        ["ssh-server"]
    );
    assert_eq!(
        of(&|config| config.runtime.volumes = vec!["/etc".to_owned()]),
        ["volume-over-system-path"]
    );
    let step = |text: &str| model::HistoryStep {
        created_by: text.to_owned(),
        empty_layer: true,
    };
    let run = "RUN /bin/sh -c curl https://example.org/a | bash # buildkit";
    assert_eq!(
        of(&|config| config.history = vec![step(run)]),
        ["pipe-to-shell"]
    );
    let base = "/bin/sh -c #(nop) ADD file:aa in / ";
    assert_eq!(
        of(&|config| config.history = vec![step(base)]),
        [] as [&str; 0]
    );
    let secret = expand("{w:40}", 5);
    let pair = ("API_TOKEN".to_owned(), secret.clone());
    assert_eq!(
        of(&|config| config.environment.0 = vec![pair.clone()]),
        ["secret-in-environment"]
    );
    let key = ("GPG_KEY".to_owned(), expand("{X:40}", 5));
    assert_eq!(
        of(&|config| config.environment.0 = vec![key.clone()]),
        [] as [&str; 0]
    );
    let build = format!("RUN |1 API_TOKEN={secret} /bin/sh -c make # buildkit");
    assert_eq!(
        of(&|config| config.history = vec![step(&build)]),
        ["secret-in-build"]
    );
}

fn assessed(os: Option<Os>) -> Assessment {
    Assessment {
        image: Digest::of(b"image"),
        scan: 0,
        advisories: model::AdvisoryStamp {
            revision: 1,
            feeds: Vec::new(),
        },
        os,
        os_ends: None,
        vulnerabilities: Vec::new(),
        gaps: Vec::new(),
    }
}

#[test]
fn the_end_of_an_operating_system_is_a_finding() {
    let os = |eol| Os {
        id: "debian".to_owned(),
        version_id: "9".to_owned(),
        eol,
        pretty_name: None,
        codename: None,
    };
    let now = jiff::Timestamp::UNIX_EPOCH;
    let id = |assessment: &Assessment| ids(&end_of_life(assessment, now)).pop();
    let expected = Some("end-of-life-os".to_owned());
    assert_eq!(id(&assessed(Some(os(Some(true))))), expected);
    assert_eq!(id(&assessed(Some(os(Some(false))))), None);
    assert_eq!(id(&assessed(None)), None);
    // It had not ended when the image was assessed.
    let ends = |at| Assessment {
        os_ends: Some(at),
        ..assessed(Some(os(Some(false))))
    };
    assert_eq!(id(&ends(now)), expected);
    assert_eq!(id(&ends(now + jiff::SignedDuration::from_secs(1))), None);
}

fn report(image: ImageReport) -> Report {
    let verdict = model::Verdict {
        decision: model::Decision::Allow,
        reasons: Vec::new(),
        policy: model::Slug::default_tenant(),
        policy_revision: 0,
        advisory_revision: 1,
        evaluated_at: jiff::Timestamp::UNIX_EPOCH,
        valid_until: None,
    };
    Report::new(
        image,
        assessed(None),
        verdict,
        Tool::tidewaiter("0"),
        jiff::Timestamp::UNIX_EPOCH,
    )
}

fn statuses(benchmark: Benchmark, report: &Report) -> String {
    let outcomes = benchmark.outcomes(report);
    let line = |one: &Outcome| format!("{} {}", one.clause, one.status.as_str());
    outcomes.iter().map(line).collect::<Vec<_>>().join(", ")
}

fn bad_image() -> Report {
    let history = [
        "RUN apt-get update",
        "ADD a /b",
        "RUN curl https://example.org/a | sh",
        "ADD https://example.org/c /d",
    ];
    let steps = history.iter().map(|text| model::HistoryStep {
        created_by: (*text).to_owned(),
        empty_layer: true,
    });
    let config = ImageConfig {
        history: steps.collect(),
        environment: model::Environment(vec![("API_TOKEN".to_owned(), expand("{w:40}", 5))]),
        ..ImageConfig::default()
    };
    let files = [("app/su", 0o4777, None), ("usr/sbin/sshd", 0o755, None)];
    report(image(&[&layer(&files)], &config))
}

#[test]
fn a_good_image_meets_what_can_be_told() {
    let good = report(image(&[&layer(&[("app/a", 0o644, None)])], &good_config()));
    insta::assert_snapshot!(statuses(Benchmark::DockerCis, &good), @"4.1 pass, 4.2 not applicable, 4.3 pass, 4.4 pass, 4.5 not applicable, 4.6 pass, 4.7 pass, 4.8 pass, 4.9 pass, 4.10 pass, 4.11 pass, 4.12 not applicable");
    insta::assert_snapshot!(statuses(Benchmark::Nist800190, &good), @"4.1.1 pass, 4.1.2 pass, 4.1.3 not applicable, 4.1.4 pass, 4.1.5 not applicable");
}

#[test]
fn a_bad_image_fails_what_it_should() {
    let bad = bad_image();
    insta::assert_snapshot!(statuses(Benchmark::DockerCis, &bad), @"4.1 fail, 4.2 not applicable, 4.3 fail, 4.4 pass, 4.5 not applicable, 4.6 fail, 4.7 fail, 4.8 fail, 4.9 fail, 4.10 fail, 4.11 fail, 4.12 not applicable");
    insta::assert_snapshot!(statuses(Benchmark::Nist800190, &bad), @"4.1.1 pass, 4.1.2 fail, 4.1.3 not applicable, 4.1.4 fail, 4.1.5 fail");
}

#[test]
fn what_somebody_accepted_does_not_count() {
    let mut accepted = bad_image();
    for one in &mut accepted.misconfigurations {
        one.waived = Some(model::Waived {
            reason: "r".to_owned(),
            author: "a".to_owned(),
            expires: jiff::civil::date(2030, 1, 1),
            source: "s".to_owned(),
        });
    }
    let outcomes = Benchmark::DockerCis.outcomes(&accepted);
    let failed = outcomes.iter().filter(|one| one.status == Status::Fail);
    // The secret itself was not accepted.
    assert_eq!(failed.map(|one| one.clause).collect::<Vec<_>>(), ["4.10"]);
}

#[test]
fn what_could_not_be_read_is_no_pass() {
    let mut unread = report(image(&[&layer(&[("app/a", 0o644, None)])], &good_config()));
    unread.gaps.push(model::Gap::new(
        model::GapCode::Truncated,
        model::Hides::Entries,
        "the end is missing",
    ));
    let outcomes = Benchmark::DockerCis.outcomes(&unread);
    let of = |clause: &str| outcomes.iter().find(|one| one.clause == clause).unwrap();
    assert_eq!(of("4.8").status, Status::NotApplicable);
    assert_eq!(
        of("4.8").evidence,
        ["a gap may hide something: the end is missing"]
    );
    assert_eq!(of("4.1").status, Status::Pass);
}

#[test]
fn every_clause_has_a_check_and_every_check_a_clause_that_is_known() {
    for clause in benchmark::clauses_of_checks() {
        let is_proven = benchmark::has_check(&clause);
        assert!(is_proven, "{clause}");
    }
    for check in CHECKS {
        assert!(!check.clauses.is_empty(), "{}", check.id);
        for clause in check.clauses {
            assert!(
                benchmark::clauses_of_checks().contains(&(*clause).to_owned()),
                "{}: {clause}",
                check.id
            );
        }
    }
    let ids: BTreeSet<_> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(ids.len(), CHECKS.len());
    for benchmark in Benchmark::ALL {
        assert_eq!(benchmark.as_str().parse(), Ok(benchmark));
    }
    assert!("cis".parse::<Benchmark>().is_err());
}

#[test]
fn no_history_makes_a_step_that_panics() {
    let mut report = ImageReport {
        findings: Findings::default(),
        ..image(&[&layer(&[])], &good_config())
    };
    let texts = [
        "",
        "|",
        "RUN |",
        "|9999999999 a=b",
        "/bin/sh -c",
        "ENV",
        "ENV =",
        "ADD",
        "FROM",
        "VOLUME [\"",
        "RUN <<",
    ];
    for text in texts {
        let config = ImageConfig {
            history: vec![model::HistoryStep {
                created_by: text.to_owned(),
                empty_layer: false,
            }],
            ..good_config()
        };
        check_image(&config, &[], &mut report);
        assert_eq!(Instruction::of_history(0, text).text, text);
    }
}
