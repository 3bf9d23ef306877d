//! JSON: the report as it is, indented.

use std::io;

use serde::Serialize;
use serde_json::{
    Serializer,
    ser::{Formatter, PrettyFormatter},
};

use crate::clean::is_hostile;

/// Writes a document. Characters that steer terminals can stand in strings only, so writing them
/// as escapes leaves the document the same.
pub(crate) fn write<T: Serialize>(document: &T, out: &mut dyn io::Write) -> io::Result<()> {
    let mut serializer = Serializer::with_formatter(&mut *out, Harmless::default());
    document.serialize(&mut serializer)?;
    out.write_all(b"\n")
}

/// Indents, and escapes what must not reach a terminal.
#[derive(Default)]
struct Harmless(PrettyFormatter<'static>);

/// What is done as [`PrettyFormatter`] does it.
macro_rules! as_pretty {
    ($($name:ident($($is_first:ident)?);)*) => {$(
        fn $name<W: ?Sized + io::Write>(&mut self, out: &mut W $(, $is_first: bool)?) -> io::Result<()> {
            self.0.$name(out $(, $is_first)?)
        }
    )*};
}

impl Formatter for Harmless {
    as_pretty! {
        begin_array();
        end_array();
        begin_array_value(is_first);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(is_first);
        begin_object_value();
        end_object_value();
    }

    /// A part of a string in which nothing is left for JSON to escape.
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // Of ASCII only DEL is left that does something to a terminal.
        if fragment.bytes().all(|byte| byte < 0x7f) {
            return out.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if is_hostile(c) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            } else {
                out.write_all(c.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
        }
        Ok(())
    }
}
