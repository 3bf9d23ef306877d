//! Which files are looked into: secrets would decide how long a scan takes if it were all of them.
//!
//! A file whose name promises a secret is looked into wherever it is. Other text is, unless it was
//! installed with a package: the libraries and documentation of an image are many times the text
//! that its owner wrote, and hold nobody's secrets but examples.

use archive::Entry;

/// Bytes of a text that are looked into; of a larger one nobody knows, and a gap says so.
pub(super) const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Bytes of an archive that is looked into.
pub(super) const ARCHIVE_BYTES_MAX: u64 = 256 << 20;

/// How a file is looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As text, or as a keystore.
    Text,
    /// As an archive of texts.
    Archive,
}

/// Where packages are installed: of whole trees, the beginning of the path.
const INSTALLED_ROOTS: &[&str] = &[
    "usr/share/",
    "usr/lib/",
    "usr/lib64/",
    "usr/libexec/",
    "usr/include/",
    "usr/src/",
    "usr/bin/",
    "usr/sbin/",
    "usr/games/",
    "lib/",
    "lib64/",
    "bin/",
    "sbin/",
    "usr/local/lib/",
    "usr/local/include/",
    "usr/local/go/",
    "usr/local/share/",
    "var/lib/dpkg/",
    "var/lib/apt/",
    "var/lib/rpm/",
    "var/cache/",
    "proc/",
    "sys/",
    "dev/",
    "opt/conda/",
    "nix/store/",
    "boot/",
];

/// The same, anywhere in a path.
const INSTALLED_PARTS: &[&str] = &[
    "/site-packages/",
    "/dist-packages/",
    "/node_modules/",
    "/vendor/bundle/",
    "/gems/",
    "/pkg/mod/",
    "/registry/src/",
    "/registry/cache/",
    "/.cargo/git/",
    "/.rustup/",
    "/.m2/repository/",
    "/.gradle/caches/",
    "/_cacache/",
    "/.cache/",
    "/.nuget/packages/",
    "/.git/objects/",
    "/jre/",
    "/jdk/",
    "/lib/python3",
    "/lib/python2",
    "/lib/ruby/",
    "/lib/R/",
    "/usr/share/",
    "/bower_components/",
    "/.pnpm/",
    "/.yarn/cache/",
    "/.yarn/unplugged/",
    "/vendor/composer/",
    "/__pycache__/",
    "/.terraform/providers/",
];

/// Parts of installed trees where keys are examples.
const EXAMPLES: &[&str] = &[
    "test",
    "tests",
    "testing",
    "testdata",
    "test-data",
    "test_data",
    "__tests__",
    "spec",
    "specs",
    "fixtures",
    "fixture",
    "example",
    "examples",
    "sample",
    "samples",
    "demo",
    "demos",
    "doc",
    "docs",
    "benchmark",
    "benchmarks",
    "mocks",
    "snakeoil",
];

/// Names that promise a secret.
const PROMISING: &[&str] = &[
    ".npmrc",
    ".pypirc",
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".dockercfg",
    ".dockerconfigjson",
    ".pgpass",
    ".my.cnf",
    ".mylogin.cnf",
    ".s3cfg",
    ".boto",
    ".htpasswd",
    "htpasswd",
    "shadow",
    "shadow-",
    "master.passwd",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "id_ecdsa_sk",
    "id_ed25519_sk",
    "ssh_host_rsa_key",
    "ssh_host_dsa_key",
    "ssh_host_ecdsa_key",
    "ssh_host_ed25519_key",
    "identity",
    "kubeconfig",
    ".vault-token",
    "credentials",
    "credentials.json",
    "credentials.toml",
    "application_default_credentials.json",
    "rclone.conf",
    "settings.xml",
    "gradle.properties",
    "auth.json",
    "master.key",
    ".smbcredentials",
    ".passwd-s3fs",
    ".yarnrc",
    ".yarnrc.yml",
    ".viminfo",
    "terraform.rc",
    ".terraformrc",
    "credentials.tfrc.json",
    "secrets.yml",
    "secrets.yaml",
    "secrets.json",
    "wp-config.php",
    "sitemanager.xml",
    "nuget.config",
    "pip.conf",
    "local_settings.py",
    "env.list",
    ".envrc",
    "admin.conf",
    "kubelet.conf",
    "privkey.pem",
];

/// Ends of names that promise a secret.
const PROMISING_ENDS: &[&str] = &[
    ".pem",
    ".key",
    ".ppk",
    ".p8",
    ".asc",
    ".pgp",
    ".gpg",
    ".env",
    "_history",
    ".tfstate",
    ".tfstate.backup",
    ".tfvars",
    ".tfvars.json",
    ".ovpn",
    ".kubeconfig",
    ".htpasswd",
    ".jwk",
    ".keytab.txt",
    ".agekey",
];

/// Names of texts that hold digests or data and no secrets.
const DULL: &[&str] = &[
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "cargo.lock",
    "poetry.lock",
    "pdm.lock",
    "uv.lock",
    "pipfile.lock",
    "composer.lock",
    "gemfile.lock",
    "go.sum",
    "flake.lock",
    "packages.lock.json",
    "podfile.lock",
    "mix.lock",
    "bun.lock",
    "gradle.lockfile",
    "record",
    "md5sums",
    "sha256sums",
    "known_hosts",
    "ca-certificates.crt",
    "ca-bundle.crt",
    "cacert.pem",
    "cert.pem",
    "tls-ca-bundle.pem",
    "ca-bundle.pem",
    "mime.types",
    "services",
    "copying",
    "license",
    "changelog",
];

/// Ends of names of such texts.
const DULL_ENDS: &[&str] = &[
    ".css",
    ".scss",
    ".less",
    ".svg",
    ".map",
    ".po",
    ".pot",
    ".html",
    ".htm",
    ".md5",
    ".sha1",
    ".sha256",
    ".sha512",
    ".crt",
    ".cer",
    ".pub",
    ".d.ts",
    ".snap",
    ".csv",
    ".tsv",
    ".ipynb",
    ".h",
    ".hpp",
    ".pyi",
    ".rst",
    ".tex",
    ".license",
    ".whitelist",
    ".list",
    ".ttf",
    ".woff",
    ".woff2",
    ".eot",
    ".afm",
    ".bdf",
    ".geojson",
    ".xsd",
    ".dtd",
    ".xsl",
    ".ps",
    ".eps",
    ".diff",
    ".patch",
    ".dic",
    ".aff",
];

/// Ends of names of what is never text. A file shows it by its first bytes; a member of an archive has
/// to be unpacked for them, and most of what Java archives hold is one of these.
const BINARY_ENDS: &[&str] = &[
    ".class", ".so", ".dll", ".exe", ".dylib", ".jnilib", ".o", ".pyc", ".wasm", ".png", ".jpg",
    ".jpeg", ".gif", ".ico", ".webp", ".gz", ".bz2", ".xz",
];

/// Ends of names of keystores.
const KEYSTORE_ENDS: &[&str] = &[
    ".jks",
    ".jceks",
    ".keystore",
    ".truststore",
    ".p12",
    ".pfx",
    ".pkcs12",
];

const ARCHIVE_ENDS: &[&str] = &[
    ".zip", ".jar", ".war", ".ear", ".whl", ".tar", ".tar.gz", ".tgz", ".tar.zst",
];

/// How a file is to be looked into, by its entry and its first KB.
pub(super) fn kind(entry: &Entry<'_>, head: &[u8]) -> Option<Kind> {
    if entry.size == 0 {
        return None;
    }
    let name = entry.name().to_ascii_lowercase();
    let is_installed = is_installed(entry.path);
    if ends(&name, ARCHIVE_ENDS) && !is_installed {
        let magics: [&[u8]; 3] = [b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"];
        let is_packed = magics.iter().any(|magic| head.starts_with(magic));
        let is_tar = head.get(257..262) == Some(b"ustar".as_slice());
        return (is_packed || is_tar).then_some(Kind::Archive);
    }
    if is_keystore(entry.path, head) {
        return Some(Kind::Text);
    }
    if !is_wanted_text(entry.path, &name, is_installed) || !looks_like_text(head) {
        return None;
    }
    Some(Kind::Text)
}

/// Whether a file or a member of an archive is a keystore that is somebody's own.
pub(super) fn is_keystore(path: &str, head: &[u8]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let is_promising = ends(&name, KEYSTORE_ENDS) && !(is_installed(path) && is_example(path));
    (is_promising || !is_installed(path)) && super::keystore::looks_like(head)
}

/// Whether a member of an archive is to be looked into.
pub(super) fn is_wanted_member(path: &str) -> bool {
    if ends(path, BINARY_ENDS) {
        return false;
    }
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    is_wanted_text(path, &name, is_installed(path))
}

fn is_wanted_text(path: &str, name: &str, is_installed: bool) -> bool {
    let is_promising = is_promising(path, name);
    if is_installed {
        return is_promising && !is_example(path) && !DULL.contains(&name);
    }
    is_promising && !DULL.contains(&name) || !(DULL.contains(&name) || ends(name, DULL_ENDS))
}

fn is_promising(path: &str, name: &str) -> bool {
    PROMISING.contains(&name)
        || ends(name, PROMISING_ENDS)
        || name.starts_with(".env")
        || name.starts_with("service-account")
        || path.ends_with(".docker/config.json")
        || path.ends_with(".kube/config")
        || path.ends_with(".aws/config")
        || path.ends_with(".config/gh/hosts.yml")
}

fn is_installed(path: &str) -> bool {
    INSTALLED_ROOTS.iter().any(|root| path.starts_with(root))
        || INSTALLED_PARTS.iter().any(|part| {
            path.contains(part)
                || part
                    .strip_prefix('/')
                    .is_some_and(|part| path.starts_with(part))
        })
}

fn is_example(path: &str) -> bool {
    path.split('/').any(|part| {
        EXAMPLES
            .iter()
            .any(|known| part.eq_ignore_ascii_case(known))
    })
}

fn ends(name: &str, known: &[&str]) -> bool {
    known.iter().any(|end| name.ends_with(end))
}

/// Text of one byte per letter, or of two.
pub(super) fn looks_like_text(head: &[u8]) -> bool {
    super::text::is_utf16(head)
        || (memchr::memchr(0, head).is_none() && !head.starts_with(b"\x7fELF"))
}

#[cfg(test)]
mod tests {
    use model::EntryKind;

    use super::*;

    fn of(path: &str, head: &[u8]) -> Option<Kind> {
        let entry = Entry {
            path,
            kind: EntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 100,
            link: None,
            capabilities: None,
        };
        kind(&entry, head)
    }

    #[test]
    fn text_is_looked_into_unless_a_package_brought_it() {
        for path in [
            "app/config.yaml",
            "srv/main.py",
            "root/.bashrc",
            "etc/app.conf",
            "home/ada/notes",
            "app/.env",
            "app/src/test/a.yml",
            "usr/local/bin/entrypoint.sh",
            "usr/lib/app/.npmrc",
            "app/node_modules/x/.env",
            "opt/app/static/app.min.js",
        ] {
            assert_eq!(of(path, b"text"), Some(Kind::Text), "{path}");
        }
        for path in [
            "usr/lib/python3/dist-packages/a.py",
            "app/node_modules/x/index.js",
            "usr/share/doc/a/README",
            "app/package-lock.json",
            "app/style.css",
            "app/node_modules/x/test/key.pem",
            "usr/lib/python3.11/test/keycert.pem",
            "etc/ssl/certs/ca-certificates.crt",
            "node_modules/x/a.js",
        ] {
            assert_eq!(of(path, b"text"), None, "{path}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_left_out() {
        assert_eq!(of("app/data", b"a\0b\0\x01\x02"), None);
        assert_eq!(of("app/data", b"\xff\xfea\0b\0"), Some(Kind::Text));
        assert_eq!(of("app/a.zip", b"PK\x03\x04"), Some(Kind::Archive));
        assert_eq!(of("app/a.zip", b"text"), None);
        assert_eq!(of("usr/share/a.zip", b"PK\x03\x04"), None);
    }

    #[test]
    fn keystores_are_looked_into_unless_they_are_examples() {
        let head = b"\xfe\xed\xfe\xed\0\0\0\x02";
        for path in ["app/server.jks", "app/store", "usr/lib/app/server.keystore"] {
            assert_eq!(of(path, head), Some(Kind::Text), "{path}");
        }
        for path in [
            "usr/lib/jvm/lib/security/cacerts",
            "app/node_modules/x/test/server.p12",
        ] {
            assert_eq!(of(path, head), None, "{path}");
        }
        assert_eq!(of("app/server.p12", b"\0\x01"), None);
    }
}
