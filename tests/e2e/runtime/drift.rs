//! Whatever runs and is not of the image becomes an incident; what is of the image does not.

use std::time::{Duration, Instant};

use super::{Yard, loader};

/// How long an incident may take, on a machine that has other things to do.
const DEADLINE: Duration = Duration::from_secs(20);

/// Makes a program that never was a file, and becomes it.
const MEMFD: &str = r#"
    my $number = `/bin/ls /lib64 2>&1` =~ /x86-64/ ? 319 : 279;
    my $fd = syscall($number, my $name = "gift", 0);
    open(my $to, ">&=", $fd) or die; binmode $to;
    open(my $from, "<", "/bin/sleep") or die; binmode $from;
    select($to); $| = 1; local $/; my $all = <$from>; print $to $all;
    exec { "/proc/self/fd/$fd" } "sleep", "0.1";
"#;

/// Something that is not of the image: what is done, the rule that says so, and what it names.
struct Case {
    what: &'static str,
    line: String,
    rule: &'static str,
    about: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |what, line: &str, rule, about| Case {
        what,
        line: line.to_owned(),
        rule,
        about,
    };
    let loaded = format!(
        "cp /bin/ls /tmp/loaded; printf x >>/tmp/loaded; {} /tmp/loaded /",
        loader()
    );
    let memfd = format!("perl -e '{MEMFD}'");
    vec![
        case(
            "dropped binary",
            "cp /bin/ls /tmp/dropped; printf x >>/tmp/dropped; /tmp/dropped /",
            "drift/added-executable",
            "tmp/dropped",
        ),
        case(
            "modified binary of the image",
            "printf x >>/bin/rm; /bin/rm -f /tmp/nothing",
            "drift/modified-executable",
            "bin/rm",
        ),
        case(
            "script",
            "printf '#!/bin/sh\\n:\\n' >/tmp/gift.sh; chmod +x /tmp/gift.sh; /tmp/gift.sh",
            "drift/added-executable",
            "script tmp/gift.sh",
        ),
        case("memfd", &memfd, "drift/fileless-execution", "gift"),
        case(
            "tmpfs",
            "cp /bin/ls /scratch/gift; /scratch/gift /",
            "drift/tmpfs-executable",
            "scratch/gift",
        ),
        case("ld.so ./x", &loaded, "drift/added-executable", "tmp/loaded"),
        case(
            "deleted binary",
            "cp /bin/sleep /tmp/gone; exec 3</tmp/gone; rm /tmp/gone; /proc/self/fd/3 0.1",
            "drift/deleted-executable",
            "tmp/gone",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_of_the_image_becomes_an_incident_and_chmod_does_not() {
    let Some(yard) = Yard::start(1).await else {
        return;
    };
    let id = yard
        .container("drifting", &["--tmpfs", "/scratch:exec"])
        .await;
    // Copied up, and the content is the image's. What comes after it is judged after it.
    yard.engine
        .exec("drifting", "chmod 700 /bin/mkdir; /bin/mkdir /tmp/x");
    for Case {
        what,
        line,
        rule,
        about,
    } in cases()
    {
        yard.engine.exec("drifting", &line);
        let started = Instant::now();
        yard.until_detected(&id, rule, about).await;
        let took = started.elapsed();
        println!("{what}: {rule} after {} ms", took.as_millis());
        assert!(took < DEADLINE, "{what} took {took:?}");
    }
    let detected = yard.detected(&id).await;
    let wrong: Vec<_> = detected
        .iter()
        .filter(|one| one["title"].to_string().contains("mkdir"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let list = format!("/v1/incidents?container={id}");
    let list = yard.fabric.get(&list).await.expect("a list");
    let incident = list["items"][0]["id"].as_str().expect("an incident");
    let path = format!("/v1/incidents/{incident}");
    let details = yard.fabric.get(&path).await.expect("the incident");
    let processes = details["around"]["processes"].as_array().map(Vec::len);
    assert!(processes > Some(cases().len()), "{details:#}");
    assert!(details["image_now"]["digest"].is_string(), "{details:#}");
    assert!(details["host_now"]["kernel"].is_string(), "{details:#}");
    // The image's own programs, run in the same breath, are not among them either.
    assert_eq!(detected.len(), cases().len(), "{detected:#?}");
}
