//! Single questions with a goal each: what the engine costs beside what nobody can avoid.
//!
//! Each is answered as a ratio in one run, or against a limit. `docs/benchmarks.md` has the answers, and how near each is to what the
//! machine can do at all.

mod action_cache;
mod always;
mod full;
mod get;
mod large;
mod million;
mod put;

use std::path::Path;
use std::sync::Arc;

use rootcellar_store::DiskOptions;
use rootcellar_store::layout::{HybridKind, LayoutKind, LooseKind};

use crate::candidate::DiskCandidate;
use crate::report::Figure;

/// Answers a question, or some that belong together.
pub type Question = fn(&Ground<'_>) -> Vec<Figure>;

/// What is asked, by a name for the command line.
pub const QUESTIONS: [(&str, Question); 7] = [
    ("put", put::figures),
    ("always", always::figures),
    ("get", get::figures),
    ("million", million::figures),
    ("large", large::figures),
    ("full", full::figures),
    ("action-cache", action_cache::figures),
];

/// Where figures are made, and how large.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// A directory on the disk that is measured.
    pub dir: &'a Path,
    /// What everything is divided by, for a quick look: the answers are less exact then. 1 is the real thing.
    pub shrink: u64,
}

impl Ground<'_> {
    /// A new directory, which goes with what is returned.
    pub(crate) fn fresh(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(self.dir).expect("a directory for a store")
    }

    pub(crate) fn shrunk(&self, count: usize) -> usize {
        let shrink = usize::try_from(self.shrink).unwrap_or(usize::MAX);
        (count / shrink).max(1)
    }
}

pub(crate) fn hybrid() -> DiskCandidate {
    DiskCandidate::new(Arc::new(HybridKind::default()))
}

fn loose() -> DiskCandidate {
    DiskCandidate::new(Arc::new(LooseKind))
}

pub(crate) fn options(layout: Arc<dyn LayoutKind>) -> DiskOptions {
    DiskCandidate::new(layout).options
}
