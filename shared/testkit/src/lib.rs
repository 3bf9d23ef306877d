//! What tests need of the world outside: images as a builder, a registry or an attacker would make
//! them, and servers that start on a free port and leave nothing behind: NATS and a registry, both
//! real, and a stand-in for registries that are slow; and an API's document, held against its answers. And
//! certificates that nobody else trusts.
//!
//! The decision that shapes it: nothing here knows our own readers. Archives, manifests and HTTP
//! requests are written byte by byte, so that a test never checks a reader against itself, and every
//! lie that an attacker could write can be written here. It costs a second tar writer.
//!
//! It is a dependency of tests and of `load-tests`, and of nothing that is shipped. It fakes none of
//! our own types, and it panics on whatever goes wrong: it runs in tests. Everything blocks; in an
//! async test, put pushes to a server of the same runtime on a thread of their own.
//!
//! To add a poison image: a variant of [`Poison`], its layer in `poison.rs`, and the gaps that a
//! scan must name for it.

mod artifact;
mod authority;
mod contract;
mod http;
mod image;
mod layer;
mod nats;
mod poison;
mod process;
mod registry;
mod samples;
mod seeded;
mod stand_in;
mod tar;
#[cfg(test)]
mod tests;

pub use tempfile::TempDir;

pub use self::{
    artifact::{Artifact, Document, StoredBlob},
    authority::{Authority, Issued},
    contract::{Answered, Contract},
    image::{Image, ImageBuilder, Index, index},
    layer::{Compression, Layer, LayerBuilder, TarEntry},
    nats::NatsServer,
    poison::{Poison, clean_image, zeros_layer},
    process::free_port,
    registry::{BlobGet, Notifications, PASSWORD, RegistryOptions, RegistryServer, USERNAME},
    samples::{
        AlpinePackage, DebianPackage, alpine_layer, alpine_layer_of, debian_layer, debian_layer_of,
        npm_layer, python_layer,
    },
    seeded::SeededLayer,
    stand_in::{StandInOptions, StandInRegistry},
};

/// A new directory that is removed with its content when it is dropped.
pub fn temp_dir() -> TempDir {
    tempfile::Builder::new()
        .prefix("tidewaiter-")
        .tempdir()
        .expect("the temp directory is writable")
}
