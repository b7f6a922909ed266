//! What is built is right: every element kind, the environment of the commands, and every kind of node.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rootcellar_tests::Services;

use crate::{EXECUTION, Kitchen};

#[test]
fn a_project_builds_remotely_and_its_artifacts_are_right() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    client.build(&kitchen.project, "system.bst").expect_text(EXECUTION);

    let hello = client.checkout(&kitchen.project, "hello.bst");
    assert_eq!(
        text(&hello, "usr/bin/hello"),
        "#!/bin/sh\necho \"hello from hello.bst\"\n"
    );
    assert!(is_executable(&hello.join("usr/bin/hello")));
    assert_eq!(text(&hello, "usr/share/hello/notes.txt"), "Read me first.\n");
    assert!(!is_executable(&hello.join("usr/share/hello/notes.txt")));

    let report = client.checkout(&kitchen.project, "report.bst");
    assert_eq!(text(&report, "programs"), "hello\n");

    let composed = client.checkout(&kitchen.project, "composed.bst");
    assert_eq!(text(&composed, "etc/integration"), "integrated by 0:0\n");
    assert!(composed.join("usr/bin/hello").is_file());
}

#[test]
fn an_output_keeps_every_kind_of_node_and_leaves_special_files_out() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    client.build(&kitchen.project, "tree.bst");
    let tree = client.checkout(&kitchen.project, "tree.bst").join("tree");

    assert_eq!(
        names(&tree),
        [
            "absolute", "dangling", "deep", "empty", "nothing", "program", "relative"
        ]
    );
    assert_eq!(names(&tree.join("empty")), [""; 0]);
    assert_eq!(text(&tree, "nothing"), "");
    assert_eq!(text(&tree, "deep/er/plain"), "plain");
    assert!(is_executable(&tree.join("program")));
    assert_eq!(target(&tree.join("relative")), "deep/er/plain");
    assert_eq!(target(&tree.join("absolute")), "/bin/busybox");
    assert_eq!(target(&tree.join("dangling")), "/no/such/file");
}

#[test]
fn a_script_may_change_the_whole_root() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    client.build(&kitchen.project, "image.bst");
    let image = client.checkout(&kitchen.project, "image.bst");

    assert_eq!(names(&image), ["bin", "dev", "etc", "proc", "srv", "tmp", "usr"]);
    assert_eq!(text(&image, "etc/greeting"), "hello from hello.bst\n");
    assert_eq!(text(&image, "etc/hostname"), "kitchen\nchanged");
    assert!(!image.join("etc/unwanted").exists());
    assert!(image.join("srv/new").is_dir());
    assert!(is_executable(&image.join("bin/busybox")));
    assert_eq!(target(&image.join("bin/sh")), "busybox");
    for mounted in ["dev", "proc", "tmp"] {
        assert_eq!(
            names(&image.join(mounted)),
            [""; 0],
            "/{mounted} is not part of the output"
        );
    }
}

#[test]
fn commands_find_the_environment_that_buildstream_promises() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    client.build(&kitchen.project, "environment.bst");
    let environment = client.checkout(&kitchen.project, "environment.bst");
    let text = text(&environment, "environment");
    for line in [
        "LC_ALL=C",
        "TZ=UTC",
        "SOURCE_DATE_EPOCH=1321009871",
        "PATH=/usr/bin:/bin:/usr/sbin:/sbin",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "the environment lacks {line}:\n{text}"
        );
    }
}

#[test]
fn a_command_runs_under_the_ids_that_its_element_asks_for() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    client.build(&kitchen.project, "ids.bst");
}

#[test]
fn a_command_can_write_only_where_its_element_may() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    client.build(&kitchen.project, "readonly.bst");
}

#[test]
fn large_files_many_files_and_long_logs_arrive_whole() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    client.build(&kitchen.project, "bulk-check.bst");

    let bulk = client.checkout(&kitchen.project, "bulk.bst");
    assert_eq!(fs::metadata(bulk.join("bulk/large")).unwrap().len(), 20_000_000);
    assert_eq!(names(&bulk.join("bulk/many")).len(), 1000);
    let log = client
        .run(&kitchen.project, &["artifact", "log", "bulk.bst"])
        .expect_success();
    log.expect_text("line 1 of the log")
        .expect_text("line 100000 of the log")
        .expect_text("line 200000 of the log");
}

#[test]
fn a_build_whose_cache_lies_on_the_server_downloads_only_what_is_looked_at() {
    let Some(kitchen) = Kitchen::open() else { return };
    let local = Services::execution();
    let remote = Services {
        remote_cache: true,
        ..local.clone()
    };
    let client = kitchen.client(&remote);
    client.build(&kitchen.project, "hello.bst");

    client.configure(&kitchen.server.url(), &local);
    let arguments = [
        "artifact",
        "checkout",
        "--deps",
        "none",
        "--tar",
        "not-here.tar",
        "hello.bst",
    ];
    client.run(&kitchen.project, &arguments).expect_failure();

    client.configure(&kitchen.server.url(), &remote);
    let hello = client.checkout(&kitchen.project, "hello.bst");
    assert_eq!(text(&hello, "usr/share/hello/notes.txt"), "Read me first.\n");
}

fn text(directory: &Path, name: &str) -> String {
    let path = directory.join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn target(link: &Path) -> String {
    fs::read_link(link).unwrap().into_os_string().into_string().unwrap()
}

fn is_executable(path: &Path) -> bool {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o111 != 0
}
