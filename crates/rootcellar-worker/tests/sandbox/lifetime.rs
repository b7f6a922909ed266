//! Claims about when processes end, and that nothing is left of them.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rootcellar_worker::sandbox::{Outcome, SandboxErrorKind};

use crate::fixture::{Fixture, HOST_ID, Started, block_on, run, spec_at, start};
use crate::harness::{Claim, Need};
use crate::processes::{count_with, helpers_below, kill, launchers, unique_nap, wait_until, zombies};

pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "background_processes_end_with_the_command",
        needs: &[],
        holds: background_processes_end,
    },
    Claim {
        name: "daemons_end_with_the_command",
        needs: &[],
        holds: daemons_end_with_the_command,
    },
    Claim {
        name: "kill_ends_the_whole_tree",
        needs: &[],
        holds: kill_ends_the_whole_tree,
    },
    Claim {
        name: "kill_at_once_is_a_kill",
        needs: &[],
        holds: kill_at_once_is_a_kill,
    },
    Claim {
        name: "kill_after_the_end_changes_nothing",
        needs: &[],
        holds: kill_after_the_end_changes_nothing,
    },
    Claim {
        name: "dropping_the_handle_kills",
        needs: &[],
        holds: dropping_the_handle_kills,
    },
    Claim {
        name: "the_death_of_the_launcher_kills",
        needs: &[],
        holds: the_death_of_the_launcher_kills,
    },
    Claim {
        name: "the_death_of_the_spawner_kills_nothing",
        needs: &[],
        holds: the_death_of_the_spawner_kills_nothing,
    },
    Claim {
        name: "the_death_of_init_kills",
        needs: &[],
        holds: the_death_of_init_kills,
    },
    Claim {
        name: "the_death_of_the_server_kills",
        needs: &[],
        holds: the_death_of_the_server_kills,
    },
    Claim {
        name: "the_end_of_the_starting_thread_kills_nothing",
        needs: &[],
        holds: the_end_of_a_thread_kills_nothing,
    },
    Claim {
        name: "waiting_can_be_interrupted_and_resumed",
        needs: &[],
        holds: waiting_can_be_interrupted,
    },
    Claim {
        name: "killing_everybody_inside_reaches_nobody_outside",
        needs: &[],
        holds: killing_everybody_inside,
    },
    Claim {
        name: "killing_everybody_spares_the_same_host_user",
        needs: &[Need::Root],
        holds: killing_spares_the_same_user,
    },
    Claim {
        name: "orphans_are_reaped_while_the_command_runs",
        needs: &[],
        holds: orphans_are_reaped,
    },
    Claim {
        name: "a_fork_bomb_ends_when_it_is_killed",
        needs: &[],
        holds: a_fork_bomb_ends_when_it_is_killed,
    },
    Claim {
        name: "many_sandboxes_run_at_once",
        needs: &[],
        holds: many_sandboxes_run_at_once,
    },
    Claim {
        name: "two_hundred_runs_leak_nothing",
        needs: &[],
        holds: two_hundred_runs_leak_nothing,
    },
];

/// The argument that makes the test program a server that starts one sandbox and waits to be killed.
const DOOMED_SERVER: &str = "--doomed-server";

/// Plays the server that dies, if that is what this process was started for.
pub(crate) fn play_doomed_server_if_told() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, root, nap] = arguments.as_slice()
        && flag == DOOMED_SERVER
    {
        block_on(async { start(spec_at(root.into(), &["sleep", nap])).await.end().await }).unwrap();
    }
}

fn background_processes_end() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    let ran = run(fixture.script(&format!("sleep {nap} & sleep {nap} & exit 3")));
    assert_eq!((ran.code(), count_with(&nap)), (3, 0));
}

fn daemons_end_with_the_command() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    let daemon = format!("(setsid sh -c 'trap \"\" TERM HUP INT; sleep {nap} & touch /tmp/up; wait' &)");
    let ran = run(fixture.script(&format!("{daemon}; until test -e /tmp/up; do :; done; exit 4")));
    assert_eq!((ran.code(), count_with(&nap)), (4, 0));
}

/// Starts a command that sleeps, with two more processes, and returns when all of them do.
async fn sleeper(fixture: &Fixture, nap: &str) -> Started {
    let mut started = start(fixture.script(&format!("sleep {nap} & (sleep {nap} &); echo up; wait"))).await;
    started.says("up").await;
    // The shell does not wait until they are more than copies of itself.
    wait_until(|| count_with(nap) == 2);
    started
}

fn kill_ends_the_whole_tree() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    block_on(async {
        let mut started = sleeper(&fixture, &nap).await;
        started.running.kill();
        assert_eq!(started.end().await.unwrap().finished.outcome, Outcome::Killed);
    });
    assert_eq!(count_with(&nap), 0);
}

fn kill_at_once_is_a_kill() {
    let fixture = Fixture::new();
    for _ in 0..20 {
        let outcome = block_on(async {
            let mut started = start(fixture.spec(&["sleep", "1000"])).await;
            started.running.kill();
            started.end().await.unwrap().finished.outcome
        });
        assert_eq!(outcome, Outcome::Killed);
    }
}

fn kill_after_the_end_changes_nothing() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    block_on(async {
        let mut started = start(fixture.script("exit 5")).await;
        let first = started.running.wait().await.unwrap();
        started.running.kill();
        assert_eq!(started.running.wait().await.unwrap(), first);
        assert_eq!(first.outcome, Outcome::Exited { code: 5, signal: None });
    });
    assert_eq!(count_with(&nap), 0);
}

fn dropping_the_handle_kills() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    block_on(async { drop(sleeper(&fixture, &nap).await) });
    wait_until(|| count_with(&nap) == 0 && launchers().is_empty());
}

fn the_death_of_the_launcher_kills() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    let error = block_on(async {
        let started = sleeper(&fixture, &nap).await;
        let watching = launchers();
        assert_eq!(watching.len(), 1);
        kill(watching[0]);
        started.end().await.unwrap_err()
    });
    assert_eq!(error.kind(), SandboxErrorKind::Lost, "{error}");
    wait_until(|| count_with(&nap) == 0);
}

fn the_death_of_the_spawner_kills_nothing() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    block_on(async {
        let mut started = sleeper(&fixture, &nap).await;
        let spawners = helpers_below(std::process::id());
        assert_eq!(spawners.len(), 1);
        kill(spawners[0]);
        wait_until(|| launchers().is_empty());
        assert_eq!(count_with(&nap), 2, "what runs goes on");
        // The next one is started by another spawner.
        assert_eq!(start(fixture.script("exit 6")).await.end().await.unwrap().code(), 6);
        started.running.kill();
        assert_eq!(started.end().await.unwrap().finished.outcome, Outcome::Killed);
    });
    assert_eq!(count_with(&nap), 0);
}

fn the_death_of_init_kills() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    let error = block_on(async {
        let started = sleeper(&fixture, &nap).await;
        let inits = helpers_below(launchers()[0]);
        assert_eq!(inits.len(), 1);
        kill(inits[0]);
        started.end().await.unwrap_err()
    });
    assert_eq!((error.kind(), count_with(&nap)), (SandboxErrorKind::Lost, 0), "{error}");
    assert!(error.to_string().contains("signal 9"), "{error}");
}

fn the_death_of_the_server_kills() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    let mut server = Command::new(std::env::current_exe().unwrap());
    let mut server = server
        .arg(DOOMED_SERVER)
        .arg(fixture.path(""))
        .arg(&nap)
        .spawn()
        .unwrap();
    // The server has the word in its own command line: the second one is the command's.
    wait_until(|| count_with(&nap) == 2);
    server.kill().unwrap();
    server.wait().unwrap();
    wait_until(|| count_with(&nap) == 0);
}

fn the_end_of_a_thread_kills_nothing() {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let spec = fixture.script("until test -e /home/go; do :; done; exit 7");
    let started = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(start(spec))).join().unwrap());
    fs::write(fixture.path("home/go"), "").unwrap();
    assert_eq!(runtime.block_on(started.end()).unwrap().code(), 7);
}

fn waiting_can_be_interrupted() {
    let fixture = Fixture::new();
    block_on(async {
        let mut started = start(fixture.script("until test -e /home/go; do :; done; exit 7")).await;
        for _ in 0..20 {
            let wait = tokio::time::timeout(Duration::from_millis(1), started.running.wait());
            assert!(wait.await.is_err(), "the command waits for a file");
        }
        fs::write(fixture.path("home/go"), "").unwrap();
        let code = loop {
            if let Ok(finished) = tokio::time::timeout(Duration::from_micros(50), started.running.wait()).await {
                break finished.unwrap().outcome;
            }
        };
        assert_eq!(code, Outcome::Exited { code: 7, signal: None });
    });
}

fn killing_everybody_inside() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    let mut bystander = Command::new("sleep").arg(&nap).spawn().unwrap();
    let ran = run(fixture.script("sleep 1000 & kill -9 -1; kill -9 1; wait; echo $?"));
    assert_eq!(ran.stdout, "0\n");
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander was killed");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

fn killing_spares_the_same_user() {
    let fixture = Fixture::new();
    let id = HOST_ID.to_string();
    let mut bystander = Command::new("setpriv")
        .args(["--reuid", &id, "--clear-groups", "sleep", "1000"])
        .spawn()
        .unwrap();
    run(fixture.script("kill -9 -1"));
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander was killed");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

fn orphans_are_reaped() {
    let fixture = Fixture::new();
    let orphans = "n=0; while [ $n -lt 50 ]; do (true &); n=$((n+1)); done";
    let none_left = "while ps -o stat | grep -q Z; do :; done";
    assert_eq!(
        run(fixture.script(&format!("{orphans}; {none_left}; echo none"))).stdout,
        "none\n"
    );
}

fn a_fork_bomb_ends_when_it_is_killed() {
    let (fixture, nap) = (Fixture::new(), unique_nap());
    // A shell that cannot fork ends, so those that could are to stay: a bomb that burns out proves nothing.
    let bomb = "bomb() { bomb 2>/dev/null & bomb 2>/dev/null & exec sleep \"$0\"; }; bomb & echo up; exec sleep \"$0\"";
    let mut spec = fixture.spec(&["sh", "-c", bomb, &nap]);
    spec.limits.processes = Some(400);
    block_on(async {
        let mut started = start(spec).await;
        started.says("up").await;
        wait_until(|| count_with(&nap) > 100);
        started.running.kill();
        assert_eq!(started.end().await.unwrap().finished.outcome, Outcome::Killed);
    });
    assert_eq!(count_with(&nap), 0);
}

fn many_sandboxes_run_at_once() {
    let fixture = Fixture::new();
    block_on(async {
        let mut all = Vec::new();
        for code in 0..24 {
            all.push((
                code,
                start(fixture.script(&format!("until test -e /home/go; do :; done; exit {code}"))).await,
            ));
        }
        fs::write(fixture.path("home/go"), "").unwrap();
        for (code, started) in all {
            assert_eq!(started.end().await.unwrap().code(), code);
        }
    });
}

fn two_hundred_runs_leak_nothing() {
    let fixture = Fixture::new();
    let state = || {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        (descriptors, mounts, zombies(), helpers_below(std::process::id()).len())
    };
    block_on(async {
        start(fixture.spec(&["true"])).await.end().await.unwrap();
        let before = state();
        for round in 0..200 {
            let mut started = start(fixture.spec(&["sleep", if round % 4 == 0 { "1000" } else { "0" }])).await;
            if round % 4 == 0 {
                started.running.kill();
            }
            started.end().await.unwrap();
        }
        assert_eq!(state(), before);
    });
}
