//! A small filesystem in memory.

use std::path::Path;
use std::process::Command;

use rootcellar_store::testing;

/// The filesystem, unmounted when dropped.
pub(crate) struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None`, which is told, without the privilege to mount.
    pub(crate) fn new(mebibytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .status();
        if !mount.is_ok_and(|status| status.success()) {
            testing::skip("root, to mount a filesystem");
            return None;
        }
        Some(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Bytes of all files, as of one moment.
    pub(crate) fn used_bytes(&self) -> u64 {
        let filesystem = rustix::fs::statvfs(self.path()).unwrap();
        (filesystem.f_blocks - filesystem.f_bfree) * filesystem.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.path()).status().unwrap();
        assert!(status.success());
    }
}
