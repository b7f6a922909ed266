//! A failure is told with all that is known about it, and it is not believed for ever.

use std::fs;

use rootcellar_tests::{BuildStream, Services};

use crate::Kitchen;

/// What the failing element says before it fails.
const LAST_WORDS: &str = "the souffle has collapsed";

/// What BuildStream says about the command that failed.
const VERDICT: &str = "failed with exitcode 3";

#[test]
fn a_failing_element_shows_its_log_and_keeps_its_outputs() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    let failed = client.run(&kitchen.project, &["build", "broken.bst"]).expect_failure();
    failed.expect_text(LAST_WORDS).expect_text(VERDICT);
    assert!(!marker(&kitchen, &client).is_empty());
}

#[test]
fn a_failure_is_executed_again_when_it_is_retried() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    client.run(&kitchen.project, &["build", "broken.bst"]).expect_failure();
    let first = marker(&kitchen, &client);

    client
        .run(&kitchen.project, &["build", "broken.bst"])
        .expect_failure()
        .expect_text(LAST_WORDS);
    assert_eq!(
        marker(&kitchen, &client),
        first,
        "the client believes the failure that it has cached"
    );

    let retried = client
        .run(&kitchen.project, &["build", "--retry-failed", "broken.bst"])
        .expect_failure();
    retried.expect_text(LAST_WORDS);
    assert_ne!(marker(&kitchen, &client), first, "the server believes no failure");
}

#[test]
fn a_failure_and_its_log_are_pulled_by_a_second_client() {
    let Some(kitchen) = Kitchen::open() else { return };
    let builder = kitchen.client(&Services {
        artifacts: true,
        ..Services::execution()
    });
    builder.run(&kitchen.project, &["build", "broken.bst"]).expect_failure();

    let reader = kitchen.client(&Services::artifacts());
    let pulled = reader.run(&kitchen.project, &["build", "broken.bst"]).expect_failure();
    pulled.expect_text("Pulled artifact").expect_text(LAST_WORDS);
    assert_eq!(marker(&kitchen, &reader), marker(&kitchen, &builder));
}

#[test]
fn a_program_that_the_root_lacks_is_named() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    kitchen.project.write(
        "elements/lacking.bst",
        "kind: script\nbuild-depends: [ base.bst ]\nconfig:\n  commands:\n  - no-such-program --help\n",
    );
    let failed = client.run(&kitchen.project, &["build", "lacking.bst"]).expect_failure();
    failed
        .expect_text("no-such-program: not found")
        .expect_text("failed with exitcode 127");
}

#[test]
fn a_command_that_is_killed_by_a_signal_is_a_failure_and_not_an_error() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    kitchen.project.write(
        "elements/killed.bst",
        "kind: script\nbuild-depends: [ base.bst ]\nconfig:\n  commands:\n  - kill -SEGV $$\n",
    );
    let failed = client.run(&kitchen.project, &["build", "killed.bst"]).expect_failure();
    failed.expect_text("failed with exitcode 139");
}

/// What the failing element wrote before it failed, something else on each run.
fn marker(kitchen: &Kitchen, client: &BuildStream) -> String {
    fs::read_to_string(
        client
            .checkout(&kitchen.project, "broken.bst")
            .join("before-the-failure"),
    )
    .unwrap()
}
