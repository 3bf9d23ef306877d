//! TLS to NATS: when it is needed, with whose authority and which certificate of ours, and what to
//! do where it fails.
//!
//! Servers say themselves whether they want TLS, and whoever sits between us and them may say
//! otherwise. So it is needed, and not only used where it is offered, as soon as the configuration
//! speaks of it anywhere: for every server, also for those that a cluster tells us of.

#[cfg(test)]
mod tests;

use std::{
    io::{Error, ErrorKind},
    path::Path,
};

use async_nats::ConnectOptions;

use crate::{Config, error::BusError};

const FILE_BYTES_MAX: u64 = 1024 * 1024;
const CERTIFICATE: &str = "CERTIFICATE";
/// Keys are called `PRIVATE KEY`, `RSA PRIVATE KEY` or `EC PRIVATE KEY`.
const KEY: &str = "PRIVATE KEY";

/// Sets what the configuration says. Files are looked at now, so that a wrong path is an error of
/// the start; they are read again at each connection, so that renewed ones are used.
pub(crate) fn apply(
    mut options: ConnectOptions,
    config: &Config,
    servers: &[String],
) -> Result<ConnectOptions, BusError> {
    let mut is_needed = servers.iter().any(|server| server.starts_with("tls://"));
    if let Some(file) = &config.ca_file {
        check("bus.ca_file", file, CERTIFICATE)?;
        options = options.add_root_certificates(file.clone());
        is_needed = true;
    }
    match (&config.client_certificate_file, &config.client_key_file) {
        (Some(certificate), Some(key)) => {
            check("bus.client_certificate_file", certificate, CERTIFICATE)?;
            check("bus.client_key_file", key, KEY)?;
            options = options.add_client_certificate(certificate.clone(), key.clone());
            is_needed = true;
        }
        (None, None) => {}
        _ => {
            let what = "`bus.client_certificate_file` and `bus.client_key_file`".to_owned();
            let source = Error::new(
                ErrorKind::InvalidInput,
                "one is of no use without the other",
            );
            return Err(BusError::Io { what, source });
        }
    }
    Ok(options.require_tls(is_needed))
}

/// What a failed connection's operator can do about it, where it has to do with TLS.
pub(crate) fn with_advice(cause: String) -> String {
    let has = |text: &str| cause.contains(text);
    let advice = if has("UnknownIssuer") {
        "the server's certificate is from an authority that is not known here; name its file in \
         `bus.ca_file`"
    } else if has("not valid for name") || has("NotValidForName") {
        "the server's certificate is for other names than the host in `bus.url`"
    } else if has("CertificateRequired") || has("BadCertificate") || has("UnknownCA") {
        "the server wants a certificate of an authority that it knows; give ours in \
         `bus.client_certificate_file` and `bus.client_key_file`"
    } else if has("InvalidContentType") {
        "the server does not speak TLS, and what the configuration says does not go out without it"
    } else if has("platform certs") {
        "name the file of the server's authority in `bus.ca_file`, or install `ca-certificates`"
    } else {
        return cause;
    };
    format!("{cause}; {advice}")
}

fn check(setting: &str, file: &Path, wanted: &str) -> Result<(), BusError> {
    let read = chassis::files::read_text_bounded(file, FILE_BYTES_MAX);
    let checked = read.and_then(|text| {
        let begins = |line: &str| line.starts_with("-----BEGIN ") && line.contains(wanted);
        if text.lines().any(begins) {
            return Ok(());
        }
        let missing = format!("it holds no `{wanted}` in PEM");
        Err(Error::new(ErrorKind::InvalidData, missing))
    });
    checked.map_err(|source| BusError::Io {
        what: format!("`{setting}`, file `{}`", file.display()),
        source,
    })
}
