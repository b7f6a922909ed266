//! `cargo xtask`: what one does with this repository besides writing code.
//!
//! `cargo xtask test` is the one command of the README: on a machine with nothing but Rust it installs what the tests
//! need, checks the code, builds it and runs every test, the end-to-end ones with real clients included. Each step is
//! a [`stage`]: it is timed, the first that fails ends the run, and the times are printed at the end.
//!
//! Only the standard library is used, so that the first stage starts within a second.

// Talking to the terminal is the whole purpose of this program.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod buildstream;
mod checks;
mod debian;
mod filesystems;
mod machine;
mod stage;
mod upstream;
mod workspace;

use std::env;
use std::process::ExitCode;

use stage::Stages;

const HELP: &str = "\
Development tasks of Rootcellar.

Usage: cargo xtask TASK [ARGUMENTS]

Tasks:
  test              Set up, lint, build and run every test: the whole of what CI does
  setup             Install what the tests need: Debian packages (as root), BuildStream in a venv and a Debian root below target/
  lint              Check the formatting, clippy and the documentation, all without warnings
  unit              Run the tests of every crate: unit, conformance, property, simulation; and as root those of staging on xfs
                    and btrfs, in files below target/
  e2e [ARGUMENTS]   Build the server and run the end-to-end tests; ARGUMENTS go to the test runner
  upstream [--endpoint URL] [--suite NAME] [ARGUMENTS]
                    Run BuildStream's own tests against a server of their own, or against the one at URL: the suites
                    remote-execution, remote-cache and integration, or those named; ARGUMENTS go to pytest. Not part
                    of `test`: it needs root, FUSE, and many minutes
  help              Print this text

Environment:
  ROOTCELLAR_REQUIRE_ALL=1   A test that would be skipped fails instead; CI sets it
  CARGO_TARGET_DIR           Where everything is built and installed; default: target/

Examples:
  cargo xtask test
  cargo xtask e2e workspaces          # only the end-to-end tests whose name holds \"workspaces\"
  cargo xtask upstream --suite remote-execution -k buildfail
";

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let task = arguments.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = arguments.collect();
    let asks_for_help = rest.first().is_some_and(|first| first == "--help" || first == "-h");
    let mut stages = Stages::default();
    let outcome = match task.as_str() {
        _ if asks_for_help => help(),
        "test" => test(&mut stages),
        "setup" => setup(&mut stages),
        "lint" => checks::lint(&mut stages),
        "unit" => checks::unit(&mut stages),
        "e2e" => setup(&mut stages).and_then(|()| checks::end_to_end(&mut stages, &rest)),
        "upstream" => setup(&mut stages).and_then(|()| upstream::run(&mut stages, &rest)),
        "help" | "--help" | "-h" => help(),
        unknown => Err(format!("there is no task `{unknown}`; `cargo xtask help` lists them")),
    };
    stages.print_times();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> Result<(), String> {
    print!("{HELP}");
    Ok(())
}

fn setup(stages: &mut Stages) -> Result<(), String> {
    stages.run("setup: Debian packages", machine::install_packages)?;
    stages.run("setup: BuildStream", buildstream::install)?;
    stages.run("setup: a Debian root", debian::make_root)
}

fn test(stages: &mut Stages) -> Result<(), String> {
    setup(stages)?;
    checks::lint(stages)?;
    checks::unit(stages)?;
    checks::end_to_end(stages, &[])
}
