//! What is stopped stops: a client or a server that goes away takes its commands with it.

use std::fs;
use std::time::Duration;

use rootcellar_tests::{BuildStream, Running, ServerOptions, Services, process_with_argument, wait_until};
use rustix::process::Signal;

use crate::Kitchen;

/// How long a command may take to start, with the base system still to be uploaded.
const START: Duration = Duration::from_secs(120);

/// How long a cancelled command may live on.
const END: Duration = Duration::from_secs(30);

/// How soon the server gives up what nobody waits for, in the test that is about it.
const SETTINGS: &str = "abandon_after_seconds = 2\n";

#[test]
fn a_terminated_client_cancels_its_command() {
    let Some(kitchen) = Kitchen::open() else { return };
    the_command_ends_with_its_client(&kitchen, "plain.bst", Signal::TERM, "86413");
}

#[test]
fn an_interrupted_client_cancels_its_command() {
    let Some(kitchen) = Kitchen::open() else { return };
    the_command_ends_with_its_client(&kitchen, "plain.bst", Signal::INT, "86417");
}

/// BuildStream cancels the first operation of a sandbox, although a later one may be running: here the first one integrates
/// the base system. So the server hears of no cancellation, and has to notice that nobody waits any more.
#[test]
fn a_command_that_nobody_waits_for_ends() {
    let settings = tempfile::tempdir().unwrap();
    let file = settings.path().join("rootcellar.toml");
    fs::write(&file, SETTINGS).unwrap();
    let arguments = vec![String::from("--config"), file.to_str().unwrap().to_owned()];
    let Some(kitchen) = Kitchen::open_with(&ServerOptions {
        arguments,
        ..ServerOptions::default()
    }) else {
        return;
    };
    the_command_ends_with_its_client(&kitchen, "base.bst", Signal::TERM, "86423");
}

#[test]
fn a_killed_server_takes_its_commands_with_it() {
    let seconds = "86419";
    let Some(mut kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    let build = start_sleeping(&kitchen, &client, "base.bst", seconds);
    kitchen.server.crash_and_restart();
    assert!(
        wait_until(END, || !process_with_argument("sleep", seconds)),
        "the command outlives its server"
    );
    drop(build);
}

/// Builds an element on `base` that sleeps for `seconds`, and sends `signal` to the client once it does.
fn the_command_ends_with_its_client(kitchen: &Kitchen, base: &str, signal: Signal, seconds: &str) {
    let client = kitchen.client(&Services::execution());
    let build = start_sleeping(kitchen, &client, base, seconds);
    build.signal(signal).expect("the client runs");
    build.finish(END);
    assert!(
        wait_until(END, || !process_with_argument("sleep", seconds)),
        "the command outlives its client"
    );
}

/// Starts to build an element on `base` that sleeps for `seconds`, a number that no other test sleeps for, and returns when it
/// does.
fn start_sleeping(kitchen: &Kitchen, client: &BuildStream, base: &str, seconds: &str) -> Running {
    kitchen.project.write(
        "elements/plain.bst",
        "kind: import\nsources:\n- kind: local\n  path: files/base\n",
    );
    kitchen.project.write(
        "elements/sleeping.bst",
        &format!("kind: script\nbuild-depends: [ {base} ]\nconfig:\n  commands:\n  - sleep {seconds}\n"),
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
    build
}
