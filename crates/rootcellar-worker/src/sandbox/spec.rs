//! What to run and where: plain data, checked before a process is started.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::SandboxError;

/// The `PATH` that a bare command name is looked up in when the spec's environment has none, as execvp(3) does.
pub const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The longest host name that Linux takes (`__NEW_UTS_LEN`).
const HOSTNAME_BYTES_MAX: usize = 64;

/// The most willing that a process can be to die (`OOM_SCORE_ADJ_MAX`).
const OOM_SCORE_MAX: u16 = 1000;

/// Describes one command and the sandbox it runs in.
#[derive(Debug)]
pub struct SandboxSpec {
    /// What becomes `/`.
    pub root: Root,
    /// Makes `/` read-only, apart from what `subtrees`, `/tmp`, `/dev` and writable binds say.
    pub read_only: bool,
    /// Parts of the root that differ from the rest, parents before children.
    pub subtrees: Vec<Subtree>,
    /// Host files and directories to show inside, onto places that exist in the root.
    pub binds: Vec<Bind>,
    /// Who the command is, inside and outside.
    pub identity: Identity,
    /// The command line. The first argument names the program: an absolute path, a path with a slash relative to the
    /// working directory, or a bare name that `PATH` finds (REAPI `Command.arguments`).
    pub arguments: Vec<OsString>,
    /// The whole environment: nothing is added to it.
    pub environment: Vec<(OsString, OsString)>,
    /// Where the command starts: an absolute path inside the root, which must exist.
    pub working_directory: PathBuf,
    /// The host name inside.
    pub hostname: String,
    /// What the command can reach.
    pub network: Network,
    /// What `uname` says about the machine.
    pub personality: Personality,
    /// Bounds on what the command may use.
    pub limits: Limits,
    /// `cgroup.procs` files that the sandbox joins before the command starts.
    pub cgroups: Vec<PathBuf>,
}

/// Names what becomes the root of the sandbox.
#[derive(Debug)]
pub enum Root {
    /// A directory of the host, shown with whatever is mounted below it.
    Path(PathBuf),
    /// A detached mount (from `fsmount` or `open_tree`). It is attached inside the sandbox, and stays readable through
    /// other descriptors of it afterwards.
    Mount(OwnedFd),
}

/// Sets one part of the root read-only or writable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// An absolute path inside the root, without symbolic links.
    pub path: PathBuf,
    /// Whether the part is read-only.
    pub read_only: bool,
}

/// Shows a file or directory of the host inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The path on the host.
    pub source: PathBuf,
    /// An absolute path inside the root, without symbolic links, that exists and is of the same type.
    pub target: PathBuf,
    /// Whether the command may only read it.
    pub read_only: bool,
}

/// Maps one user and group inside the sandbox to one user and group of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user id that the command sees.
    pub uid: u32,
    /// The group id that the command sees.
    pub gid: u32,
    /// The user id that the kernel checks: never the host's root.
    pub host_uid: u32,
    /// The group id that the kernel checks.
    pub host_gid: u32,
}

impl Identity {
    /// Maps to the ids of the calling process: the only choice of a server that is not root. Such a server cannot take
    /// its other groups from the command either. Root is refused when the sandbox starts.
    pub fn own(uid: u32, gid: u32) -> Self {
        let host_uid = rustix::process::geteuid().as_raw();
        let host_gid = rustix::process::getegid().as_raw();
        Self {
            uid,
            gid,
            host_uid,
            host_gid,
        }
    }
}

/// Says what the command can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A network of its own with nothing but a loopback interface.
    #[default]
    Loopback,
    /// The host's network, with every service on it, the server and abstract unix sockets included.
    Host,
}

/// Says what `uname` reports as the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Personality {
    /// The host's machine.
    #[default]
    Native,
    /// The 32-bit sibling (`i686` on `x86_64`), for actions whose `ISA` is 32-bit.
    Bits32,
}

/// Bounds what a command may use. Cgroups bound memory and processor time: see [`SandboxSpec::cgroups`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The size of `/tmp`, which lives in memory. Compilers and linkers keep large files there.
    pub tmp_bytes: u64,
    /// The size of `/dev/shm`.
    pub shm_bytes: u64,
    /// The most files that a process may raise its own limit to. The limit starts at 1024, which is what programs that
    /// close every possible descriptor, or use `select`, expect.
    pub open_files: u64,
    /// The most processes and threads, if bounded.
    pub processes: Option<u64>,
    /// The largest file that can be written, if bounded.
    pub file_bytes: Option<u64>,
    /// The most private memory that a process can have, if bounded (`RLIMIT_DATA`): where no control group bounds them all.
    pub data_bytes: Option<u64>,
    /// How willingly the kernel kills the command when memory runs out, from 0 to 1000. The server should outlive
    /// what an action does to the machine.
    pub oom_score_adj: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tmp_bytes: 4 << 30,
            shm_bytes: 1 << 30,
            open_files: 524_288,
            processes: None,
            file_bytes: None,
            data_bytes: None,
            oom_score_adj: 500,
        }
    }
}

impl SandboxSpec {
    /// Describes a command in a writable root, with an empty environment, no network and the default limits.
    pub fn new(root: Root, identity: Identity, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            root,
            read_only: false,
            subtrees: Vec::new(),
            binds: Vec::new(),
            identity,
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            working_directory: PathBuf::from("/"),
            hostname: "rootcellar".to_owned(),
            network: Network::default(),
            personality: Personality::default(),
            limits: Limits::default(),
            cgroups: Vec::new(),
        }
    }

    /// Checks what can be checked without the kernel.
    ///
    /// # Errors
    /// `Unfit`, naming the first field that could not be run as it stands.
    pub fn validate(&self) -> Result<(), SandboxError> {
        if self.arguments.first().is_none_or(|program| program.is_empty()) {
            return Err(SandboxError::unfit("the command line names no program"));
        }
        for argument in &self.arguments {
            refuse_nul("argument", argument)?;
        }
        for (name, value) in &self.environment {
            check_variable(name, value)?;
        }
        if self.hostname.is_empty() || self.hostname.len() > HOSTNAME_BYTES_MAX {
            let length = self.hostname.len();
            return Err(SandboxError::unfit(format!(
                "host name of {length} bytes, not 1 to {HOSTNAME_BYTES_MAX}"
            )));
        }
        if self.limits.oom_score_adj > OOM_SCORE_MAX {
            let score = self.limits.oom_score_adj;
            return Err(SandboxError::unfit(format!(
                "out-of-memory score {score}, more than {OOM_SCORE_MAX}"
            )));
        }
        self.paths().try_for_each(|(what, path)| check_path(what, path))
    }

    fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let root = match &self.root {
            Root::Path(path) => Some(("root", path.as_path())),
            Root::Mount(_) => None,
        };
        let binds = self.binds.iter();
        root.into_iter()
            .chain([("working directory", self.working_directory.as_path())])
            .chain(self.subtrees.iter().map(|subtree| ("subtree", subtree.path.as_path())))
            .chain(self.cgroups.iter().map(|path| ("cgroup", path.as_path())))
            .chain(binds.flat_map(|bind| [("bind source", bind.source.as_path()), ("bind target", &bind.target)]))
    }
}

fn check_variable(name: &OsStr, value: &OsStr) -> Result<(), SandboxError> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return Err(SandboxError::unfit(format!("environment variable named {name:?}")));
    }
    refuse_nul("environment variable", name)?;
    refuse_nul("environment variable", value)
}

fn check_path(what: &str, path: &Path) -> Result<(), SandboxError> {
    if !path.is_absolute() {
        return Err(SandboxError::unfit(format!("{what} {path:?} is not an absolute path")));
    }
    refuse_nul(what, path.as_os_str())
}

fn refuse_nul(what: &str, text: &OsStr) -> Result<(), SandboxError> {
    if text.as_bytes().contains(&0) {
        return Err(SandboxError::unfit(format!("{what} {text:?} holds a zero byte")));
    }
    Ok(())
}
