//! Claims about how a command is found, started and ended.

use rootcellar_worker::sandbox::{Outcome, Sandbox, SandboxError, SandboxErrorKind, SandboxSpec};

use crate::fixture::{Fixture, block_on, run};
use crate::harness::Claim;

pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "an_exit_code_is_reported_as_it_is",
        needs: &[],
        holds: an_exit_code_is_reported_as_it_is,
    },
    Claim {
        name: "a_signal_is_128_and_its_number",
        needs: &[],
        holds: a_signal_is_128_and_its_number,
    },
    Claim {
        name: "stdout_and_stderr_go_where_they_should",
        needs: &[],
        holds: stdout_and_stderr_go_where_they_should,
    },
    Claim {
        name: "stdin_is_empty",
        needs: &[],
        holds: stdin_is_empty,
    },
    Claim {
        name: "the_environment_is_exactly_the_specs",
        needs: &[],
        holds: the_environment_is_exactly_the_specs,
    },
    Claim {
        name: "a_command_starts_in_its_working_directory",
        needs: &[],
        holds: a_command_starts_in_its_directory,
    },
    Claim {
        name: "a_bare_name_is_found_on_the_specs_path",
        needs: &[],
        holds: a_bare_name_is_found_on_the_specs_path,
    },
    Claim {
        name: "a_bare_name_has_a_default_path",
        needs: &[],
        holds: a_bare_name_has_a_default_path,
    },
    Claim {
        name: "a_name_with_a_slash_is_relative",
        needs: &[],
        holds: a_name_with_a_slash_is_relative,
    },
    Claim {
        name: "the_first_argument_stays_as_given",
        needs: &[],
        holds: the_first_argument_stays_as_given,
    },
    Claim {
        name: "what_cannot_start_says_why",
        needs: &[],
        holds: what_cannot_start_says_why,
    },
    Claim {
        name: "a_program_of_the_host_is_not_found",
        needs: &[],
        holds: a_program_of_the_host_is_not_found,
    },
    Claim {
        name: "a_file_that_cannot_run_does_not_hide_one",
        needs: &[],
        holds: a_file_that_cannot_run_does_not_hide_one,
    },
    Claim {
        name: "an_unfit_spec_starts_nothing",
        needs: &[],
        holds: an_unfit_spec_starts_nothing,
    },
    Claim {
        name: "a_long_command_line_arrives_whole",
        needs: &[],
        holds: a_long_command_line_arrives_whole,
    },
    Claim {
        name: "usage_counts_the_whole_tree",
        needs: &[],
        holds: usage_counts_the_whole_tree,
    },
];

fn an_exit_code_is_reported_as_it_is() {
    let fixture = Fixture::new();
    for code in [0, 1, 42, 255] {
        let ran = run(fixture.script(&format!("exit {code}")));
        assert_eq!(ran.finished.outcome, Outcome::Exited { code, signal: None });
    }
}

fn a_signal_is_128_and_its_number() {
    let fixture = Fixture::new();
    for signal in [1, 6, 9, 11, 15] {
        let ran = run(fixture.script(&format!("kill -{signal} $$")));
        assert_eq!(
            ran.finished.outcome,
            Outcome::Exited {
                code: 128 + signal,
                signal: Some(signal)
            }
        );
    }
}

fn stdout_and_stderr_go_where_they_should() {
    let fixture = Fixture::new();
    let ran = run(fixture.script("echo out; echo err >&2; echo more >> /dev/stdout; echo told >> /dev/stderr"));
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("out\nmore\n", "err\ntold\n")
    );
}

fn stdin_is_empty() {
    let fixture = Fixture::new();
    assert_eq!(fixture.shell("cat; readlink /proc/self/fd/0"), "/dev/null\n");
}

fn the_environment_is_exactly_the_specs() {
    let fixture = Fixture::new();
    let mut spec = fixture.spec(&["/bin/env"]);
    spec.environment = vec![
        ("Z".into(), "1".into()),
        ("A".into(), "".into()),
        ("M M".into(), "x=y\nz".into()),
    ];
    assert_eq!(run(spec).stdout, "Z=1\nA=\nM M=x=y\nz\n");
}

fn a_command_starts_in_its_directory() {
    let fixture = Fixture::new();
    for directory in ["/", "/home", "/tmp"] {
        let mut spec = fixture.spec(&["readlink", "/proc/self/cwd"]);
        spec.working_directory = directory.into();
        assert_eq!(run(spec).stdout.trim_end(), directory);
    }
}

fn a_bare_name_is_found_on_the_specs_path() {
    let fixture = Fixture::new();
    fixture.program("home/mine", b"#!/bin/sh\necho mine\n");
    let mut spec = fixture.spec(&["mine"]);
    spec.environment = vec![("PATH".into(), "/nowhere:/bin/sh:/home".into())];
    assert_eq!(run(spec).stdout, "mine\n");
}

fn a_bare_name_has_a_default_path() {
    let fixture = Fixture::new();
    let mut spec = fixture.spec(&["true"]);
    spec.environment.clear();
    assert_eq!(run(spec).code(), 0);
}

fn a_name_with_a_slash_is_relative() {
    let fixture = Fixture::new();
    fixture.program("home/mine", b"#!/bin/sh\necho mine\n");
    let mut spec = fixture.spec(&["./mine"]);
    spec.working_directory = "/home".into();
    assert_eq!(run(spec).stdout, "mine\n");
    let mut spec = fixture.spec(&["home/mine"]);
    spec.working_directory = "/".into();
    assert_eq!(run(spec).stdout, "mine\n");
}

fn the_first_argument_stays_as_given() {
    let fixture = Fixture::new();
    assert_eq!(
        run(fixture.spec(&["sh", "-c", "echo $0 $1", "zero", "one"])).stdout,
        "zero one\n"
    );
    assert_eq!(
        run(fixture.spec(&["cat", "/proc/self/cmdline"])).stdout,
        "cat\0/proc/self/cmdline\0"
    );
}

fn what_cannot_start_says_why() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("home/data"), "#!/bin/sh\n").unwrap();
    fixture.program("home/orphan", b"#!/usr/bin/perl5 -w\n");
    fixture.program("home/garbage", b"\x7fELFgarbage");
    fixture.program("home/text", b"echo no first line\n");
    let cases = [
        ("nothing", "nothing: not found on PATH /bin"),
        ("/bin/nothing", "/bin/nothing: no such file"),
        ("/bin/sh/x", "/bin/sh/x: no such file"),
        ("/home", "/home: is a directory"),
        ("/home/data", "/home/data: not executable"),
        (
            "/home/orphan",
            "/home/orphan: its interpreter /usr/bin/perl5 is not there",
        ),
        (
            "/home/garbage",
            "/home/garbage: not a program that this machine can run",
        ),
        ("/home/text", "/home/text: not a program that this machine can run"),
    ];
    for (program, expected) in cases {
        let outcome = run(fixture.spec(&[program])).finished.outcome;
        let Outcome::NotStarted { message } = outcome else {
            panic!("{program}: {outcome:?}")
        };
        assert!(message.starts_with(expected), "{program}: {message}");
    }
    let mut spec = fixture.spec(&["true"]);
    spec.working_directory = "/missing".into();
    let Outcome::NotStarted { message } = run(spec).finished.outcome else {
        panic!("started")
    };
    assert!(message.starts_with("working directory /missing: "), "{message}");
}

fn a_program_of_the_host_is_not_found() {
    let fixture = Fixture::new();
    let mut spec = fixture.spec(&["gcc"]);
    spec.environment = vec![("PATH".into(), "/usr/bin:/bin:/sbin".into())];
    assert!(matches!(run(spec).finished.outcome, Outcome::NotStarted { .. }));
}

fn a_file_that_cannot_run_does_not_hide_one() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("home/true"), "data").unwrap();
    let mut spec = fixture.spec(&["true"]);
    spec.environment = vec![("PATH".into(), "/home:/bin".into())];
    assert_eq!(run(spec).code(), 0);
}

fn an_unfit_spec_starts_nothing() {
    type Spoil = fn(&mut SandboxSpec);
    let spoils: [Spoil; 7] = [
        |spec| spec.arguments.clear(),
        |spec| spec.arguments[0] = "".into(),
        |spec| spec.arguments.push("a\0b".into()),
        |spec| spec.environment.push(("A=B".into(), "".into())),
        |spec| spec.environment.push(("".into(), "".into())),
        |spec| spec.working_directory = "home".into(),
        |spec| spec.hostname = "x".repeat(65),
    ];
    let fixture = Fixture::new();
    for spoil in spoils {
        let mut spec = fixture.script("true");
        spoil(&mut spec);
        let described = format!("{spec:?}");
        let error = block_on(refused(spec));
        assert_eq!(error.kind(), SandboxErrorKind::Unfit, "{error}: {described}");
    }
}

async fn refused(spec: SandboxSpec) -> SandboxError {
    let started = Sandbox::of_this_program()
        .start(spec, tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap())
        .await;
    started.expect_err("an unfit spec is refused at once")
}

fn a_long_command_line_arrives_whole() {
    let fixture = Fixture::new();
    let mut arguments = vec![
        "sh".to_owned(),
        "-c".to_owned(),
        "echo $# ${#1}".to_owned(),
        "sh".to_owned(),
    ];
    arguments.extend((0..15).map(|_| "x".repeat(100_000)));
    assert_eq!(run(fixture.spec(&arguments)).stdout, "15 100000\n");
    arguments.extend((0..2).map(|_| "x".repeat(200_000)));
    let outcome = run(fixture.spec(&arguments)).finished.outcome;
    assert!(
        matches!(&outcome, Outcome::NotStarted { message } if message.contains("too long")),
        "{outcome:?}"
    );
}

fn usage_counts_the_whole_tree() {
    let burn = "n=0; while [ $n -lt 100000 ]; do n=$((n+1)); done";
    let fixture = Fixture::new();
    let usage = run(fixture.script(&format!("( {burn} ) & ( {burn} ) & wait")))
        .finished
        .usage;
    let nothing = run(fixture.script("true")).finished.usage;
    assert!(usage.user > nothing.user * 2, "{usage:?} {nothing:?}");
    assert!(usage.max_rss_bytes > 100_000, "{usage:?}");
}
