//! Server-sent events as they arrive (HTML Living Standard, section 9.2.6).

/// A line that is longer is no event of ours.
const LINE_BYTES_MAX: usize = 8 << 20;

/// Takes bytes, gives events.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// A line whose end has not come.
    open: Vec<u8>,
    event: Event,
}

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// The last id that was sent.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// What it says; empty where only the id moved.
    pub(super) data: String,
}

/// The other side does not speak as agreed.
#[derive(Debug, thiserror::Error)]
#[error("a line of the server is longer than {LINE_BYTES_MAX} bytes")]
pub(super) struct TooLong;

// === impl Parser ===

impl Parser {
    /// Takes what came, and adds the events that are complete now. An event without data is given
    /// too: its id counts.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<(), TooLong> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.open.len() + piece.len() > LINE_BYTES_MAX {
                return Err(TooLong);
            }
            self.open.extend_from_slice(piece);
            if self.open.pop_if(|last| *last == b'\n').is_some() {
                self.open.pop_if(|last| *last == b'\r');
                let line = std::mem::take(&mut self.open);
                self.line(&String::from_utf8_lossy(&line), out);
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str, out: &mut Vec<Event>) {
        if line.is_empty() {
            let next = Event {
                id: self.event.id.clone(),
                ..Event::default()
            };
            out.push(std::mem::replace(&mut self.event, next));
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.event.id),
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data += value;
            }
            // Comments, `retry`, and what is not known.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "retry: 2000\nid: 1.2.3\n\n: alive\nid: 1.2.4\n\nid: 1.2.5\r\nevent: alert\r\n\
        data: {\"a\":\r\ndata:1}\r\n\r\nevent: end\ndata: {}\n\nevent: cut";

    fn event(id: &str, name: &str, data: &str) -> Event {
        Event {
            id: id.to_owned(),
            name: name.to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        for size in 1..TEXT.len() {
            let (mut parser, mut events) = (Parser::default(), Vec::new());
            for chunk in TEXT.as_bytes().chunks(size) {
                parser.take(chunk, &mut events).unwrap();
            }
            let expected = [
                event("1.2.3", "", ""),
                event("1.2.4", "", ""),
                event("1.2.5", "alert", "{\"a\":\n1}"),
                event("1.2.5", "end", "{}"),
            ];
            assert_eq!(events, expected, "in chunks of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_an_error() {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        let fits = vec![b'x'; LINE_BYTES_MAX];
        parser.take(&fits, &mut events).unwrap();
        assert!(parser.take(b"x", &mut events).is_err());
    }
}
