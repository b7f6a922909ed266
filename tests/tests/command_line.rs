//! The program's own commands do what their help says.

#![allow(clippy::unwrap_used)]

use std::fs;

use rootcellar_tests::{CommandLine, Finished, Project, Server, ServerOptions, ServerProgram, need};

/// A server and its command line.
fn open() -> Option<(Server, CommandLine)> {
    let program = need(ServerProgram::find())?;
    let server = Server::start(&program);
    let client = CommandLine::new(&program, &server);
    Some((server, client))
}

/// The digest at the beginning of the line that ends with `name`.
fn digest_of(finished: &Finished, name: &str) -> String {
    let line = finished.output().lines().find(|line| line.ends_with(name));
    let line = line.unwrap_or_else(|| panic!("no line about {name}: {finished}"));
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn what_is_put_can_be_listed_and_fetched() {
    let Some((_server, client)) = open() else { return };
    let tree = client.path("tree");
    fs::create_dir_all(tree.join("below/empty")).unwrap();
    fs::write(tree.join("below/small"), "small").unwrap();
    fs::write(tree.join("large"), vec![7; 9_000_000]).unwrap();
    std::os::unix::fs::symlink("below/small", tree.join("link")).unwrap();

    let path = tree.to_str().unwrap();
    let put = client.run(&["put", path, &format!("{path}/large")]).expect_success();
    let (directory, large) = (digest_of(&put, "/tree"), digest_of(&put, "/large"));

    let listed = client.run(&["tree", &directory]).expect_success();
    listed
        .expect_text("below/small")
        .expect_text("-> below/small")
        .expect_text("large");

    let (file, copy) = (client.path("large"), client.path("copy"));
    client
        .run(&["get", &large, "--output", file.to_str().unwrap()])
        .expect_success();
    assert_eq!(fs::read(&file).unwrap(), vec![7; 9_000_000]);
    client
        .run(&["get", &directory, "--directory", copy.to_str().unwrap()])
        .expect_success();
    assert_eq!(fs::read(copy.join("below/small")).unwrap(), b"small");
    assert_eq!(fs::read_link(copy.join("link")).unwrap().to_str(), Some("below/small"));
    assert!(copy.join("below/empty").is_dir());
}

#[test]
fn what_is_not_there_is_said_to_be_missing() {
    let Some((_server, client)) = open() else { return };
    let absent = format!("{}/7", "0".repeat(64));
    client
        .run(&["get", &absent])
        .expect_failure()
        .expect_text(&absent[..64]);
    client
        .run(&["tree", &absent])
        .expect_failure()
        .expect_text(&absent[..64]);
    client.run(&["get", "not-a-digest"]).expect_failure();
}

#[test]
fn a_command_gives_back_its_output_its_exit_code_and_its_files() {
    let Some((_server, client)) = open() else { return };
    let Some(project) = need(Project::copy_of("kitchen")) else {
        return;
    };
    let root = project.path().join("files/base");
    let root = root.to_str().unwrap();
    let out = client.path("outputs");
    let script = "echo to-stdout; echo to-stderr >&2; mkdir -p made; echo content > made/file; exit 7";
    let finished = client.run(&[
        "exec",
        "--root",
        root,
        "--output",
        "made",
        "--fetch",
        out.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        script,
    ]);
    finished
        .expect_failure()
        .expect_text("to-stdout")
        .expect_text("to-stderr");
    assert_eq!(fs::read(out.join("made/file")).unwrap(), b"content\n");
}

#[test]
fn a_command_that_cannot_start_and_one_that_takes_too_long_are_told_apart() {
    let Some((_server, client)) = open() else { return };
    let Some(project) = need(Project::copy_of("kitchen")) else {
        return;
    };
    let root = project.path().join("files/base");
    let root = root.to_str().unwrap();
    client
        .run(&["exec", "--root", root, "--", "no-such-program"])
        .expect_failure()
        .expect_text("no-such-program");
    let slow = client.run(&["exec", "--root", root, "--timeout", "1", "--", "sleep", "100"]);
    slow.expect_failure().expect_text("timeout");
}

#[test]
fn execution_is_not_offered_beyond_this_machine_by_accident() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let server = Server::start_with(
        &program,
        &ServerOptions {
            arguments: vec!["--no-execution".to_owned()],
            ..ServerOptions::default()
        },
    );
    let client = CommandLine::new(&program, &server);
    let dir = client.path("data");
    let refused = client.run(&["serve", "--listen", "0.0.0.0:0", "--dir", dir.to_str().unwrap()]);
    refused.expect_failure().expect_text("--insecure");
    assert!(!dir.exists(), "nothing is made before the settings are found good");
}

#[test]
fn a_setting_that_does_not_exist_is_named_with_the_nearest() {
    let Some((_server, client)) = open() else { return };
    let file = client.path("settings.toml");
    fs::write(&file, "max-size = '1GiB'\n").unwrap();
    let refused = client.run(&["serve", "--config", file.to_str().unwrap()]);
    refused.expect_failure().expect_text("max-size").expect_text("max_size");
}
