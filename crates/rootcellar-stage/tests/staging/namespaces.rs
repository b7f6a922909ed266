//! User namespaces for tests, made by `unshare(1)`.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use rootcellar_stage::{Owner, UserNamespaces};

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
