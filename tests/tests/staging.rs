//! Roots that are mounted: what an action may write to and how much, and that nothing of one stays.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rootcellar_tests::{
    CommandLine, Project, Server, ServerOptions, ServerProgram, need, process_with_argument, wait_until,
};

/// How long something may take that takes a moment.
const SOON: Duration = Duration::from_secs(60);

struct Farm {
    server: Server,
    client: CommandLine,
    project: Project,
}

impl Farm {
    /// A server with these lines in its configuration file.
    fn open(settings: &str) -> Option<Self> {
        Self::open_as(settings, false)
    }

    fn open_as(settings: &str, as_nobody: bool) -> Option<Self> {
        let program = need(ServerProgram::find())?;
        let project = need(Project::copy_of("kitchen"))?;
        let file = project.path().join("rootcellar.toml");
        fs::write(&file, settings).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(project.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let options = ServerOptions {
            arguments: vec!["--config".to_owned(), file.to_str().unwrap().to_owned()],
            as_nobody,
            ..ServerOptions::default()
        };
        let server = Server::start_with(&program, &options);
        let client = CommandLine::new(&program, &server);
        Some(Self {
            server,
            client,
            project,
        })
    }

    fn root(&self) -> PathBuf {
        self.project.path().join("files/base")
    }

    fn staged(&self) -> usize {
        let shelves = fs::read_dir(self.server.data().join("stage")).unwrap();
        let rooms = |shelf: fs::DirEntry| fs::read_dir(shelf.path()).map_or(0, Iterator::count);
        shelves.map(|shelf| rooms(shelf.unwrap())).sum()
    }

    /// What the server's process holds.
    fn held(&self) -> Held {
        let proc = Path::new("/proc").join(self.server.process_id().to_string());
        let status = fs::read_to_string(proc.join("status")).unwrap();
        let kib = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        Held {
            descriptors: fs::read_dir(proc.join("fd")).unwrap().count(),
            mounts: fs::read_to_string(proc.join("mountinfo")).unwrap().lines().count(),
            threads: fs::read_dir(proc.join("task")).unwrap().count(),
            anonymous_kib: kib(status.lines().find(|line| line.starts_with("RssAnon")).unwrap()),
        }
    }
}

#[derive(Debug)]
struct Held {
    descriptors: usize,
    mounts: usize,
    threads: usize,
    anonymous_kib: u64,
}

#[test]
fn a_thousand_actions_leave_nothing() {
    let Some(farm) = Farm::open("") else { return };
    let bench = |count: &str| {
        let url = farm.server.url();
        let arguments = ["bench", "actions", "--endpoint", &url, "--count", count];
        farm.client.run(&arguments).expect_success();
    };
    bench("50");
    assert!(wait_until(SOON, || farm.staged() == 0), "roots stay");
    let before = farm.held();
    bench("500");
    let is_as_before = || {
        let after = farm.held();
        farm.staged() == 0 && after.mounts == before.mounts && after.descriptors <= before.descriptors + 4
    };
    assert!(wait_until(SOON, is_as_before), "{before:?} became {:?}", farm.held());
    let after = farm.held();
    assert!(after.threads <= before.threads + 8, "{before:?} became {after:?}");
    assert!(
        after.anonymous_kib <= before.anonymous_kib + 64 * 1024,
        "{before:?} became {after:?}"
    );
}

#[test]
fn a_server_that_is_killed_leaves_what_the_next_start_removes() {
    let Some(mut farm) = Farm::open("") else { return };
    let root = farm.root();
    let arguments = [
        "exec",
        "--root",
        root.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        "echo it > /written; sleep 4711",
    ];
    let running = farm.client.start(&arguments, "long");
    let runs = || process_with_argument("sleep", "4711");
    assert!(wait_until(SOON, runs), "it does not run:\n{}", running.output());
    assert_eq!(farm.staged(), 1);
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = farm.server.data();
    assert!(
        !mounts().contains(place.to_str().unwrap()),
        "a root is mounted where everybody sees it"
    );
    farm.server.crash_and_restart();
    assert!(wait_until(SOON, || !runs()), "the action outlived the server");
    assert!(wait_until(SOON, || farm.staged() == 0), "a root stays");
    assert!(!mounts().contains(place.to_str().unwrap()));
    drop(running);
    farm.client
        .script(&root, "echo after")
        .expect_success()
        .expect_text("after");
}

#[test]
fn a_kill_at_any_moment_leaves_nothing() {
    let Some(mut farm) = Farm::open("") else { return };
    for delay_ms in [30, 100, 333, 700, 1500] {
        let url = farm.server.url();
        let bench = ["bench", "actions", "--endpoint", &url, "--count", "2000"];
        let load = farm.client.start(&bench, "load");
        std::thread::sleep(Duration::from_millis(delay_ms));
        farm.server.crash_and_restart();
        drop(load);
        assert!(
            wait_until(SOON, || farm.staged() == 0),
            "after {delay_ms} ms: roots stay"
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(farm.server.data().to_str().unwrap()),
            "after {delay_ms} ms"
        );
    }
    farm.client
        .script(&farm.root(), "echo after")
        .expect_success()
        .expect_text("after");
}

#[test]
fn an_action_cannot_fill_the_disk() {
    let Some(farm) = Farm::open("action_disk = '40MiB'\n") else {
        return;
    };
    let root = farm.root();
    // The file ends where the limit is, and the command hears of it.
    let one = "dd if=/dev/zero of=/big bs=1M count=100; ls -l /big; true";
    farm.client.script(&root, one).expect_no_text("104857600");
    let many = "for n in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=/big$n bs=1M count=10; done; sleep 60; echo unhindered";
    let ended = farm.client.script(&root, many);
    ended
        .expect_failure()
        .expect_text("more than its limit of 41943040 bytes")
        .expect_no_text("unhindered");
    let hidden = "mkdir -p \"$(printf 'not-\\377-text')/below\"; cd \"$(printf 'not-\\377-text')/below\"; \
        for n in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=big$n bs=1M count=10; done; sleep 60; echo unhindered";
    farm.client
        .script(&root, hidden)
        .expect_failure()
        .expect_text("more than its limit");
    farm.client
        .script(&root, "echo fine")
        .expect_success()
        .expect_text("fine");
}

#[test]
fn an_action_that_needs_more_memory_than_it_may_is_told_so() {
    let Some(farm) = Farm::open("action_memory = '48MiB'\naction_processes = 30\n") else {
        return;
    };
    let root = farm.root();
    // What `tail` keeps is the whole of it: there is no end of a line.
    farm.client
        .script(
            &root,
            "head -c 300000000 /dev/zero | tail -n 1 > /dev/null; echo survived",
        )
        .expect_text("of memory");
    // Files in `/tmp` are memory that is not freed by killing: the kernel goes on with others, up to the sandbox's init.
    let fill = "n=0; while [ $n -lt 200 ]; do cat /dev/zero > /tmp/big$n; n=$((n+1)); done; echo survived";
    farm.client.script(&root, fill).expect_text("of memory");
    let fork = "n=0; while [ $n -lt 60 ]; do sleep 5 & n=$((n+1)); done; echo forked";
    farm.client.script(&root, fork).expect_text("can't fork");
    farm.client
        .script(&root, "echo fine")
        .expect_success()
        .expect_text("fine");
}

#[test]
fn what_each_part_took_is_logged() {
    let Some(farm) = Farm::open("") else { return };
    farm.client.script(&farm.root(), "sleep 0.1").expect_success();
    let log = farm.server.log();
    let line = log
        .lines()
        .find(|line| line.contains("an action ran"))
        .expect("a line for the action");
    for part in ["waited", "staged", "sandbox", "of that ran", "captured"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_server_without_privileges_mounts_too() {
    let Some(farm) = Farm::open_as("stager = 'overlay-tmpfs'\n", true) else {
        return;
    };
    let root = farm.root();
    fs::write(root.join("etc/large"), vec![b'x'; 100_000]).unwrap();
    let script = "id -u; wc -c < /etc/large; echo more >> /etc/large; wc -c < /etc/large; \
        rm -r /etc/hostname; mkdir /new && mv /etc/large /new/; touch /new/small; ls /new";
    for _ in 0..2 {
        let ended = farm.client.run(&[
            "exec",
            "--no-cache",
            "--root",
            root.to_str().unwrap(),
            "--output",
            "new",
            "--",
            "sh",
            "-c",
            script,
        ]);
        let ended = ended.expect_success().expect_text("0\n100000\n100005\nlarge\nsmall\n");
        ended.expect_text("output sha256/");
    }
    assert!(farm.server.log().contains("staged by overlay-tmpfs"));
    assert!(wait_until(SOON, || farm.staged() == 0), "roots stay");
    let mut farm = farm;
    let arguments = ["exec", "--root", root.to_str().unwrap(), "--", "sleep", "4712"];
    let running = farm.client.start(&arguments, "long");
    assert!(
        wait_until(SOON, || process_with_argument("sleep", "4712")),
        "{}",
        running.output()
    );
    farm.server.crash_and_restart();
    assert!(wait_until(SOON, || !process_with_argument("sleep", "4712")));
    assert!(wait_until(SOON, || farm.staged() == 0), "a root stays");
}
