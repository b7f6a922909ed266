//! Durations as protobuf carries them, within the bounds that protobuf documents.
//!
//! Values from outside are checked before anything is computed with them: a duration of `i64::MIN` seconds has no negative.

use std::time::Duration;

use crate::{Error, Result};

/// The longest `google.protobuf.Duration`: 10,000 years, by which any clock can be advanced.
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;

const NANOS: std::ops::Range<i32> = 0..1_000_000_000;

/// Reads a duration that is not negative.
///
/// # Errors
/// `INVALID_ARGUMENT` if it is negative, too long or malformed.
pub(crate) fn duration(sent: prost_types::Duration) -> Result<Duration> {
    let refused = |reason| {
        Err(Error::invalid_argument(format!(
            "{} s {} ns {reason}",
            sent.seconds, sent.nanos
        )))
    };
    if sent.seconds < 0 || sent.nanos < 0 {
        return refused("is negative");
    }
    if sent.seconds > DURATION_SECONDS_MAX || !NANOS.contains(&sent.nanos) {
        return refused("is no duration");
    }
    Ok(Duration::new(sent.seconds.unsigned_abs(), sent.nanos.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_neither_negative_nor_endless() {
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (i64::MIN, i32::MIN),
            (0, 1_000_000_000),
            (DURATION_SECONDS_MAX + 1, 0),
            (i64::MAX, i32::MAX),
        ] {
            let sent = prost_types::Duration { seconds, nanos };
            assert!(duration(sent).is_err(), "{seconds} s {nanos} ns");
        }
        let longest = prost_types::Duration {
            seconds: DURATION_SECONDS_MAX,
            nanos: 5,
        };
        assert_eq!(duration(longest).unwrap().subsec_nanos(), 5);
    }
}
