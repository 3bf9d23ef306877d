use std::sync::Arc;

use super::*;

/// `NAME VERSION` of all that is found.
fn found(path: &str, bytes: &[u8]) -> String {
    let software = Software::boxed(&Config::default(), &Limits::default());
    let file = File::of(path, bytes);
    let head = &bytes[..bytes.len().min(1024)];
    if software.wants(&Entry::from(&*file.entry), head) == Wanted::No {
        return "unwanted".to_owned();
    }
    let mut found = Found::new(1 << 20);
    software.analyze(&[file], &mut found).unwrap();
    let packages = found.packages.iter();
    let packages: Vec<_> = packages
        .map(|package| {
            assert_eq!(package.confidence, Confidence::Low);
            format!("{} {}", package.name, package.version)
        })
        .collect();
    packages.join(", ")
}

/// A program that holds a text.
fn elf(text: &str) -> Vec<u8> {
    [
        b"\x7fELF\x02\x01\x01\0".as_slice(),
        text.as_bytes(),
        b"\0\0",
    ]
    .concat()
}

#[test]
fn every_expression_can_be_made_and_has_a_group() {
    for signature in SIGNATURES {
        let expression = Regex::new(signature.version).unwrap();
        assert!(expression.captures_len() > 1, "{}", signature.name);
        assert!(!signature.files.is_empty(), "{}", signature.name);
        let stars = |file: &&str| file.matches('*').count();
        assert!(signature.files.iter().all(|file| stars(file) <= 1));
    }
}

/// A path, what stands in the program there, and what that is.
const SAMPLES: &[(&str, &str, &str)] = &[
    (
        "opt/haproxy",
        "\0 version 2.6.12-1+deb12u4, released 2026/10/17\0",
        "haproxy 2.6.12",
    ),
    (
        "opt/redis-server",
        "\x007.0.15\0c11-builtin\0jemalloc-5.3.0\0",
        "redis 7.0.15",
    ),
    (
        "opt/lib/libpython3.8.so.1.0",
        "/opt/versions/3.8.18\0",
        "python 3.8.18",
    ),
    ("bin/[", "BusyBox v1.36.1 (2023", "busybox 1.36.1"),
    ("usr/local/bin/python3.11", "x\x003.11.7\0", "python 3.11.7"),
    (
        "usr/local/lib/libpython3.13.so.1.0",
        "\x003.13.0rc2\0",
        "python 3.13.0rc2",
    ),
    (
        "opt/libpypy3.10-c.so",
        "[PyPy 7.3.15 with GCC",
        "pypy 7.3.15",
    ),
    ("usr/local/bin/node", "node.js/v22.9.0", "node 22.9.0"),
    ("usr/bin/deno", "Deno/1.41.0", "deno 1.41.0"),
    (
        "opt/librustc_driver-a1.so",
        "rustc version 1.95.0 (1a2b 2026-01-01)",
        "rust 1.95.0",
    ),
    (
        "usr/local/bin/ruby",
        "ruby 3.2.1 (2023-02-08 revision 3)",
        "ruby 3.2.1",
    ),
    (
        "usr/local/lib/libruby.so.2.7",
        "ruby 2.7.7p221 (2022-11-24",
        "ruby 2.7.7",
    ),
    (
        "usr/local/bin/perl",
        "/usr/local/lib/perl5/5.38.2/x",
        "perl 5.38.2",
    ),
    ("usr/local/bin/php", "X-Powered-By: PHP/8.2.7", "php 8.2.7"),
    (
        "usr/sbin/php-fpm8.2",
        "X-Powered-By: PHP/8.2.7",
        "php 8.2.7",
    ),
    ("usr/local/bin/lua", "Lua 5.4.6  Copyright (C)", "lua 5.4.6"),
    (
        "usr/sbin/nginx",
        "\0nginx version: nginx/1.25.1\0",
        "nginx 1.25.1",
    ),
    (
        "usr/local/openresty/nginx/sbin/nginx",
        "nginx version: openresty/1.21.4.1",
        "openresty 1.21.4.1",
    ),
    (
        "usr/local/apache2/bin/httpd",
        "Apache/2.4.58 (Unix)",
        "httpd 2.4.58",
    ),
    (
        "usr/local/sbin/haproxy",
        "HA-Proxy version 1.8.30 2021/04/12",
        "haproxy 1.8.30",
    ),
    (
        "usr/local/sbin/haproxy",
        "\0 version 2.6.12-1a2b3c4, released 2023",
        "haproxy 2.6.12",
    ),
    (
        "usr/local/bin/envoy",
        "\x001.2.13\0\x001.28.7\0",
        "envoy 1.28.7",
    ),
    ("usr/local/bin/traefik", "\x002.9.6\0", "traefik 2.9.6"),
    ("bin/consul", "GitDescribe=1.12.9\"", "consul 1.12.9"),
    ("bin/vault", "revoke1.18.0", "vault 1.18.0"),
    (
        "usr/local/bin/redis-server",
        "\x007.0.14buildkitsandbox-1702957741000000000\0",
        "redis 7.0.14",
    ),
    (
        "usr/local/bin/redis-server",
        "\x004.0.11841ce7054bd9-1542359302\0",
        "redis 4.0.11",
    ),
    (
        "usr/local/bin/valkey-server",
        "valkey9.0.0buildkitsandbox-1764887574000000000",
        "valkey 9.0.0",
    ),
    (
        "usr/local/bin/memcached",
        "memcached 1.6.22",
        "memcached 1.6.22",
    ),
    (
        "usr/local/bin/postgres",
        "postgres (PostgreSQL) 15.5\n",
        "postgresql 15.5",
    ),
    (
        "usr/local/bin/postgres",
        "postgres (PostgreSQL) 17beta1\n",
        "postgresql 17beta1",
    ),
    (
        "usr/sbin/mysqld",
        "/pb2/build/mysql-8.0.35/sql/",
        "mysql 8.0.35",
    ),
    (
        "usr/bin/mysql",
        "shutdown\08.0.37\0\0\0mysql_real_esc",
        "mysql 8.0.37",
    ),
    (
        "usr/sbin/mariadbd",
        "10.11.6-MariaDB-log",
        "mariadb 10.11.6",
    ),
    ("usr/bin/mongod", "6.0.27\0tcmalloc", "mongodb 6.0.27"),
    ("bin/busybox", "BusyBox v1.36.1 (2023", "busybox 1.36.1"),
    (
        "opt/bin/bash",
        "@(#)Bash version 5.2.15(1) release GNU",
        "bash 5.2.15",
    ),
    ("opt/bin/curl", "curl/8.5.0", "curl 8.5.0"),
    (
        "opt/lib/libcrypto.so.3",
        "OpenSSL 3.0.12 24 Oct 2023",
        "openssl 3.0.12",
    ),
    (
        "opt/lib/libcrypto.so.10",
        "OpenSSL 1.0.2k-fips  26 Jan 2017",
        "openssl 1.0.2k",
    ),
    (
        "opt/lib/libcrypto.so.1.1",
        "OpenSSL 1.1.1w  11 Sep 2023",
        "openssl 1.1.1w",
    ),
    (
        "opt/lib/libz.so.1.3",
        " deflate 1.3.1 Copyright 1995",
        "zlib 1.3.1",
    ),
];

#[test]
fn software_is_told_by_what_it_says_of_itself() {
    for (path, text, expected) in SAMPLES {
        assert_eq!(found(path, &elf(text)), *expected, "{path}: {text}");
    }
}

#[test]
fn texts_and_programs_are_not_confused() {
    assert_eq!(
        found("usr/local/go/VERSION", b"go1.21.5\ntime 2023"),
        "go 1.21.5"
    );
    assert_eq!(
        found(
            "usr/local/lib/erlang/releases/25/OTP_VERSION",
            b"25.3.2.8\n"
        ),
        "erlang 25.3.2.8"
    );
    assert_eq!(
        found("usr/local/bin/node", b"#!/bin/sh\nnode.js/v22.9.0"),
        "unwanted"
    );
    assert_eq!(found("usr/local/go/VERSION", &elf("go1.21.5")), "unwanted");
    assert_eq!(found("srv/VERSION", b"go1.21.5\n"), "unwanted");
}

#[test]
fn what_says_nothing_is_nothing() {
    assert_eq!(found("usr/bin/nginx", &elf("no version here")), "");
    // Another version than the one of the file's name is of something that it has inside.
    assert_eq!(
        found("usr/bin/python3.11", &elf("\x003.40.1\0\x003.11.2\0")),
        "python 3.11.2"
    );
    assert_eq!(found("usr/bin/python3.11", &elf("\x003.1.2\0")), "");
    assert_eq!(found("usr/lib/libpython3.so", &elf("\x003.11.2\0")), "");
    assert_eq!(
        found("usr/bin/go-nginx", &elf("nginx version: nginx/1.25.1")),
        "unwanted"
    );
}

#[test]
fn a_version_is_found_wherever_windows_meet() {
    let text = b"nginx version: nginx/1.25.1\0";
    for at in [
        WINDOW_BYTES - text.len(),
        WINDOW_BYTES - text.len() / 2,
        WINDOW_BYTES,
        2 * WINDOW_BYTES - 5,
    ] {
        let mut bytes = elf("");
        bytes.resize(at, b'x');
        bytes.extend_from_slice(text);
        assert_eq!(found("usr/sbin/nginx", &bytes), "nginx 1.25.1", "{at}");
    }
}

#[test]
fn versions_are_bounded() {
    let long = |digits: usize| elf(&format!("Apache/2.4.{} ", "1".repeat(digits)));
    let fits = VERSION_BYTES_MAX - "2.4.".len();
    assert!(found("usr/bin/httpd", &long(fits)).starts_with("httpd 2.4.1"));
    assert_eq!(found("usr/bin/httpd", &long(fits + 1)), "");
}

#[test]
fn branches_stand_in_names() {
    assert_eq!(branch("usr/lib/libpython3.11.so.1.0"), Some("3.11"));
    assert_eq!(branch("usr/bin/python2.7"), Some("2.7"));
    assert_eq!(branch("usr/lib/libpython3.so"), None);
    assert_eq!(branch("usr/bin/python"), None);
}

#[test]
fn a_program_is_searched_up_to_a_size() {
    let software = Software::boxed(&Config::default(), &Limits::default());
    let analyze = |size: u64| {
        let mut file = File::of("usr/sbin/nginx", &elf("nginx version: nginx/1.25.1"));
        Arc::make_mut(&mut file.entry).size = size;
        let mut found = Found::new(1 << 20);
        software
            .analyze(&[file], &mut found)
            .map(|()| found.packages.len())
    };
    assert_eq!(analyze(BYTES_MAX).unwrap(), 1);
    let error = analyze(BYTES_MAX + 1).unwrap_err();
    assert_eq!(error.gap_code(), model::GapCode::LimitFile);
}
