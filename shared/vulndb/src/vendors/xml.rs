//! XML of any size as a stream of elements: nothing but the open element's text is kept.

use quick_xml::{Reader, escape, events::BytesStart, events::Event};

use super::MalformedVendor;

/// Elements in elements; real documents have a dozen.
const DEPTH_MAX: usize = 64;
/// The longest text of an element; descriptions are longer and clipped.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// What stands next.
pub(super) enum Step<'a> {
    /// An element begins.
    Open(&'a str, Attributes<'a>),
    /// It ends; the text directly in it, without blanks around.
    Close(&'a str, &'a str),
}

/// The attributes of an element.
pub(super) struct Attributes<'a>(&'a BytesStart<'a>);

/// Walks a document. Entities that it defines itself are not resolved.
pub(super) fn walk(
    what: &'static str,
    bytes: &[u8],
    visit: &mut dyn FnMut(Step<'_>),
) -> Result<(), MalformedVendor> {
    let broken = |why: String| MalformedVendor::Xml(what, why);
    let text = std::str::from_utf8(bytes).map_err(|error| broken(error.to_string()))?;
    let mut reader = Reader::from_str(text);
    // The names of open elements, and the text of each.
    let mut open: Vec<(String, String)> = Vec::new();
    let mut is_empty = true;
    loop {
        let event = reader.read_event();
        match event.map_err(|error| broken(error.to_string()))? {
            Event::Start(start) => {
                is_empty = false;
                if open.len() >= DEPTH_MAX {
                    return Err(MalformedVendor::TooMuch);
                }
                let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                visit(Step::Open(&name, Attributes(&start)));
                open.push((name, String::new()));
            }
            Event::Empty(start) => {
                is_empty = false;
                let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                visit(Step::Open(&name, Attributes(&start)));
                visit(Step::Close(&name, ""));
            }
            Event::End(_) => {
                if let Some((name, text)) = open.pop() {
                    visit(Step::Close(&name, text.trim()));
                }
            }
            Event::Text(text) => push(&mut open, &String::from_utf8_lossy(&text)),
            Event::CData(text) => push(&mut open, &String::from_utf8_lossy(&text)),
            Event::GeneralRef(reference) => {
                let name = String::from_utf8_lossy(&reference).into_owned();
                if let Ok(Some(c)) = reference.resolve_char_ref() {
                    push(&mut open, c.encode_utf8(&mut [0; 4]));
                } else if let Some(text) = escape::resolve_predefined_entity(&name) {
                    push(&mut open, text);
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    if is_empty {
        return Err(broken("there is no element".to_owned()));
    }
    if let Some((name, _)) = open.pop() {
        return Err(broken(format!("it ends within `{name}`")));
    }
    Ok(())
}

fn push(open: &mut [(String, String)], more: &str) {
    if let Some((_, text)) = open.last_mut()
        && text.len().saturating_add(more.len()) <= TEXT_BYTES_MAX
    {
        text.push_str(more);
    }
}

// === impl Attributes ===

impl Attributes<'_> {
    /// An attribute; empty where it is not there.
    pub(super) fn get(&self, name: &str) -> String {
        let mut attributes = self.0.attributes();
        // The check that none is there twice takes the square of their number.
        attributes.with_checks(false);
        let mut attributes = attributes.flatten();
        let found = attributes.find(|one| one.key.local_name().as_ref() == name.as_bytes());
        let Some(found) = found else {
            return String::new();
        };
        let raw = String::from_utf8_lossy(&found.value).into_owned();
        match escape::unescape(&raw) {
            Ok(value) => value.into_owned(),
            Err(_) => raw.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, MalformedVendor> {
        let mut lines = Vec::new();
        walk("tests", text.as_bytes(), &mut |step| match step {
            Step::Open(name, attributes) => lines.push(format!("{name} {}", attributes.get("k"))),
            Step::Close(name, text) => lines.push(format!("/{name} {text}")),
        })?;
        Ok(lines)
    }

    #[test]
    fn elements_come_with_text_and_attributes() {
        let lines = shown("<?xml version='1.0'?><a k='1 &amp; 2'> x &lt; <n:b/> y</a>").unwrap();
        assert_eq!(lines, ["a 1 & 2", "b ", "/b ", "/a x <  y"]);
    }

    #[test]
    fn what_is_broken_or_too_deep_is_refused() {
        for wrong in ["", "x", "<a>", "<a></b>", "<a", "\u{0}"] {
            assert!(shown(wrong).is_err(), "{wrong:?}");
        }
        let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(shown(&deep(DEPTH_MAX)).is_ok());
        assert!(shown(&deep(DEPTH_MAX + 1)).is_err());
        let long = |bytes: usize| shown(&format!("<a>{}</a>", "x".repeat(bytes))).unwrap();
        assert!(long(TEXT_BYTES_MAX)[1].len() > TEXT_BYTES_MAX);
        assert_eq!(long(TEXT_BYTES_MAX + 1)[1], "/a ");
    }
}
