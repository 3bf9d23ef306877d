//! Certificates that a test makes for itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// A certificate authority that only one test knows.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, both in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

// === impl Authority ===

impl Authority {
    /// A new one, called `name`.
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, key()).expect("a certificate"))
    }

    /// Its own certificate, in PEM: for those who trust it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server at `localhost` and `127.0.0.1`.
    pub fn server(&self) -> Issued {
        let params = params("server", &["localhost", "127.0.0.1"]);
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate that a client shows.
    pub fn client(&self, name: &str) -> Issued {
        self.issue(params(name, &[]), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Writes its own certificate to a file.
    pub fn write(&self, file: &Path) -> PathBuf {
        fs::write(file, self.pem()).expect("a file for a certificate");
        file.to_owned()
    }

    fn issue(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Issued {
        params.extended_key_usages = vec![usage];
        let key = key();
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

// === impl Issued ===

impl Issued {
    /// Writes `<name>.pem` and `<name>.key` below a folder, and says where.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let files = ["pem", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
        let [certificate, key] = files;
        fs::write(&certificate, &self.certificate).expect("a file for a certificate");
        fs::write(&key, &self.key).expect("a file for a key");
        (certificate, key)
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).expect("names of hosts");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
