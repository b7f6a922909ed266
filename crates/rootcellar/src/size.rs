//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

/// A number of bytes, written with an optional unit: `50GiB`, `1TB`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(crate) struct Size(#[schemars(with = "String")] pub(crate) u64);

const UNITS: [(&str, u64); 11] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = UNITS
            .iter()
            .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?.trim_end(), *bytes)))
            .unwrap_or((text, 1));
        let number: u64 = number
            .parse()
            .map_err(|_| format!("{text:?} is no size such as 50GiB"))?;
        number
            .checked_mul(unit)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is more than can be counted"))
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS[..5].iter().rev().find(|(_, bytes)| self.0 >= *bytes);
        match unit {
            Some((unit, bytes)) if self.0.is_multiple_of(*bytes) => write!(f, "{} {unit}", self.0 / bytes),
            #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
            Some((unit, bytes)) => write!(f, "{:.1} {unit}", self.0 as f64 / *bytes as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!("50GiB".parse(), Ok(Size(50 << 30)));
        assert_eq!("1 TB".parse(), Ok(Size(1_000_000_000_000)));
        assert_eq!("4096".parse(), Ok(Size(4096)));
        for bad in ["", "GiB", "-1", "1.5GiB", "20000PiB", "5 apples"] {
            assert!(bad.parse::<Size>().is_err(), "{bad:?} was taken for a size");
        }
    }

    #[test]
    fn sizes_are_written_short() {
        assert_eq!(Size(50 << 30).to_string(), "50 GiB");
        assert_eq!(Size(1536).to_string(), "1.5 KiB");
        assert_eq!(Size(7).to_string(), "7 B");
    }
}
