//! Instance names: which of a server's instances a request is for.
//!
//! A name is empty or holds segments separated by slashes. No segment is a word that resource names are parsed by.

use std::fmt;

use crate::quoted::Quoted;
use crate::{Error, Result};

/// Words that end the instance in a resource name, so that no instance can hold them (REAPI, `resource_name` in `Read`).
pub const RESERVED_SEGMENTS: [&str; 7] = [
    "blobs",
    "uploads",
    "actions",
    "actionResults",
    "operations",
    "capabilities",
    "compressed-blobs",
];

/// The longest instance name, in bytes.
pub const INSTANCE_NAME_BYTES_MAX: usize = 1024;

/// A checked instance name. The default one is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceName(String);

impl InstanceName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if a segment is empty, reserved or holds a control character,
    /// or if the name is longer than [`INSTANCE_NAME_BYTES_MAX`].
    pub fn parse(name: &str) -> Result<Self> {
        if name.len() > INSTANCE_NAME_BYTES_MAX {
            let len = name.len();
            return Err(Error::invalid_argument(format!(
                "the instance name has {len} bytes; at most {INSTANCE_NAME_BYTES_MAX} are allowed"
            )));
        }
        if name.is_empty() {
            return Ok(Self::default());
        }
        name.split('/').try_for_each(|segment| check_segment(name, segment))?;
        Ok(Self(name.to_owned()))
    }

    /// The name as it came.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the unnamed instance.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a resource name of this instance begins with: the name and a slash, or nothing.
    pub(crate) fn prefix(&self) -> InstancePrefix<'_> {
        InstancePrefix(&self.0)
    }
}

fn check_segment(name: &str, segment: &str) -> Result<()> {
    let reason = if segment.is_empty() {
        "has an empty segment".to_owned()
    } else if RESERVED_SEGMENTS.contains(&segment) {
        format!("holds the reserved segment {segment:?}")
    } else if segment.chars().any(char::is_control) {
        "holds a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::invalid_argument(format!(
        "instance name {} {reason}",
        Quoted(name)
    )))
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) struct InstancePrefix<'a>(&'a str);

impl fmt::Display for InstancePrefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            name => write!(f, "{name}/"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_segments_but_no_reserved_ones() {
        for good in ["", "main", "main/sub", "blobs2", "x/Uploads", "ünï/ code"] {
            assert_eq!(InstanceName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "/",
            "/main",
            "main/",
            "a//b",
            "a/\n",
            "blobs",
            "a/compressed-blobs/b",
            "a/actionResults",
        ] {
            assert!(
                InstanceName::parse(bad).is_err(),
                "{bad:?} was taken for an instance name"
            );
        }
        assert!(InstanceName::parse(&"x".repeat(INSTANCE_NAME_BYTES_MAX + 1)).is_err());
    }
}
