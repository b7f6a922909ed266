//! What a node of a staged root looks like to the action, and what is said of one that it left.

use rootcellar_reapi::NodeProperties;
use rustix::fs::{Stat, Timespec};

/// The modification time of everything that has none of its own: 2011-11-11T11:11:11Z, as BuildStream's workers set it. Tools
/// that compare times must find the same ones in every run.
const MTIME: Timespec = Timespec {
    tv_sec: 1_321_009_871,
    tv_nsec: 0,
};

/// The mode of a link, which nobody can change.
const LINK_MODE: u32 = 0o777;

/// Permission bits and modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) mtime: Timespec,
}

impl Attributes {
    pub(crate) fn of_directory(properties: &NodeProperties) -> Self {
        Self::staged(properties, 0o755)
    }

    pub(crate) fn of_file(properties: &NodeProperties, is_executable: bool) -> Self {
        Self::staged(properties, if is_executable { 0o755 } else { 0o644 })
    }

    pub(crate) fn of_link(properties: &NodeProperties) -> Self {
        Self {
            mode: LINK_MODE,
            mtime: mtime(properties),
        }
    }

    /// Of a directory that the input tree does not have.
    pub(crate) fn of_made_directory() -> Self {
        Self::of_directory(&NodeProperties::default())
    }

    /// Of what an action has left.
    pub(crate) fn of_stat(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            mtime: Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: i64::try_from(stat.st_mtime_nsec).expect("less than a second"),
            },
        }
    }

    /// Permission bits only: what comes from outside makes no set-user-id programs.
    fn staged(properties: &NodeProperties, default: u32) -> Self {
        Self {
            mode: properties.unix_mode.map_or(default, |mode| mode & 0o777),
            mtime: mtime(properties),
        }
    }

    /// Whether a file is one that its owner can execute.
    pub(crate) fn is_executable(self) -> bool {
        self.mode & 0o100 != 0
    }
}

fn mtime(properties: &NodeProperties) -> Timespec {
    properties.mtime.map_or(MTIME, |mtime| Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanos.into(),
    })
}
