//! Process 1 of a sandbox: builds it from within, starts the command, and ends everything when the command ends.
//!
//! It shares the command's user id, but nothing else: it cannot be traced, its memory and descriptors cannot be opened,
//! signals from inside do not reach it, and it gives up all power before the command starts.

use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::process::{Signal, set_parent_process_death_signal, umask};
use rustix::system::{setdomainname, sethostname};

use super::command::{Command, Started};
use super::error::{Failure, SandboxErrorKind, failed};
use super::identity::{self, MappingPower};
use super::message::Report;
use super::order::Order;
use super::reaper::{Reaper, end_all_others};
use super::root::{self, HostTrees};
use super::seccomp::{self, Listener};
use super::spec::{Network, SandboxSpec};
use super::sys;

/// What a kernel that was never told calls its NIS domain.
const NO_DOMAIN: &[u8] = b"(none)";

/// What init is born with: it is a copy of the launcher.
#[derive(Debug)]
pub(super) struct Init {
    pub(super) order: Order,
    pub(super) trees: Option<HostTrees>,
    pub(super) power: MappingPower,
    pub(super) launcher: UnixStream,
    /// The launcher's own sockets. Held open here, they would hide the end of whoever is at their other end.
    pub(super) not_ours: [RawFd; 2],
}

/// Lives the whole life of process 1, and returns its exit code.
pub(super) fn run(init: Init) -> i32 {
    let Init {
        order,
        trees,
        power,
        mut launcher,
        not_ours,
    } = init;
    sys::close_inherited(not_ours);
    let report = live(order, trees, power, &mut launcher).unwrap_or_else(Report::Failed);
    // When the launcher is not there to hear the report, nobody is there to hear of that either.
    i32::from(launcher.write_all(&report.encode()).is_err())
}

fn live(
    order: Order,
    trees: Option<HostTrees>,
    power: MappingPower,
    launcher: &mut UnixStream,
) -> Result<Report, Failure> {
    wait_until_mapped(launcher)?;
    rustix::thread::set_name(c"sandbox-init").map_err(failed("name the process"))?;
    let spec = &order.spec;
    sys::unshare("mount", libc::CLONE_NEWNS)?;
    root::leave_host_propagation()?;
    let trees = trees.map_or_else(|| HostTrees::take(spec), Ok)?;
    identity::assume(spec.identity, power)?;
    leave_host_namespaces(spec)?;
    umask(Mode::empty());
    root::enter(trees, spec)?;
    let listener = renounce()?;
    die_with_the_launcher(launcher)?;

    let command = Command::new(order)?;
    let reaper = Reaper::new()?;
    let begin = Instant::now();
    match command.start()? {
        Started::Running(pid) => {
            let wait_status = reaper.run_until_end_of(pid, listener.as_ref())?;
            let wall = begin.elapsed();
            end_all_others()?;
            Ok(Report::Ended { wait_status, wall })
        }
        Started::Not(report) => Ok(report),
    }
}

fn wait_until_mapped(launcher: &mut UnixStream) -> Result<(), Failure> {
    launcher.read_exact(&mut [0]).map_err(failed("wait for the id maps"))
}

fn leave_host_namespaces(spec: &SandboxSpec) -> Result<(), Failure> {
    sys::unshare("ipc", libc::CLONE_NEWIPC)?;
    sys::unshare("cgroup", libc::CLONE_NEWCGROUP)?;
    sys::unshare("uts", libc::CLONE_NEWUTS)?;
    sethostname(spec.hostname.as_bytes()).map_err(failed("set the host name"))?;
    setdomainname(NO_DOMAIN).map_err(failed("set the domain name"))?;
    if spec.network == Network::Loopback {
        sys::unshare("network", libc::CLONE_NEWNET)?;
        sys::bring_up_loopback().map_err(failed("bring up the loopback interface"))?;
    }
    Ok(())
}

/// Gives up all power and all secrets; what is started from here on has none either. Returns the calls that the filter
/// leaves to this process.
fn renounce() -> Result<Option<Listener>, Failure> {
    sys::join_new_session_keyring().map_err(failed("join a new session keyring"))?;
    identity::drop_all_power()?;
    identity::hide_from_same_user()?;
    seccomp::install()
}

/// Asks the kernel to kill this process, and with it the sandbox, when the launcher ends. The launcher has one thread,
/// so that its end is the end of the process. Changes of identity would undo this: it comes after them.
fn die_with_the_launcher(launcher: &UnixStream) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("tie the sandbox to its launcher"))?;
    let mut source = [PollFd::new(launcher, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut source, Some(&at_once)) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Failure {
            kind: SandboxErrorKind::Lost,
            step: "the launcher has ended".to_owned(),
            errno: 0,
        }),
        Err(errno) => Err(failed("look for the launcher")(errno)),
    }
}
