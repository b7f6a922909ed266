//! The sync mark: up to when everything written is known to be on the disk.
//!
//! ```text
//! <dir>/sync-mark    rootcellar sync mark 1 / boot <boot id> / began <s>.<ns> / state open|clean|failed / synced yes|no
//! ```
//!
//! A mark is written after a sync of the whole filesystem, and `began` is the kernel's time before that sync: the change time
//! of the new mark's own file. A blob's file whose change time is earlier had its content written before the sync began, so
//! the sync has covered it. The mark replaces the one before it by rename, so there is always one whole mark.

use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::home::Home;

const FILE: &str = "sync-mark";
const NEW_FILE: &str = "sync-mark.new";
const TITLE: &str = "rootcellar sync mark 1";

/// A file's change time (`st_ctime`), which only the kernel sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KernelTime {
    seconds: i64,
    nanoseconds: i64,
}

impl KernelTime {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            seconds: metadata.ctime(),
            nanoseconds: metadata.ctime_nsec(),
        }
    }
}

/// What the store was doing when the mark was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Using the disk: there may be later writes.
    Open,
    /// Closing: there are none.
    Clean,
    /// A sync did not succeed, so that not even the page cache can be believed.
    Failed,
}

impl State {
    const ALL: [Self; 3] = [Self::Open, Self::Clean, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Clean => "clean",
            Self::Failed => "failed",
        }
    }
}

/// What is on the disk for sure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) boot: String,
    pub(super) began: KernelTime,
    pub(super) state: State,
    /// Whether each blob since then was synced before it was published.
    pub(super) is_synced: bool,
}

impl Mark {
    /// Reads the mark of a store; `None` if there is none that makes sense, so that nothing is known to be on the disk.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(dir.join(FILE)) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let boot = field("boot")?.to_owned();
        let (seconds, nanoseconds) = field("began")?.split_once('.')?;
        let began = KernelTime {
            seconds: seconds.parse().ok()?,
            nanoseconds: nanoseconds.parse().ok()?,
        };
        let state = field("state")?;
        let state = State::ALL.into_iter().find(|known| known.name() == state)?;
        let is_synced = field("synced")? == "yes";
        Some(Self {
            boot,
            began,
            state,
            is_synced,
        })
    }

    /// Replaces the mark, durably.
    pub(super) fn write(&self, home: &Home) -> io::Result<()> {
        let new = home.path().join(NEW_FILE);
        self.write_to(&mut File::create(&new)?)?;
        fs::rename(new, home.path().join(FILE))?;
        home.sync_entries()
    }

    fn write_to(&self, file: &mut File) -> io::Result<()> {
        let KernelTime { seconds, nanoseconds } = self.began;
        let synced = if self.is_synced { "yes" } else { "no" };
        let (boot, state) = (&self.boot, self.state.name());
        let text = format!("{TITLE}\nboot {boot}\nbegan {seconds}.{nanoseconds:09}\nstate {state}\nsynced {synced}\n");
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    /// Whether all that was published is on the disk for sure.
    pub(super) fn covers_everything(&self) -> bool {
        match self.state {
            State::Clean => true,
            State::Open => self.is_synced,
            State::Failed => false,
        }
    }

    /// Whether a file whose inode changed at `changed` holds what was written to it, seen from a machine booted as `boot`.
    pub(super) fn covers(&self, changed: KernelTime, boot: &str) -> bool {
        // The page cache of this boot is whole, whatever became of the process.
        let is_cached = self.state == State::Open && self.boot == boot;
        is_cached || self.covers_everything() || changed < self.began
    }
}

/// The kernel's time on the store's filesystem now, as it will stamp files from now on.
pub(super) fn kernel_time(home: &Home) -> io::Result<KernelTime> {
    let file = File::create(home.path().join(NEW_FILE))?;
    Ok(KernelTime::of(&file.metadata()?))
}

/// Names this boot of the machine: memory, and what was only in memory, is gone when it changes.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(state: State, is_synced: bool) -> Mark {
        Mark {
            boot: "this".to_owned(),
            began: at(100),
            state,
            is_synced,
        }
    }

    fn at(seconds: i64) -> KernelTime {
        KernelTime {
            seconds,
            nanoseconds: 5,
        }
    }

    #[test]
    fn what_a_crash_of_the_machine_may_have_torn_is_not_covered() {
        let open = mark(State::Open, false);
        assert!(open.covers(at(99), "other"));
        assert!(!open.covers(at(100), "other"), "the same instant may be later");
        assert!(!open.covers(at(101), "other"));
        assert!(open.covers(at(101), "this"), "the page cache outlives the process");
        assert!(mark(State::Open, true).covers(at(101), "other"), "synced one by one");
        assert!(mark(State::Clean, false).covers(at(101), "other"));
        assert!(!mark(State::Failed, true).covers(at(101), "this"));
        assert!(mark(State::Failed, true).covers(at(99), "this"));
    }

    #[test]
    fn a_mark_reads_back_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::claim(dir.path()).unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap(), None);
        for state in State::ALL {
            mark(state, true).write(&home).unwrap();
            assert_eq!(Mark::read(dir.path()).unwrap(), Some(mark(state, true)));
        }
        let text = fs::read(dir.path().join(FILE)).unwrap();
        for len in 0..text.len() - 1 {
            fs::write(dir.path().join(FILE), &text[..len]).unwrap();
            if let Some(read) = Mark::read(dir.path()).unwrap() {
                assert!(!read.is_synced, "cut off after {len} bytes");
            }
        }
        fs::write(dir.path().join(FILE), b"\xff\xff").unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap(), None);
    }
}
