//! Paragraphs of `Key: value` lines, as dpkg and Python metadata have them.

/// The paragraphs of a text: what stands between blank lines.
pub(crate) fn paragraphs(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        while lines.next_if(|line| line.trim().is_empty()).is_some() {}
        lines.peek()?;
        let mut stanza = Stanza::default();
        while let Some(line) = lines.next_if(|line| !line.trim().is_empty()) {
            stanza.add(line);
        }
        Some(stanza)
    })
}

/// A real paragraph has some dozens; Python metadata some hundreds.
const FIELDS_MAX: usize = 10_000;

/// One paragraph.
#[derive(Debug, Default)]
pub(crate) struct Stanza<'a> {
    fields: Vec<(&'a str, Vec<&'a str>)>,
    /// A line that belongs to no field.
    pub(crate) stray: Option<&'a str>,
}

// === impl Stanza ===

impl<'a> Stanza<'a> {
    /// The first line of a field that is not empty. Keys have no case.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        let value = *self.lines(key).next()?.first()?;
        (!value.is_empty()).then_some(value)
    }

    /// All lines of a field as one.
    pub(crate) fn folded(&self, key: &str) -> String {
        self.lines(key)
            .next()
            .map(|lines| lines.join(" "))
            .unwrap_or_default()
    }

    /// The first line of each field of this key.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.lines(key).filter_map(|lines| lines.first().copied())
    }

    fn lines(&self, key: &str) -> impl Iterator<Item = &Vec<&'a str>> {
        let is_it = move |name: &str| name.eq_ignore_ascii_case(key);
        self.fields
            .iter()
            .filter(move |(name, _)| is_it(name))
            .map(|(_, lines)| lines)
    }

    fn add(&mut self, line: &'a str) {
        if line.starts_with([' ', '\t']) {
            match self.fields.last_mut() {
                Some((_, lines)) => lines.push(line.trim()),
                None => self.stray = self.stray.or(Some(line)),
            }
            return;
        }
        match line.split_once(':') {
            Some((key, value))
                if !key.is_empty() && !key.contains(' ') && self.fields.len() < FIELDS_MAX =>
            {
                self.fields.push((key, vec![value.trim()]));
            }
            _ => self.stray = self.stray.or(Some(line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_have_fields_and_tell_of_stray_lines() {
        let text = "\n\nA: 1\nLong: x,\n y,\n\tz\nb : no\n\nA: 2\r\nb:\r\n";
        let stanzas: Vec<_> = paragraphs(text).collect();
        assert_eq!(stanzas.len(), 2);
        assert_eq!(stanzas[0].get("a"), Some("1"));
        assert_eq!(stanzas[0].folded("long"), "x, y, z");
        assert_eq!(stanzas[0].stray, Some("b : no"));
        assert_eq!(
            (stanzas[1].get("A"), stanzas[1].get("b")),
            (Some("2"), None)
        );
    }
}
