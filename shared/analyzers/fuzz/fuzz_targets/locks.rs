//! Lock files, of all kinds.

#![no_main]

use std::sync::OnceLock;

use analyzers_fuzz::{family, read_as};
use libfuzzer_sys::fuzz_target;

static FAMILY: OnceLock<analyzers::Analyzers> = OnceLock::new();

const ANALYZERS: &[&str] = &[
    "package-lock",
    "yarn-lock",
    "pnpm-lock",
    "bun-lock",
    "requirements",
    "pipfile-lock",
    "poetry-lock",
    "uv-lock",
    "pdm-lock",
    "pylock",
    "go-mod",
    "cargo-lock",
    "gemfile-lock",
    "composer-lock",
    "pom",
    "gradle-lock",
    "nuget-lock",
    "mix-lock",
    "pubspec-lock",
    "podfile-lock",
    "package-resolved",
    "conan-lock",
];

const PATHS: &[&str] = &[
    "package-lock.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock",
    "requirements.txt",
    "Pipfile.lock",
    "poetry.lock",
    "uv.lock",
    "pdm.lock",
    "pylock.toml",
    "go.mod",
    "go.sum",
    "Cargo.lock",
    "Gemfile.lock",
    "composer.lock",
    "pom.xml",
    "b/pom.xml",
    "gradle.lockfile",
    "packages.lock.json",
    "mix.lock",
    "pubspec.lock",
    "Podfile.lock",
    "Package.resolved",
    "conan.lock",
];

fuzz_target!(|bytes: &[u8]| read_as(PATHS, bytes, family(ANALYZERS, &FAMILY)));
