//! An image as a detached mount, and an overlay on top of it. Nothing is attached to the machine's tree of mounts.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// A file without a name, with the image in it.
pub fn image_file(dir: &Path, image: &[u8]) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(dir)?;
    file.write_all(image)?;
    Ok(file)
}

pub fn erofs(image: &File, packs: &[File]) -> io::Result<OwnedFd> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    let path = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    fsconfig_set_string(context.as_fd(), "source", path(image))?;
    for pack in packs {
        fsconfig_set_string(context.as_fd(), "device", path(pack))?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )?)
}

/// An overlay with an upper directory of its own, which goes when it is dropped.
pub struct Overlay {
    pub root: Option<OwnedFd>,
    upper: PathBuf,
}

impl Overlay {
    pub fn mount(erofs: &OwnedFd, dir: &Path) -> io::Result<Self> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let upper = dir.join(format!("stage-{number}"));
        fs::create_dir_all(upper.join("upper"))?;
        fs::create_dir_all(upper.join("work"))?;
        let open = |path: PathBuf| rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        for (key, value) in [
            ("metacopy", "off"),
            ("redirect_dir", "off"),
            ("index", "off"),
            ("xino", "on"),
        ] {
            fsconfig_set_string(context, key, value)?;
        }
        fsconfig_set_flag(context, "volatile")?;
        fsconfig_set_fd(context, "lowerdir+", erofs.as_fd())?;
        fsconfig_set_fd(context, "datadir+", open(dir.join("loose"))?.as_fd())?;
        fsconfig_set_fd(context, "upperdir", open(upper.join("upper"))?.as_fd())?;
        fsconfig_set_fd(context, "workdir", open(upper.join("work"))?.as_fd())?;
        fsconfig_create(context)?;
        let root = fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        Ok(Self {
            root: Some(root),
            upper,
        })
    }

    pub fn root(&self) -> &OwnedFd {
        self.root.as_ref().expect("mounted until it is dropped")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        drop(self.root.take());
        // What stays behind goes with the scratch directory.
        let _left = fs::remove_dir_all(&self.upper);
    }
}

pub fn c_path(path: &str) -> CString {
    CString::new(path).expect("a path without zero bytes")
}
