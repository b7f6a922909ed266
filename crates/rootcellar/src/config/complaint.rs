//! What is wrong with a file: the line, the key, and the nearest key that there is.

use std::fmt;

/// A fault of a configuration file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// Counted from 1; `None` if the whole is meant.
    line: Option<usize>,
    message: String,
}

impl Complaint {
    /// Says where in `text` the fault is. What the line holds is not repeated: it may be a secret.
    pub(super) fn new(text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map(|span| span.start.min(text.len()));
        let message = improve(error.message());
        Self {
            line: at.map(|at| text[..at].matches('\n').count() + 1),
            message: match at.and_then(|at| key_at(text, at)) {
                Some(key) => format!("{key}: {message}"),
                None => message,
            },
        }
    }
}

/// The key whose value is wrong, if the place is behind one in its line.
fn key_at(text: &str, at: usize) -> Option<&str> {
    let line = text[..at].rsplit('\n').next()?;
    let (key, _) = line.split_once('=')?;
    Some(key.trim())
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Complaint {}

/// The words of serde for a key that is not known name it and all that are.
fn improve(message: &str) -> String {
    let message = message.trim();
    for (begin, what) in [
        ("unknown field ", "setting"),
        ("unknown variant ", "value or sort of store"),
    ] {
        let Some(rest) = message.strip_prefix(begin) else {
            continue;
        };
        let mut quoted = rest.split('`').skip(1).step_by(2);
        let Some(wrong) = quoted.next() else { continue };
        let known: Vec<&str> = quoted.collect();
        return match nearest(wrong, &known) {
            Some(nearest) => format!(
                "there is no {what} {wrong:?} here; the nearest is {nearest:?}, and there are {}",
                known.join(", ")
            ),
            None => format!("there is no {what} {wrong:?} here, and none is known"),
        };
    }
    message.to_owned()
}

fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    let similarity = |known: &&str| strsim::jaro_winkler(wrong, known);
    known
        .iter()
        .copied()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
}
