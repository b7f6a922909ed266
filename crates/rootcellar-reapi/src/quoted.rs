//! Text of clients in messages: quoted, escaped and cut, so that what is wrong with it is not lost behind it.

use std::fmt;

/// Characters of a text that a message repeats. A resource name with the longest hash has fewer.
const CHARS_MAX: usize = 256;

/// Displays text from outside.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((end, _)) = self.0.char_indices().nth(CHARS_MAX) else {
            return write!(f, "{:?}", self.0);
        };
        write!(f, "{:?}... ({} bytes)", &self.0[..end], self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_and_strange_text_escaped() {
        assert_eq!(Quoted("a\n\"ü").to_string(), "\"a\\n\\\"ü\"");
        let cut = Quoted(&"ü".repeat(60_000)).to_string();
        assert!(cut.ends_with("ü\"... (120000 bytes)") && cut.len() < 600, "{cut}");
    }
}
