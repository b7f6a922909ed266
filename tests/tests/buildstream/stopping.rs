//! What is stopped stops: a client that goes away takes its command with it.

use std::time::Duration;

use rootcellar_tests::{Services, process_with_argument, wait_until};
use rustix::process::Signal;

use crate::Kitchen;

/// How long a command may take to start, with the base system still to be uploaded.
const START: Duration = Duration::from_secs(120);

/// How long a cancelled command may live on.
const END: Duration = Duration::from_secs(30);

#[test]
fn a_terminated_client_cancels_its_command() {
    the_command_ends_with_its_client(Signal::TERM, "86413");
}

#[test]
fn an_interrupted_client_cancels_its_command() {
    the_command_ends_with_its_client(Signal::INT, "86417");
}

/// Builds an element that sleeps for `seconds`, a number that no other test sleeps for, and sends `signal`.
fn the_command_ends_with_its_client(signal: Signal, seconds: &str) {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    kitchen.project.write(
        "elements/sleeping.bst",
        &format!("kind: script\nbuild-depends: [ base.bst ]\nconfig:\n  commands:\n  - sleep {seconds}\n"),
    );
    let mut build = client.start(&kitchen.project, &["build", "sleeping.bst"]);
    let started = wait_until(START, || {
        build.status().is_some() || process_with_argument("sleep", seconds)
    });
    assert!(
        started && build.status().is_none(),
        "the command does not run:\n{}",
        build.output()
    );

    build.signal(signal).expect("the client runs");
    build.finish(END);
    assert!(
        wait_until(END, || !process_with_argument("sleep", seconds)),
        "the command outlives its client"
    );
}
