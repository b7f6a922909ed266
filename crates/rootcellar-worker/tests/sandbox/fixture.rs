//! A root with busybox in it, and the shortest way to run something there.

use std::fs::{self, File};
use std::future::Future;
use std::io::{Read, Seek};
use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rootcellar_worker::sandbox::{Finished, Identity, Outcome, Root, Running, Sandbox, SandboxError, SandboxSpec};
use tempfile::TempDir;

use crate::harness::is_root;
use crate::processes::PATIENCE;

/// Host ids that belong to nobody.
pub(crate) const HOST_ID: u32 = 60_123;

/// A staged root in a directory that only its owner can enter, as a server's would be.
#[derive(Debug)]
pub(crate) struct Fixture {
    directory: TempDir,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) finished: Finished,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command that runs, and where its output goes.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) running: Running,
    stdout: File,
    stderr: File,
}

impl Fixture {
    /// Makes a root that the command owns, with busybox as the programs that the claims use.
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let fixture = Self { directory };
        for path in ["bin", "etc", "home", "proc", "dev", "tmp"] {
            fs::create_dir_all(fixture.path(path)).unwrap();
        }
        fs::copy("/bin/busybox", fixture.path("bin/busybox")).unwrap();
        for applet in APPLETS.split_ascii_whitespace() {
            symlink("busybox", fixture.path("bin").join(applet)).unwrap();
        }
        fixture.own("");
        fixture.own("home");
        fixture
    }

    /// Returns a place in the root as the host sees it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.directory.path().join("root").join(inside)
    }

    /// Gives a file or directory of the root to the command's user.
    pub(crate) fn own(&self, inside: &str) {
        if is_root() {
            chown(self.path(inside), Some(HOST_ID), Some(HOST_ID)).unwrap();
        }
    }

    /// Writes a file that the command can run.
    pub(crate) fn program(&self, inside: &str, content: &[u8]) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.path(inside), content).unwrap();
        fs::set_permissions(self.path(inside), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Describes a command in this root, with a `PATH`.
    pub(crate) fn spec<S: AsRef<str>>(&self, arguments: &[S]) -> SandboxSpec {
        spec_at(self.path(""), arguments)
    }

    /// Describes a shell script in this root.
    pub(crate) fn script(&self, script: &str) -> SandboxSpec {
        self.spec(&["sh", "-c", script])
    }

    /// Runs a shell script and returns what it wrote to stdout. It must succeed.
    pub(crate) fn shell(&self, text: &str) -> String {
        let ran = run(self.script(text));
        assert_eq!(ran.code(), 0, "{text}: {ran:?}");
        ran.stdout
    }
}

/// Describes a command in the root at `root`, with a `PATH`.
pub(crate) fn spec_at<S: AsRef<str>>(root: PathBuf, arguments: &[S]) -> SandboxSpec {
    let arguments = arguments.iter().map(|argument| argument.as_ref().to_owned());
    let mut spec = SandboxSpec::new(Root::Path(root), user(0), arguments);
    spec.environment = vec![("PATH".into(), "/bin".into())];
    spec
}

const APPLETS: &str = "sh cat echo env id ls mkdir rm sleep stat hostname true false kill ps mount umount unshare readlink \
     touch chmod ln dd wc head tail grep ip nc sync test printf mknod chown chroot sysctl uname setsid dmesg cut sort tty";

impl Ran {
    /// Returns the exit code of a command that ran.
    pub(crate) fn code(&self) -> i32 {
        match self.finished.outcome {
            Outcome::Exited { code, .. } => code,
            _ => panic!("did not exit: {self:?}"),
        }
    }
}

/// Maps an id inside to one outside that the tests may use.
pub(crate) fn user(id: u32) -> Identity {
    if is_root() {
        Identity {
            uid: id,
            gid: id,
            host_uid: HOST_ID,
            host_gid: HOST_ID,
        }
    } else {
        Identity::own(id, id)
    }
}

/// Runs a future on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// The sandbox of all claims, as a server has one.
pub(crate) static SANDBOX: LazyLock<Sandbox> = LazyLock::new(Sandbox::of_this_program);

/// Starts a command with fresh files for its output.
pub(crate) async fn start(spec: SandboxSpec) -> Started {
    let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let copies = (stdout.try_clone().unwrap(), stderr.try_clone().unwrap());
    let running = SANDBOX.start(spec, copies.0, copies.1).await.unwrap();
    Started {
        running,
        stdout,
        stderr,
    }
}

impl Started {
    /// Waits for the end, however it comes.
    pub(crate) async fn end(mut self) -> Result<Ran, SandboxError> {
        let finished = self.running.wait().await?;
        Ok(Ran {
            finished,
            stdout: content(&mut self.stdout),
            stderr: content(&mut self.stderr),
        })
    }

    /// Waits until the command has written `text` to stdout.
    pub(crate) async fn says(&mut self, text: &str) {
        let begin = Instant::now();
        while !content(&mut self.stdout).contains(text) {
            assert!(
                begin.elapsed() < PATIENCE,
                "no {text}, but {}",
                content(&mut self.stderr)
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Runs a command to its end in a sandbox that can be built, beside other things.
pub(crate) async fn end_of(spec: SandboxSpec) -> Ran {
    start(spec).await.end().await.unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a command to its end in a sandbox that can be built.
pub(crate) fn run(spec: SandboxSpec) -> Ran {
    try_run(spec).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a command to its end, for which it has a minute.
pub(crate) fn try_run(spec: SandboxSpec) -> Result<Ran, SandboxError> {
    let described = format!("{:?}", spec.arguments);
    block_on(async {
        let end = start(spec).await.end();
        tokio::time::timeout(Duration::from_secs(60), end)
            .await
            .unwrap_or_else(|_| panic!("{described} does not end"))
    })
}

fn content(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // The command shares this description's offset: read from another place without moving it.
    let mut copy = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))).unwrap();
    copy.rewind().unwrap();
    copy.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
