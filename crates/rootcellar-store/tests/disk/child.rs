//! A test that starts its own binary again as a child, to be killed or to be starved.

use std::path::{Path, PathBuf};
use std::process::Command;

const DIR: &str = "ROOTCELLAR_CHILD_DIR";
const JOB: &str = "ROOTCELLAR_CHILD_JOB";

/// What the parent wants of this process, if it is a child.
pub(crate) struct Job {
    pub(crate) dir: PathBuf,
    /// Words that mean something to the test.
    pub(crate) words: Vec<String>,
}

/// The job of this process, if it is a child.
pub(crate) fn job() -> Option<Job> {
    let dir = std::env::var_os(DIR)?.into();
    let words = std::env::var(JOB).unwrap();
    let words = words.split(' ').map(str::to_owned).collect();
    Some(Job { dir, words })
}

/// A command that runs one test of this binary as a child.
pub(crate) fn command(test: &str, dir: &Path, words: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(DIR, dir)
        .env(JOB, words);
    command
}
