//! A Debian system in an archive, made of packages by `mmdebstrap`, which takes the repositories that this machine's apt is configured
//! with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stage::run;
use crate::workspace::target_directory;

/// Where apt may keep the list of its repositories on a Debian 12.
const APT_SOURCES: &[&str] = &["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];

/// What a C program is built with, its manual pages included: a root as large as those that people build in.
const ROOT_PACKAGES: &str = "gcc,libc6-dev,make";

/// What is left out of a system that is only used by programs.
pub(crate) const FOR_PEOPLE: &[&str] = &["doc", "info", "locale", "man"];

/// The root that the end-to-end tests build in; `tests/src/requirement.rs` names it too.
pub(crate) fn root() -> PathBuf {
    target_directory().join("debian-root.tar")
}

/// Makes that root, unless it is there.
pub(crate) fn make_root() -> Result<(), String> {
    make(&root(), ROOT_PACKAGES, &[])
}

/// Makes an archive of a system with these packages, without some of what lies below `/usr/share`.
pub(crate) fn make(archive: &Path, packages: &str, without: &[&str]) -> Result<(), String> {
    if archive.exists() {
        println!("{} is there", archive.display());
        return Ok(());
    }
    let lists: Vec<_> = APT_SOURCES
        .iter()
        .filter(|path| names_a_repository(Path::new(path)))
        .collect();
    if lists.is_empty() {
        return Err(format!("none of {} names a repository", APT_SOURCES.join(", ")));
    }
    let unfinished = archive.with_extension("unfinished.tar");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--quiet", "--variant=essential", "--skip=output/dev"]);
    mmdebstrap.arg(format!("--include={packages}"));
    for unused in without {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{unused}/*"));
    }
    run(mmdebstrap.arg("bookworm").arg(&unfinished).args(lists))?;
    fs::rename(&unfinished, archive).map_err(|error| format!("{}: {error}", archive.display()))
}

fn names_a_repository(list: &Path) -> bool {
    let text = fs::read_to_string(list).unwrap_or_default();
    text.lines()
        .any(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
}
