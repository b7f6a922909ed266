//! Node properties: what a tree says about a node beside its content.
//!
//! Known here are the time of modification, the permissions, and `SubtreeReadOnly`, which BuildStream sets on directories.
//! Other properties have no effect and are passed over: a client may know more of them than this server.

use std::fmt;

use rootcellar_proto::reapi;

use crate::quoted::Quoted;
use crate::{Error, Result};

/// The string property that makes a directory and all below it read-only or writable for the command.
pub const SUBTREE_READ_ONLY: &str = "SubtreeReadOnly";

/// The seconds that a `google.protobuf.Timestamp` may hold: the years 1 to 9999.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The bits of a mode that are permissions, set-id and sticky bits included.
const MODE_BITS: u32 = 0o7777;

/// The properties of one node that have an effect; all are absent by default.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NodeProperties {
    /// When the node was modified last, within the years 1 to 9999.
    pub mtime: Option<prost_types::Timestamp>,
    /// The permissions, 12 bits.
    pub unix_mode: Option<u32>,
    /// Whether a directory and all below it are read-only for the command.
    pub subtree_read_only: Option<bool>,
}

impl NodeProperties {
    /// Checks the known properties of a message.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if a known property has a value that it cannot have.
    pub fn from_proto(properties: &reapi::NodeProperties) -> Result<Self> {
        let subtree_read_only = properties
            .properties
            .iter()
            .find(|property| property.name == SUBTREE_READ_ONLY)
            .map(|property| read_bool(&property.value))
            .transpose()?;
        Ok(Self {
            mtime: properties.mtime.map(checked_timestamp).transpose()?,
            unix_mode: properties.unix_mode.map(|mode| mode & MODE_BITS),
            subtree_read_only,
        })
    }
}

fn read_bool(value: &str) -> Result<bool> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(invalid(SUBTREE_READ_ONLY, Quoted(value))),
    }
}

fn checked_timestamp(timestamp: prost_types::Timestamp) -> Result<prost_types::Timestamp> {
    if TIMESTAMP_SECONDS.contains(&timestamp.seconds) && (0..1_000_000_000).contains(&timestamp.nanos) {
        return Ok(timestamp);
    }
    Err(invalid(
        "mtime",
        format_args!("{} s {} ns", timestamp.seconds, timestamp.nanos),
    ))
}

fn invalid(property: &str, value: impl fmt::Display) -> Error {
    Error::invalid_argument(format!("node property {property} cannot be {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_properties_are_read_and_others_passed_over() {
        let property = |name: &str, value: &str| reapi::NodeProperty {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let message = reapi::NodeProperties {
            properties: vec![property("Colour", "green"), property(SUBTREE_READ_ONLY, "true")],
            mtime: Some(prost_types::Timestamp { seconds: 7, nanos: 5 }),
            unix_mode: Some(0o100_755),
        };
        let properties = NodeProperties::from_proto(&message).unwrap();
        assert_eq!(properties.subtree_read_only, Some(true));
        assert_eq!(properties.unix_mode, Some(0o755));
        assert_eq!(properties.mtime.map(|mtime| mtime.nanos), Some(5));
    }

    #[test]
    fn a_time_that_no_clock_shows_is_refused() {
        for (seconds, nanos) in [(0, -1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, 0)] {
            let message = reapi::NodeProperties {
                mtime: Some(prost_types::Timestamp { seconds, nanos }),
                ..Default::default()
            };
            assert!(NodeProperties::from_proto(&message).is_err(), "{seconds} {nanos}");
        }
    }
}
