//! What others do with an input root: a link, a clone or a copy for every file.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::IFlags;

use super::tree::Root;

/// Has ext4 make each directory in `dir` in a part of the disk that has few files (`chattr +T`): where many were just removed, it is
/// several times slower, and one farm would be charged with what another one left.
pub(super) fn spread(dir: &Path) {
    let spread = || {
        let dir = File::open(dir)?;
        let flags = rustix::fs::ioctl_getflags(&dir)?;
        rustix::fs::ioctl_setflags(&dir, flags | IFlags::TOPDIR)?;
        Ok::<(), std::io::Error>(())
    };
    // Other filesystems do not know the flag, and do not need it.
    let _is_ext4 = spread().is_ok();
}

/// One way to put a file at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farm {
    HardLink,
    Reflink,
    Copy,
}

impl Farm {
    pub(super) const ALL: [Self; 3] = [Self::HardLink, Self::Reflink, Self::Copy];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HardLink => "hard links",
            Self::Reflink => "reflinks",
            Self::Copy => "copies",
        }
    }

    /// Whether the filesystem of `dir` can do it.
    pub(super) fn works(self, dir: &Path) -> bool {
        let (from, to) = (dir.join("try-from"), dir.join("try-to"));
        fs::write(&from, "tried").expect("a file can be made");
        let works = self.put(&from, &to).is_ok();
        fs::remove_file(from).expect("a file can be removed");
        if works {
            fs::remove_file(to).expect("a file can be removed");
        }
        works
    }

    /// Makes the whole root in a new directory; `sources` are the files of its blobs, in its order.
    pub(super) fn stage(self, root: &Root, sources: &[PathBuf], dir: &Path) {
        for path in &root.directories {
            fs::create_dir(dir.join(path)).expect("a directory can be made");
        }
        for ((path, _), source) in root.files.iter().zip(sources) {
            self.put(source, &dir.join(path)).expect("a file can be made");
        }
    }

    fn put(self, from: &Path, to: &Path) -> std::io::Result<()> {
        match self {
            Self::HardLink => fs::hard_link(from, to),
            Self::Reflink => {
                let (from, to) = (File::open(from)?, File::create_new(to)?);
                Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
            }
            Self::Copy => {
                fs::copy(from, to)?;
                fs::set_permissions(to, fs::Permissions::from_mode(0o755))
            }
        }
    }
}
