//! Claims about what the command finds in its file system, and what it can write.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use rootcellar_worker::sandbox::{Bind, Root, SandboxErrorKind, Subtree};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use tempfile::TempDir;

use crate::fixture::{Fixture, HOST_ID, run, try_run};
use crate::harness::{Claim, Need};

pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "the_staged_root_is_all_there_is",
        needs: &[],
        holds: the_staged_root_is_all_there_is,
    },
    Claim {
        name: "the_root_can_be_written",
        needs: &[],
        holds: the_root_can_be_written,
    },
    Claim {
        name: "a_read_only_root_cannot_be_written",
        needs: &[],
        holds: a_read_only_root_cannot_be_written,
    },
    Claim {
        name: "subtrees_have_flags_of_their_own",
        needs: &[],
        holds: subtrees_have_flags_of_their_own,
    },
    Claim {
        name: "binds_show_the_host",
        needs: &[],
        holds: binds_show_the_host,
    },
    Claim {
        name: "a_detached_mount_can_be_the_root",
        needs: &[Need::Root],
        holds: a_detached_mount_can_be_the_root,
    },
    Claim {
        name: "mount_points_that_are_links_are_refused",
        needs: &[],
        holds: mount_points_that_are_links_are_refused,
    },
    Claim {
        name: "missing_mount_points_are_named",
        needs: &[],
        holds: missing_mount_points_are_named,
    },
    Claim {
        name: "bind_targets_behind_links_are_refused",
        needs: &[],
        holds: bind_targets_behind_links_are_refused,
    },
    Claim {
        name: "new_files_get_the_usual_mode_and_host_owner",
        needs: &[],
        holds: new_files_get_the_usual_mode,
    },
];

fn the_staged_root_is_all_there_is() {
    let fixture = Fixture::new();
    assert_eq!(fixture.shell("ls -a /"), ".\n..\nbin\ndev\netc\nhome\nproc\ntmp\n");
    assert_eq!(
        fixture.shell("ls -a /.. /../.. | sort -u | grep -c work || true"),
        "0\n"
    );
    let mounts = fixture.shell("cut -d' ' -f5 /proc/self/mountinfo | sort");
    let beyond = |line: &&str| !["/proc", "/dev", "/tmp"].iter().any(|known| line.starts_with(known));
    assert_eq!(mounts.lines().filter(beyond).collect::<Vec<_>>(), ["/"]);
}

fn the_root_can_be_written() {
    let fixture = Fixture::new();
    fixture.shell("echo new > /new; mkdir /home/d; mv /new /home/d");
    assert_eq!(fs::read_to_string(fixture.path("home/d/new")).unwrap(), "new\n");
}

fn a_read_only_root_cannot_be_written() {
    let fixture = Fixture::new();
    let mut spec = fixture.script("touch /new; touch /home/new; echo x > /tmp/t && cat /tmp/t; mount -o remount,rw /");
    spec.read_only = true;
    let ran = run(spec);
    assert_eq!(ran.stdout, "x\n");
    assert_eq!(ran.stderr.matches("Read-only file system").count(), 2, "{}", ran.stderr);
    assert!(!fixture.path("new").exists());
}

fn subtrees_have_flags_of_their_own() {
    let fixture = Fixture::new();
    for path in ["home/rw", "home/rw/ro"] {
        fs::create_dir(fixture.path(path)).unwrap();
        fixture.own(path);
    }
    let attempt = "for d in / /home /home/rw /home/rw/ro; do touch $d/f 2>/dev/null && echo $d; done; true";
    let subtree = |path: &str, read_only| Subtree {
        path: path.into(),
        read_only,
    };
    let mut spec = fixture.script(attempt);
    spec.read_only = true;
    spec.subtrees = vec![subtree("/home/rw", false), subtree("/home/rw/ro", true)];
    assert_eq!(run(spec).stdout, "/home/rw\n");
    let mut spec = fixture.script(attempt);
    spec.subtrees = vec![subtree("/home", true), subtree("/home/rw/ro", false)];
    assert_eq!(run(spec).stdout, "/\n/home/rw/ro\n");
}

fn binds_show_the_host() {
    let (fixture, host) = (Fixture::new(), TempDir::new().unwrap());
    fs::write(host.path().join("file"), "host\n").unwrap();
    for path in ["home/a", "home/b"] {
        fs::create_dir(fixture.path(path)).unwrap();
    }
    fs::write(fixture.path("home/f"), "").unwrap();
    let source: PathBuf = host.path().into();
    let bind = |source: PathBuf, target: &str| Bind {
        source,
        target: target.into(),
        read_only: true,
    };
    let mut spec = fixture.script("cat /home/a/file /home/f; touch /home/a/new");
    // The directory is its owner's alone: the command may pass because it can be opened to everybody.
    fs::set_permissions(host.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    spec.binds = vec![bind(source.clone(), "/home/a"), bind(source.join("file"), "/home/f")];
    let ran = run(spec);
    assert_eq!(ran.stdout, "host\nhost\n");
    assert!(ran.stderr.contains("Read-only file system"), "{}", ran.stderr);
}

fn a_detached_mount_can_be_the_root() {
    let fixture = Fixture::new();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount: OwnedFd = open_tree(CWD, fixture.path(""), flags).unwrap();
    let kept = mount.try_clone().unwrap();
    let mut spec = fixture.script("echo new > /home/new; ls /");
    spec.root = Root::Mount(mount);
    assert!(run(spec).stdout.contains("proc"));
    let new = rustix::fs::openat(&kept, "home/new", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
    assert!(new.is_ok(), "the mount stays readable through another descriptor");
}

fn mount_points_that_are_links_are_refused() {
    for name in ["proc", "dev", "tmp"] {
        let (fixture, elsewhere) = (Fixture::new(), TempDir::new().unwrap());
        fs::remove_dir(fixture.path(name)).unwrap();
        for target in [elsewhere.path(), "home".as_ref(), "/home".as_ref()] {
            symlink(target, fixture.path(name)).unwrap();
            let error = try_run(fixture.script("true")).unwrap_err();
            assert_eq!(error.kind(), SandboxErrorKind::Unfit, "{error}");
            assert!(error.to_string().contains(&format!("/{name}")), "{error}");
            fs::remove_file(fixture.path(name)).unwrap();
        }
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}

fn missing_mount_points_are_named() {
    for name in ["proc", "dev", "tmp"] {
        let fixture = Fixture::new();
        fs::remove_dir(fixture.path(name)).unwrap();
        let error = try_run(fixture.script("true")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("the staged root has no /{name} ")),
            "{error}"
        );
        fs::write(fixture.path(name), "").unwrap();
        let error = try_run(fixture.script("true")).unwrap_err();
        assert_eq!(error.kind(), SandboxErrorKind::Unfit, "{error}");
    }
    let fixture = Fixture::new();
    let mut spec = fixture.script("true");
    spec.root = Root::Path("/nowhere/at/all".into());
    let error = try_run(spec).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all: No such file"), "{error}");
}

fn bind_targets_behind_links_are_refused() {
    let (fixture, host) = (Fixture::new(), TempDir::new().unwrap());
    fs::create_dir(fixture.path("home/real")).unwrap();
    symlink("real", fixture.path("home/link")).unwrap();
    symlink("/home", fixture.path("homelink")).unwrap();
    for target in ["/home/link", "/homelink/real"] {
        let mut spec = fixture.script("true");
        spec.binds = vec![Bind {
            source: host.path().into(),
            target: target.into(),
            read_only: true,
        }];
        let error = try_run(spec).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{target}: {error}");
    }
    let mut spec = fixture.script("true");
    spec.binds = vec![Bind {
        source: host.path().into(),
        target: "/../../../etc".into(),
        read_only: true,
    }];
    assert_eq!(
        run(spec).code(),
        0,
        "the root has no parent: it is bound over its own /etc"
    );
}

fn new_files_get_the_usual_mode() {
    for id in [0, 1000] {
        let fixture = Fixture::new();
        let mut spec = fixture.script("umask; echo x > /home/f; mkdir /home/d; stat -c '%a %u %g' /home/f /home/d");
        spec.identity = crate::fixture::user(id);
        assert_eq!(run(spec).stdout, format!("0022\n644 {id} {id}\n755 {id} {id}\n"));
        let owner = fs::metadata(fixture.path("home/f")).unwrap().uid();
        let expected = if crate::harness::is_root() {
            HOST_ID
        } else {
            rustix::process::geteuid().as_raw()
        };
        assert_eq!(owner, expected);
    }
}
