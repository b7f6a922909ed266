//! What the server and the helper say to each other, and how it looks as bytes.
//!
//! One socket carries an order down and one report up.
//!
//! ```text
//! order    length of the rest: u64 | spec         with descriptors: stdout, stderr, and the root if it is a mount
//! report   tag: u8 | fields                       ends where the helper closes the socket
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::codec::{Decoder, Encoder, malformed};
use super::error::{Failure, SandboxErrorKind};
use super::spec::{Bind, Identity, Limits, Network, Personality, Root, SandboxSpec, Subtree};

/// The largest spec that is sent. The kernel refuses command lines and environments far below it.
pub(super) const SPEC_BYTES_MAX: u64 = 64 << 20;

/// The largest report: a message about a command that did not start is the longest.
pub(super) const REPORT_BYTES_MAX: u64 = 64 << 10;

/// Tells what a command and everything it started used, the sandbox's own set-up (about a millisecond) included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The most memory that one process held at one time; never less than the few megabytes of the helper itself.
    pub max_rss_bytes: u64,
}

/// What a process of the helper found out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    Failed(Failure),
    NotStarted { message: String },
    Ended { wait_status: i32, wall: Duration },
    Killed,
}

/// A report with what the whole process tree used: what the server gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FinalReport {
    pub(super) report: Report,
    pub(super) usage: Usage,
}

impl Report {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        encode_report(&mut out, self);
        out.bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut input = Decoder::new(bytes);
        let report = decode_report(&mut input)?;
        input.end()?;
        Ok(report)
    }
}

impl FinalReport {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        encode_report(&mut out, &self.report);
        out.duration(self.usage.user);
        out.duration(self.usage.system);
        out.u64(self.usage.max_rss_bytes);
        out.bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut input = Decoder::new(bytes);
        let report = decode_report(&mut input)?;
        let usage = Usage {
            user: input.duration()?,
            system: input.duration()?,
            max_rss_bytes: input.u64()?,
        };
        input.end()?;
        Ok(Self { report, usage })
    }
}

/// Encodes all of a spec but its descriptors.
pub(super) fn encode_spec(spec: &SandboxSpec) -> Vec<u8> {
    let mut out = Encoder::default();
    match &spec.root {
        Root::Path(path) => out.tagged_path(0, path),
        Root::Mount(_) => out.u8(1),
    }
    out.bool(spec.read_only);
    out.list(&spec.subtrees, |out, subtree| {
        out.tagged_path(subtree.read_only.into(), &subtree.path);
    });
    out.list(&spec.binds, |out, bind| {
        out.tagged_path(bind.read_only.into(), &bind.source);
        out.path(&bind.target);
    });
    let Identity {
        uid,
        gid,
        host_uid,
        host_gid,
    } = spec.identity;
    [uid, gid, host_uid, host_gid].into_iter().for_each(|id| out.u32(id));
    out.list(&spec.arguments, |out, argument| out.string(argument.as_bytes()));
    out.list(&spec.environment, |out, (name, value)| {
        out.string(name.as_bytes());
        out.string(value.as_bytes());
    });
    out.path(&spec.working_directory);
    out.string(spec.hostname.as_bytes());
    out.bool(spec.network == Network::Host);
    out.bool(spec.personality == Personality::Bits32);
    encode_limits(&mut out, &spec.limits);
    out.list(&spec.cgroups, |out, path| out.path(path));
    out.bytes
}

/// Decodes a spec whose root, if it is a mount, came as `mount`.
pub(super) fn decode_spec(bytes: &[u8], mount: Option<OwnedFd>) -> io::Result<SandboxSpec> {
    let mut input = Decoder::new(bytes);
    let root = match (input.u8()?, mount) {
        (0, None) => Root::Path(input.path()?),
        (1, Some(mount)) => Root::Mount(mount),
        (tag, mount) => return Err(malformed(format!("root of kind {tag} with mount {mount:?}"))),
    };
    let spec = SandboxSpec {
        root,
        read_only: input.bool()?,
        subtrees: input.list(|input| {
            Ok(Subtree {
                read_only: input.bool()?,
                path: input.path()?,
            })
        })?,
        binds: input.list(|input| {
            Ok(Bind {
                read_only: input.bool()?,
                source: input.path()?,
                target: input.path()?,
            })
        })?,
        identity: Identity {
            uid: input.u32()?,
            gid: input.u32()?,
            host_uid: input.u32()?,
            host_gid: input.u32()?,
        },
        arguments: input.list(Decoder::os_string)?,
        environment: input.list(|input| Ok((input.os_string()?, input.os_string()?)))?,
        working_directory: input.path()?,
        hostname: input.text()?,
        network: if input.bool()? {
            Network::Host
        } else {
            Network::Loopback
        },
        personality: if input.bool()? {
            Personality::Bits32
        } else {
            Personality::Native
        },
        limits: decode_limits(&mut input)?,
        cgroups: input.list(Decoder::path)?,
    };
    input.end()?;
    Ok(spec)
}

fn encode_limits(out: &mut Encoder, limits: &Limits) {
    out.u64(limits.tmp_bytes);
    out.u64(limits.shm_bytes);
    out.u64(limits.open_files);
    out.optional_u64(limits.processes);
    out.optional_u64(limits.file_bytes);
    out.optional_u64(limits.data_bytes);
    out.u32(limits.oom_score_adj.into());
}

fn decode_limits(input: &mut Decoder<'_>) -> io::Result<Limits> {
    Ok(Limits {
        tmp_bytes: input.u64()?,
        shm_bytes: input.u64()?,
        open_files: input.u64()?,
        processes: input.optional_u64()?,
        file_bytes: input.optional_u64()?,
        data_bytes: input.optional_u64()?,
        oom_score_adj: u16::try_from(input.u32()?).map_err(|_| malformed("score above 65535"))?,
    })
}

fn encode_report(out: &mut Encoder, report: &Report) {
    match report {
        Report::Failed(failure) => {
            out.u8(0);
            out.u8(kind_tag(failure.kind));
            out.string(failure.step.as_bytes());
            out.u32(failure.errno.cast_unsigned());
        }
        Report::NotStarted { message } => {
            out.u8(1);
            out.string(message.as_bytes());
        }
        Report::Ended { wait_status, wall } => {
            out.u8(2);
            out.u32(wait_status.cast_unsigned());
            out.duration(*wall);
        }
        Report::Killed => out.u8(3),
    }
}

fn decode_report(input: &mut Decoder<'_>) -> io::Result<Report> {
    match input.u8()? {
        0 => {
            let kind = kind_of(input.u8()?)?;
            Ok(Report::Failed(Failure {
                kind,
                step: input.text()?,
                errno: input.u32()?.cast_signed(),
            }))
        }
        1 => Ok(Report::NotStarted { message: input.text()? }),
        2 => Ok(Report::Ended {
            wait_status: input.u32()?.cast_signed(),
            wall: input.duration()?,
        }),
        3 => Ok(Report::Killed),
        tag => Err(malformed(format!("report of kind {tag}"))),
    }
}

fn kind_tag(kind: SandboxErrorKind) -> u8 {
    match kind {
        SandboxErrorKind::Unfit => 0,
        SandboxErrorKind::Machine => 1,
        SandboxErrorKind::Lost => 2,
    }
}

fn kind_of(tag: u8) -> io::Result<SandboxErrorKind> {
    [
        SandboxErrorKind::Unfit,
        SandboxErrorKind::Machine,
        SandboxErrorKind::Lost,
    ]
    .into_iter()
    .find(|kind| kind_tag(*kind) == tag)
    .ok_or_else(|| malformed(format!("failure of kind {tag}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_spec() -> SandboxSpec {
        let identity = Identity {
            uid: 1,
            gid: 2,
            host_uid: 3,
            host_gid: 4,
        };
        let mut spec = SandboxSpec::new(Root::Path("/root".into()), identity, ["sh", "-c", "true"]);
        spec.read_only = true;
        spec.subtrees = vec![Subtree {
            path: "/build".into(),
            read_only: false,
        }];
        spec.binds = vec![Bind {
            source: "/a".into(),
            target: "/b".into(),
            read_only: true,
        }];
        spec.environment = vec![("A".into(), "1".into()), ("B".into(), "".into())];
        spec.network = Network::Host;
        spec.personality = Personality::Bits32;
        spec.limits.processes = Some(7);
        spec.limits.data_bytes = Some(8);
        spec.cgroups = vec!["/sys/fs/cgroup/x/cgroup.procs".into()];
        spec
    }

    #[test]
    fn a_spec_survives_the_journey() {
        let bytes = encode_spec(&full_spec());
        let decoded = decode_spec(&bytes, None).unwrap();
        assert_eq!(format!("{decoded:?}"), format!("{:?}", full_spec()));
    }

    #[test]
    fn no_prefix_of_a_spec_is_a_spec() {
        let bytes = encode_spec(&full_spec());
        for length in 0..bytes.len() {
            assert!(
                decode_spec(&bytes[..length], None).is_err(),
                "{length} of {} bytes",
                bytes.len()
            );
        }
    }

    #[test]
    fn reports_survive_the_journey() {
        let failure = Failure {
            kind: SandboxErrorKind::Unfit,
            step: "mount /proc".into(),
            errno: 20,
        };
        let reports = [
            Report::Failed(failure),
            Report::NotStarted {
                message: "no such program".into(),
            },
            Report::Ended {
                wait_status: 9,
                wall: Duration::from_millis(5),
            },
            Report::Killed,
        ];
        let usage = Usage {
            user: Duration::from_micros(3),
            system: Duration::ZERO,
            max_rss_bytes: 4096,
        };
        for report in reports {
            assert_eq!(Report::decode(&report.encode()).unwrap(), report);
            let report = FinalReport { report, usage };
            assert_eq!(FinalReport::decode(&report.encode()).unwrap(), report);
        }
    }
}
