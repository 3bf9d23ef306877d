//! What is known by its content. To add something: a row with the names of its files and an
//! expression whose first group is the version, then a case in this module's test data.
//!
//! An expression begins with letters wherever it can: what many files have in common is found fast,
//! and what begins with a digit is looked for at each of them.

/// One way to tell one software.
pub(super) struct Signature {
    /// Its name, as in its package URL, `pkg:generic/NAME@VERSION`.
    pub(super) name: &'static str,
    /// Names of files, or ends of paths, in which one `*` stands for any letters.
    pub(super) files: &'static [&'static str],
    /// An expression over bytes. Its first group is the version; where there are several ways to
    /// write that, each has its group.
    pub(super) version: &'static str,
    /// Whether the version has to begin with the number in the file's name.
    pub(super) by_name: bool,
    /// Whether the file is a text, and no program or library.
    pub(super) is_text: bool,
}

// === impl Signature ===

impl Signature {
    const fn program(
        name: &'static str,
        files: &'static [&'static str],
        version: &'static str,
    ) -> Self {
        Self {
            name,
            files,
            version,
            by_name: false,
            is_text: false,
        }
    }

    const fn by_name(self) -> Self {
        Self {
            by_name: true,
            ..self
        }
    }

    const fn text(self) -> Self {
        Self {
            is_text: true,
            ..self
        }
    }

    /// Whether a file with this path may be it.
    pub(super) fn is_named(&self, path: &str) -> bool {
        self.files.iter().any(|pattern| is_named(path, pattern))
    }
}

fn is_named(path: &str, pattern: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    match pattern.split_once('*') {
        Some((start, end)) => name
            .strip_prefix(start)
            .is_some_and(|rest| rest.ends_with(end)),
        None => path
            .strip_suffix(pattern)
            .is_some_and(|before| before.is_empty() || before.ends_with('/')),
    }
}

/// All of them.
pub(super) static SIGNATURES: &[Signature] = &[
    // Languages.
    Signature::program(
        "python",
        &["python2.*", "python3.*", "libpython2.*", "libpython3.*"],
        // A linker may let the version be the end of a path.
        r"(?-u)[\x00/-]((?:2\.7|3\.[0-9]{1,2})\.[0-9]{1,2}(?:(?:a|b|rc)[0-9]{1,2})?\+?)\x00",
    )
    .by_name(),
    Signature::program(
        "pypy",
        &["pypy*", "libpypy*"],
        r"(?-u)\[PyPy ([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "node",
        &["node", "nodejs", "libnode.so*"],
        r"(?-u)(?:node\.js/|nodejs\.org/download/release/|\x00node )v([0-9]{1,2}\.[0-9]{1,3}\.[0-9]{1,3})",
    ),
    Signature::program("deno", &["deno"], r"(?-u)Deno/([0-9]+\.[0-9]+\.[0-9]+)"),
    Signature::program(
        "go",
        &["go/VERSION"],
        r"(?-u)^go([0-9]+\.[0-9]+(?:\.[0-9]+|(?:beta|rc)[0-9]+)?)",
    )
    .text(),
    Signature::program(
        "rust",
        &["rustc", "librustc_driver-*"],
        r"(?-u)rustc version ([0-9]+\.[0-9]+\.[0-9]+(?:-(?:beta|nightly)(?:\.[0-9]+)?)?) \(",
    ),
    Signature::program(
        "erlang",
        &["OTP_VERSION"],
        r"(?-u)^([0-9]{2}(?:\.[0-9]+){0,3}(?:-rc[0-9])?)\n",
    )
    .text(),
    Signature::program(
        "ruby",
        &["ruby", "ruby2.*", "ruby3.*", "libruby*"],
        r"(?-u)ruby ([0-9]+\.[0-9]+\.[0-9]+(?:(?:preview|rc)[0-9]+|dev)?)(?:p[0-9]+)? \(20",
    ),
    Signature::program(
        "perl",
        &["perl", "perl5*", "libperl.so*"],
        r"(?-u)/perl5?/(5\.[0-9]{1,2}\.[0-9]{1,2})|\x00v(5\.[0-9]{1,2}\.[0-9]{1,2})\x00",
    ),
    Signature::program(
        "php",
        &[
            "php", "php5*", "php7*", "php8*", "php-cgi*", "php-fpm*", "libphp*",
        ],
        r"(?-u)X-Powered-By: PHP/([0-9]+\.[0-9]+\.[0-9]+(?:(?:alpha|beta|RC)[0-9]+)?)",
    ),
    Signature::program(
        "lua",
        &["lua", "lua5*", "liblua*"],
        r"(?-u)Lua (5\.[0-9]\.[0-9]{1,2})  Copyright",
    ),
    Signature::program(
        "julia",
        &["libjulia-internal.so*"],
        r"(?-u)__init__\x00([0-9]+\.[0-9]+\.[0-9]+)\x00verify",
    ),
    // Servers and proxies.
    Signature::program(
        "nginx",
        &["nginx"],
        r"(?-u)nginx version: nginx/([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "openresty",
        &["nginx", "openresty"],
        r"(?-u)nginx version: openresty/([0-9]+(?:\.[0-9]+){3})",
    ),
    Signature::program(
        "httpd",
        &["httpd", "apache2"],
        r"(?-u)Apache/([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "lighttpd",
        &["lighttpd"],
        r"(?-u)lighttpd/([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "haproxy",
        &["haproxy"],
        r"(?-u)(?:HA-Proxy |\x00 ?)version ([0-9]\.[0-9]{1,2}(?:\.|-dev|-rc)[0-9]{1,3})[^\x00, ]{0,40}(?:,? released| 20)",
    ),
    Signature::program(
        "envoy",
        &["envoy"],
        r"(?-u)\x00(1\.[1-9][0-9]\.[0-9]{1,2}(?:-dev)?)\x00",
    ),
    Signature::program(
        "traefik",
        &["traefik"],
        r"(?-u)pkg/version\.Version=v?([0-9]+\.[0-9]+\.[0-9]+(?:-(?:alpha|beta|rc)\.?[0-9]+)?)|\x00v?([1-9]\.[0-9]{1,2}\.[0-9]{1,2}(?:-(?:alpha|beta|rc)\.?[0-9]+)?)\x00",
    ),
    Signature::program(
        "consul",
        &["consul"],
        r"(?-u)(?:CONSUL_VERSION: |GitDescribe=v?|\x00v)([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "vault",
        &["vault"],
        r"(?-u)(?:revoke|016x)(1\.[0-9]{1,2}\.[0-9]{1,2})|\x00(1\.[1-9][0-9]\.[0-9]{1,2})\x00",
    ),
    Signature::program(
        "proftpd",
        &["proftpd"],
        r"(?-u)ProFTPD Version ([0-9]+\.[0-9]+\.[0-9]+[a-z]?)",
    ),
    Signature::program(
        "fluent-bit",
        &["fluent-bit"],
        r"(?-u)\x00([0-9]+\.[0-9]+\.[0-9]+)\x00{1,3}(?:\x1b\[1m\x00)?(?:%s)?Fluent",
    ),
    Signature::program(
        "openssh",
        &["sshd", "ssh"],
        r"(?-u)OpenSSH_([0-9]+\.[0-9]+p[0-9]+)",
    ),
    // Databases and caches.
    Signature::program(
        "redis",
        &["redis-server"],
        r"(?-u)Redis version ([0-9]+\.[0-9]+\.[0-9]+)|\x00([2-9]\.[0-9]{1,2}\.[0-9]{1,2})\x00+(?:c11|atomic|sync)-builtin|[\x00v]([2-9]\.[0-9]{1,2}\.[0-9]{1,2})[0-9A-Za-z._-]{1,64}-[0-9]{10,19}",
    ),
    Signature::program(
        "valkey",
        &["valkey-server"],
        r"(?-u)[^0-9.]([7-9]\.[0-9]{1,2}\.[0-9]{1,2})[0-9A-Za-z._-]{1,64}-[0-9]{10,19}",
    ),
    Signature::program(
        "memcached",
        &["memcached"],
        r"(?-u)memcached ([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "postgresql",
        &["postgres"],
        r"(?-u)PostgreSQL\) ([0-9]+(?:\.[0-9]+){0,2}(?:(?:beta|rc)[0-9]+|devel)?)",
    ),
    Signature::program(
        "mysql",
        &["mysqld", "mysql"],
        r"(?-u)/mysql-([0-9]+\.[0-9]+\.[0-9]+)|\x00([5-9]\.[0-9]\.[0-9]{1,2})\x00+mysql",
    ),
    Signature::program(
        "percona-server",
        &["mysqld", "mysql"],
        r"(?-u)/percona-server-([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "mariadb",
        &["mariadbd", "mariadb", "mysqld", "mysql"],
        r"(?-u)([0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2})-MariaDB",
    ),
    Signature::program(
        "mongodb",
        &["mongod"],
        r"(?-u)([0-9]\.[0-9]\.[0-9]{1,2})\x00+(?:tcmalloc|heap_size|cppdefines)",
    ),
    Signature::program(
        "sqlite",
        &["sqlite3", "libsqlite3.so*"],
        r"(?-u)\x00(3\.[0-9]{1,2}\.[0-9]{1,2}(?:\.[0-9]{1,2})?)\x00",
    ),
    // Tools and libraries.
    Signature::program(
        "busybox",
        // Where all its names are links to one file, that file has the first of them.
        &["busybox", "["],
        r"(?-u)BusyBox v([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "bash",
        &["bash"],
        r"(?-u)@\(#\)Bash version ([0-9]+\.[0-9]+\.[0-9]+)\([0-9]+\)",
    ),
    Signature::program(
        "curl",
        &["curl", "libcurl.so*", "libcurl-gnutls.so*"],
        r"(?-u)curl/([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "openssl",
        &["openssl", "libcrypto.so*"],
        r"(?-u)OpenSSL ([0-9]+\.[0-9]+\.[0-9]+[a-z]{0,2}(?:-(?:alpha|beta)[0-9]+)?)(?:-fips)?  ?[0-9]{1,2} [A-Z][a-z]{2} [0-9]{4}",
    ),
    Signature::program(
        "libressl",
        &["openssl", "libcrypto.so*"],
        r"(?-u)LibreSSL ([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program("git", &["git"], r"(?-u)git/([0-9]+\.[0-9]+\.[0-9]+)"),
    Signature::program(
        "glibc",
        &["libc.so.6", "libc-2.*"],
        r"(?-u)GNU C Library [^\x00\n]{0,80}release version ([0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "zlib",
        &["libz.so*"],
        r"(?-u) deflate ([0-9]+\.[0-9]+(?:\.[0-9]+){0,2}) Copyright",
    ),
    Signature::program(
        "xz",
        &["xz"],
        r"(?-u)xz \(XZ Utils\) ([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "gcc",
        &["gcc"],
        r"(?-u)GCC: \(GNU\) ([0-9]+\.[0-9]+\.[0-9]+)",
    ),
    Signature::program(
        "ffmpeg",
        &["ffmpeg", "libavcodec.so*"],
        r"(?-u)(?:%s|FFmpeg) version ([0-9]+\.[0-9]+(?:\.[0-9]+)?)",
    ),
];
