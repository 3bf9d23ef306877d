//! Images where they lie: registries, OCI layouts, archives, container engines and directories, as
//! manifests and as blobs that can be read.
//!
//! The decision that shapes it: one small trait, [`Source`], with two methods. `resolve` goes from a
//! tag to images and reads everything small (indexes, manifests, configs) with a bound on each;
//! `open_blob` gives a layer as a blocking reader and verifies nothing, because who reads a layer
//! hashes it anyway while it streams past. It costs a task and a channel per open blob, and buys
//! that decoding never runs on the async threads and that no layer is ever held in memory.
//!
//! Answers of registries are hostile input: each has a bound in [`Limits`] and an error with a name.
//! A document that runtimes would read as another image than we do is refused (module `keys`).
//! Manifests, configs and tokens come through a client of our own. Blobs are streamed by the crate
//! `oci-distribution`; only where a registry was not named by the operator our own client does that,
//! too, since it alone can check the address of every redirect.
//!
//! A registry is made once per process: all its images share its pace, its login and the pauses
//! that it asks for. What may pass by itself is tried again within [`Limits`], and a blob that broke
//! is taken up where it broke; what would take longer goes back to the caller, who knows whether to
//! wait (see [`OciError::is_transient`] and [`OciError::retry_after`]). Mirrors are asked first, and
//! believed only what a digest proves.
//!
//! It does not look into layers, and never contacts an address that a manifest names. It keeps
//! nothing by itself (a [`DocumentStore`] may be given, for what has a digest) but archives that come
//! compressed or from an engine, in files without a name.
//!
//! To add a source: a file with a type that implements [`Source`], a variant of [`Location`], and a
//! line in [`open`].
#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice
    )
)]

mod base64;
mod config;
mod directory;
mod docker_archive;
mod docker_config;
mod documents;
mod engine;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod kept;
mod keys;
mod layout;
mod limits;
mod location;
mod manifest;
mod metrics;
mod node;
mod open;
mod reader;
mod registry;
mod resolve;
mod source;
mod tarball;

pub use self::{
    directory::{Directory, Skip},
    docker_archive::DockerArchive,
    docker_config::DockerConfig,
    documents::{Document, DocumentName, DocumentStore},
    engine::{Blueprint, Changes, EngineCall, EngineInventory, EngineVerb, Engines},
    error::{Missing, OciError},
    kept::Kept,
    layout::OciLayout,
    limits::Limits,
    location::{ArchiveKind, Engine, Location, LocationError},
    node::{Holdings, HoldingsConfig, HostFiles, NodeLine, NodeSource},
    open::{Opened, Opening, open},
    registry::{
        ClientCertificate, Credentials, Login, Mirror, Pace, Page, Registry, RegistryConfig,
        USER_AGENT,
    },
    source::{
        BlobReader, Descriptor, Image, Manifest, Platforms, Resolved, Source, Unreadable, Wanted,
        read_verified,
    },
};
