//! A project of `tests/projects`, copied so that a test can build in it and change it.
//!
//! The base system of every project is made here, from the machine's static busybox: a program, a link for each of
//! its applets, and two files in `/etc`. No binary is in git.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::requirement::{DebianRoot, static_busybox};

/// A private copy of a project.
#[derive(Debug)]
pub struct Project {
    directory: TempDir,
}

impl Project {
    /// Copies the project `name` and fills its `files/base`.
    ///
    /// # Errors
    ///
    /// The sentence that says what this machine lacks.
    ///
    /// # Panics
    ///
    /// When the copy cannot be made.
    pub fn copy_of(name: &str) -> Result<Self, String> {
        let busybox = static_busybox()?;
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        copy_tree(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("projects").join(name),
            directory.path(),
        );
        make_base(&busybox, &directory.path().join("files/base"));
        Ok(Self { directory })
    }

    /// Copies the project `name`, and gives it a base element that imports a Debian root.
    ///
    /// # Panics
    ///
    /// When the copy cannot be made.
    #[must_use]
    pub fn on_debian(name: &str, root: &DebianRoot) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        copy_tree(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("projects").join(name),
            directory.path(),
        );
        let project = Self { directory };
        let sum = Command::new("sha256sum").arg(&root.0).output().expect("sha256sum runs");
        let sum = String::from_utf8(sum.stdout).expect("a digest is plain text");
        let sum = sum.split_whitespace().next().expect("sha256sum says something");
        let archive = root.0.display();
        let source = format!("- kind: tar\n  base-dir: ''\n  url: file://{archive}\n  ref: {sum}\n");
        project.write("elements/base.bst", &format!("kind: import\n\nsources:\n{source}"));
        project
    }

    /// Where the project lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes `text` to a file of the project, making its directories.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &str, text: &str) -> PathBuf {
        let full = self.path().join(path);
        fs::create_dir_all(full.parent().expect("a file of the project lies below it"))
            .and_then(|()| fs::write(&full, text))
            .unwrap_or_else(|error| panic!("{} cannot be written: {error}", full.display()));
        full
    }
}

fn make_base(busybox: &Path, base: &Path) {
    let programs = base.join("bin");
    fs::create_dir_all(&programs).expect("the copy is writable");
    fs::copy(busybox, programs.join("busybox")).expect("the copy has room for busybox");
    let list = Command::new(busybox).arg("--list").output().expect("busybox runs");
    let applets = String::from_utf8(list.stdout).expect("applets have plain names");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", programs.join(applet)).expect("every applet has a name of its own");
    }
    let settings = base.join("etc");
    fs::create_dir_all(&settings).expect("the copy is writable");
    for (name, text) in [("hostname", "kitchen\n"), ("unwanted", "to be removed\n")] {
        fs::write(settings.join(name), text).expect("the copy is writable");
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the copy's directory can be made");
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("the project can be listed");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("the project can be listed").is_dir() {
            copy_tree(&entry.path(), &target);
            continue;
        }
        fs::copy(entry.path(), target).expect("the project can be copied");
    }
}
