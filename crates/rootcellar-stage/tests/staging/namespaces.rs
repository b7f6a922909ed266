//! User namespaces for tests, made by `unshare(1)`: to map mounts to, and to make mounts in.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use rootcellar_stage::{MountHelper, Owner, UserNamespaces, serve_mounts};

#[derive(Debug)]
pub(crate) struct Unshared;

#[async_trait]
impl UserNamespaces for Unshared {
    async fn of(&self, owner: Owner) -> io::Result<OwnedFd> {
        let mut child = Command::new("unshare")
            .args(["--user", "cat"])
            .stdin(Stdio::piped())
            .spawn()?;
        let proc = format!("/proc/{}", child.id());
        let ours = fs::read_link("/proc/self/ns/user")?;
        while fs::read_link(format!("{proc}/ns/user"))? == ours {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fs::write(format!("{proc}/uid_map"), format!("0 {} 1", owner.uid))?;
        fs::write(format!("{proc}/gid_map"), format!("0 {} 1", owner.gid))?;
        let namespace = File::open(format!("{proc}/ns/user"))?;
        child.kill()?;
        child.wait()?;
        Ok(namespace.into())
    }
}

/// Set in a process that is this test program, started anew to make mounts.
const HELPER: &str = "ROOTCELLAR_TEST_MOUNT_HELPER";

/// Has this program make mounts in a user namespace whose root is this process's user.
pub(crate) fn mount_helper() -> MountHelper {
    MountHelper::new(|| {
        let (ours, theirs) = UnixStream::pair()?;
        // It ends with the other end of its socket; nobody waits for it.
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .arg(std::env::current_exe()?)
            .args(["--exact", "namespaces::the_mount_helper_serves"])
            .env(HELPER, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(ours)
    })
}

/// Not a test of its own: the process that others have make their mounts.
#[test]
fn the_mount_helper_serves() {
    if std::env::var_os(HELPER).is_some() {
        let server = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
        serve_mounts(&server).unwrap();
    }
}
