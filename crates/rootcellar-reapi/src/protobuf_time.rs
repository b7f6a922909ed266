//! Durations and points in time as protobuf carries them, within the bounds that protobuf documents for them.
//!
//! Values from outside are checked before anything is computed with them: a duration of `i64::MIN` seconds has no negative.

use std::time::{Duration, SystemTime};

use crate::{Error, Result};

/// The longest `google.protobuf.Duration`: 10,000 years, by which any clock can be advanced.
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;

/// The seconds that a `google.protobuf.Timestamp` may hold: the years 1 to 9999.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

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

/// Reads a point in time.
///
/// # Errors
/// `INVALID_ARGUMENT` if it lies outside the years 1 to 9999, or is malformed.
pub(crate) fn time(sent: prost_types::Timestamp) -> Result<SystemTime> {
    if !TIMESTAMP_SECONDS.contains(&sent.seconds) || !NANOS.contains(&sent.nanos) {
        return Err(Error::invalid_argument(format!(
            "{} s {} ns is no time",
            sent.seconds, sent.nanos
        )));
    }
    let whole = Duration::from_secs(sent.seconds.unsigned_abs());
    let second = match sent.seconds {
        0.. => SystemTime::UNIX_EPOCH + whole,
        _ => SystemTime::UNIX_EPOCH - whole,
    };
    Ok(second + Duration::from_nanos(sent.nanos.unsigned_abs().into()))
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

    #[test]
    fn a_time_lies_in_the_years_that_protobuf_knows() {
        for (seconds, nanos) in [
            (i64::MIN, 0),
            (i64::MAX, 0),
            (0, -1),
            (0, 1_000_000_000),
            (253_402_300_800, 0),
        ] {
            assert!(
                time(prost_types::Timestamp { seconds, nanos }).is_err(),
                "{seconds} s {nanos} ns"
            );
        }
    }

    #[test]
    fn a_time_before_1970_counts_its_nanoseconds_forward() {
        let sent = prost_types::Timestamp {
            seconds: -2,
            nanos: 500_000_000,
        };
        let before = SystemTime::UNIX_EPOCH.duration_since(time(sent).unwrap()).unwrap();
        assert_eq!(before, Duration::from_millis(1500));
        let after = prost_types::Timestamp { seconds: 2, ..sent };
        let after = time(after).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(after, Duration::from_millis(2500));
    }
}
