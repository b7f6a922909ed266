//! A `rootcellar serve` of a test's own.

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::command::Running;
use crate::host::wait_until;
use crate::requirement::ServerProgram;

/// How long a server may take until it accepts a connection.
const START: Duration = Duration::from_secs(30);

/// A variable set for the server alone: a command that sees it sees the server's environment.
const LEAK: (&str, &str) = ("ROOTCELLAR_TEST_LEAK", "the server's own");

/// How to start a [`Server`].
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Command line arguments after those that name the address and the directory.
    pub arguments: Vec<String>,
    /// Whether the server runs as a user of no rights, where the test itself is root.
    pub as_nobody: bool,
    /// The configuration file, if there is one.
    pub config: Option<String>,
    /// Variables of its environment.
    pub variables: Vec<(&'static str, &'static str)>,
}

/// A server on a free port of the loopback interface, with a data directory that dies with it.
#[derive(Debug)]
pub struct Server {
    program: ServerProgram,
    options: ServerOptions,
    directory: TempDir,
    address: SocketAddr,
    running: Running,
}

impl Server {
    /// Starts a server with the defaults, and waits until it listens.
    ///
    /// # Panics
    ///
    /// With its log, when it does not come up.
    #[must_use]
    pub fn start(program: &ServerProgram) -> Self {
        Self::start_with(program, &ServerOptions::default())
    }

    /// Starts a server, and waits until it listens.
    ///
    /// # Panics
    ///
    /// With its log, when it does not come up.
    #[must_use]
    pub fn start_with(program: &ServerProgram, options: &ServerOptions) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let address = free_address();
        let running = spawn(program, options, directory.path(), address);
        let mut server = Self {
            program: program.clone(),
            options: options.clone(),
            directory,
            address,
            running,
        };
        server.wait_until_it_listens();
        server
    }

    /// The URL that clients use.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the server has written to its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.output()
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The id of its process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.running.process_id()
    }

    /// Kills the server as a crash would. Its directory stays.
    pub fn kill(&mut self) {
        self.running.kill();
    }

    /// Stops the server with SIGTERM. Its directory stays.
    pub fn stop(&mut self) {
        self.running.stop();
    }

    /// Stops the server with SIGTERM and starts it again on the same directory and address.
    ///
    /// # Panics
    ///
    /// With its log, when it does not come up.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Kills the server as a crash would, and starts it again on the same directory and address.
    ///
    /// # Panics
    ///
    /// With its log, when it does not come up.
    pub fn crash_and_restart(&mut self) {
        self.running.kill();
        self.start_again();
    }

    /// Stops the server with SIGTERM and starts it again with another configuration file.
    ///
    /// # Panics
    ///
    /// With its log, when it does not come up.
    pub fn reconfigure(&mut self, config: &str) {
        self.stop();
        self.options.config = Some(config.to_owned());
        self.start_again();
    }

    /// Starts a server that was stopped again, on the same directory and address.
    ///
    /// # Panics
    ///
    /// With its log, when it does not come up.
    pub fn start_again(&mut self) {
        self.running = spawn(&self.program, &self.options, self.directory.path(), self.address);
        self.wait_until_it_listens();
    }

    fn wait_until_it_listens(&mut self) {
        let listens = wait_until(START, || {
            if let Some(status) = self.running.status() {
                panic!(
                    "the server ended with {status} before it listened; its log:\n{}",
                    self.running.output()
                );
            }
            TcpStream::connect(self.address).is_ok()
        });
        assert!(
            listens,
            "the server does not listen after {START:?}; its log:\n{}",
            self.running.output()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            // A closed standard error leaves nobody to tell.
            writeln!(
                io::stderr(),
                "--- the log of the server at {}\n{}",
                self.address,
                self.log()
            )
            .ok();
        }
    }
}

fn spawn(program: &ServerProgram, options: &ServerOptions, directory: &Path, address: SocketAddr) -> Running {
    let data = directory.join("data");
    fs::create_dir_all(&data).expect("the test's directory is writable");
    let mut command = match options.as_nobody && rustix::process::geteuid().is_root() {
        true => as_nobody(program, directory, &data),
        false => Command::new(&program.0),
    };
    command
        .arg("serve")
        .arg("--listen")
        .arg(address.to_string())
        .arg("--dir")
        .arg(&data);
    if let Some(config) = &options.config {
        let file = directory.join("config.toml");
        fs::write(&file, config).expect("the test's directory is writable");
        command.arg("--config").arg(file);
    }
    command.args(&options.arguments).env(LEAK.0, LEAK.1);
    command.envs(options.variables.iter().copied());
    Running::start(&mut command, &directory.join("log"))
}

/// The program as Debian's `nobody`, to whom the data directory belongs.
fn as_nobody(program: &ServerProgram, directory: &Path, data: &Path) -> Command {
    use std::os::unix::fs::{PermissionsExt, chown};

    const NOBODY: u32 = 65_534;
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory, open).expect("the test's directory is its own");
    chown(data, Some(NOBODY), Some(NOBODY)).expect("root gives files away");
    let mut command = Command::new("setpriv");
    let (uid, gid) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
    command
        .args([uid.as_str(), gid.as_str(), "--clear-groups"])
        .arg(&program.0);
    command
}

/// A port that was free a moment ago. The kernel hands out such ports in a random order, so that a second test gets
/// another one.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has a free port");
    listener.local_addr().expect("a bound socket has an address")
}
