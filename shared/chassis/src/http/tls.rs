//! TLS on the listener: a certificate that is kept current, and handshakes that hold nobody up.
//!
//! The files are read again every few seconds and compared by content, for that is true of every
//! way to renew a certificate: a file written in place, one renamed over it, a link that is turned
//! elsewhere, as Kubernetes does with secrets. What cannot be used changes nothing: the listener goes
//! on with what it has, and says so. A connection keeps what it began with.
//!
//! It does not look into certificates of clients beyond that their authority signed them: who may do
//! what is decided by tokens, as without TLS.

mod handshake;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::digest;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde::{Deserialize, Serialize};

use self::handshake::Handshakes;
use crate::{Cx, files};

/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Under which note `/readyz` shows that a renewed certificate cannot be used.
const NOTE: &str = "tls";
/// What we speak, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files of a listener that speaks TLS, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and its authority.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// Authorities of the certificates that clients must show; without it none is asked for.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
}

/// What the listener shows and asks for; cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

/// Why the listener cannot speak TLS. What the files hold is in no message.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("reading `{file}`")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{file}` holds no {wanted} in PEM")]
    Missing {
        /// The file.
        file: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// Certificate and key cannot be used, or not together.
    #[error("the certificate in `{certificate}` cannot be used with the key in `{key}`: {why}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The authorities of clients cannot be used.
    #[error("the authorities in `{file}` cannot be used: {why}")]
    Authorities {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The process is going down.
    #[error("stopping")]
    Stopped,
}

struct Inner {
    files: TlsFiles,
    current: RwLock<Loaded>,
    handshakes: Handshakes,
}

#[derive(Clone)]
struct Loaded {
    /// Of what the files held.
    digest: [u8; 32],
    config: Arc<ServerConfig>,
}

/// What the files hold.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

// === impl Tls ===

impl Tls {
    /// Reads the files, and goes on looking at them until the context stops.
    pub async fn open(cx: &Cx, files: TlsFiles) -> Result<Self, TlsError> {
        Self::open_and_look(cx, files, LOOK_AGAIN).await
    }

    async fn open_and_look(cx: &Cx, files: TlsFiles, every: Duration) -> Result<Self, TlsError> {
        let loaded = load(cx, &files, None).await?.ok_or(TlsError::Stopped)?;
        let tls = Self(Arc::new(Inner {
            files,
            current: RwLock::new(loaded),
            handshakes: Handshakes::default(),
        }));
        let (looking, of_task) = (tls.clone(), cx.clone());
        cx.spawn("certificate", async move {
            looking.look(&of_task, every).await;
        });
        Ok(tls)
    }

    /// What the next connection gets.
    fn current(&self) -> Loaded {
        let current = self.0.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn look(&self, cx: &Cx, every: Duration) {
        let mut said = None;
        while cx.sleep(every).await {
            let before = self.current().digest;
            let trouble = match load(cx, &self.0.files, Some(before)).await {
                Ok(None) => None,
                Ok(Some(loaded)) => {
                    let current = self.0.current.write();
                    *current.unwrap_or_else(PoisonError::into_inner) = loaded;
                    let file = self.0.files.certificate_file.display();
                    tracing::info!("the listener shows what `{file}` holds now");
                    None
                }
                Err(TlsError::Stopped) => return,
                Err(error) => Some(format!("{:#}", anyhow::Error::from(error))),
            };
            if let Some(why) = trouble.as_ref().filter(|why| said.as_ref() != Some(*why)) {
                tracing::warn!(
                    error = why,
                    "the listener keeps its certificate, for the new one cannot be used: {why}"
                );
            }
            cx.notes().set(NOTE, trouble.clone());
            said = trouble;
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.0.files)
            .finish_non_exhaustive()
    }
}

/// `None`: the files hold what they held.
async fn load(
    cx: &Cx,
    files: &TlsFiles,
    before: Option<[u8; 32]>,
) -> Result<Option<Loaded>, TlsError> {
    let files = files.clone();
    let load = move || {
        let contents = Contents::read(&files)?;
        let digest = contents.digest();
        if before == Some(digest) {
            return Ok(None);
        }
        let config = Arc::new(contents.config(&files)?);
        Ok(Some(Loaded { digest, config }))
    };
    cx.blocking(load).await.map_err(|_| TlsError::Stopped)?
}

// === impl Contents ===

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |file: &PathBuf| {
            files::read_bounded(file, FILE_BYTES_MAX).map_err(|source| TlsError::Read {
                file: file.clone(),
                source,
            })
        };
        Ok(Self {
            certificate: read(&files.certificate_file)?,
            key: read(&files.key_file)?,
            client_ca: files.client_ca_file.as_ref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        let client_ca = self.client_ca.as_deref().unwrap_or_default();
        for part in [self.certificate.as_slice(), self.key.as_slice(), client_ca] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        bytes
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&files.certificate_file, &self.certificate)?;
        let missing = || TlsError::Missing {
            file: files.key_file.clone(),
            wanted: "private key",
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| missing())?;
        let unusable = |error: rustls::Error| TlsError::Unusable {
            certificate: files.certificate_file.clone(),
            key: files.key_file.clone(),
            why: error.to_string(),
        };
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match files.client_ca_file.as_ref().zip(self.client_ca.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((file, pem)) => {
                let roots = Arc::new(authorities(file, pem)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let verifier = verifier.map_err(|error| TlsError::Authorities {
                    file: file.clone(),
                    why: error.to_string(),
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::Missing {
            file: file.to_owned(),
            wanted: "certificate",
        }),
    }
}

fn authorities(file: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, pem)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Authorities {
                file: file.to_owned(),
                why: error.to_string(),
            })?;
    }
    Ok(roots)
}
