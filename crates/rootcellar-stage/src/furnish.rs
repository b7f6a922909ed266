//! What an action needs of its root beyond the input tree: a working directory that is one, and parents of its outputs.

use rootcellar_reapi::{Error, ErrorKind, InputTree, Node, RelPath};
use rustix::io::Errno;

use crate::attributes::Attributes;
use crate::beneath::{Beneath, join, set_mtime};
use crate::write::staging;
use crate::{Owner, StageOptions};

/// The mount points that a tree lacks.
///
/// # Errors
/// `InvalidArgument` if something else is where one should be.
pub(crate) fn missing_mount_points(
    tree: &InputTree,
    mount_points: &'static [&'static str],
) -> Result<Vec<&'static str>, Error> {
    let mut missing = Vec::new();
    for name in mount_points {
        match tree.root().child(name) {
            Some(Node::Directory(_)) => {}
            None => missing.push(*name),
            Some(_) => {
                return Err(Error::invalid_argument(format!(
                    "the input root has a {name:?} that is no directory; the sandbox mounts its own there"
                )));
            }
        }
    }
    Ok(missing)
}

/// Makes mount points in a root that lacks them.
pub(crate) fn make_mount_points(root: &Beneath, names: &[&str], owner: Owner) -> Result<(), Error> {
    for name in names {
        root.make_dir(name)
            .and_then(|()| root.own(name, owner))
            .and_then(|()| root.set_attributes(name, Attributes::of_made_directory()))
            .map_err(|error| staging(name, error))?;
    }
    Ok(())
}

/// Checks and makes what `options` want of a staged root.
pub(crate) fn furnish(root: &Beneath, options: &StageOptions) -> Result<(), Error> {
    check_working_directory(root, &options.working_directory)?;
    options
        .directories
        .iter()
        .try_for_each(|directory| make_dirs(root, directory, options.owner))
}

fn check_working_directory(root: &Beneath, path: &RelPath) -> Result<(), Error> {
    let path = path.as_str();
    root.open_dir(path).map(drop).map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Error::new(
            ErrorKind::InvalidArgument,
            format!("the working directory {path:?} is no directory of the input root"),
        ),
        error => staging(path, error),
    })
}

/// Makes `path` and the directories above it where they are missing. Links on the way lead where they lead inside the root.
fn make_dirs(root: &Beneath, path: &RelPath, owner: Owner) -> Result<(), Error> {
    let mut prefix = String::new();
    for segment in path.components() {
        let parent = std::mem::take(&mut prefix);
        prefix = join(&parent, segment);
        match root.open_dir(&prefix) {
            Ok(_) => continue,
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(no_directory(&prefix)),
            Err(error) => return Err(staging(&prefix, error)),
        }
        make_dir(root, &parent, &prefix, owner).map_err(|error| match error {
            // A link that leads nowhere.
            Errno::EXIST => no_directory(&prefix),
            error => staging(&prefix, error),
        })?;
    }
    Ok(())
}

/// Makes a directory. The one around it keeps its time: the action should not see that something was made.
fn make_dir(root: &Beneath, parent: &str, path: &str, owner: Owner) -> rustix::io::Result<()> {
    // By descriptor: the parent may be where a link leads.
    let parent = root.open_dir(parent)?;
    let before = Attributes::of_stat(&rustix::fs::fstat(&parent)?);
    root.make_dir(path)?;
    root.own(path, owner)?;
    root.set_attributes(path, Attributes::of_made_directory())?;
    set_mtime(&parent, before.mtime)
}

fn no_directory(path: &str) -> Error {
    let reason = format!("an output lies below {path:?}, which is no directory in the input root");
    Error::new(ErrorKind::InvalidArgument, reason)
}
