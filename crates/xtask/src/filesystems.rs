//! Filesystems of other kinds than the one of this machine, each in a file below the target directory: roots are staged on them, too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::is_root;
use crate::stage::{run, succeeds};
use crate::workspace::target_directory;

/// A kind of filesystem, and how one is made.
pub(crate) struct Filesystem {
    /// As the kernel names it.
    pub(crate) name: &'static str,
    mkfs: &'static [&'static str],
}

/// Those that the README names beside ext4.
pub(crate) const XFS: Filesystem = Filesystem {
    name: "xfs",
    mkfs: &["mkfs.xfs", "-q", "-f"],
};
pub(crate) const BTRFS: Filesystem = Filesystem {
    name: "btrfs",
    mkfs: &["mkfs.btrfs", "-q", "-f"],
};

/// What a filesystem may take. The file has holes, and takes what is written.
const BYTES: u64 = 8 << 30;

impl Filesystem {
    /// Runs `test` with a directory on such a filesystem, which is gone afterwards; or says why there is none.
    pub(crate) fn with(&self, test: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
        if !is_root() {
            println!("skipped: {} can be mounted by root only", self.name);
            return Ok(());
        }
        if !Path::new("/dev/loop-control").exists() {
            println!("skipped: this machine has no loop devices");
            return Ok(());
        }
        let mounted = Mounted::make(self)?;
        if mounted.is_none() {
            println!("skipped: this kernel has no {}", self.name);
        }
        mounted.map_or(Ok(()), |mounted| test(&mounted.dir))
    }

    fn is_in_kernel(&self) -> bool {
        let all = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        all.split_whitespace().any(|name| name == self.name)
    }
}

/// A filesystem that is mounted until this is dropped.
struct Mounted {
    image: PathBuf,
    dir: PathBuf,
}

impl Mounted {
    /// `None` if the kernel does not know it.
    fn make(filesystem: &Filesystem) -> Result<Option<Self>, String> {
        let dir = target_directory().join("filesystems").join(filesystem.name);
        let mounted = Self {
            image: dir.with_extension("image"),
            dir,
        };
        // An earlier run may have been killed.
        mounted.unmount();
        let failed = |error| format!("{}: {error}", mounted.image.display());
        fs::create_dir_all(&mounted.dir).map_err(failed)?;
        let image = File::create(&mounted.image).map_err(failed)?;
        image.set_len(BYTES).map_err(failed)?;
        let (program, arguments) = filesystem.mkfs.split_first().expect("a program");
        run(Command::new(program).args(arguments).arg(&mounted.image))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", filesystem.name, "-o", "loop"]);
        match run(mount.arg(&mounted.image).arg(&mounted.dir)) {
            Ok(()) => Ok(Some(mounted)),
            // Mounting has the kernel look for a module of it.
            Err(_) if !filesystem.is_in_kernel() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn unmount(&self) {
        succeeds(Command::new("umount").arg(&self.dir));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
        if let Err(error) = fs::remove_file(&self.image) {
            eprintln!("{}: {error}", self.image.display());
        }
    }
}
