//! What was done once is not done again: by the action cache, the artifact cache and the source cache.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rootcellar_tests::{BuildStream, Server, Services};

use crate::{ACTION_CACHE_HIT, EXECUTION, Kitchen};

/// How long two builds at once may take.
const DEADLINE: Duration = Duration::from_secs(300);

#[test]
fn a_second_build_without_a_local_cache_executes_nothing() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    client.build(&kitchen.project, "system.bst").expect_text(EXECUTION);
    let first = stamp(&kitchen, &client);

    client.delete_cache();
    client
        .build(&kitchen.project, "system.bst")
        .expect_text(ACTION_CACHE_HIT)
        .expect_no_text(EXECUTION);
    assert_eq!(stamp(&kitchen, &client), first);
}

#[test]
fn the_execution_service_itself_looks_into_the_action_cache() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services {
        action_cache: false,
        ..Services::execution()
    });
    client.build(&kitchen.project, "stamp.bst").expect_text(EXECUTION);
    let first = stamp(&kitchen, &client);

    client.delete_cache();
    client.build(&kitchen.project, "stamp.bst").expect_text(EXECUTION);
    assert_eq!(stamp(&kitchen, &client), first);
}

#[test]
fn a_second_client_pulls_artifacts_that_it_could_not_build() {
    let Some(kitchen) = Kitchen::open() else { return };
    let builder = kitchen.client(&Services {
        artifacts: true,
        ..Services::execution()
    });
    builder
        .build(&kitchen.project, "system.bst")
        .expect_text("Pushed artifact");
    let first = stamp(&kitchen, &builder);

    let reader = kitchen.client(&Services::artifacts());
    reader
        .build(&kitchen.project, "system.bst")
        .expect_text("Pulled artifact")
        .expect_no_text("Running commands");
    assert_eq!(stamp(&kitchen, &reader), first);
}

#[test]
fn an_artifact_is_pushed_once() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services {
        artifacts: true,
        ..Services::execution()
    });
    client
        .build(&kitchen.project, "hello.bst")
        .expect_text("Pushed artifact");
    let again = client
        .run(&kitchen.project, &["artifact", "push", "hello.bst"])
        .expect_success();
    again.expect_no_text("Pushed artifact");
}

#[test]
fn two_clients_that_build_at_once_get_the_same_result() {
    let Some(kitchen) = Kitchen::open() else { return };
    let clients = [
        kitchen.client(&Services::execution()),
        kitchen.client(&Services::execution()),
    ];
    let running = clients
        .each_ref()
        .map(|client| client.start(&kitchen.project, &["build", "system.bst"]));
    for build in running {
        build.finish(DEADLINE).expect_success();
    }
    let [first, second] = clients.each_ref().map(|client| stamp(&kitchen, client));
    assert_eq!(first, second);
}

#[test]
fn a_restarted_server_still_has_results_and_artifacts() {
    results_and_artifacts_outlive(Server::restart);
}

#[test]
fn a_killed_server_still_has_the_results_and_artifacts_that_it_acknowledged() {
    results_and_artifacts_outlive(Server::crash_and_restart);
}

fn results_and_artifacts_outlive(the_server: impl Fn(&mut Server)) {
    let Some(mut kitchen) = Kitchen::open() else { return };
    let services = Services {
        artifacts: true,
        ..Services::execution()
    };
    let client = kitchen.client(&services);
    client.build(&kitchen.project, "stamp.bst");
    let first = stamp(&kitchen, &client);
    the_server(&mut kitchen.server);

    client.delete_cache();
    client.configure(&kitchen.server.url(), &Services::execution());
    client.build(&kitchen.project, "stamp.bst").expect_no_text(EXECUTION);
    assert_eq!(stamp(&kitchen, &client), first);

    client.delete_cache();
    client.configure(&kitchen.server.url(), &Services::artifacts());
    client
        .run(&kitchen.project, &["artifact", "pull", "stamp.bst"])
        .expect_success();
    assert_eq!(stamp(&kitchen, &client), first);
}

#[test]
fn a_second_client_fetches_sources_whose_origin_is_gone() {
    let Some(kitchen) = Kitchen::open() else { return };
    let services = Services {
        sources: true,
        ..Services::default()
    };
    let archive = archive_of_a_source(&kitchen);
    let first = kitchen.client(&services);
    first
        .run(&kitchen.project, &["source", "track", "packed.bst"])
        .expect_success();
    first
        .run(&kitchen.project, &["source", "fetch", "packed.bst"])
        .expect_success();
    first
        .run(&kitchen.project, &["source", "push", "packed.bst"])
        .expect_success()
        .expect_text("Pushed source");
    fs::remove_file(archive).unwrap();

    let second = kitchen.client(&services);
    let fetched = second
        .run(&kitchen.project, &["source", "fetch", "packed.bst"])
        .expect_success();
    fetched.expect_text("Pulled source");
}

/// Adds an element whose source is an archive, and returns the path of the archive.
fn archive_of_a_source(kitchen: &Kitchen) -> PathBuf {
    let archive = kitchen.project.path().join("packed.tar");
    let notes = kitchen.project.write("packed/notes.txt", "from an archive\n");
    let made = Command::new("tar")
        .arg("-C")
        .arg(notes.parent().unwrap())
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .status();
    assert!(made.unwrap().success());
    let url = format!("file://{}", archive.display());
    kitchen.project.write(
        "elements/packed.bst",
        &format!("kind: import\nsources:\n- kind: tar\n  url: {url}\n  base-dir: ''\n"),
    );
    archive
}

/// What the one element wrote that writes something else on each run.
fn stamp(kitchen: &Kitchen, client: &BuildStream) -> String {
    fs::read_to_string(client.checkout(&kitchen.project, "stamp.bst").join("etc/stamp")).unwrap()
}
