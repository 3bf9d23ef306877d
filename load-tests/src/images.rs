//! Images to scan, all of one file system: in one layer as gzip -6, zstd -3 and eStargz, in twelve
//! layers as gzip -6, and two that are hardly there: a file of holes, and a bomb of zeros.
//!
//! They are packed by `tar`, `gzip` and `zstd`, so that they are what builders make.

mod estargz;
mod tree;

use std::{
    fmt,
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use clap::Args;
use model::{Digest, Hasher};
use serde::Serialize;
use serde_json::{Value, json};

use crate::figures::mib;

/// Layers of the image that has many.
const LAYERS: usize = 12;

/// Bytes of the file of holes, and of the bomb.
const NOTHING_BYTES: u64 = 10 << 30;

/// Flags of `images`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The file system, as load-tests/make-tree.sh makes it
    #[arg(value_name = "TREE")]
    tree: PathBuf,
    /// Where the images go, as OCI layouts
    #[arg(value_name = "DIR")]
    out: PathBuf,
}

/// The result of `images`.
#[derive(Debug, Serialize)]
pub(crate) struct Made {
    images: Vec<Layout>,
}

#[derive(Debug, Serialize)]
struct Layout {
    path: PathBuf,
    compressed_bytes: u64,
}

/// A layer on its way into a layout.
struct Packed {
    file: PathBuf,
    diff_id: Digest,
    media_type: &'static str,
}

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Makes every image.
pub(crate) fn run(options: &Options) -> anyhow::Result<Made> {
    fs::create_dir_all(&options.out)?;
    // The archives are large: beside the images, and not where temporary files are.
    let work = options.out.join("work");
    fs::create_dir_all(&work)?;
    let made = make(&options.tree, &options.out, &work);
    fs::remove_dir_all(&work)?;
    made
}

fn make(tree: &Path, out: &Path, work: &Path) -> anyhow::Result<Made> {
    let lists = tree::split(tree, LAYERS)?;
    let mut images = Vec::new();
    crate::say("packing one layer");
    let one = work.join("one.tar");
    pack(tree, &lists.concat(), &one)?;
    let diff_id = digest_of(&one)?;
    for (name, program, media_type) in [("one-gzip", "gzip", GZIP), ("one-zstd", "zstd", ZSTD)] {
        let file = compress(&one, program)?;
        let layer = Packed {
            file,
            diff_id,
            media_type,
        };
        images.push(write_layout(&out.join(name), vec![layer])?);
    }
    crate::say("packing eStargz");
    let file = work.join("one.estargz");
    let diff_id = estargz::write(&one, &file)?;
    let layer = Packed {
        file,
        diff_id,
        media_type: GZIP,
    };
    images.push(write_layout(&out.join("one-estargz"), vec![layer])?);
    fs::remove_file(&one)?;

    crate::say(&format!("packing {LAYERS} layers"));
    let mut layers = Vec::new();
    for (number, list) in lists.iter().enumerate() {
        let tar = work.join(format!("{number}.tar"));
        pack(tree, list, &tar)?;
        layers.push(gzipped(&tar)?);
    }
    images.push(write_layout(&out.join("twelve-gzip"), layers)?);

    crate::say("packing holes and zeros");
    images.push(write_layout(&out.join("holes"), vec![holes(work)?])?);
    images.push(write_layout(&out.join("zeros"), vec![zeros(work)?])?);
    Ok(Made { images })
}

/// Packs what a list names, as builders do.
fn pack(tree: &Path, list: &[u8], tar: &Path) -> anyhow::Result<()> {
    let mut child = tar_command(tree, tar)
        .args(["--no-recursion", "--null", "--files-from=-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("starting tar")?;
    child
        .stdin
        .take()
        .context("tar has an input")?
        .write_all(list)?;
    done(&mut child, "tar")
}

fn tar_command(tree: &Path, tar: &Path) -> Command {
    let mut command = Command::new("tar");
    command
        .args([
            "--create",
            "--numeric-owner",
            "--owner=0",
            "--group=0",
            "--mtime=@1700000000",
        ])
        .arg("--directory")
        .arg(tree)
        .arg("--file")
        .arg(tar);
    command
}

fn done(child: &mut std::process::Child, what: &str) -> anyhow::Result<()> {
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "{what}: {status}");
    Ok(())
}

/// The file, compressed beside it as builders do.
fn compress(tar: &Path, program: &str) -> anyhow::Result<PathBuf> {
    let level = if program == "zstd" { "-3" } else { "-6" };
    let packed = tar.with_extension(program);
    let status = Command::new(program)
        .args([level, "-c"])
        .arg(tar)
        .stdout(File::create(&packed)?)
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("starting {program}"))?;
    anyhow::ensure!(status.success(), "{program}: {status}");
    Ok(packed)
}

/// An archive as a gzip layer; the archive is gone then.
fn gzipped(tar: &Path) -> anyhow::Result<Packed> {
    let layer = Packed {
        file: compress(tar, "gzip")?,
        diff_id: digest_of(tar)?,
        media_type: GZIP,
    };
    fs::remove_file(tar)?;
    Ok(layer)
}

/// A file that has nothing but holes, as GNU tar packs it.
fn holes(work: &Path) -> anyhow::Result<Packed> {
    let dir = work.join("holes");
    fs::create_dir_all(&dir)?;
    File::create(dir.join("lastlog"))?.set_len(NOTHING_BYTES)?;
    let tar = work.join("holes.tar");
    let mut command = tar_command(&dir, &tar);
    let mut child = command
        .args(["--sparse", "lastlog"])
        .spawn()
        .context("starting tar")?;
    done(&mut child, "tar")?;
    gzipped(&tar)
}

/// A file of zeros, every one of them packed. It is more than any limit of ours lets through, so
/// nobody needs its diffID to be true.
fn zeros(work: &Path) -> anyhow::Result<Packed> {
    let file = work.join("zeros.gzip");
    let mut child = Command::new("gzip")
        .args(["-6", "-c"])
        .stdin(Stdio::piped())
        .stdout(File::create(&file)?)
        .spawn()
        .context("starting gzip")?;
    let mut input = child.stdin.take().context("gzip has an input")?;
    let mut header = tar::Header::new_ustar();
    header.set_path("var/zeros")?;
    header.set_size(NOTHING_BYTES.min(8 << 30) - 1);
    header.set_mode(0o644);
    header.set_cksum();
    input.write_all(header.as_bytes())?;
    let block = vec![0; 1 << 20];
    for _ in 0..NOTHING_BYTES / (1 << 20) {
        input.write_all(&block)?;
    }
    drop(input);
    done(&mut child, "gzip")?;
    Ok(Packed {
        file,
        diff_id: Digest::of(b"nobody computes it"),
        media_type: GZIP,
    })
}

fn write_layout(dir: &Path, layers: Vec<Packed>) -> anyhow::Result<Layout> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let (mut descriptors, mut diff_ids, mut compressed_bytes) = (Vec::new(), Vec::new(), 0);
    for layer in layers {
        let (digest, size) = (digest_of(&layer.file)?, layer.file.metadata()?.len());
        fs::rename(&layer.file, blobs.join(digest.hex()))?;
        descriptors.push(json!({
            "mediaType": layer.media_type, "digest": digest.to_string(), "size": size,
        }));
        diff_ids.push(layer.diff_id.to_string());
        compressed_bytes += size;
    }
    let put = |document: &Value, media_type: &str| {
        let bytes = serde_json::to_vec(document)?;
        let digest = Digest::of(&bytes);
        fs::write(blobs.join(digest.hex()), &bytes)?;
        let (digest, size) = (digest.to_string(), bytes.len());
        anyhow::Ok(json!({"mediaType": media_type, "digest": digest, "size": size}))
    };
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(&config, "application/vnd.oci.image.config.v1+json")?,
        "layers": descriptors,
    });
    let manifest = put(&manifest, "application/vnd.oci.image.manifest.v1+json")?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(
        dir.join("oci-layout"),
        br#"{"imageLayoutVersion": "1.0.0"}"#,
    )?;
    Ok(Layout {
        path: dir.to_owned(),
        compressed_bytes,
    })
}

fn digest_of(file: &Path) -> anyhow::Result<Digest> {
    let mut file = File::open(file).with_context(|| format!("opening `{}`", file.display()))?;
    let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 1 << 18]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..read]);
    }
}

// === impl Made ===

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for image in &self.images {
            let size = mib(image.compressed_bytes);
            writeln!(f, "{size:>9.1} MiB  {}", image.path.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_becomes_layouts_whose_layers_have_their_digests() {
        let dir = testkit::temp_dir();
        let (tree, work) = (dir.path().join("tree"), dir.path().join("work"));
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::create_dir_all(&work).unwrap();
        fs::write(tree.join("etc/os-release"), "ID=debian\n").unwrap();
        let (tar, list) = (work.join("a.tar"), tree::split(&tree, 1).unwrap().concat());
        pack(&tree, &list, &tar).unwrap();
        let estargz = work.join("a.estargz");
        let diff_id = estargz::write(&tar, &estargz).unwrap();
        let layers = vec![
            Packed {
                file: estargz,
                diff_id,
                media_type: GZIP,
            },
            gzipped(&tar).unwrap(),
        ];
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        let out = dir.path().join("out");
        write_layout(&out, layers).unwrap();
        for (file, diff_id) in crate::layout::layer_files(&out)
            .unwrap()
            .iter()
            .zip(diff_ids)
        {
            assert_eq!(
                digest_of(file).unwrap().hex(),
                file.file_name().unwrap().display().to_string()
            );
            let mut plain =
                archive::Inflate::open(File::open(file).unwrap(), &archive::Limits::default())
                    .unwrap();
            let mut bytes = Vec::new();
            plain.read_to_end(&mut bytes).unwrap();
            assert_eq!(Digest::of(&bytes), diff_id);
            let names: Vec<_> = tar::Archive::new(bytes.as_slice())
                .entries()
                .unwrap()
                .map(|entry| entry.unwrap().path().unwrap().display().to_string())
                .collect();
            assert!(names.contains(&"etc/os-release".to_owned()), "{names:?}");
        }
    }
}
