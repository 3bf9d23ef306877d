//! Paragraphs of `Key: value` lines, as dpkg and Python metadata have them.

/// The paragraphs of a text: what stands between blank lines.
pub(crate) fn paragraphs(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        while lines.next_if(|line| is_blank(line)).is_some() {}
        lines.peek()?;
        let mut stanza = Stanza::default();
        while let Some(line) = lines.next_if(|line| !is_blank(line)) {
            stanza.add(line);
        }
        Some(stanza)
    })
}

/// The headers of a text, as messages have them: up to the first line that is empty. One of blanks
/// alone goes on with the field before it, as in a licence whose paragraphs are indented.
pub(crate) fn headers(text: &str) -> Option<Stanza<'_>> {
    let mut lines = text.lines().skip_while(|line| is_blank(line)).peekable();
    lines.peek()?;
    let mut stanza = Stanza::default();
    for line in lines.take_while(|line| !line.is_empty()) {
        stanza.add(line);
    }
    Some(stanza)
}

/// A real paragraph has some dozens; Python metadata some hundreds.
const FIELDS_MAX: usize = 10_000;

/// Lines that go on with the fields of a paragraph, as far as they are kept: those of fields that
/// are read whole. dpkg writes each of these in one line.
const MORE_LINES_MAX: usize = 10_000;

/// Fields of which all lines are read.
const FOLDED: &[&str] = &["Pre-Depends", "Depends", "Imports", "License"];

/// One paragraph.
#[derive(Debug, Default)]
pub(crate) struct Stanza<'a> {
    fields: Vec<(&'a str, &'a str)>,
    /// Further lines, with the number of their field.
    more: Vec<(usize, &'a str)>,
    /// A line that belongs to no field, or is one too many.
    pub(crate) stray: Option<&'a str>,
}

// === impl Stanza ===

impl<'a> Stanza<'a> {
    /// The first line of a field that is not empty. Keys have no case.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        let value = self.all(key).next()?;
        (!value.is_empty()).then_some(value)
    }

    /// Whether a field has more than one line; of the fields that are [`FOLDED`].
    pub(crate) fn goes_on(&self, key: &str) -> bool {
        let mut fields = self.fields.iter().enumerate();
        let field = fields.find(|(_, (name, _))| name.eq_ignore_ascii_case(key));
        field.is_some_and(|(at, _)| self.more.iter().any(|(field, _)| *field == at))
    }

    /// All lines of a field as one; of the fields that are [`FOLDED`].
    pub(crate) fn folded(&self, key: &str) -> String {
        let mut fields = self.fields.iter().enumerate();
        let Some((at, (_, first))) = fields.find(|(_, (name, _))| name.eq_ignore_ascii_case(key))
        else {
            return String::new();
        };
        let mut text = (*first).to_owned();
        for (_, line) in self.more.iter().filter(|(field, _)| *field == at) {
            text.push(' ');
            text.push_str(line);
        }
        text
    }

    /// The first line of each field of this key.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| *value)
    }

    fn add(&mut self, line: &'a str) {
        if line.starts_with([' ', '\t']) {
            return self.go_on(line);
        }
        match line.split_once(':') {
            Some((key, value))
                if !key.is_empty() && !key.contains(' ') && self.fields.len() < FIELDS_MAX =>
            {
                self.fields.push((key, value.trim()));
            }
            _ => self.stray = self.stray.or(Some(line)),
        }
    }

    fn go_on(&mut self, line: &'a str) {
        let last = self.fields.len().checked_sub(1);
        let Some((at, (key, _))) = last.zip(self.fields.last()) else {
            self.stray = self.stray.or(Some(line));
            return;
        };
        if FOLDED.iter().any(|folded| folded.eq_ignore_ascii_case(key)) {
            if self.more.len() < MORE_LINES_MAX {
                self.more.push((at, line.trim()));
            } else {
                self.stray = self.stray.or(Some(line));
            }
        }
    }
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_alone_end_a_paragraph_and_no_headers() {
        let text = "\n License\nA: 1\nLicense: x\n y\n  \n z\nB: 2\r\n\r\nC: 3\n";
        let read = headers(text).unwrap();
        assert_eq!(read.folded("license"), "x y  z");
        assert!(read.goes_on("License") && !read.goes_on("A") && !read.goes_on("C"));
        assert_eq!((read.get("B"), read.get("C")), (Some("2"), None));
        assert_eq!(paragraphs(text).next().unwrap().get("B"), None);
        assert!(headers("").is_none() && headers("\n \n").is_none());
    }

    #[test]
    fn paragraphs_have_fields_and_tell_of_stray_lines() {
        let text = "\n\nA: 1\nDepends: x,\n y,\n\tz\nb : no\n\nA: 2\r\nb:\r\n";
        let stanzas: Vec<_> = paragraphs(text).collect();
        assert_eq!(stanzas.len(), 2);
        assert_eq!(stanzas[0].get("a"), Some("1"));
        assert_eq!(stanzas[0].folded("depends"), "x, y, z");
        assert_eq!(stanzas[0].stray, Some("b : no"));
        assert_eq!(
            (stanzas[1].get("A"), stanzas[1].get("b")),
            (Some("2"), None)
        );
    }

    #[test]
    fn lines_of_a_description_are_not_kept_and_those_of_a_list_only_so_many() {
        let lines = " a\n".repeat(20_000);
        let text = format!("Description: x\n{lines}");
        let long = paragraphs(&text).next().unwrap();
        assert_eq!((long.more.len(), long.stray), (0, None));
        let text = format!("Depends: x\n{lines}");
        let long = paragraphs(&text).next().unwrap();
        assert_eq!((long.more.len(), long.stray), (MORE_LINES_MAX, Some(" a")));
    }
}
