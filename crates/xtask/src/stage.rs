//! Stages of a run: named, timed, and ended by the first that fails.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The stages that ran so far.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    times: Vec<(&'static str, Duration, bool)>,
}

impl Stages {
    /// Runs `work` under `name`, and passes its failure on with the name before it.
    pub(crate) fn run(&mut self, name: &'static str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = work();
        self.times.push((name, start.elapsed(), outcome.is_ok()));
        outcome.map_err(|message| format!("the stage `{name}` failed: {message}"))
    }

    /// Prints how long each stage took, and how long all of them took.
    pub(crate) fn print_times(&self) {
        if self.times.is_empty() {
            return;
        }
        println!("\n=== times");
        for (name, time, succeeded) in &self.times {
            let remark = if *succeeded { "" } else { "  FAILED" };
            println!("{:8.1} s  {name}{remark}", time.as_secs_f64());
        }
        let total: Duration = self.times.iter().map(|(_, time, _)| *time).sum();
        println!("{:8.1} s  in all", total.as_secs_f64());
    }
}

/// Runs `command` with its output on the terminal.
///
/// # Errors
///
/// The command line, and how it ended or why it did not start.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let line = line_of(command);
    println!("$ {line}");
    let status = command.stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` ended with {status}")),
        Err(error) => Err(format!("`{line}` does not start: {error}")),
    }
}

/// Says whether `command` runs and succeeds; its output is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// What `command` writes on its standard output.
///
/// # Errors
///
/// The command line, and how it ended or why it did not start.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let line = line_of(command);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("`{line}` does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{line}` ended with {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("`{line}` wrote no text: {error}"))
}

fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
