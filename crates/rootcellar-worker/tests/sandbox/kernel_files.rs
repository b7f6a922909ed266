//! Claims about `/dev`, `/proc`, `/tmp` and the absent `/sys`.

use std::fs;
use std::path::Path;

use crate::fixture::{Fixture, run};
use crate::harness::Claim;

pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "devices_work",
        needs: &[],
        holds: devices_work,
    },
    Claim {
        name: "dev_has_nothing_else",
        needs: &[],
        holds: dev_has_nothing_else,
    },
    Claim {
        name: "standard_streams_can_be_opened_again",
        needs: &[],
        holds: standard_streams_can_be_opened_again,
    },
    Claim {
        name: "terminals_can_be_made",
        needs: &[],
        holds: terminals_can_be_made,
    },
    Claim {
        name: "tmp_and_shm_are_bounded_memory",
        needs: &[],
        holds: tmp_and_shm_are_bounded_memory,
    },
    Claim {
        name: "tmp_and_dev_leave_nothing_in_the_root",
        needs: &[],
        holds: tmp_and_dev_leave_nothing_in_the_root,
    },
    Claim {
        name: "proc_is_the_sandboxs_own",
        needs: &[],
        holds: proc_is_the_sandboxs_own,
    },
    Claim {
        name: "kernel_knobs_cannot_be_turned",
        needs: &[],
        holds: kernel_knobs_cannot_be_turned,
    },
    Claim {
        name: "kernel_secrets_are_masked",
        needs: &[],
        holds: kernel_secrets_are_masked,
    },
    Claim {
        name: "sys_is_absent",
        needs: &[],
        holds: sys_is_absent,
    },
];

fn devices_work() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.shell("echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c"),
        "3\n5\n"
    );
    assert_eq!(
        fixture.shell("head -c 5 /dev/random | wc -c; echo x 2>/dev/null >/dev/full || echo full"),
        "5\nfull\n"
    );
    assert_eq!(
        fixture.shell("cat < /dev/null; stat -c %a /dev /dev/null /dev/shm /tmp"),
        "755\n666\n1777\n1777\n"
    );
}

fn dev_has_nothing_else() {
    let listing = Fixture::new().shell("ls /dev");
    let expected = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(listing.split_ascii_whitespace().collect::<Vec<_>>().join(" "), expected);
}

fn standard_streams_can_be_opened_again() {
    for id in [0, 1000] {
        let fixture = Fixture::new();
        let mut spec =
            fixture.script("echo out >> /dev/stdout; echo err >> /dev/fd/2; cat /dev/stdin; cat < /dev/fd/0");
        spec.identity = crate::fixture::user(id);
        let ran = run(spec);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    }
}

fn terminals_can_be_made() {
    let fixture = Fixture::new();
    let script = "exec 5<>/dev/ptmx; ls /dev/pts; stat -c %a /dev/pts/ptmx; tty; echo x > /dev/tty || echo none";
    let ran = run(fixture.script(script));
    assert_eq!(ran.stdout, "0\nptmx\n666\nnot a tty\nnone\n", "{}", ran.stderr);
}

fn tmp_and_shm_are_bounded_memory() {
    let fixture = Fixture::new();
    let mut spec = fixture.script(
        "for d in /tmp /dev/shm; do head -c 3000000 /dev/zero > $d/f 2>/dev/null || stat -c %s $d/f; rm $d/f; done; \
         n=0; while [ $n -lt 5000 ]; do touch /tmp/$n 2>/dev/null || break; n=$((n+1)); done; echo $n",
    );
    spec.limits.tmp_bytes = 1 << 20;
    spec.limits.shm_bytes = 2 << 20;
    let ran = run(spec);
    let numbers: Vec<u64> = ran.stdout.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers[..2], [1 << 20, 2 << 20]);
    assert!((500..=1024).contains(&numbers[2]), "{} empty files", numbers[2]);
}

fn tmp_and_dev_leave_nothing_in_the_root() {
    let fixture = Fixture::new();
    fixture.shell("echo x > /tmp/a; echo x > /dev/b; echo x > /dev/shm/c");
    for directory in ["tmp", "dev", "proc"] {
        assert_eq!(fs::read_dir(fixture.path(directory)).unwrap().count(), 0, "{directory}");
    }
}

fn proc_is_the_sandboxs_own() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.shell("echo /proc/[0-9]*; readlink /proc/self/exe"),
        "/proc/1 /proc/2\n/bin/busybox\n"
    );
    assert_eq!(
        fixture.shell("echo $$; test -r /proc/cpuinfo && test -r /proc/meminfo && echo readable"),
        "2\nreadable\n"
    );
}

fn kernel_knobs_cannot_be_turned() {
    let fixture = Fixture::new();
    let knobs = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sysrq-trigger",
    ];
    for knob in knobs {
        for id in [0, 1000] {
            let mut spec = fixture.script(&format!("test ! -e {knob} || echo 1 > {knob}"));
            spec.identity = crate::fixture::user(id);
            let ran = run(spec);
            let refused = ran.stderr.contains("Read-only") || ran.stderr.contains("denied");
            assert!(refused || !Path::new(knob).exists(), "{knob}: {ran:?}");
        }
    }
    let writable = fixture.shell("cat /proc/self/mountinfo | grep ' /proc/sys ' | cut -d' ' -f6");
    assert!(writable.starts_with("ro,"), "{writable}");
}

fn kernel_secrets_are_masked() {
    let fixture = Fixture::new();
    for file in ["kcore", "kallsyms", "keys", "key-users", "timer_list", "kmsg"] {
        assert_eq!(
            fixture.shell(&format!("test ! -e /proc/{file} || cat /proc/{file}")),
            "",
            "{file}"
        );
    }
    let entries = fixture.shell("ls -A /proc/acpi /proc/scsi 2>/dev/null | grep -v : | grep -c . || true");
    assert_eq!(entries, "0\n");
}

fn sys_is_absent() {
    assert_eq!(Fixture::new().shell("ls /sys 2>/dev/null || echo absent"), "absent\n");
}
