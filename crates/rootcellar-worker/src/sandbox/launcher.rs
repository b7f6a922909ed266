//! The first process of the helper: outside the sandbox, as the server's user, watching both sides.
//!
//! It takes the order, starts the sandbox's init in a new user and pid namespace, maps its ids, and then waits for one of
//! two things: init's report, or the end of the server's socket, which means "kill". When init has been waited for,
//! the kernel has ended every process of its pid namespace; only then is the report passed on.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::error::{Failure, SandboxErrorKind, failed};
use super::identity::{self, MappingPower};
use super::init::{self, Init};
use super::message::{FinalReport, REPORT_BYTES_MAX, Report, Usage};
use super::order::Order;
use super::root::HostTrees;
use super::spec::SandboxSpec;
use super::sys;

/// The byte that tells init that it is mapped and may go on.
pub(super) const GO: [u8; 1] = [1];

/// Runs one order of the server at the other end of `server`, from its arrival to its report.
///
/// A server that is gone by then is not told anything: that was its way to kill the sandbox.
pub(super) fn serve(mut server: UnixStream) -> io::Result<()> {
    let report = Order::receive(&server)
        .map_err(failed("receive the order"))
        .and_then(|order| supervise(&server, order))
        .unwrap_or_else(|failure| FinalReport {
            report: Report::Failed(failure),
            usage: Usage::default(),
        });
    match server.write_all(&report.encode()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn supervise(server: &UnixStream, order: Order) -> Result<FinalReport, Failure> {
    let identity = order.spec.identity;
    let power = MappingPower::of_this_process()?;
    identity::give_file(&order.stdout, identity, "stdout")?;
    identity::give_file(&order.stderr, identity, "stderr")?;
    let cgroups = order.spec.cgroups.clone();
    let oom_score_adj = order.spec.limits.oom_score_adj;
    let trees = take_trees_if_allowed(&order.spec)?;
    let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket pair"))?;
    let not_ours = [server.as_raw_fd(), ours.as_raw_fd()];
    let init = Init {
        order,
        trees,
        power,
        launcher: theirs,
        not_ours,
    };
    let init = sys::clone_child(libc::CLONE_NEWUSER | libc::CLONE_NEWPID, || init::run(init))
        .map_err(failed("start a process in a new user and pid namespace"))?;
    let prepared = identity::map_ids(init, identity, power)
        .and_then(|()| cgroups.iter().try_for_each(|cgroup| join_cgroup(init, cgroup)))
        .and_then(|()| prefer_for_oom(init, oom_score_adj));
    see_to_its_end(server, ours, init, prepared)
}

/// Copies the host's mounts here, if this process may mount: it can reach directories that only the server's user
/// can. A process that may not leaves it to init, which then has the same user.
fn take_trees_if_allowed(spec: &SandboxSpec) -> Result<Option<HostTrees>, Failure> {
    match HostTrees::take(spec) {
        Err(failure) if failure.errno == Errno::PERM.raw_os_error() => Ok(None),
        taken => taken.map(Some),
    }
}

fn join_cgroup(init: Pid, procs: &PathBuf) -> Result<(), Failure> {
    fs::write(procs, init.as_raw_nonzero().to_string()).map_err(failed(format!("join {}", procs.display())))
}

/// Raises the out-of-memory score of init and what it will start. Lowering it would need a privilege.
fn prefer_for_oom(init: Pid, score: u16) -> Result<(), Failure> {
    let path = format!("/proc/{}/oom_score_adj", init.as_raw_nonzero());
    let path = Path::new(&path);
    let raise = || -> io::Result<()> {
        let current: i32 = fs::read_to_string(path)?.trim_end().parse().map_err(io::Error::other)?;
        if i32::from(score) > current {
            fs::write(path, score.to_string())
        } else {
            Ok(())
        }
    };
    raise().map_err(failed(format!("set the out-of-memory score to {score}")))
}

/// Lets init go on if it is `prepared`, and returns its report when it and all its processes are gone.
fn see_to_its_end(
    server: &UnixStream,
    mut ours: UnixStream,
    init: Pid,
    prepared: Result<(), Failure>,
) -> Result<FinalReport, Failure> {
    // A write that does not arrive means that init is gone already, which is what the wait below finds out.
    let go = prepared.is_ok() && ours.write_all(&GO).is_ok();
    let spoke = if go { init_spoke_first(server, &ours) } else { Ok(false) };
    if !matches!(spoke, Ok(true)) {
        kill_process(init, Signal::KILL).map_err(failed("kill the sandbox"))?;
    }
    let (status, usage) = sys::wait_with_usage(init).map_err(failed("wait for the sandbox"))?;
    prepared?;
    let killed = go && !spoke?;
    let bytes = read_what_was_said(ours).map_err(failed("read the report of the sandbox"))?;
    let report = match Report::decode(&bytes) {
        Ok(report) => report,
        Err(_) if killed => Report::Killed,
        Err(_) => Report::Failed(ended_silently(status)),
    };
    Ok(FinalReport { report, usage })
}

/// Waits until init has reported or ended (true), or until the server wants it killed or is gone (false).
fn init_spoke_first(server: &UnixStream, ours: &UnixStream) -> Result<bool, Failure> {
    loop {
        let mut sources = [
            PollFd::new(ours, PollFlags::IN),
            PollFd::new(server, PollFlags::IN | PollFlags::RDHUP),
        ];
        match poll(&mut sources, None) {
            Ok(_) if !sources[0].revents().is_empty() => return Ok(true),
            Ok(_) if !sources[1].revents().is_empty() => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("wait for the sandbox or the server")(errno)),
        }
    }
}

/// Reads a report to its end. When a process dies before it has read all that it was sent, its end of a socket does not
/// just end but breaks; what it had said before arrives all the same.
fn read_what_was_said(ours: UnixStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match ours.take(REPORT_BYTES_MAX).read_to_end(&mut bytes) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(bytes),
    }
}

fn ended_silently(status: i32) -> Failure {
    let how = match libc::WIFSIGNALED(status) {
        true => format!("signal {}", libc::WTERMSIG(status)),
        false => format!("exit code {}", libc::WEXITSTATUS(status)),
    };
    let step = format!("the sandbox's init ended without a report ({how})");
    Failure {
        kind: SandboxErrorKind::Lost,
        step,
        errno: 0,
    }
}
