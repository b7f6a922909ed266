//! What the sandbox promises, claim by claim, tried from inside with real programs.
//!
//! The program is its own test harness, because the sandbox starts the running program again and wants `main` first.
//! It takes name filters, `--list` and `--exact` as the standard harness does. As root it runs all claims three times: as
//! it is, as a user without privileges, and as the root of a container that maps it to such a user. Needs Debian's `busybox-static`, and `gcc` for the claims that try to escape. A
//! claim whose need is not met is skipped aloud, or fails if `ROOTCELLAR_REQUIRE_ALL=1` is set.

// Without the standard harness clippy does not know a test when it sees one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod command_line;
mod file_system;
mod fixture;
mod harness;
mod identity;
mod isolation;
mod kernel_files;
mod lifetime;
mod limits;
mod processes;
mod staged_overlay;
mod system_calls;
mod trial;

use std::process::ExitCode;

fn main() -> ExitCode {
    rootcellar_worker::sandbox::run_if_helper();
    lifetime::play_doomed_server_if_told();
    harness::run(&[
        command_line::CLAIMS,
        file_system::CLAIMS,
        identity::CLAIMS,
        isolation::CLAIMS,
        kernel_files::CLAIMS,
        lifetime::CLAIMS,
        limits::CLAIMS,
        staged_overlay::CLAIMS,
        system_calls::CLAIMS,
    ])
}
