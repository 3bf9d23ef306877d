//! Small layers with the files that package managers of real images leave.

use crate::layer::{Layer, LayerBuilder};

/// A package in `var/lib/dpkg/status`.
#[derive(Clone, Copy, Debug)]
pub struct DebianPackage {
    /// The binary package.
    pub name: &'static str,
    /// Its version, with epoch.
    pub version: &'static str,
    /// `Source:`, as `glibc` or `glibc (2.36-9)`; empty where it is the package itself.
    pub source: &'static str,
    /// The files that it owns, without a leading slash; each is written as a small executable.
    pub files: &'static [&'static str],
}

/// A package in `lib/apk/db/installed`.
#[derive(Clone, Copy, Debug)]
pub struct AlpinePackage {
    /// The package.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its origin: the source package.
    pub origin: &'static str,
    /// The files that it owns, without a leading slash.
    pub files: &'static [&'static str],
}

const DEBIAN: [DebianPackage; 4] = [
    DebianPackage {
        name: "base-files",
        version: "12.4+deb12u5",
        source: "",
        files: &[],
    },
    DebianPackage {
        name: "libc6",
        version: "2.36-9+deb12u4",
        source: "glibc",
        files: &["lib/x86_64-linux-gnu/libc.so.6"],
    },
    DebianPackage {
        name: "libssl3",
        version: "3.0.11-1~deb12u2",
        source: "openssl",
        files: &["usr/lib/x86_64-linux-gnu/libssl.so.3"],
    },
    DebianPackage {
        name: "passwd",
        version: "1:4.13+dfsg1-1+b1",
        source: "shadow (1:4.13+dfsg1-1)",
        files: &["usr/bin/passwd"],
    },
];

const ALPINE: [AlpinePackage; 2] = [
    AlpinePackage {
        name: "musl",
        version: "1.2.4_git20230717-r4",
        origin: "musl",
        files: &["lib/ld-musl-x86_64.so.1"],
    },
    AlpinePackage {
        name: "libcrypto3",
        version: "3.1.4-r1",
        origin: "openssl",
        files: &["lib/libcrypto.so.3"],
    },
];

/// A minimal Debian 12: os-release and four packages, one of them with an epoch, one with a source
/// of another version.
pub fn debian_layer() -> Layer {
    debian_layer_of(&DEBIAN).build()
}

/// A minimal Debian 12 with these packages, to go on with.
pub fn debian_layer_of(packages: &[DebianPackage]) -> LayerBuilder {
    let os_release = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\n\
        VERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n\
        HOME_URL=\"https://www.debian.org/\"\n";
    let mut layer = LayerBuilder::new()
        .dir("etc")
        .dir("usr/bin")
        .dir("usr/lib")
        .file("usr/lib/os-release", os_release)
        .symlink("etc/os-release", "../usr/lib/os-release")
        .file("etc/debian_version", "12.5\n");
    let mut status = String::new();
    for package in packages {
        let DebianPackage {
            name,
            version,
            source,
            files,
        } = package;
        status.extend([format!("Package: {name}\nStatus: install ok installed\n")]);
        status.push_str("Priority: optional\nSection: libs\n");
        status.push_str("Maintainer: Nobody <nobody@example.org>\nArchitecture: amd64\n");
        if !source.is_empty() {
            status.extend([format!("Source: {source}\n")]);
        }
        status.extend([format!(
            "Version: {version}\nDescription: a package\n of a test\n\n"
        )]);
        let mut list = String::from("/.\n");
        for file in *files {
            list.extend([format!("/{file}\n")]);
            layer = layer.file_mode(file, 0o755, format!("#!/bin/sh\n# {name}\n"));
        }
        layer = layer.file(&format!("var/lib/dpkg/info/{name}.list"), list);
    }
    layer.file("var/lib/dpkg/status", status)
}

/// A minimal Alpine 3.19: os-release and two packages.
pub fn alpine_layer() -> Layer {
    alpine_layer_of(&ALPINE).build()
}

/// A minimal Alpine 3.19 with these packages, to go on with.
pub fn alpine_layer_of(packages: &[AlpinePackage]) -> LayerBuilder {
    let os_release = "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.19.1\n\
        PRETTY_NAME=\"Alpine Linux v3.19\"\n";
    let mut layer = LayerBuilder::new()
        .file("etc/os-release", os_release)
        .file("etc/alpine-release", "3.19.1\n");
    let mut installed = String::new();
    for package in packages {
        let AlpinePackage {
            name,
            version,
            origin,
            files,
        } = package;
        installed.extend([format!(
            "C:Q1Rq3kuBsi0oAC/hM9k0vHTfLBP7c=\nP:{name}\nV:{version}\n"
        )]);
        installed.extend([format!(
            "A:x86_64\nS:1\nI:1\nT:a package\nL:MIT\no:{origin}\n"
        )]);
        for file in *files {
            let (folder, name) = file.rsplit_once('/').expect("a folder");
            installed.extend([format!("F:{folder}\nR:{name}\na:0:0:755\n")]);
            layer = layer.file_mode(file, 0o755, "\x7fELF of a test");
        }
        installed.push('\n');
    }
    layer.file("lib/apk/db/installed", installed)
}

/// Python packages as pip installs them, given as (name, version).
pub fn python_layer(packages: &[(&str, &str)]) -> LayerBuilder {
    let root = "usr/local/lib/python3.11/site-packages";
    let mut layer = LayerBuilder::new();
    for (name, version) in packages {
        let folder = format!("{root}/{}-{version}.dist-info", name.replace('-', "_"));
        let metadata = format!(
            "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: a package\n\
             License: MIT\nRequires-Dist: idna (>=2)\n\nA long description.\n"
        );
        layer = layer
            .file(&format!("{folder}/METADATA"), metadata)
            .file(&format!("{folder}/INSTALLER"), "pip\n")
            .file(&format!("{folder}/RECORD"), "")
            .file(
                &format!("{root}/{name}/__init__.py"),
                format!("__version__ = '{version}'\n"),
            );
    }
    layer
}

/// npm packages as `npm install` leaves them, given as (name, version); a name may have a scope.
pub fn npm_layer(packages: &[(&str, &str)]) -> LayerBuilder {
    let mut layer = LayerBuilder::new();
    for (name, version) in packages {
        let folder = format!("app/node_modules/{name}");
        let json = serde_json::json!({
            "name": name, "version": version, "license": "MIT", "dependencies": {"ms": "^2.0.0"},
        });
        layer = layer
            .file(&format!("{folder}/package.json"), json.to_string())
            .file(&format!("{folder}/index.js"), "module.exports = 1;\n");
    }
    layer
}
