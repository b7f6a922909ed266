//! Small C programs that try one forbidden thing each and print how it went: `ok` or the name of the error.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::fixture::Fixture;

/// Makes a root with the trial program in it, built for this machine.
pub(crate) fn with_trial() -> Fixture {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    with_program(PROGRAM.get_or_init(|| compile(include_str!("trial.c"), &["-static", "-pthread"])))
}

/// Makes a root with the trial program for 32-bit x86 in it. It needs no library, which few machines have.
pub(crate) fn with_trial_32() -> Fixture {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    let flags = [
        "-m32",
        "-static",
        "-nostdlib",
        "-ffreestanding",
        "-fno-pie",
        "-no-pie",
        "-fno-stack-protector",
    ];
    with_program(PROGRAM.get_or_init(|| compile(include_str!("trial32.c"), &flags)))
}

fn with_program(program: &[u8]) -> Fixture {
    let fixture = Fixture::new();
    fixture.program("bin/trial", program);
    fixture
}

fn compile(source: &str, flags: &[&str]) -> Vec<u8> {
    let directory = TempDir::new().unwrap();
    let (input, output) = (directory.path().join("trial.c"), directory.path().join("trial"));
    fs::write(&input, source).unwrap();
    let mut compiler = Command::new("gcc");
    compiler
        .args(["-O1", "-Wall", "-Werror"])
        .args(flags)
        .arg("-o")
        .args([&output, &input]);
    assert!(compiler.status().unwrap().success(), "{compiler:?}");
    fs::read(output).unwrap()
}
