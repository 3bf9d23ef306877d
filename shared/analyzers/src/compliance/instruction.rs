//! Instructions of a Dockerfile: as written, or as an image's history tells of them (Dockerfile
//! reference; `BuildKit` and the classic builder write the history each in its way).

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    From,
    Run,
    Add,
    Copy,
    Env,
    Arg,
    Label,
    User,
    Expose,
    Volume,
    Healthcheck,
    /// Nothing that is checked.
    Other,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) keyword: Keyword,
    /// What follows the keyword, on one line; of a `RUN` the command alone.
    pub(crate) arguments: String,
    /// Build arguments that the history shows.
    pub(crate) build_arguments: Vec<(String, String)>,
    /// All of it, as it is shown.
    pub(crate) text: String,
    /// The line where it begins, from 1; of a history the number of the step, from 1.
    pub(crate) line: u32,
}

const KEYWORDS: &[(&str, Keyword)] = &[
    ("FROM", Keyword::From),
    ("RUN", Keyword::Run),
    ("ADD", Keyword::Add),
    ("COPY", Keyword::Copy),
    ("ENV", Keyword::Env),
    ("ARG", Keyword::Arg),
    ("LABEL", Keyword::Label),
    ("USER", Keyword::User),
    ("EXPOSE", Keyword::Expose),
    ("VOLUME", Keyword::Volume),
    ("HEALTHCHECK", Keyword::Healthcheck),
    ("CMD", Keyword::Other),
    ("ENTRYPOINT", Keyword::Other),
    ("WORKDIR", Keyword::Other),
    ("SHELL", Keyword::Other),
    ("STOPSIGNAL", Keyword::Other),
    ("ONBUILD", Keyword::Other),
    ("MAINTAINER", Keyword::Other),
];

const SHELLS: &[&str] = &[
    "/bin/sh -c ",
    "/bin/bash -c ",
    "/bin/ash -c ",
    "cmd /S /C ",
    "powershell -Command ",
];

/// Lines of a Dockerfile that are read.
const LINES_MAX: usize = 100_000;

// === impl Instruction ===

impl Instruction {
    /// A step of a history, with its number from 0.
    pub(crate) fn of_history(number: usize, created_by: &str) -> Self {
        let line = u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
        let bare = created_by.trim();
        let bare = bare.strip_suffix("# buildkit").unwrap_or(bare).trim();
        let of = |keyword, arguments: &str, build_arguments| Self {
            keyword,
            arguments: arguments.trim().to_owned(),
            build_arguments,
            text: created_by.to_owned(),
            line,
        };
        // The classic builder: `/bin/sh -c #(nop)  CMD ["sh"]`.
        let shell = SHELLS.iter().find_map(|shell| bare.strip_prefix(shell));
        if let Some(rest) = shell.and_then(|command| command.trim_start().strip_prefix("#(nop)")) {
            let (keyword, arguments) = split_keyword(rest.trim());
            return of(keyword.unwrap_or(Keyword::Other), arguments, Vec::new());
        }
        if let Some(command) = shell {
            return of(Keyword::Run, command, Vec::new());
        }
        let (keyword, rest) = split_keyword(bare);
        // `RUN |1 A=b /bin/sh -c make`, by either builder.
        if let Some(rest) = rest.strip_prefix('|').or_else(|| bare.strip_prefix('|')) {
            let (build_arguments, command) = split_build_arguments(rest);
            return of(Keyword::Run, command, build_arguments);
        }
        match keyword {
            Some(Keyword::Run) => {
                let command = SHELLS.iter().find_map(|shell| rest.strip_prefix(shell));
                of(Keyword::Run, command.unwrap_or(rest), Vec::new())
            }
            Some(keyword) => of(keyword, rest, Vec::new()),
            None => of(Keyword::Other, bare, Vec::new()),
        }
    }

    /// Names and values of an `ENV`, `ARG` or `LABEL`, and build arguments.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs = self.build_arguments.clone();
        if matches!(self.keyword, Keyword::Env | Keyword::Arg | Keyword::Label) {
            pairs.extend(pairs_of(&self.arguments));
        }
        pairs
    }

    /// Arguments that are no flags: of JSON's form too.
    pub(crate) fn words(&self) -> Vec<String> {
        let bare = self.arguments.trim();
        if let Ok(words) = serde_json::from_str::<Vec<String>>(bare) {
            return words;
        }
        let words = words_of(bare).into_iter();
        words.filter(|word| !word.starts_with("--")).collect()
    }
}

/// Reads a Dockerfile. What is no instruction is passed over: builders refuse it.
pub(crate) fn parse(text: &str) -> Vec<Instruction> {
    let escape = escape_of(text);
    let mut instructions = Vec::new();
    let mut lines = text.lines().take(LINES_MAX).zip(1_u32..).peekable();
    while let Some((first, line)) = lines.next() {
        if is_comment(first) || first.trim().is_empty() {
            continue;
        }
        let mut whole = String::new();
        let mut part = first;
        while let Some(start) = part.trim_end().strip_suffix(escape) {
            whole.push_str(start);
            whole.push(' ');
            // Comments and empty lines do not end an instruction.
            while lines
                .next_if(|(next, _)| is_comment(next) || next.trim().is_empty())
                .is_some()
            {}
            let Some((next, _)) = lines.next() else {
                part = "";
                break;
            };
            part = next;
        }
        whole.push_str(part);
        for end in here_documents(&whole) {
            for (inner, _) in lines.by_ref() {
                if inner.trim() == end {
                    break;
                }
                whole.push('\n');
                whole.push_str(inner);
            }
        }
        if let (Some(keyword), arguments) = split_keyword(whole.trim()) {
            instructions.push(Instruction {
                keyword,
                arguments: arguments.trim().to_owned(),
                build_arguments: Vec::new(),
                text: whole.trim().to_owned(),
                line,
            });
        }
    }
    instructions
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// `# escape=` before the first instruction.
fn escape_of(text: &str) -> char {
    let directives = text.lines().take_while(|line| is_comment(line));
    let mut bare = directives.map(|line| {
        line.trim_start_matches(['#', ' '])
            .trim()
            .to_ascii_lowercase()
    });
    if bare.any(|line| line.replace(' ', "") == "escape=`") {
        '`'
    } else {
        '\\'
    }
}

/// The words that end the documents that an instruction begins: `<<EOF`, `<<-"EOF"`.
fn here_documents(text: &str) -> Vec<String> {
    let is_one = split_keyword(text.trim()).0;
    if !matches!(is_one, Some(Keyword::Run | Keyword::Copy | Keyword::Add)) {
        return Vec::new();
    }
    let parts = text.split("<<").skip(1);
    let words = parts.filter_map(|part| {
        let part = part.trim_start_matches('-').trim_start_matches(['"', '\'']);
        let word: String = part
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let begins = word
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        begins.then_some(word)
    });
    words.collect()
}

fn split_keyword(text: &str) -> (Option<Keyword>, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let known = KEYWORDS
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name));
    match known {
        Some((_, keyword)) => (Some(*keyword), rest.trim_start()),
        None => (None, text),
    }
}

/// `2 A=b C=d e /bin/sh -c make`: the pairs, and the command.
fn split_build_arguments(text: &str) -> (Vec<(String, String)>, &str) {
    let shell = SHELLS
        .iter()
        .find_map(|shell| Some((text.find(shell)?, shell.len())));
    let (head, command) = match shell {
        Some((at, length)) => (
            text.get(..at).unwrap_or_default(),
            text.get(at.saturating_add(length)..).unwrap_or_default(),
        ),
        None => (text, ""),
    };
    let pairs = head.trim_start().split_once(' ').map(|(_, pairs)| pairs);
    (pairs_of(pairs.unwrap_or_default()), command)
}

/// `A=b C="d e"`, and the old form `A b c`.
fn pairs_of(text: &str) -> Vec<(String, String)> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'))
    };
    let words = words_of(text);
    let mut pairs: Vec<(String, String)> = Vec::new();
    for word in &words {
        match word.split_once('=') {
            Some((name, value)) if is_name(name) => pairs.push((name.to_owned(), value.to_owned())),
            // The history shows no quotes.
            _ => match pairs.last_mut() {
                Some((_, value)) => {
                    value.push(' ');
                    value.push_str(word);
                }
                None => break,
            },
        }
    }
    if pairs.is_empty()
        && let Some((name, rest)) = words.split_first()
        && is_name(name)
        && !rest.is_empty()
    {
        pairs.push((name.clone(), rest.join(" ")));
    }
    pairs
}

/// Words as a shell splits them, without their quotes.
fn words_of(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut is_word) = (String::new(), None, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (_, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                is_word = true;
            }
            ('\\', None | Some('"')) => {
                word.extend(letters.next());
                is_word = true;
            }
            (_, None) if letter.is_whitespace() => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            _ => {
                word.push(letter);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(text: &str) -> (Keyword, String) {
        let one = Instruction::of_history(0, text);
        (one.keyword, one.arguments)
    }

    #[test]
    fn both_builders_histories_are_read() {
        let check = |text: &str, keyword: Keyword, arguments: &str| {
            assert_eq!(history(text), (keyword, arguments.to_owned()), "{text}");
        };
        check("/bin/sh -c #(nop)  USER app", Keyword::User, "app");
        check(
            "/bin/sh -c #(nop) ADD file:1a2b in / ",
            Keyword::Add,
            "file:1a2b in /",
        );
        check("/bin/sh -c apt-get update", Keyword::Run, "apt-get update");
        check("RUN /bin/sh -c make # buildkit", Keyword::Run, "make");
        check(
            "RUN |1 A=b /bin/sh -c make # buildkit",
            Keyword::Run,
            "make",
        );
        check("|1 A=b /bin/sh -c make", Keyword::Run, "make");
        check("ENV A=b", Keyword::Env, "A=b");
        check("USER 1000", Keyword::User, "1000");
        check(
            "# debian.sh --arch amd64",
            Keyword::Other,
            "# debian.sh --arch amd64",
        );
    }

    #[test]
    fn pairs_are_those_of_env_arg_and_build_arguments() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let pairs = Instruction::of_history(0, text).pairs();
            let expected: Vec<_> = expected
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect();
            assert_eq!(pairs, expected, "{text}");
        };
        check("ENV A=b C=\"d e\"", &[("A", "b"), ("C", "d e")]);
        check("ENV A=b c", &[("A", "b c")]);
        check("ENV A b c", &[("A", "b c")]);
        check("ARG A", &[]);
        check(
            "RUN |2 A=x y B=z /bin/sh -c make",
            &[("A", "x y"), ("B", "z")],
        );
        check("RUN make", &[]);
    }

    #[test]
    fn a_dockerfile_is_read_as_builders_read_it() {
        let text = "# syntax=docker/dockerfile:1\nFROM debian:12 AS a\nRUN apt-get update \\\n  # why\n\n  && true\n\
                    COPY <<EOF /x\nUSER root\nEOF\nuser app\nnonsense\nRUN a \\";
        let found: Vec<_> = parse(text)
            .into_iter()
            .map(|one| (one.keyword, one.line, one.arguments))
            .collect();
        assert_eq!(found[0], (Keyword::From, 2, "debian:12 AS a".to_owned()));
        assert_eq!((found[1].0, found[1].1), (Keyword::Run, 3));
        assert!(found[1].2.ends_with("&& true"), "{}", found[1].2);
        assert_eq!((found[2].0, found[2].1), (Keyword::Copy, 7));
        assert_eq!(found[3], (Keyword::User, 10, "app".to_owned()));
        assert_eq!(found.len(), 5);
        let ticks = "# escape=`\nRUN a `\n b\nUSER c";
        assert_eq!(parse(ticks).len(), 2);
    }
}
