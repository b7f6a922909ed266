//! The command itself: the last preparations of its process, finding its program, and saying why it did not start.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, chdir, getrlimit, setrlimit, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::error::{Failure, failed, unfit};
use super::message::Report;
use super::order::Order;
use super::spec::{DEFAULT_PATH, Limits, Personality};
use super::sys;

/// The soft limit of open files: programs that use `select`, or close every possible descriptor, expect this.
const OPEN_FILES_AT_START: u64 = 1024;

/// The limit of core dumps. One byte is less than any dump, and the only value at which the kernel does not start the host's
/// crash handler either: that would run outside the sandbox on whatever a command left in its memory.
const CORE_BYTES: u64 = 1;

/// The stack that programs start with, as on most systems; a server may have been given another one.
const STACK_BYTES_AT_START: u64 = 8 << 20;

/// The longest name that a file can have (`NAME_MAX`): a longer one is on nobody's path.
const NAME_BYTES_MAX: usize = 255;

/// How much of a message about a command that did not start is kept: it may quote paths of any length.
const MESSAGE_CHARACTERS_MAX: usize = 2048;

/// How much of a script's first line is read to name its interpreter; the kernel itself reads no more.
const SHEBANG_BYTES_MAX: u64 = 256;

/// A command that is ready to be started inside the sandbox.
#[derive(Debug)]
pub(super) struct Command {
    /// The paths to try, in order.
    programs: Vec<CString>,
    /// What the command line calls the program, for messages.
    name: String,
    /// The directories that a bare name was looked up in, for messages.
    path: String,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    working_directory: PathBuf,
    limits: Limits,
    personality: Personality,
    stdout: File,
    stderr: File,
}

/// What came of starting a command.
#[derive(Debug)]
pub(super) enum Started {
    Running(Pid),
    Not(Report),
}

impl Command {
    pub(super) fn new(order: Order) -> Result<Self, Failure> {
        let Order { spec, stdout, stderr } = order;
        let program = spec
            .arguments
            .first()
            .ok_or_else(|| Failure::unfit("the command line names no program"))?;
        let name = program.to_string_lossy().into_owned();
        let path = search_path(&spec.environment);
        let programs = candidates(program, path);
        let path = path.to_string_lossy().into_owned();
        let environment = spec.environment.into_iter().map(|(name, value)| {
            let mut variable = name;
            variable.push("=");
            variable.push(value);
            variable
        });
        Ok(Self {
            programs: c_strings(programs)?,
            name,
            path,
            environment: c_strings(environment)?,
            arguments: c_strings(spec.arguments)?,
            working_directory: spec.working_directory,
            limits: spec.limits,
            personality: spec.personality,
            stdout,
            stderr,
        })
    }

    /// Starts the command, and returns when it runs or cannot.
    pub(super) fn start(&self) -> Result<Started, Failure> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        let mut writer = File::from(writer);
        let pid = sys::clone_child(0, || {
            let report = self.become_command(&writer);
            i32::from(writer.write_all(&report.encode()).is_err())
        })
        .map_err(failed("start a process for the command"))?;
        drop(writer);
        // A program that starts closes the other end without a word: nothing but `exec` keeps it from speaking.
        let mut bytes = Vec::new();
        File::from(reader)
            .read_to_end(&mut bytes)
            .map_err(failed("wait for the command to start"))?;
        if bytes.is_empty() {
            return Ok(Started::Running(pid));
        }
        Report::decode(&bytes)
            .map(Started::Not)
            .map_err(failed("read why the command did not start"))
    }

    /// Turns this process into the command; returns only to say why not.
    fn become_command(&self, keep: &File) -> Report {
        if let Err(failure) = self.prepare(keep) {
            return Report::Failed(failure);
        }
        let directory = &self.working_directory;
        let message = match chdir(directory) {
            Ok(()) => self.exec(),
            Err(errno) => format!("working directory {}: {}", directory.display(), io::Error::from(errno)),
        };
        Report::NotStarted {
            message: message.chars().take(MESSAGE_CHARACTERS_MAX).collect(),
        }
    }

    fn prepare(&self, keep: &File) -> Result<(), Failure> {
        setsid().map_err(failed("begin a new session"))?;
        let null = File::open("/dev/null").map_err(failed("open /dev/null"))?;
        dup2_stdin(&null).map_err(failed("set stdin"))?;
        drop(null);
        dup2_stdout(&self.stdout).map_err(failed("set stdout"))?;
        dup2_stderr(&self.stderr).map_err(failed("set stderr"))?;
        set_limits(&self.limits)?;
        sys::set_personality(self.personality == Personality::Bits32).map_err(failed("set the personality"))?;
        umask(Mode::from_raw_mode(0o022));
        sys::reset_signals().map_err(failed("reset signals"))?;
        sys::close_descriptors_but(keep.as_raw_fd()).map_err(failed("close descriptors"))
    }

    /// Tries one path after the other as execvp(3) does, and returns why none would do.
    fn exec(&self) -> String {
        let mut refusal = None;
        for program in &self.programs {
            let error = sys::execve(program, &self.arguments, &self.environment);
            let path = Path::new(OsStr::from_bytes(program.as_bytes()));
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) if fs::symlink_metadata(path).is_err() => {}
                // Somebody else's file of that name may lie earlier on the path than the one that is meant.
                Some(libc::EACCES) => refusal = refusal.or(Some(explain(path, &error))),
                _ => return explain(path, &error),
            }
        }
        refusal.unwrap_or_else(|| self.not_found())
    }

    fn not_found(&self) -> String {
        if self.name.contains('/') {
            return format!("{}: no such file", self.name);
        }
        format!("{}: not found on PATH {}", self.name, self.path)
    }
}

/// Returns the paths that `program` may mean: itself if it has a slash, else one for each directory of `path`.
fn candidates(program: &OsStr, path: &OsStr) -> Vec<OsString> {
    if program.as_bytes().contains(&b'/') || program.len() > NAME_BYTES_MAX {
        return vec![program.to_owned()];
    }
    let directories = path.as_bytes().split(|byte| *byte == b':');
    directories
        .map(|directory| {
            if directory.is_empty() {
                Path::new(".")
            } else {
                Path::new(OsStr::from_bytes(directory))
            }
        })
        .map(|directory| directory.join(program).into_os_string())
        .collect()
}

fn search_path(environment: &[(OsString, OsString)]) -> &OsStr {
    let path = environment.iter().find(|(name, _)| name == "PATH");
    path.map_or(OsStr::new(DEFAULT_PATH), |(_, value)| value)
}

fn c_strings(strings: impl IntoIterator<Item = OsString>) -> Result<Vec<CString>, Failure> {
    let strings = strings
        .into_iter()
        .map(|string| CString::new(string.into_vec()).map_err(io::Error::from));
    strings
        .collect::<Result<_, _>>()
        .map_err(unfit("a string with a zero byte"))
}

fn set_limits(limits: &Limits) -> Result<(), Failure> {
    let hard = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let open_files = limits.open_files.min(hard(Resource::Nofile));
    let stack = hard(Resource::Stack);
    // What was inherited cannot be raised.
    let both = |resource, bound: Option<u64>| bound.map(|bound| bound.min(hard(resource))).map(|bound| (bound, bound));
    let bounds = [
        (Resource::Core, Some((CORE_BYTES, CORE_BYTES))),
        (Resource::Stack, Some((STACK_BYTES_AT_START.min(stack), stack))),
        (
            Resource::Nofile,
            Some((OPEN_FILES_AT_START.min(open_files), open_files)),
        ),
        (Resource::Nproc, both(Resource::Nproc, limits.processes)),
        (Resource::Data, both(Resource::Data, limits.data_bytes)),
        (Resource::Fsize, both(Resource::Fsize, limits.file_bytes)),
    ];
    for (resource, bound) in bounds {
        if let Some((soft, hard)) = bound {
            let limit = Rlimit {
                current: Some(soft),
                maximum: Some(hard),
            };
            setrlimit(resource, limit).map_err(failed(format!("set the limit {resource:?} to {soft}:{hard}")))?;
        }
    }
    Ok(())
}

/// Says why the kernel would not run `path`, in words that point at what to mend.
fn explain(path: &Path, error: &io::Error) -> String {
    let name = path.display();
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => match interpreter(path) {
            Some(interpreter) => format!("{name}: its interpreter {interpreter} is not there"),
            None => format!("{name}: it, or the dynamic loader it asks for, is not there"),
        },
        Some(libc::EACCES) if path.is_dir() => format!("{name}: is a directory"),
        Some(libc::EACCES) => format!("{name}: not executable, or its interpreter is not ({error})"),
        Some(libc::ENOEXEC) => format!("{name}: not a program that this machine can run ({error})"),
        _ => format!("{name}: {error}"),
    }
}

/// Returns the interpreter that a script's first line names.
fn interpreter(script: &Path) -> Option<String> {
    let mut line = Vec::new();
    BufReader::new(File::open(script).ok()?.take(SHEBANG_BYTES_MAX))
        .read_until(b'\n', &mut line)
        .ok()?;
    let line = String::from_utf8_lossy(line.strip_prefix(b"#!")?).into_owned();
    line.split_ascii_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(program: &str, path: &str) -> Vec<OsString> {
        candidates(OsStr::new(program), OsStr::new(path))
    }

    #[test]
    fn a_bare_name_is_looked_up_on_the_path_in_order() {
        assert_eq!(tried("sh", "/a:/b/"), ["/a/sh", "/b/sh"]);
    }

    #[test]
    fn a_name_with_a_slash_is_not_looked_up() {
        assert_eq!(tried("./sh", "/a"), ["./sh"]);
        assert_eq!(tried("/x/sh", "/a"), ["/x/sh"]);
    }

    #[test]
    fn an_empty_part_of_the_path_is_the_working_directory() {
        assert_eq!(tried("sh", ":/a"), ["./sh", "/a/sh"]);
    }
}
