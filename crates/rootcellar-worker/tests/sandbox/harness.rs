//! A small test harness: runs claims one after the other, and says what it skipped and why.

use std::env;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::limits::cgroup_parent;

/// The user that claims are run as the second and third time: Debian's `nobody`.
const UNPRIVILEGED: &str = "65534";
/// Tells a later run that it is one.
const SECOND_RUN: &str = "--without-privileges";

/// One claim about the sandbox.
pub(crate) struct Claim {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) holds: fn(),
}

/// What a claim needs of the machine, beyond busybox and user namespaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Root,
    /// A user without privileges: the second run has one.
    NoRoot,
    Gcc,
    /// Somewhere to make a control group.
    Cgroup,
}

struct Options {
    filters: Vec<String>,
    exact: bool,
    list: bool,
    second_run: bool,
}

pub(crate) fn run(groups: &[&[Claim]]) -> ExitCode {
    let options = Options::of_command_line();
    let chosen: Vec<_> = groups
        .iter()
        .copied()
        .flatten()
        .filter(|claim| options.choose(claim))
        .collect();
    if options.list {
        chosen.iter().for_each(|claim| println!("{}: test", claim.name));
        return ExitCode::SUCCESS;
    }
    let verdicts: Vec<_> = chosen.iter().map(|claim| try_claim(claim)).collect();
    let failed = verdicts.iter().filter(|held| !**held).count();
    println!("{} claims, {failed} failed", verdicts.len());
    let again = options.second_run || chosen.is_empty() || run_without_privileges();
    if failed == 0 && again {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Options {
    fn of_command_line() -> Self {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let (exact, list, second_run) = (has("--exact"), has("--list"), has(SECOND_RUN));
        Self {
            filters: arguments.into_iter().filter(|word| !word.starts_with('-')).collect(),
            exact,
            list,
            second_run,
        }
    }

    fn choose(&self, claim: &Claim) -> bool {
        let fits = |filter: &String| {
            if self.exact {
                claim.name == filter
            } else {
                claim.name.contains(filter.as_str())
            }
        };
        self.filters.is_empty() || self.filters.iter().any(fits)
    }
}

/// Runs a claim, and returns whether it held or was skipped by right.
fn try_claim(claim: &Claim) -> bool {
    if let Some(reason) = claim.needs.iter().find_map(Need::unmet).or_else(unmet_by_all) {
        let required = env::var_os("ROOTCELLAR_REQUIRE_ALL").is_some_and(|value| value == "1");
        let right = reason.by_design || !required;
        println!(
            "test {} ... {}: {}",
            claim.name,
            if right { "skipped" } else { "FAILED, skipped" },
            reason.text
        );
        return right;
    }
    let held = catch_unwind(claim.holds).is_ok();
    println!("test {} ... {}", claim.name, if held { "ok" } else { "FAILED" });
    held
}

struct Unmet {
    text: &'static str,
    /// Whether no machine could meet it in this run.
    by_design: bool,
}

impl Need {
    fn unmet(&self) -> Option<Unmet> {
        let second_run = env::args().any(|argument| argument == SECOND_RUN);
        match self {
            Self::Root if !is_root() => Some(Unmet {
                text: "not run as root",
                by_design: second_run,
            }),
            Self::NoRoot if is_root() => Some(Unmet {
                text: "run as root",
                by_design: true,
            }),
            Self::Gcc if !Path::new("/usr/bin/gcc").exists() => Some(Unmet {
                text: "no gcc",
                by_design: false,
            }),
            Self::Cgroup if cgroup_parent().is_none() => Some(Unmet {
                text: "no cgroups to use",
                by_design: second_run,
            }),
            _ => None,
        }
    }
}

fn unmet_by_all() -> Option<Unmet> {
    let present = Path::new("/bin/busybox").exists();
    (!present).then_some(Unmet {
        text: "no /bin/busybox: install busybox-static",
        by_design: false,
    })
}

/// Whether this is the root of the machine, not of a container that maps it to somebody else.
pub(crate) fn is_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    rustix::process::geteuid().is_root() && map.split_ascii_whitespace().take(2).eq(["0", "0"])
}

/// Runs the same claims again as a user without privileges, and as the root of a rootless container, if this is root.
fn run_without_privileges() -> bool {
    if !is_root() {
        return true;
    }
    let runs: [(&str, &[&str]); 2] = [
        ("as a user without privileges", &[]),
        ("as the root of a container", &["unshare", "-r"]),
    ];
    let held = runs.map(|(title, wrapper)| {
        println!("again, {title}:");
        let ids = ["--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED, "--clear-groups"];
        let status = Command::new("setpriv")
            .args(ids)
            .args(wrapper)
            .arg(env::current_exe().expect("a program has a path"))
            .args(env::args().skip(1))
            .arg(SECOND_RUN)
            .status();
        status.expect("setpriv of util-linux starts").success()
    });
    held == [true, true]
}
