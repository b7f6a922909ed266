//! What goes wrong with a call: counted by its code, with one message kept for each.

use std::collections::BTreeMap;

use rootcellar_proto::rpc;
use tonic::{Code, Status};

/// A call that did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The code as the protocol spells it, or that an answer came and was wrong.
    code: &'static str,
    message: String,
}

const WRONG_ANSWER: &str = "wrong answer";

impl Failure {
    /// The server answered, and the answer cannot be.
    pub(super) fn wrong(message: impl Into<String>) -> Self {
        Self {
            code: WRONG_ANSWER,
            message: message.into(),
        }
    }

    /// No server was reached.
    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self {
            code: code_name(Code::Unavailable.into()),
            message: message.into(),
        }
    }

    /// The call took longer than anything may take.
    pub(super) fn overdue() -> Self {
        Self {
            code: code_name(Code::DeadlineExceeded.into()),
            message: "no answer".to_owned(),
        }
    }

    /// Of a status inside of an answer; `None` if all is well.
    pub(super) fn of_item(status: Option<&rpc::Status>) -> Option<Self> {
        let status = status.filter(|status| status.code != 0)?;
        Some(Self {
            code: code_name(status.code),
            message: status.message.clone(),
        })
    }

    pub(super) fn is_unimplemented(&self) -> bool {
        self.code == code_name(Code::Unimplemented.into())
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.code == code_name(Code::NotFound.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self {
            code: code_name(status.code().into()),
            message: status.message().to_owned(),
        }
    }
}

fn code_name(code: i32) -> &'static str {
    rpc::Code::try_from(code).map_or("a code of its own", |code| code.as_str_name())
}

/// Failures by their codes.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures(BTreeMap<&'static str, (u64, String)>);

impl Failures {
    pub(super) fn add(&mut self, failure: Failure) {
        self.0.entry(failure.code).or_insert((0, failure.message)).0 += 1;
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (code, (count, message)) in other.0 {
            self.0.entry(code).or_insert((0, message)).0 += count;
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// A line for each code.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let line =
            |(code, (count, message)): (&&str, &(u64, String))| format!("{count} calls failed: {code}: {message}");
        self.0.iter().map(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_code_and_the_first_message_is_kept() {
        let mut failures = Failures::default();
        failures.add(Status::unavailable("first").into());
        failures.add(Status::unavailable("second").into());
        failures.add(Failure::wrong("too short"));
        let mut others = Failures::default();
        others.add(Status::unavailable("third").into());
        failures.merge(others);
        assert_eq!(failures.count(), 4);
        let lines: Vec<_> = failures.lines().collect();
        assert_eq!(
            lines,
            [
                "3 calls failed: UNAVAILABLE: first",
                "1 calls failed: wrong answer: too short"
            ]
        );
    }

    #[test]
    fn an_item_without_a_status_is_well() {
        assert_eq!(Failure::of_item(None), None);
        assert_eq!(Failure::of_item(Some(&rpc::Status::default())), None);
        let status = rpc::Status {
            code: 5,
            ..rpc::Status::default()
        };
        assert!(Failure::of_item(Some(&status)).unwrap().is_not_found());
    }
}
