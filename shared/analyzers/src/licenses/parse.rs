//! The many ways in which licences are joined: SPDX, Debian's synopses, Fedora's old tags, R, Cargo.

use super::names;

/// Parentheses in parentheses.
const DEPTH_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    And,
    Or,
    With,
    /// A comma: what stands on its sides belongs together more than what it parts.
    Comma,
    Word(&'a str),
}

struct Parser<'a> {
    tokens: &'a [Token<'a>],
    depth: usize,
}

/// The SPDX expression of a text; what is none of a known form is one name.
pub(super) fn expression(text: &str) -> String {
    let text = text.trim();
    if let Some(known) = names::known(text) {
        return known;
    }
    let tokens = tokens(text);
    let mut parser = Parser {
        tokens: &tokens,
        depth: 0,
    };
    let parsed = parser.list().filter(|_| parser.tokens.is_empty());
    let parsed = parsed.filter(|text| spdx::Expression::parse(text).is_ok());
    parsed.unwrap_or_else(|| names::reference(text))
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (piece, after) = match first {
            '(' | ')' | ',' | ';' | '|' | '&' => rest.split_at(first.len_utf8()),
            _ if first.is_whitespace() => rest.split_at(first.len_utf8()),
            _ => {
                let is_end = |c: char| c.is_whitespace() || "(),;|&".contains(c);
                rest.split_at(rest.find(is_end).unwrap_or(rest.len()))
            }
        };
        rest = after;
        match piece {
            "(" => tokens.push(Token::Open),
            ")" => tokens.push(Token::Close),
            "," | ";" => tokens.push(Token::Comma),
            "|" => tokens.push(Token::Or),
            "&" => tokens.push(Token::And),
            _ if piece.trim().is_empty() => {}
            _ => word(piece, rest, &mut tokens),
        }
    }
    tokens.dedup_by(|next, before| *next == *before && matches!(next, Token::Or | Token::And));
    tokens
}

fn word<'a>(piece: &'a str, rest: &str, tokens: &mut Vec<Token<'a>>) {
    let next = rest.split_whitespace().next().unwrap_or_default();
    // `GPL-2 or later` is one licence.
    let is_later = ["later", "newer", "any", "(at"]
        .iter()
        .any(|word| next.eq_ignore_ascii_case(word));
    match piece.to_ascii_lowercase().as_str() {
        "and" => tokens.push(Token::And),
        "or" if !is_later => tokens.push(Token::Or),
        "with" => tokens.push(Token::With),
        _ if piece.contains('/') && !piece.contains("://") => {
            let parts: Vec<_> = piece.split('/').collect();
            if parts.iter().any(|part| names::known(part).is_none()) {
                return tokens.push(Token::Word(piece));
            }
            for (at, part) in parts.into_iter().enumerate() {
                if at > 0 {
                    tokens.push(Token::Or);
                }
                tokens.push(Token::Word(part));
            }
        }
        _ => tokens.push(Token::Word(piece)),
    }
}

// === impl Parser ===

impl Parser<'_> {
    fn take(&mut self, wanted: Token<'_>) -> bool {
        match self.tokens.split_first() {
            Some((first, rest)) if *first == wanted => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    /// `A or B, and C`; a comma alone is an `and`.
    fn list(&mut self) -> Option<String> {
        let mut all = self.choice()?;
        while self.take(Token::Comma) {
            let joint = if self.take(Token::Or) {
                "OR"
            } else {
                self.take(Token::And);
                "AND"
            };
            let next = self.choice()?;
            all = format!("{} {joint} {}", grouped(&all), grouped(&next));
        }
        Some(all)
    }

    fn choice(&mut self) -> Option<String> {
        let mut parts = vec![self.all()?];
        while self.take(Token::Or) {
            parts.push(self.all()?);
        }
        Some(parts.join(" OR "))
    }

    fn all(&mut self) -> Option<String> {
        let mut parts = vec![self.operand()?];
        while self.take(Token::And) {
            parts.push(self.operand()?);
        }
        let parts: Vec<_> = if parts.len() > 1 {
            parts
                .iter()
                .map(|part| {
                    if part.contains(" OR ") {
                        grouped(part)
                    } else {
                        part.clone()
                    }
                })
                .collect()
        } else {
            parts
        };
        Some(parts.join(" AND "))
    }

    fn operand(&mut self) -> Option<String> {
        if self.take(Token::Open) {
            self.depth = self
                .depth
                .checked_add(1)
                .filter(|depth| *depth <= DEPTH_MAX)?;
            let inner = self.list()?;
            self.depth = self.depth.saturating_sub(1);
            return self.take(Token::Close).then(|| grouped(&inner));
        }
        let name = self.words();
        if name.is_empty() {
            return None;
        }
        if !self.take(Token::With) {
            return Some(single(&name));
        }
        let exception = self.words();
        let license = names::known(&name).filter(|known| !known.contains(' '));
        match (license, names::exception(&exception)) {
            (Some(license), Some(exception)) => Some(format!("{license} WITH {exception}")),
            _ => Some(names::reference(&format!("{name} with {exception}"))),
        }
    }

    /// Words up to the next operator, and what stands in parentheses behind them.
    fn words(&mut self) -> String {
        let mut words: Vec<&str> = Vec::new();
        loop {
            match self.tokens {
                [Token::Word(word), rest @ ..] => {
                    words.push(word);
                    self.tokens = rest;
                }
                // `GPL (>= 2)`
                [
                    Token::Open,
                    Token::Word(one),
                    Token::Word(two),
                    Token::Close,
                    rest @ ..,
                ] if !words.is_empty() => {
                    words.extend([one, two]);
                    self.tokens = rest;
                }
                [Token::Open, Token::Word(one), Token::Close, rest @ ..] if !words.is_empty() => {
                    words.push(one);
                    self.tokens = rest;
                }
                _ => return words.join(" "),
            }
        }
    }
}

/// One name; or several that stand side by side, as in old Alpine packages.
fn single(name: &str) -> String {
    let name = without_file(name);
    if let Some(known) = names::known(name) {
        return if known.contains(' ') {
            grouped(&known)
        } else {
            known
        };
    }
    let all: Option<Vec<_>> = name.split(' ').map(names::known).collect();
    match all {
        Some(all) if all.len() > 1 => grouped(&all.join(" AND ")),
        _ => names::reference(name),
    }
}

/// R's templates without the file that names their year and holder, and that says nothing else. With
/// any other licence such a file can say what it likes.
fn without_file(name: &str) -> &str {
    let end = name.strip_suffix(" + file LICENSE");
    let end = end.or_else(|| name.strip_suffix(" + file LICENCE"));
    match end {
        Some(template @ ("MIT" | "BSD_2_clause" | "BSD_3_clause")) => template,
        _ => name,
    }
}

fn grouped(text: &str) -> String {
    let is_plain = !text.contains(" AND ") && !text.contains(" OR ");
    if is_plain || text.starts_with('(') && text.ends_with(')') && is_one_group(text) {
        text.to_owned()
    } else {
        format!("({text})")
    }
}

/// Whether the first parenthesis is closed by the last.
fn is_one_group(text: &str) -> bool {
    let mut depth = 0_usize;
    let mut closed = 0_usize;
    for c in text.chars() {
        match c {
            '(' => depth = depth.saturating_add(1),
            ')' => {
                depth = depth.saturating_sub(1);
                closed = closed.saturating_add(usize::from(depth == 0));
            }
            _ => {}
        }
    }
    closed == 1
}
