//! What is checked: the text of the code, each crate by itself, and the whole with real clients.

use std::path::Path;

use crate::filesystems::{BTRFS, XFS};
use crate::stage::{Stages, run};
use crate::workspace::{cargo, server};
use crate::{buildstream, debian};

/// Formatting, clippy and documentation, each without a warning.
pub(crate) fn lint(stages: &mut Stages) -> Result<(), String> {
    stages.run("lint: format", || run(&mut cargo(&["fmt", "--all", "--check"])))?;
    stages.run("lint: clippy", || {
        run(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    stages.run("lint: documentation", || {
        run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    })
}

/// The tests of every crate but the end-to-end package.
pub(crate) fn unit(stages: &mut Stages) -> Result<(), String> {
    let build = ["test", "--workspace", "--exclude", "rootcellar-tests", "--no-run"];
    stages.run("unit tests: build", || run(&mut cargo(&build)))?;
    let test = ["test", "--workspace", "--exclude", "rootcellar-tests"];
    stages.run("unit tests", || run(&mut cargo(&test)))?;
    stages.run("staging on xfs", || XFS.with(staging))?;
    stages.run("staging on btrfs", || BTRFS.with(staging))
}

/// The tests of staging, with everything that they make in `dir`.
fn staging(dir: &Path) -> Result<(), String> {
    // Of the whole workspace, so that nothing is built with other features.
    let test = [
        "test",
        "--workspace",
        "--exclude",
        "rootcellar-tests",
        "--test",
        "staging",
    ];
    run(cargo(&test).env("TMPDIR", dir))
}

/// The end-to-end package, told where the server and BuildStream are. `filter` goes to the test runner.
pub(crate) fn end_to_end(stages: &mut Stages, filter: &[String]) -> Result<(), String> {
    stages.run("end-to-end tests: build", || {
        run(&mut cargo(&["build", "--package", "rootcellar"]))?;
        run(&mut cargo(&["test", "--package", "rootcellar-tests", "--no-run"]))
    })?;
    stages.run("end-to-end tests", || {
        let mut test = cargo(&["test", "--package", "rootcellar-tests", "--"]);
        test.args(filter)
            .env("ROOTCELLAR_BIN", server())
            .env("ROOTCELLAR_BST", buildstream::bst())
            .env("ROOTCELLAR_DEBIAN_ROOT", debian::root());
        run(&mut test)
    })
}
