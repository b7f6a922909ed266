//! Keeps an action from filling the disk.
//!
//! No filesystem bounds a directory by itself, so what an action has written is looked at while it runs: often at first, and more
//! rarely the longer it takes to look. In between, it can write as much as the disk takes; so the disk's last part is kept free
//! whoever has filled the rest, which also covers files that were removed and are still open.

use std::time::{Duration, Instant};

use rootcellar_reapi::{Error, ErrorKind};
use rootcellar_stage::StagedRoot;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looking takes one part in so many of the time.
const LOOK_PART: u32 = 20;

/// What stays free: so many bytes, or this part of a small disk.
const FREE_BYTES: u64 = 1 << 30;
const FREE_PART: u64 = 50;

/// Ends when an action has to end, and says why.
pub(crate) async fn watch(root: &dyn StagedRoot, bytes_max: Option<u64>) -> Error {
    let mut pause = LOOK_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let begin = Instant::now();
        if let Err(error) = look(root, bytes_max).await {
            return error;
        }
        pause = LOOK_EVERY.max(begin.elapsed() * LOOK_PART);
    }
}

async fn look(root: &dyn StagedRoot, bytes_max: Option<u64>) -> Result<(), Error> {
    let (free, size) = root.disk_room()?;
    let kept = FREE_BYTES.min(size / FREE_PART);
    if free < kept {
        let reason = format!("the worker's disk is full: {free} bytes are free, and {kept} are kept free");
        return Err(Error::new(ErrorKind::ResourceExhausted, reason));
    }
    let Some(bytes_max) = bytes_max else { return Ok(()) };
    if root.written_bytes(bytes_max).await? > bytes_max {
        let reason = format!("the action wrote more than its limit of {bytes_max} bytes to its root");
        return Err(Error::new(ErrorKind::ResourceExhausted, reason));
    }
    Ok(())
}
