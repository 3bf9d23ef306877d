//! What a component is, as its purl says.

use super::document::Product;
use crate::vendors::{evr, is_debugging, is_name};

/// What a component is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) package: String,
    /// Its version, where there is one.
    pub(super) version: Option<String>,
    /// `name:stream` of the module that it was built in.
    pub(super) module: Option<String>,
}

// === impl Component ===

impl Component {
    pub(super) fn of(product: &Product<'_>) -> Option<Self> {
        let mut found = Self::of_purl(&product.helper.purl)?;
        // `nodejs:18/nodejs`, where the stream is in the id alone.
        if found.module.is_none()
            && let Some((module, package)) = product.product_id.rsplit_once('/')
            && package == found.package
        {
            found.module = stream(module);
        }
        let fits = is_name(&found.package) && !is_debugging(&found.package);
        fits.then_some(found)
    }

    /// `pkg:rpm/redhat/curl@7.76.1-26.el9?arch=x86_64&epoch=1&rpmmod=…`, as far as it is needed;
    /// without a version of what is not fixed.
    fn of_purl(purl: &str) -> Option<Self> {
        let rest = purl.strip_prefix("pkg:rpm/")?;
        let (path, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
        let (path, version) = path.split_once('@').unwrap_or((path, ""));
        let mut epoch = String::new();
        let mut module = None;
        for qualifier in qualifiers.split('&') {
            match qualifier.split_once('=') {
                Some(("epoch", value)) => epoch = decoded(value),
                // One that cannot be read is of a flatpak: no package of an image.
                Some(("rpmmod", value)) => module = Some(stream(&decoded(value))?),
                _ => {}
            }
        }
        let version = decoded(version);
        Some(Self {
            package: decoded(path.rsplit('/').next().unwrap_or(path)),
            version: is_name(&version).then(|| evr(&epoch, &version)),
            module,
        })
    }
}

/// `name:stream` of `name:stream:version:context`, whatever vendor stands before it.
fn stream(module: &str) -> Option<String> {
    let module = module.rsplit('/').next().unwrap_or(module);
    let mut parts = module.split(':');
    let (name, stream) = (parts.next()?, parts.next()?);
    (is_name(name) && is_name(stream)).then(|| format!("{name}:{stream}"))
}

/// `nodejs:18` of `pkg:rpmmod/redhat/nodejs@18:8090020240301110609:a75119d5`.
pub(super) fn module_of_purl(purl: &str) -> Option<String> {
    let rest = purl.strip_prefix("pkg:rpmmod/")?;
    let rest = rest.split('?').next().unwrap_or(rest);
    let (path, version) = rest.split_once('@')?;
    let name = path.rsplit('/').next().unwrap_or(path);
    stream(&decoded(&format!("{name}:{version}")))
}

/// A part of a purl, where bytes stand as `%2B`.
fn decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            bytes.push(byte);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_read_from_its_purl() {
        let read = |purl: &str| {
            let found = Component::of_purl(purl)?;
            Some(format!(
                "{} {:?} {:?}",
                found.package,
                found.version.as_deref().unwrap_or_default(),
                found.module.as_deref().unwrap_or_default()
            ))
        };
        let check = |purl: &str, expected: Option<&str>| {
            assert_eq!(read(purl).as_deref(), expected, "{purl}");
        };
        check(
            "pkg:rpm/redhat/bind@9.16.23-18.el9?arch=src&epoch=32",
            Some(r#"bind "32:9.16.23-18.el9" """#),
        );
        check(
            "pkg:rpm/redhat/libstdc%2B%2B@11.4.1-2.1%7Ebeta.el9?arch=x86_64",
            Some(r#"libstdc++ "11.4.1-2.1~beta.el9" """#),
        );
        check(
            "pkg:rpm/redhat/nodejs@18.19.1-1.module%2Bel8?arch=src&epoch=1&rpmmod=nodejs:18:8090:a751",
            Some(r#"nodejs "1:18.19.1-1.module+el8" "nodejs:18""#),
        );
        check(
            "pkg:rpm/suse/rsyslog@?upstream=rsyslog.src.rpm",
            Some(r#"rsyslog "" """#),
        );
        check("pkg:rpm/redhat/f@1?arch=src&rpmmod=rhel10", None);
        check("pkg:oci/ubi9@sha256:ab?tag=9", None);
        let module = module_of_purl("pkg:rpmmod/redhat/nodejs@18:8090:a751");
        assert_eq!(module.as_deref(), Some("nodejs:18"));
        assert_eq!(decoded("100%"), "100%");
    }
}
