//! How an image is configured and built, against what benchmarks ask for (CIS Docker Benchmark section
//! 4, NIST SP 800-190 section 4.1).
//!
//! | part | looks at |
//! |---|---|
//! | `accounts` | files of a layer: rights, users, sudo, SSH |
//! | `build` | instructions: of a Dockerfile, or of an image's history |
//! | `image` | the config, the packages, and the secrets of an image that is put together |
//! | `catalog` | what each check says |
//! | `benchmark` | clauses, and whether an image meets them |
//!
//! A check is a line in `catalog` and the code that finds what it is about. Checks of users are
//! data in their policy (`checks:`), and rules of policies ask for all of them by id and clause.

mod accounts;
mod benchmark;
mod build;
mod catalog;
mod image;
mod instruction;
#[cfg(test)]
mod tests;

/// The name of the analyzer of files.
pub(crate) const NAME: &str = "compliance";

pub(crate) use self::{
    accounts::Compliance,
    image::check_image,
    instruction::{Instruction, Keyword, parse},
};
pub use self::{
    benchmark::{Benchmark, Outcome, Status},
    catalog::is_check,
    image::{check_dockerfile, end_of_life},
};
