//! Licences that a Java archive declares: `<licenses>` of the poms that Maven puts in, and the
//! manifest's `Bundle-License` (`OSGi` Core, "Bundle Manifest Headers").

use std::collections::BTreeMap;

use quick_xml::{Reader, events::Event};

/// Licences of one archive.
const LICENSES_MAX: usize = 20;

/// The names in a pom, or the addresses where there are no names. What is no XML has none.
pub(super) fn of_pom(text: &str) -> Vec<String> {
    let mut reader = Reader::from_str(text);
    let mut path: Vec<Vec<u8>> = Vec::new();
    let (mut name, mut url) = (String::new(), String::new());
    let mut licenses = Vec::new();
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => path.push(start.local_name().as_ref().to_vec()),
            Ok(Event::Text(text)) => {
                let at: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
                let text = text.decode().unwrap_or_default();
                match at.as_slice() {
                    [b"project", b"licenses", b"license", b"name"] => {
                        text.trim().clone_into(&mut name);
                    }
                    [b"project", b"licenses", b"license", b"url"] => {
                        text.trim().clone_into(&mut url);
                    }
                    _ => {}
                }
            }
            Ok(Event::End(end)) => {
                path.pop();
                if end.local_name().as_ref() == b"license" && licenses.len() < LICENSES_MAX {
                    let said = if name.is_empty() { &mut url } else { &mut name };
                    licenses.extend(Some(std::mem::take(said)).filter(|said| !said.is_empty()));
                    url.clear();
                }
            }
            Ok(Event::Eof) | Err(_) => return licenses,
            Ok(_) => {}
        }
    }
}

/// `Apache-2.0;link="https://…", MIT`.
pub(super) fn of_manifest(manifest: &BTreeMap<String, String>) -> Vec<String> {
    let value = manifest.get("Bundle-License").map_or("", String::as_str);
    let all = value.split(',').filter_map(|part| part.split(';').next());
    let all = all.map(|name| name.trim().trim_matches('"'));
    let all = all.filter(|name| !name.is_empty() && *name != "<<EXTERNAL>>");
    all.take(LICENSES_MAX).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pom_names_its_licenses_and_not_those_of_others() {
        let pom = "<project><parent><name>p</name></parent><licenses><license><name>Apache License, Version 2.0\
            </name><url>https://x</url></license><license><url>https://opensource.org/licenses/MIT</url>\
            </license></licenses><dependencies><license><name>no</name></license></dependencies></project>";
        assert_eq!(
            of_pom(pom),
            [
                "Apache License, Version 2.0",
                "https://opensource.org/licenses/MIT"
            ]
        );
        assert_eq!(
            of_pom("<project><licenses><license><name>MIT</name></lic"),
            Vec::<String>::new()
        );
        assert_eq!(of_pom("no xml at all"), Vec::<String>::new());
    }

    #[test]
    fn a_bundle_may_have_several() {
        let of =
            |value: &str| of_manifest(&[("Bundle-License".to_owned(), value.to_owned())].into());
        assert_eq!(
            of("Apache-2.0;link=\"https://a\", \"MIT\""),
            ["Apache-2.0", "MIT"]
        );
        assert_eq!(of("<<EXTERNAL>>"), Vec::<String>::new());
        assert_eq!(of(""), Vec::<String>::new());
    }
}
