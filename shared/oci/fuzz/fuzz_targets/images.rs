//! Images in tar files: OCI layouts, and what `docker save` writes.

#![no_main]

use std::{fs, io::Read as _, path::Path, sync::LazyLock};

use chassis::Cx;
use libfuzzer_sys::fuzz_target;
use oci::{DockerArchive, OciLayout, Platforms, Source, Wanted};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Bytes of a layer that are read.
const BLOB_BYTES_MAX: u64 = 1 << 20;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().expect("a runtime")
});
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));

fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.path().join("image.tar");
    fs::write(&path, bytes).expect("there is room");
    RUNTIME.block_on(open(&path));
});

async fn open(path: &Path) {
    let cx = Cx::system();
    if let Ok(layout) = OciLayout::open_archive(&cx, path).await {
        look(&layout).await;
    }
    if let Ok(archive) = DockerArchive::open(&cx, path).await {
        look(&archive).await;
    }
}

async fn look(source: &dyn Source) {
    let wanted = Wanted {
        platforms: Platforms::All,
        ..Wanted::default()
    };
    let Ok(resolved) = source.resolve(&wanted).await else {
        return;
    };
    for image in &resolved.images {
        for layer in image.manifest.layers.iter().take(3) {
            if let Ok(blob) = source.open_blob(&image.repository, layer).await {
                let mut bytes = Vec::new();
                let _read = blob.take(BLOB_BYTES_MAX).read_to_end(&mut bytes);
            }
        }
    }
}
