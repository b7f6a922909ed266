//! What was measured, and how it is shown.

mod html;
mod machine;
mod text;

use serde::Serialize;

pub use self::machine::Machine;

/// Everything that one run has shown.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// What it is about.
    pub title: String,
    /// What it ran on.
    pub machine: Machine,
    /// What candidates cost under workloads.
    pub samples: Vec<Sample>,
    /// What numbers cannot say of a candidate under a workload.
    pub notes: Vec<Note>,
    /// Answers to single questions.
    pub figures: Vec<Figure>,
    /// Which charts its page has.
    #[serde(skip)]
    pub charts: Charts,
}

/// What stands together in a chart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Charts {
    /// One measure, of all workloads: they are of one sort.
    #[default]
    ByMeasure,
    /// One workload, with all measures that have the same unit: workloads are of different sorts.
    ByWorkload,
}

/// A sentence about a candidate under a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What was done.
    pub workload: String,
    /// By what.
    pub candidate: String,
    /// The sentence.
    pub text: String,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// What was stored.
    pub workload: String,
    /// By what.
    pub candidate: String,
    /// What was measured.
    pub measure: String,
    /// The number.
    pub value: f64,
    /// What it counts.
    pub unit: Unit,
}

/// What a number counts. Less is better, except of what is counted by the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Microseconds for each blob.
    #[serde(rename = "us/blob")]
    MicrosecondsABlob,
    /// Nanoseconds for each digest.
    #[serde(rename = "ns/digest")]
    NanosecondsADigest,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Bytes for each blob.
    #[serde(rename = "B/blob")]
    BytesABlob,
    /// Bytes for each byte of content.
    #[serde(rename = "B/B")]
    BytesAByte,
    /// Files.
    #[serde(rename = "files")]
    Files,
    /// Microseconds for each digest.
    #[serde(rename = "us/digest")]
    MicrosecondsADigest,
    /// Microseconds for each action result.
    #[serde(rename = "us/result")]
    MicrosecondsAResult,
    /// Microseconds for each directory.
    #[serde(rename = "us/dir")]
    MicrosecondsADirectory,
    /// Microseconds for each action of a build.
    #[serde(rename = "us/action")]
    MicrosecondsAnAction,
    /// Blobs, digests and so on in a second.
    #[serde(rename = "/s")]
    ItemsASecond,
    /// Content in a second.
    #[serde(rename = "MiB/s")]
    MebibytesASecond,
    /// Memory.
    #[serde(rename = "MiB")]
    Mebibytes,
    /// Calls of a client.
    #[serde(rename = "calls")]
    Calls,
}

impl Unit {
    /// How it is written behind a number.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::MicrosecondsABlob => "us/blob",
            Self::NanosecondsADigest => "ns/digest",
            Self::Milliseconds => "ms",
            Self::BytesABlob => "B/blob",
            Self::BytesAByte => "B/B",
            Self::Files => "files",
            Self::MicrosecondsADigest => "us/digest",
            Self::MicrosecondsAResult => "us/result",
            Self::MicrosecondsADirectory => "us/dir",
            Self::MicrosecondsAnAction => "us/action",
            Self::ItemsASecond => "/s",
            Self::MebibytesASecond => "MiB/s",
            Self::Mebibytes => "MiB",
            Self::Calls => "calls",
        }
    }

    /// Whether more of it is better.
    pub const fn is_better_when_more(self) -> bool {
        matches!(self, Self::ItemsASecond | Self::MebibytesASecond)
    }
}

/// The answer to one question, beside what was to be reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The question.
    pub question: String,
    /// The answer.
    pub value: f64,
    /// What is to be reached.
    pub goal: Goal,
    /// What the answer is made of, for those who want to compare.
    pub detail: String,
}

/// What a figure has to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Goal {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

impl Figure {
    /// Whether the goal is reached.
    pub fn is_reached(&self) -> bool {
        match self.goal {
            Goal::AtLeast(goal) => self.value >= goal,
            Goal::AtMost(goal) => self.value <= goal,
        }
    }
}

impl Report {
    /// An empty report about storage on this machine.
    pub fn new() -> Self {
        Self::titled("Storage layouts under the workload of builds", Charts::default())
    }

    /// An empty report about something else on this machine.
    pub fn titled(title: &str, charts: Charts) -> Self {
        Self {
            title: title.to_owned(),
            machine: Machine::this(),
            charts,
            ..Self::default()
        }
    }

    /// The report as text for a terminal.
    pub fn to_text(&self) -> String {
        text::write(self)
    }

    /// The report as JSON.
    ///
    /// # Panics
    /// Never: all of it can be written.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and texts are JSON")
    }

    /// The report as a page that needs nothing else.
    pub fn to_html(&self) -> String {
        html::write(self)
    }

    fn notes_on<'a>(&'a self, workload: &'a str) -> impl Iterator<Item = &'a Note> {
        self.notes.iter().filter(move |note| note.workload == workload)
    }

    /// The workloads of samples and notes.
    fn workloads(&self) -> Vec<&str> {
        let mut names = self.names(|sample| &sample.workload);
        for note in &self.notes {
            if !names.contains(&note.workload.as_str()) {
                names.push(&note.workload);
            }
        }
        names
    }

    /// Names in the order of their first mention.
    fn names<'a>(&'a self, name: impl Fn(&'a Sample) -> &'a str) -> Vec<&'a str> {
        let mut names: Vec<&str> = Vec::new();
        for found in self.samples.iter().map(name) {
            if !names.contains(&found) {
                names.push(found);
            }
        }
        names
    }

    pub(crate) fn sample(&self, workload: &str, candidate: &str, measure: &str) -> Option<&Sample> {
        let is_it = |sample: &&Sample| {
            (
                sample.workload.as_str(),
                sample.candidate.as_str(),
                sample.measure.as_str(),
            ) == (workload, candidate, measure)
        };
        self.samples.iter().find(is_it)
    }
}

/// A number with about three digits.
fn short(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 1e6 => format!("{:.2} M", value / 1e6),
        magnitude if magnitude >= 1000.0 => format!("{value:.0}"),
        magnitude if magnitude >= 100.0 => format!("{value:.0}"),
        magnitude if magnitude >= 10.0 => format!("{value:.1}"),
        magnitude if magnitude >= 0.01 || magnitude == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
