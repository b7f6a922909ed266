//! What a test needs from the machine, and what happens where that is missing.
//!
//! A missing requirement skips the test and says so on the real standard error, past the test runner's capture.
//! With `ROOTCELLAR_REQUIRE_ALL=1`, which CI sets, it fails the test: a machine that can run a test must run it.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The BuildStream release that the end-to-end tests speak to.
const BUILDSTREAM_VERSION: &str = "2.8.1";

/// Returns what is there, or reports why the calling test skips.
///
/// # Panics
///
/// When the requirement is missing and `ROOTCELLAR_REQUIRE_ALL` forbids skipping.
pub fn need<T>(requirement: Result<T, String>) -> Option<T> {
    let missing = match requirement {
        Ok(found) => return Some(found),
        Err(missing) => missing,
    };
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        env::var_os("ROOTCELLAR_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{test} may not be skipped here: {missing}"
    );
    // A closed standard error leaves nobody to tell.
    writeln!(io::stderr(), "skipped {test}: {missing}").ok();
    None
}

/// The path of a `rootcellar` binary.
#[derive(Clone, Debug)]
pub struct ServerProgram(pub(crate) PathBuf);

impl ServerProgram {
    /// Finds the binary: `ROOTCELLAR_BIN`, else the one built beside this test.
    ///
    /// # Errors
    ///
    /// The sentence that tells how to get one.
    pub fn find() -> Result<Self, String> {
        let path = match env::var_os("ROOTCELLAR_BIN") {
            Some(path) => PathBuf::from(path),
            None => profile_directory()?.join("rootcellar"),
        };
        existing(path, "cargo xtask e2e").map(Self)
    }
}

/// The path of a `bst` command of the one BuildStream release these tests are written for.
#[derive(Clone, Debug)]
pub struct BstProgram(pub(crate) PathBuf);

impl BstProgram {
    /// Finds the command: `ROOTCELLAR_BST`, else the one that `cargo xtask setup` installed.
    ///
    /// # Errors
    ///
    /// The sentence that tells how to get one.
    pub fn find() -> Result<Self, String> {
        let path = match env::var_os("ROOTCELLAR_BST") {
            Some(path) => PathBuf::from(path),
            None => target_directory()?.join(format!("buildstream-{BUILDSTREAM_VERSION}/bin/bst")),
        };
        let path = existing(path, "cargo xtask setup")?;
        // BuildStream asks its local sandbox what it can do before it builds, remotely too.
        let directories = env::var_os("PATH").unwrap_or_default();
        if !env::split_paths(&directories).any(|directory| directory.join("bwrap").exists()) {
            return Err("bwrap is not on the PATH; `cargo xtask setup` installs bubblewrap".to_owned());
        }
        Ok(Self(path))
    }
}

/// The archive of a Debian system with a C compiler.
#[derive(Clone, Debug)]
pub struct DebianRoot(pub(crate) PathBuf);

impl DebianRoot {
    /// Finds the archive: `ROOTCELLAR_DEBIAN_ROOT`, else the one that `cargo xtask setup` made.
    ///
    /// # Errors
    ///
    /// The sentence that tells how to get one.
    pub fn find() -> Result<Self, String> {
        let path = match env::var_os("ROOTCELLAR_DEBIAN_ROOT") {
            Some(path) => PathBuf::from(path),
            None => target_directory()?.join("debian-root.tar"),
        };
        existing(path, "cargo xtask setup").map(Self)
    }
}

/// Finds a busybox that runs in a root of its own: one without an interpreter to load.
///
/// # Errors
///
/// The sentence that tells how to get one.
pub(crate) fn static_busybox() -> Result<PathBuf, String> {
    let path = existing(PathBuf::from("/bin/busybox"), "cargo xtask setup")?;
    let bytes = fs::read(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    // The path of the dynamic loader stands in the first page of every program that has one.
    let head = &bytes[..bytes.len().min(4096)];
    if head.windows(8).any(|window| window == b"ld-linux") {
        return Err(format!("{} is not static; install busybox-static", path.display()));
    }
    Ok(path)
}

fn existing(path: PathBuf, remedy: &str) -> Result<PathBuf, String> {
    if path.exists() {
        return Ok(path);
    }
    Err(format!("{} does not exist; `{remedy}` makes it", path.display()))
}

/// The directory of cargo's profile, from `<target>/<profile>/deps/<this test>`.
fn profile_directory() -> Result<PathBuf, String> {
    let test = env::current_exe().map_err(|error| format!("the path of this test is unknown: {error}"))?;
    let profile = test
        .parent()
        .and_then(Path::parent)
        .ok_or("this test has no directory")?;
    Ok(profile.to_owned())
}

fn target_directory() -> Result<PathBuf, String> {
    let profile = profile_directory()?;
    Ok(profile.parent().ok_or("the profile has no directory")?.to_owned())
}
