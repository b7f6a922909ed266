//! What an action must not be able to do to the host, to the server, or to another action, tried through a real server.
//!
//! The system calls that a hostile program would use are tried one by one in the sandbox's own tests; here is what follows of
//! them for the whole: a shell that is root in its sandbox tries the ways out that it knows of.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rootcellar_tests::{CommandLine, Project, Server, ServerProgram, need, process_with_argument, wait_until};

/// What a script says when something worked that must not.
const ESCAPED: &str = "ESCAPED";

/// A server, its command line, and a root with a shell.
struct Prison {
    server: Server,
    client: CommandLine,
    project: Project,
}

impl Prison {
    fn open() -> Option<Self> {
        let program = need(ServerProgram::find())?;
        let project = need(Project::copy_of("kitchen"))?;
        let server = Server::start(&program);
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

    /// Runs each attempt in one sandbox; none may succeed.
    fn none_works(&self, attempts: &[&str]) {
        let tries: Vec<String> = attempts
            .iter()
            .map(|attempt| format!("if {attempt}; then echo \"{ESCAPED}: \" '{attempt}'; fi\n"))
            .collect();
        let script = format!("{}echo all tried", tries.concat());
        let finished = self.client.script(&self.root(), &script);
        finished
            .expect_success()
            .expect_text("all tried")
            .expect_no_text(ESCAPED);
    }
}

#[test]
fn no_file_of_the_host_is_there() {
    let Some(prison) = Prison::open() else { return };
    let marker = tempfile::NamedTempFile::new().unwrap();
    let marker = marker.path().to_str().unwrap();
    prison.none_works(&[
        "cat /etc/shadow",
        &format!("cat {marker}"),
        &format!("cat /proc/1/root{marker}"),
        &format!("cat /proc/self/root/../..{marker}"),
        "ls /root",
        "ls /sys/kernel",
        "cat /proc/1/environ | grep -q ROOTCELLAR",
        "env | grep -q ROOTCELLAR",
    ]);
}

#[test]
fn no_knob_of_the_kernel_can_be_turned() {
    let Some(prison) = Prison::open() else { return };
    let before = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    prison.none_works(&[
        "echo core > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo b > /proc/sysrq-trigger",
        "echo host > /proc/sys/kernel/hostname",
        "mount -o remount,rw /proc/sys",
        "cat /proc/kcore",
        "cat /proc/kallsyms | grep -q .",
    ]);
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
}

#[test]
fn nothing_can_be_mounted_and_no_device_made() {
    let Some(prison) = Prison::open() else { return };
    prison.none_works(&[
        "mount -t tmpfs none /tmp",
        "mount -t proc none /tmp",
        "mount --bind / /tmp",
        "umount /proc",
        "umount -l /dev",
        "mknod /tmp/disk b 8 0",
        "mknod /tmp/memory c 1 1",
        "unshare -r true",
        "unshare -m true",
        "chroot /tmp true",
        "nsenter -t 1 -m true",
    ]);
}

#[test]
fn no_network_and_so_no_port_of_the_server_is_reached() {
    let Some(prison) = Prison::open() else { return };
    let url = prison.server.url();
    let port = url.rsplit(':').next().unwrap();
    prison.none_works(&[
        &format!("nc -w 2 127.0.0.1 {port} < /dev/null"),
        &format!("wget -T 2 -O /dev/null {url}"),
        "ip link | grep -v ' lo:' | grep -q '^[0-9]'",
        "ping -c 1 -W 1 127.0.0.53",
        "ip link add dummy0 type dummy",
    ]);
}

#[test]
fn the_network_has_to_be_allowed_by_the_operator() {
    let Some(prison) = Prison::open() else { return };
    let root = prison.root();
    let root = root.to_str().unwrap();
    let finished = prison
        .client
        .run(&["exec", "--root", root, "--platform", "network=on", "--", "true"]);
    finished.expect_failure().expect_text("network");
}

#[test]
fn killing_everything_kills_only_what_is_in_the_sandbox() {
    let Some(prison) = Prison::open() else { return };
    // The shell is not process 1 of its namespace, so this reaches all others, and itself.
    let killed = prison.client.script(&prison.root(), "kill -9 -1; echo still here");
    drop(killed);
    prison
        .client
        .script(&prison.root(), "echo after")
        .expect_success()
        .expect_text("after");
}

#[test]
fn another_action_is_out_of_sight() {
    let Some(prison) = Prison::open() else { return };
    let root = prison.root();
    let (path, secret) = (root.to_str().unwrap(), "a-secret-of-one-action");
    let script = format!("echo it > /{secret}; echo it > /tmp/{secret}; sleep 60");
    let other = prison
        .client
        .start(&["exec", "--root", path, "--", "sh", "-c", &script], "other");
    let runs = || process_with_argument("sleep", "60");
    assert!(
        wait_until(Duration::from_secs(60), runs),
        "the other action does not run:\n{}",
        other.output()
    );
    prison.none_works(&[
        &format!("find / -name {secret} 2>/dev/null | grep -q ."),
        // The brackets keep the pattern from finding itself in this shell's own command line.
        "cat /proc/[0-9]*/cmdline | tr \"\\0\" \" \" | grep -q \"[s]leep 60\"",
        "ls -d /proc/[0-9]*/root/root-* 2>/dev/null | grep -q .",
    ]);
}

#[test]
fn an_input_written_in_place_is_as_it_was_for_the_next_action() {
    let Some(prison) = Prison::open() else { return };
    fs::write(prison.root().join("etc/empty"), "").unwrap();
    let write = "echo poison > /etc/empty; echo poison > /etc/hostname; cat /etc/empty /etc/hostname";
    prison
        .client
        .script(&prison.root(), write)
        .expect_success()
        .expect_text("poison");
    let read = prison
        .client
        .script(&prison.root(), "cat /etc/empty /etc/hostname; echo read");
    read.expect_success().expect_text("read").expect_no_text("poison");
}
