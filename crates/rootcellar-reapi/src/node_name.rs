//! The name of one node in a directory: the only thing of a path that a Directory message may hold.

use std::fmt;

use crate::quoted::Quoted;
use crate::{Error, Result};

/// The longest name, in bytes: what Linux filesystems hold.
pub const NODE_NAME_BYTES_MAX: usize = 255;

/// One segment of a path: not empty, not `.` or `..`, without slash and NUL, and no longer than a filesystem can hold.
///
/// Names are ordered by their bytes, as the API sorts them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Box<str>);

impl NodeName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if it is not one segment of a path, or too long.
    pub fn parse(name: &str) -> Result<Self> {
        check(name)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks that text is a node's name, without keeping it.
pub(crate) fn check(name: &str) -> Result<()> {
    let reason = match name {
        "" => "is empty",
        "." | ".." => "does not name a node",
        _ if name.contains('/') => "holds a slash",
        _ if name.contains('\0') => "holds a NUL",
        _ if name.len() > NODE_NAME_BYTES_MAX => "is longer than filesystems take",
        _ => return Ok(()),
    };
    Err(Error::invalid_argument(format!("the name {} {reason}", Quoted(name))))
}

impl TryFrom<String> for NodeName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        check(&name)?;
        Ok(Self(name.into_boxed_str()))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
