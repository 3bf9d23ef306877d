//! Analyzers that read each of their files by itself: what they all do.

use std::marker::PhantomData;

use archive::{Entry, Limits};
use model::AnalyzerId;

use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id};

/// An analyzer to which no other file says anything of the one that it reads.
pub(crate) trait EachFile: Send + Sync + 'static {
    /// Its name.
    const NAME: &'static str;
    /// The version of its output.
    const VERSION: u32;
    /// As [`Analyzer::pieces`].
    const PIECES: &'static [&'static str] = &[];

    /// Decides as [`Analyzer::wants`].
    fn is_wanted(entry: &Entry<'_>, head: &[u8]) -> bool;

    /// Reads a file and says what it found. What it found before an error is kept.
    fn read(file: &File, found: &mut Found) -> Result<(), Malformed>;
}

/// The analyzer of such a kind.
struct Each<T>(AnalyzerId, PhantomData<T>);

/// Makes it.
pub(crate) fn each<T: EachFile>(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
    let id = analyzer_id(T::NAME, T::VERSION, config, limits);
    Box::new(Each::<T>(id, PhantomData))
}

impl<T: EachFile> Analyzer for Each<T> {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn pieces(&self) -> Vec<&str> {
        T::PIECES.to_vec()
    }

    fn wants(&self, entry: &Entry<'_>, head: &[u8]) -> Wanted {
        if T::is_wanted(entry, head) {
            Wanted::Alone
        } else {
            Wanted::No
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        files.iter().try_for_each(|file| T::read(file, found))
    }
}
