//! Claims about who the command is and what it inherits.

use rootcellar_worker::sandbox::{Identity, Personality, Sandbox, SandboxErrorKind};

use crate::fixture::{Fixture, HOST_ID, block_on, run, start, try_run, user};
use crate::harness::{Claim, Need};
use crate::processes::{helpers_below, launchers, status_field, unique_nap, with};

pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "the_command_is_who_the_spec_says",
        needs: &[],
        holds: the_command_is_who_the_spec_says,
    },
    Claim {
        name: "outside_it_is_nobody",
        needs: &[Need::Root],
        holds: outside_it_is_nobody,
    },
    Claim {
        name: "it_is_never_the_root_of_the_host",
        needs: &[Need::Root],
        holds: it_is_never_the_root_of_the_host,
    },
    Claim {
        name: "others_can_only_map_themselves",
        needs: &[Need::NoRoot],
        holds: others_can_only_map_themselves,
    },
    Claim {
        name: "it_has_no_power",
        needs: &[],
        holds: it_has_no_power,
    },
    Claim {
        name: "root_inside_cannot_do_what_root_does",
        needs: &[],
        holds: root_inside_cannot_do_what_root_does,
    },
    Claim {
        name: "set_user_id_programs_do_nothing",
        needs: &[Need::Root],
        holds: set_user_id_programs_do_nothing,
    },
    Claim {
        name: "no_descriptor_is_inherited",
        needs: &[],
        holds: no_descriptor_is_inherited,
    },
    Claim {
        name: "signals_are_default_and_unblocked",
        needs: &[],
        holds: signals_are_default_and_unblocked,
    },
    Claim {
        name: "it_leads_a_session_of_its_own",
        needs: &[],
        holds: it_leads_a_session_of_its_own,
    },
    Claim {
        name: "the_host_name_is_the_specs",
        needs: &[],
        holds: the_host_name_is_the_specs,
    },
    Claim {
        name: "a_32_bit_action_sees_a_32_bit_machine",
        needs: &[],
        holds: a_32_bit_action_sees_a_32_bit_machine,
    },
    Claim {
        name: "the_helper_holds_nothing_of_the_server",
        needs: &[],
        holds: the_helper_holds_nothing_of_the_server,
    },
    Claim {
        name: "a_probe_finds_that_all_parts_work",
        needs: &[],
        holds: a_probe_finds_that_all_parts_work,
    },
    Claim {
        name: "the_hidden_argument_alone_does_nothing",
        needs: &[],
        holds: the_hidden_argument_alone_does_nothing,
    },
];

fn the_command_is_who_the_spec_says() {
    let fixture = Fixture::new();
    for id in [0, 1000, 4_000_000_000] {
        let mut spec = fixture.script("id -u; id -g; grep -E '^(Uid|Gid)' /proc/self/status | cut -f2-");
        spec.identity = user(id);
        let four = [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join("\t");
        assert_eq!(run(spec).stdout, format!("{id}\n{id}\n{four}\n{four}\n"));
    }
}

fn outside_it_is_nobody() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    block_on(async {
        let mut started = start(fixture.script(&format!("echo up; sleep {nap}"))).await;
        started.says("up").await;
        let pid = with(&nap);
        let four = [HOST_ID, HOST_ID, HOST_ID, HOST_ID].map(|id| id.to_string()).join("\t");
        assert_eq!(status_field(pid, "Uid"), four);
        assert_eq!(status_field(pid, "Gid"), four);
        assert_eq!(status_field(pid, "Groups").trim(), "");
        started.running.kill();
        started.end().await.unwrap();
    });
}

fn it_is_never_the_root_of_the_host() {
    let fixture = Fixture::new();
    for (host_uid, host_gid) in [(0, HOST_ID), (HOST_ID, 0)] {
        let mut spec = fixture.script("true");
        spec.identity = Identity {
            uid: 0,
            gid: 0,
            host_uid,
            host_gid,
        };
        let error = try_run(spec).unwrap_err();
        assert_eq!(error.kind(), SandboxErrorKind::Unfit, "{error}");
    }
}

fn others_can_only_map_themselves() {
    let fixture = Fixture::new();
    let mut spec = fixture.script("true");
    spec.identity = Identity {
        host_uid: HOST_ID,
        ..spec.identity
    };
    let error = try_run(spec).unwrap_err();
    assert_eq!(error.kind(), SandboxErrorKind::Machine, "{error}");
}

fn it_has_no_power() {
    let fixture = Fixture::new();
    for id in [0, 1000] {
        let mut spec = fixture.script("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | cut -f2");
        spec.identity = user(id);
        let none = "0000000000000000\n";
        assert_eq!(run(spec).stdout, format!("{}1\n2\n", none.repeat(5)));
    }
}

fn root_inside_cannot_do_what_root_does() {
    let fixture = Fixture::new();
    let forbidden = [
        "chroot / true",
        "mount -t tmpfs none /tmp",
        "umount /tmp",
        "mknod /tmp/n c 1 3",
        "hostname other",
        "chown 5 /home",
        "ip link set lo down",
        "ip link add type dummy",
        "dmesg",
        "unshare -U true",
        "unshare -m true",
    ];
    for command in forbidden {
        let ran = run(fixture.script(command));
        assert_ne!(ran.code(), 0, "{command}: {ran:?}");
    }
    assert_eq!(fixture.shell("hostname"), "rootcellar\n");
}

fn set_user_id_programs_do_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    std::fs::copy("/bin/busybox", fixture.path("bin/id")).unwrap_or(0);
    std::fs::remove_file(fixture.path("bin/id")).unwrap();
    std::fs::copy("/bin/busybox", fixture.path("bin/id")).unwrap();
    std::fs::set_permissions(fixture.path("bin/id"), std::fs::Permissions::from_mode(0o6755)).unwrap();
    let mut spec = fixture.script("id -u; id -g");
    spec.identity = user(1000);
    assert_eq!(run(spec).stdout, "1000\n1000\n");
}

fn no_descriptor_is_inherited() {
    let listing = Fixture::new().shell("ls /proc/$$/fd; true");
    assert_eq!(listing, "0\n1\n2\n");
}

fn signals_are_default_and_unblocked() {
    let fixture = Fixture::new();
    let ran = run(fixture.spec(&["grep", "-E", "^(SigBlk|SigIgn|SigCgt)", "/proc/self/status"]));
    let expected = ["SigBlk", "SigIgn", "SigCgt"]
        .map(|name| format!("{name}:\t0000000000000000\n"))
        .concat();
    assert_eq!(ran.stdout, expected);
}

fn it_leads_a_session_of_its_own() {
    let ran = Fixture::new().shell("cut -d' ' -f1,5,6,7 /proc/$$/stat");
    assert_eq!(ran, "2 2 2 0\n", "pid, process group, session, no terminal");
}

fn the_host_name_is_the_specs() {
    let fixture = Fixture::new();
    let mut spec = fixture.script("hostname; cat /proc/sys/kernel/domainname");
    assert_eq!(run(fixture.script("hostname")).stdout, "rootcellar\n");
    spec.hostname = "worker-7".into();
    assert_eq!(run(spec).stdout, "worker-7\n(none)\n");
}

fn a_32_bit_action_sees_a_32_bit_machine() {
    let fixture = Fixture::new();
    let mut spec = fixture.script("uname -m");
    spec.personality = Personality::Bits32;
    let expected = if cfg!(target_arch = "x86_64") {
        "i686\n"
    } else {
        "armv8l\n"
    };
    assert_eq!(run(spec).stdout, expected);
}

fn the_helper_holds_nothing_of_the_server() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    // A descriptor that is not closed by `exec`, as careless libraries make them.
    let careless = std::fs::File::open("/etc").unwrap();
    rustix::io::fcntl_setfd(&careless, rustix::io::FdFlags::empty()).unwrap();
    block_on(async {
        let mut started = start(fixture.script(&format!("echo up; ls /proc/$$/fd; sleep {nap}"))).await;
        with(&nap);
        let (spawner, launcher) = (helpers_below(std::process::id())[0], launchers()[0]);
        let init = helpers_below(launcher)[0];
        for helper in [spawner, launcher, init] {
            let environment = std::fs::read(format!("/proc/{helper}/environ"));
            assert!(environment.is_err() || environment.unwrap().is_empty());
        }
        assert_eq!(
            std::fs::read_link(format!("/proc/{launcher}/cwd")).unwrap().to_str(),
            Some("/")
        );
        let descriptors = std::fs::read_dir(format!("/proc/{launcher}/fd")).unwrap().count();
        assert_eq!(descriptors, 5, "the standard three, the server, and init");
        let descriptors = std::fs::read_dir(format!("/proc/{spawner}/fd")).unwrap().count();
        assert_eq!(descriptors, 4, "the standard three, and the server");
        started.running.kill();
        assert_eq!(started.end().await.unwrap().stdout, "up\n0\n1\n2\n");
    });
}

fn the_hidden_argument_alone_does_nothing() {
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program)
        .arg("sandbox-init")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("sandbox-init: "),
        "{output:?}"
    );
    let missing = Sandbox::new("/nowhere/rootcellar");
    let streams = || tempfile::tempfile().unwrap();
    let error = block_on(async { missing.start(Fixture::new().script("true"), streams(), streams()).await });
    assert_eq!(error.unwrap_err().kind(), SandboxErrorKind::Machine);
}

fn a_probe_finds_that_all_parts_work() {
    let parts = block_on(Sandbox::of_this_program().probe()).unwrap();
    assert!(parts.len() > 10, "{parts:?}");
    let failures: Vec<_> = parts.iter().filter(|part| part.failure.is_some()).collect();
    assert!(failures.is_empty(), "the other claims hold, but {failures:?}");
}
