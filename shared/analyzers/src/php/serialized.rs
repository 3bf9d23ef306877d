//! Values as PHP's `serialize` writes them, as far as records of packages have them.

/// Arrays in arrays. Records have five.
const DEPTH_MAX: u32 = 32;

/// A value.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Text(&'a [u8]),
    Array(Vec<(&'a [u8], Value<'a>)>),
    /// A number, a truth value, nothing.
    Other,
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

// === impl Value ===

impl<'a> Value<'a> {
    /// Reads the value that bytes begin with.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        Rest(bytes).value(0)
    }

    /// The value of a key; the first of those that are the same.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Array(values) = self else {
            return None;
        };
        let mut values = values.iter();
        let found = values.find(|(name, _)| *name == key.as_bytes());
        found.map(|(_, value)| value)
    }

    /// The text that it is, if it is not empty.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) if !text.is_empty() => {
                Some(String::from_utf8_lossy(text).into_owned())
            }
            _ => None,
        }
    }
}

// === impl Rest ===

impl<'a> Rest<'a> {
    fn value(&mut self, depth: u32) -> Result<Value<'a>, &'static str> {
        if depth > DEPTH_MAX {
            return Err("it is nested too deep");
        }
        match self.take(2)? {
            b"N;" => Ok(Value::Other),
            b"i:" | b"b:" | b"d:" => self.until(b';').map(|_| Value::Other),
            b"s:" => self.text().map(Value::Text),
            b"a:" => self.array(depth),
            _ => Err("it has a value that is no text, number or list"),
        }
    }

    /// `LENGTH:"TEXT";`
    fn text(&mut self) -> Result<&'a [u8], &'static str> {
        let length = self.number()?;
        self.expect(b"\"")?;
        let text = self.take(length)?;
        self.expect(b"\";")?;
        Ok(text)
    }

    /// `LENGTH:{KEY VALUE …}`
    fn array(&mut self, depth: u32) -> Result<Value<'a>, &'static str> {
        let length = self.number()?;
        self.expect(b"{")?;
        // Memory is taken for what comes, not for what is said to come.
        let mut values = Vec::new();
        for _ in 0..length {
            let key = match self.take(2)? {
                b"i:" => self.until(b';')?,
                b"s:" => self.text()?,
                _ => return Err("a list has a key that is no text or number"),
            };
            values.push((key, self.value(depth.saturating_add(1))?));
        }
        self.expect(b"}")?;
        Ok(Value::Array(values))
    }

    fn number(&mut self) -> Result<usize, &'static str> {
        let digits = std::str::from_utf8(self.until(b':')?);
        let number = digits.ok().and_then(|digits| digits.parse().ok());
        number.ok_or("a length is no number")
    }

    fn until(&mut self, end: u8) -> Result<&'a [u8], &'static str> {
        let at = self.0.iter().position(|byte| *byte == end);
        let value = self.take(at.ok_or("it ends too early")?)?;
        self.take(1)?;
        Ok(value)
    }

    fn expect(&mut self, expected: &[u8]) -> Result<(), &'static str> {
        if self.take(expected.len())? == expected {
            Ok(())
        } else {
            Err("it is not in the form that PHP writes")
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_php_writes_them() {
        let bytes = b"a:4:{s:4:\"name\";s:5:\"redis\";i:0;b:1;s:1:\"n\";N;s:1:\"v\";a:1:{s:1:\"r\";d:0.5;}}";
        let value = Value::parse(bytes).unwrap();
        assert_eq!(
            value.get("name").and_then(Value::text).as_deref(),
            Some("redis")
        );
        assert!(value.get("v").is_some_and(|inner| inner.get("r").is_some()));
        assert!(value.get("0").is_some_and(|inner| inner.text().is_none()));
        assert!(value.get("x").is_none());
    }

    #[test]
    fn what_lies_about_its_length_is_refused() {
        for bytes in [
            &b""[..],
            b"s:9:\"short\";",
            b"s:-1:\"\";",
            b"a:99999999999:{}",
            b"a:18446744073709551615:{i:0;N;",
            b"a:1:{a:0:{}N;}",
            b"O:8:\"stdClass\":0:{}",
            b"s:1:\"ab\";",
        ] {
            assert!(Value::parse(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| {
            format!("{}N;{}", "a:1:{i:0;".repeat(depth), "}".repeat(depth)).into_bytes()
        };
        assert!(Value::parse(&nested(DEPTH_MAX as usize)).is_ok());
        assert!(Value::parse(&nested(DEPTH_MAX as usize + 1)).is_err());
        assert!(Value::parse(&nested(100_000)).is_err());
    }
}
