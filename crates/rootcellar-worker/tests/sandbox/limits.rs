//! Claims about what the command may use of the machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fixture::{Fixture, block_on, run, start, try_run};
use crate::harness::{Claim, Need};

pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "limits_are_the_specs",
        needs: &[],
        holds: limits_are_the_specs,
    },
    Claim {
        name: "memory_runs_out_for_the_command_first",
        needs: &[],
        holds: memory_runs_out_for_the_command_first,
    },
    Claim {
        name: "cgroups_are_joined_before_the_command_starts",
        needs: &[Need::Cgroup],
        holds: cgroups_are_joined_before_the_command_starts,
    },
    Claim {
        name: "a_cgroup_that_cannot_be_joined_is_named",
        needs: &[],
        holds: a_cgroup_that_cannot_be_joined_is_named,
    },
];

fn limits_are_the_specs() {
    let fixture = Fixture::new();
    let mut spec = fixture.script("ulimit -Sc; ulimit -Hc; ulimit -Sn; ulimit -Hn; ulimit -f; grep processes /proc/self/limits | tr -s ' ' | cut -d' ' -f3,4");
    spec.limits.open_files = 2000;
    spec.limits.file_bytes = Some(1 << 20);
    spec.limits.processes = Some(50);
    assert_eq!(run(spec).stdout, "0\n0\n1024\n2000\n2048\n50 50\n");
    let mut spec = fixture.script("n=0; while [ $n -lt 100 ]; do sleep 100 & n=$((n+1)); done; echo forked");
    spec.limits.processes = Some(50);
    let ran = run(spec);
    assert!(ran.stderr.contains("can't fork"), "{ran:?}");
    let mut spec = fixture.script("head -c 2000000 /dev/zero > /home/big; stat -c %s /home/big");
    spec.limits.file_bytes = Some(1 << 20);
    assert_eq!(run(spec).stdout, "1048576\n");
}

fn memory_runs_out_for_the_command_first() {
    let fixture = Fixture::new();
    let score: i32 = fixture.shell("cat /proc/self/oom_score_adj").trim().parse().unwrap();
    assert!(score >= 500, "{score}");
}

fn cgroups_are_joined_before_the_command_starts() {
    let (fixture, group) = (Fixture::new(), Cgroup::new());
    block_on(async {
        let mut spec = fixture.script("cat /proc/self/cgroup; echo up; sleep 1000");
        spec.cgroups = vec![group.0.join("cgroup.procs")];
        let mut started = start(spec).await;
        started.says("up").await;
        let members = fs::read_to_string(group.0.join("cgroup.procs")).unwrap();
        assert!(
            members.lines().count() >= 2,
            "init and the command are members: {members}"
        );
        started.running.kill();
        let ran = started.end().await.unwrap();
        assert!(
            ran.stdout.lines().all(|line| line == "up" || line.contains(":/")),
            "{ran:?}"
        );
    });
    fs::remove_dir(&group.0).expect("a group without members can be removed");
}

fn a_cgroup_that_cannot_be_joined_is_named() {
    let fixture = Fixture::new();
    let mut spec = fixture.script("true");
    spec.cgroups = vec!["/nowhere/cgroup.procs".into()];
    let error = try_run(spec).unwrap_err();
    assert!(error.to_string().starts_with("join /nowhere/cgroup.procs: "), "{error}");
}

/// A control group of its own.
#[derive(Debug)]
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Self {
        let path = cgroup_parent()
            .unwrap()
            .join(format!("rootcellar-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

/// Returns a group of this machine in which groups can be made: of version 2, or of version 1's simplest controller.
pub(crate) fn cgroup_parent() -> Option<&'static Path> {
    let parents = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"].map(Path::new);
    let writable = |path: &&Path| rustix::fs::access(*path, rustix::fs::Access::WRITE_OK).is_ok();
    parents
        .into_iter()
        .filter(|path| path.join("cgroup.procs").exists())
        .find(writable)
}
