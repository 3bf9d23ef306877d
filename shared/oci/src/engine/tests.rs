use std::{collections::HashMap, sync::Mutex};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as UrlPath, State},
    http::{HeaderMap, Response},
    routing::{get, post},
};
use chassis::files::read_bounded;
use model::Digest;
use prost::Message;
use testkit::{Artifact, ImageBuilder, TempDir, clean_image, debian_layer, index, temp_dir};
use tokio::net::UnixListener;

use super::*;
use crate::{Location, Opened, Opening, Platforms, open, read_verified};
use containerd::{
    GetImageRequest, GetImageResponse, ReadContentRequest, ReadContentResponse, StoredImage, Target,
};

/// An engine's socket that is served until the test ends.
pub(crate) struct Served {
    dir: TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    #[expect(clippy::disallowed_methods, reason = "the test itself stops it")]
    pub(crate) fn new(router: Router) -> Self {
        let dir = temp_dir();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { dir, task }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn opening(&self, engine: Engine) -> Opening {
        Opening {
            engines: Engines {
                sockets: vec![(engine, self.dir.path().join("socket"))],
                namespaces: vec!["default".to_owned(), "k8s.io".to_owned()],
            },
            ..Opening::default()
        }
    }
}

/// Docker, with one image.
fn docker() -> Router {
    async fn export(UrlPath(name): UrlPath<String>) -> Response<Body> {
        let (status, body) = match name.as_str() {
            "example.org/app:1/get" => {
                let dir = temp_dir();
                let path = dir.path().join("image.tar");
                clean_image().write_docker_archive(&path, "example.org/app:1");
                (200, read_bounded(&path, 1 << 20).unwrap())
            }
            "example.org/broken:1/get" => (500, br#"{"message": "disk\nfull"}"#.to_vec()),
            "example.org/none:1/get" => (200, b"no image at all, but bytes".repeat(50)),
            _ => (404, br#"{"message": "no such image"}"#.to_vec()),
        };
        Response::builder()
            .status(status)
            .body(Body::from(body))
            .unwrap()
    }
    Router::new().route("/images/{*name}", get(export))
}

async fn opened(text: &str, opening: &Opening) -> Result<Opened, OciError> {
    open(&Cx::for_tests(), &Location::parse(text).unwrap(), opening).await
}

async fn failure(text: &str, opening: &Opening) -> String {
    opened(text, opening).await.err().unwrap().to_string()
}

#[tokio::test]
async fn docker_hands_out_what_it_has() {
    let served = Served::new(docker());
    let opening = served.opening(Engine::Docker);
    let found = opened("docker:example.org/app:1", &opening).await.unwrap();
    assert_eq!(found.chosen, None);
    let resolved = found.source.resolve(&found.wanted).await.unwrap();
    let image = &resolved.images[0];
    assert_eq!(image.image_id, clean_image().image_id);
    let cx = Cx::for_tests();
    for layer in &image.manifest.layers {
        let read = read_verified(&cx, &*found.source, "", layer, 1 << 20).await;
        assert!(!read.unwrap().is_empty());
    }
    let error = failure("docker:example.org/gone:1", &opening).await;
    assert_eq!(
        error,
        "`example.org/gone:1` does not exist in docker; check the name, the tag and the digest"
    );
    let error = failure("docker:example.org/broken:1", &opening).await;
    assert!(
        error.contains("500") && error.contains("disk full"),
        "{error}"
    );
    let error = failure("docker:example.org/none:1", &opening).await;
    assert!(error.contains("is malformed"), "{error}");
}

#[tokio::test]
async fn a_bare_name_is_looked_for_in_engines_before_its_registry() {
    let served = Served::new(docker());
    let opening = served.opening(Engine::Podman);
    let found = opened("example.org/app:1", &opening).await.unwrap();
    let place = found.chosen.clone().unwrap();
    assert!(place.starts_with("podman at /"), "{place}");
    // Nobody has it, or can be asked: the registry is next, which is not contacted yet.
    for name in ["example.org/gone:1", "example.org/broken:1"] {
        let found = opened(name, &opening).await.unwrap();
        assert_eq!(found.chosen, None, "{name}");
        assert_eq!(
            found.passed_over.len(),
            usize::from(name.contains("broken"))
        );
        assert_eq!(
            found.wanted.repository,
            name.split(['/', ':']).nth(1).unwrap()
        );
    }
}

#[tokio::test]
async fn an_engine_that_is_not_there_says_where_it_was_looked_for() {
    let dir = temp_dir();
    let socket = dir.path().join("socket");
    let opening = Opening {
        engines: Engines {
            sockets: vec![(Engine::Docker, socket.clone())],
            namespaces: Vec::new(),
        },
        ..Opening::default()
    };
    let error = failure("docker:a/b:1", &opening).await;
    assert!(
        error.contains("no socket at /") && error.ends_with("is it running?"),
        "{error}"
    );
    // A socket that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let error = failure("docker:a/b:1", &opening).await;
    assert!(
        error.contains("refused") && error.ends_with("is it running?"),
        "{error}"
    );
    let found = opened("example.org/a/b:1", &opening).await.unwrap();
    assert_eq!((found.chosen, found.passed_over.len()), (None, 1));
}

/// containerd, with blobs by digest, and what was asked of it.
#[derive(Clone)]
pub(crate) struct Contents {
    blobs: Arc<HashMap<String, Vec<u8>>>,
    pub(crate) root: Digest,
    asked: Arc<Mutex<Vec<String>>>,
}

pub(super) fn frame(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

pub(super) fn grpc_answer(status: &str, body: Vec<u8>) -> Response<Body> {
    let answer = Response::builder().header("content-type", "application/grpc");
    let answer = if status.is_empty() {
        answer
    } else {
        answer.header("grpc-status", status)
    };
    answer.body(Body::from(body)).unwrap()
}

pub(crate) fn containerd_of(contents: Contents) -> Router {
    async fn image(
        State(contents): State<Contents>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Response<Body> {
        let request = GetImageRequest::decode(body.slice(5..)).unwrap();
        let namespace = headers["containerd-namespace"].to_str().unwrap().to_owned();
        contents
            .asked
            .lock()
            .unwrap()
            .push(format!("{namespace} {}", request.name));
        if namespace != "k8s.io" || request.name != "example.org/app:1" {
            return grpc_answer("5", Vec::new());
        }
        let target = Some(Target {
            digest: contents.root.to_string(),
        });
        grpc_answer(
            "",
            frame(&GetImageResponse {
                image: Some(StoredImage { target }),
            }),
        )
    }
    async fn content(State(contents): State<Contents>, body: Bytes) -> Response<Body> {
        let request = ReadContentRequest::decode(body.slice(5..)).unwrap();
        let Some(blob) = contents.blobs.get(&request.digest) else {
            return grpc_answer("5", Vec::new());
        };
        let offset = usize::try_from(request.offset).unwrap();
        let Some(blob) = blob.get(offset..) else {
            return grpc_answer("11", Vec::new());
        };
        let size = usize::try_from(request.size).unwrap();
        let blob = if size == 0 {
            blob
        } else {
            &blob[..size.min(blob.len())]
        };
        let parts = blob.chunks(100).map(|part| {
            frame(&ReadContentResponse {
                data: Bytes::copy_from_slice(part),
            })
        });
        grpc_answer("", parts.flatten().collect())
    }
    Router::new()
        .route("/containerd.services.images.v1.Images/Get", post(image))
        .route(
            "/containerd.services.content.v1.Content/Read",
            post(content),
        )
        .with_state(contents)
}

/// The blobs of a layout of two platforms.
pub(crate) fn contents() -> Contents {
    let dir = temp_dir();
    let arm = ImageBuilder::for_platform("linux/arm64")
        .layer(debian_layer(), "ADD")
        .build();
    let both = index(vec![clean_image(), arm]);
    Artifact::from(&both).write_layout(dir.path(), "both");
    let mut blobs = HashMap::new();
    for blob in std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let name = format!("sha256:{}", path.file_name().unwrap().to_string_lossy());
        blobs.insert(name, read_bounded(&path, 1 << 20).unwrap());
    }
    Contents {
        blobs: Arc::new(blobs),
        root: both.digest,
        asked: Arc::default(),
    }
}

#[tokio::test]
async fn containerd_is_read_blob_by_blob() {
    let contents = contents();
    let served = Served::new(containerd_of(contents.clone()));
    let opening = Opening {
        platforms: Platforms::Only("linux/amd64".parse().unwrap()),
        ..served.opening(Engine::Containerd)
    };
    let found = opened("containerd:example.org/app:1", &opening)
        .await
        .unwrap();
    let asked = contents.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        ["default example.org/app:1", "k8s.io example.org/app:1"]
    );
    let resolved = found.source.resolve(&found.wanted).await.unwrap();
    assert_eq!(resolved.index, Some(contents.root));
    let image = &resolved.images[0];
    assert_eq!(image.digest, clean_image().digest);
    let layer = &image.manifest.layers[0];
    let read = read_verified(&Cx::for_tests(), &*found.source, "", layer, 1 << 20).await;
    assert_eq!(read.unwrap().len() as u64, layer.size);
    let gone = crate::Descriptor {
        digest: Digest::of(b"none"),
        ..layer.clone()
    };
    assert!(
        found
            .source
            .open_blob("", &gone)
            .await
            .err()
            .unwrap()
            .is_not_found()
    );
    let error = failure("containerd:example.org/gone:1", &opening).await;
    assert!(error.contains("does not exist in containerd"), "{error}");
}

#[tokio::test]
async fn answers_of_containerd_that_lie_are_refused() {
    async fn check(body: Vec<u8>, status: &'static str, expected: &str) {
        let answer = move || async move { grpc_answer(status, body) };
        let router = Router::new().fallback(answer);
        let served = Served::new(router);
        let error = failure("containerd:a/b:1", &served.opening(Engine::Containerd)).await;
        assert!(error.contains(expected), "{error}");
    }
    check(vec![1, 0, 0, 0, 1, 0], "", "is compressed").await;
    check(vec![0, 255, 255, 255, 255], "", "larger than").await;
    check(vec![0, 0, 0, 0, 9, 1], "", "ends within a message").await;
    check(vec![0, 0, 0, 0, 1, 255], "", "is malformed").await;
    check(Vec::new(), "7", "it answers 7").await;
    let target = Some(Target {
        digest: "sha256:zz".to_owned(),
    });
    let image = frame(&GetImageResponse {
        image: Some(StoredImage { target }),
    });
    check(image, "", "the digest of").await;
}
