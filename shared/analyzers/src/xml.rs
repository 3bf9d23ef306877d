//! A small XML document as a tree, for what is read here and there in it.

use std::collections::HashMap;

use quick_xml::{Reader, events::Event};

use crate::{Malformed, malformed};

/// Elements in elements; real documents have a dozen.
const DEPTH_MAX: usize = 64;

/// Elements of one document.
const ELEMENTS_MAX: usize = 500_000;

/// An element.
#[derive(Debug, Default)]
pub(crate) struct Element {
    /// Its name without a prefix.
    pub(crate) name: String,
    pub(crate) attributes: HashMap<String, String>,
    pub(crate) children: Vec<Element>,
    /// The text directly in it, without blanks around.
    pub(crate) text: String,
}

// === impl Element ===

impl Element {
    /// The root of a document. Entities that it defines itself are not resolved.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let mut reader = Reader::from_str(text);
        let mut open = vec![Self::default()];
        let mut elements = 0_usize;
        let broken = |why: &dyn std::fmt::Display| malformed(format!("it is no XML: {why}"));
        loop {
            let event = reader.read_event().map_err(|error| broken(&error))?;
            match event {
                Event::Start(start) | Event::Empty(start) if elements >= ELEMENTS_MAX => {
                    let name = String::from_utf8_lossy(start.name().as_ref()).into_owned();
                    return Err(malformed(format!(
                        "it has more than {ELEMENTS_MAX} elements, at `{name}`"
                    )));
                }
                Event::Start(start) => {
                    elements = elements.saturating_add(1);
                    if open.len() > DEPTH_MAX {
                        return Err(malformed(format!(
                            "elements are in each other more than {DEPTH_MAX} deep"
                        )));
                    }
                    open.push(Self::opened(&start));
                }
                Event::Empty(start) => {
                    elements = elements.saturating_add(1);
                    if let Some(above) = open.last_mut() {
                        above.children.push(Self::opened(&start));
                    }
                }
                Event::End(_) => {
                    let closed = open.pop();
                    let above = open.last_mut();
                    if let (Some(mut closed), Some(above)) = (closed, above) {
                        let start = closed.text.trim_start().len();
                        let start = closed.text.len().saturating_sub(start);
                        closed.text.drain(..start);
                        closed.text.truncate(closed.text.trim_end().len());
                        above.children.push(closed);
                    }
                }
                Event::Text(text) => {
                    let text = text.xml10_content().map_err(|error| broken(&error))?;
                    push(&mut open, &text);
                }
                Event::CData(text) => {
                    let text = text.xml10_content().map_err(|error| broken(&error))?;
                    push(&mut open, &text);
                }
                Event::GeneralRef(reference) => {
                    let resolved = reference
                        .resolve_char_ref()
                        .map_err(|error| broken(&error))?;
                    let name = reference.decode().map_err(|error| broken(&error))?;
                    let named = quick_xml::escape::resolve_predefined_entity(&name);
                    match (resolved, named) {
                        (Some(c), _) => push(&mut open, c.encode_utf8(&mut [0; 4])),
                        (None, Some(text)) => push(&mut open, text),
                        (None, None) => {}
                    }
                }
                Event::Eof => break,
                _ => {}
            }
        }
        if open.len() > 1 {
            return Err(malformed("it ends within an element"));
        }
        let root = open
            .pop()
            .and_then(|document| document.children.into_iter().next());
        root.ok_or_else(|| malformed("it is no XML: there is no element"))
    }

    /// The first child of a name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of the first child of a name, if it has one.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        let text = self.child(name)?.text.as_str();
        (!text.is_empty()).then_some(text)
    }

    /// The children of the first child of a name.
    pub(crate) fn list(&self, name: &str) -> &[Self] {
        self.child(name).map_or(&[], |child| &child.children)
    }

    /// An attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    fn opened(start: &quick_xml::events::BytesStart<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let local = start.local_name();
        let mut attributes = start.attributes();
        // The check that none is there twice takes the square of their number.
        attributes.with_checks(false);
        let attributes = attributes.flatten().map(|attribute| {
            let value = text(&attribute.value);
            let value = quick_xml::escape::unescape(&value)
                .map_or_else(|_| value.clone(), std::borrow::Cow::into_owned);
            let name = attribute.key.local_name();
            (text(name.as_ref()), value)
        });
        Self {
            name: text(local.as_ref()),
            attributes: attributes.collect(),
            ..Self::default()
        }
    }
}

fn push(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_are_what_they_mean() {
        let text = r#"<?xml version="1.0"?><!-- c --><a:b x="1 &amp; 2"> <c>&lt;d&#65;<![CDATA[<]]></c><e/></a:b>"#;
        let root = Element::parse(text).unwrap();
        assert_eq!(
            (root.name.as_str(), root.attribute("x")),
            ("b", Some("1 & 2"))
        );
        assert_eq!(root.text_of("c"), Some("<dA<"));
        assert!(root.child("e").is_some() && root.text_of("e").is_none());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(Element::parse(&nested(DEPTH_MAX)).is_ok());
        let error = Element::parse(&nested(DEPTH_MAX + 1))
            .unwrap_err()
            .to_string();
        assert!(error.contains("more than 64 deep"), "{error}");
    }

    #[test]
    fn elements_are_counted() {
        let of = |count: usize| Element::parse(&format!("<a>{}</a>", "<b/>".repeat(count - 1)));
        assert_eq!(of(ELEMENTS_MAX).unwrap().children.len(), ELEMENTS_MAX - 1);
        let error = of(ELEMENTS_MAX + 1).unwrap_err().to_string();
        assert!(error.contains("more than 500000 elements"), "{error}");
    }

    #[test]
    fn entities_of_the_document_are_left_out() {
        let text = "<!DOCTYPE a [<!ENTITY b \"ccc\">]><a>x&b;y</a>";
        assert_eq!(Element::parse(text).unwrap().text, "xy");
    }

    #[test]
    fn broken_documents_are_refused() {
        for text in ["", "x", "<a>", "<a></b>", "<a"] {
            assert!(Element::parse(text).is_err(), "{text}");
        }
    }
}
