//! Who is asked for which file: one automaton over all pieces of paths that analyzers name, so that
//! a layer's tens of thousands of files are not shown to each of them.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::Analyzer;

/// Analyzers that an automaton tells apart; further ones are asked for every file.
const TOLD_APART_MAX: usize = 64;

/// All analyzers' pieces.
pub(crate) struct Filter {
    /// `None` where there is no piece, or they make no automaton.
    automaton: Option<AhoCorasick>,
    /// Who named each piece, one bit each.
    of_piece: Vec<u64>,
    /// Who is asked for every file.
    always: u64,
    analyzers: usize,
}

/// Who is asked for one file. Kept from file to file for its memory.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    bits: u64,
    /// Further analyzers than there are bits.
    more: std::ops::Range<usize>,
    path: String,
}

// === impl Filter ===

impl Filter {
    pub(crate) fn new(analyzers: &[Arc<dyn Analyzer>]) -> Self {
        let (mut pieces, mut of_piece, mut always) = (Vec::new(), Vec::<u64>::new(), 0);
        for (at, analyzer) in analyzers.iter().enumerate().take(TOLD_APART_MAX) {
            let of_it = analyzer.pieces();
            if of_it.is_empty() {
                always |= bit(at);
            }
            for piece in of_it {
                pieces.push(piece);
                of_piece.push(bit(at));
            }
        }
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .ascii_case_insensitive(true)
            .build(&pieces);
        // Without it everybody is asked.
        if automaton.is_err() {
            let all = (0..analyzers.len()).map(bit);
            always = all.fold(0, |all, one| all | one);
        }
        Self {
            automaton: automaton.ok().filter(|_| !pieces.is_empty()),
            of_piece,
            always,
            analyzers: analyzers.len(),
        }
    }

    /// Notes who is asked for the file at a path.
    pub(crate) fn ask(&self, path: &str, asked: &mut Asked) {
        asked.bits = self.always;
        asked.more = TOLD_APART_MAX..self.analyzers;
        let Some(automaton) = &self.automaton else {
            return;
        };
        let text = &mut asked.path;
        text.clear();
        text.push('/');
        text.push_str(path);
        text.push('/');
        for piece in automaton.find_overlapping_iter(text.as_str()) {
            let of_it = self.of_piece.get(piece.pattern().as_usize());
            asked.bits |= of_it.copied().unwrap_or_default();
        }
    }
}

// === impl Asked ===

impl Asked {
    /// Nobody is asked.
    pub(crate) fn clear(&mut self) {
        self.bits = 0;
        self.more = 0..0;
    }

    /// The numbers of those who are asked, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        let mut bits = self.bits;
        let told_apart = std::iter::from_fn(move || {
            let first = (bits != 0).then(|| bits.trailing_zeros() as usize);
            bits &= bits.wrapping_sub(1);
            first
        });
        told_apart.chain(self.more.clone())
    }
}

fn bit(at: usize) -> u64 {
    u32::try_from(at)
        .ok()
        .and_then(|at| 1_u64.checked_shl(at))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use archive::{Entry, Limits};
    use model::AnalyzerId;

    use super::*;
    use crate::{Config, File, Found, Malformed, Wanted, analyzer_id};

    struct Asks(AnalyzerId, &'static [&'static str]);

    impl Analyzer for Asks {
        fn id(&self) -> &AnalyzerId {
            &self.0
        }

        fn pieces(&self) -> Vec<&str> {
            self.1.to_vec()
        }

        fn wants(&self, _entry: &Entry<'_>, _head: &[u8]) -> Wanted {
            Wanted::No
        }

        fn analyze(&self, _files: &[File], _found: &mut Found) -> Result<(), Malformed> {
            Ok(())
        }
    }

    fn asked(pieces: &[&'static [&'static str]], path: &str) -> Vec<usize> {
        let id = analyzer_id("asks", 1, &Config::default(), &Limits::default());
        let all = pieces
            .iter()
            .map(|of_it| Arc::new(Asks(id.clone(), of_it)) as Arc<dyn Analyzer>);
        let all: Vec<_> = all.collect();
        let mut asked = Asked::default();
        Filter::new(&all).ask(path, &mut asked);
        asked.iter().collect()
    }

    #[test]
    fn analyzers_are_asked_for_paths_with_their_pieces() {
        let all: &[&[&str]] = &[&["/a/", ".jar/"], &[], &["/libx", ".jar/"], &["jar"]];
        let check =
            |path: &str, expected: &[usize]| assert_eq!(asked(all, path), expected, "{path}");
        check("a", &[0, 1]);
        check("b/a/c", &[0, 1]);
        check("ab", &[1]);
        check("x.jar", &[0, 1, 2, 3]);
        check("x.jars", &[1, 3]);
        check("lib/libx.so", &[1, 2]);
        check("lib/oldlibx.so", &[1]);
    }

    #[test]
    fn more_analyzers_than_bits_are_asked_for_everything() {
        let all: Vec<&[&str]> = (0..TOLD_APART_MAX + 2).map(|_| &["/a/"][..]).collect();
        assert_eq!(asked(&all, "b"), [TOLD_APART_MAX, TOLD_APART_MAX + 1]);
        assert_eq!(asked(&all, "a").len(), all.len());
        assert!(asked(&[], "a").is_empty());
    }
}
