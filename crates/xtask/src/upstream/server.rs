//! The server that upstream's tests talk to, when they are not given another one.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::stage::run;
use crate::workspace::{cargo, target_directory};

/// How long the server may take until it accepts a connection.
const START: Duration = Duration::from_secs(30);

/// How long to rest between two looks whether it does.
const POLL: Duration = Duration::from_millis(50);

/// A release build of the server, with an empty data directory.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Builds the server and starts it in `directory`, which is emptied; its log is the file `log` there.
    pub(crate) fn start(directory: &Path) -> Result<Self, String> {
        run(&mut cargo(&["build", "--release", "--package", "rootcellar"]))?;
        let said = |error: io::Error| format!("{}: {error}", directory.display());
        if directory.exists() {
            fs::remove_dir_all(directory).map_err(said)?;
        }
        fs::create_dir_all(directory).map_err(said)?;
        let log = File::create(directory.join("log")).map_err(said)?;
        let address = free_address().map_err(|error| format!("no port is free: {error}"))?;
        let mut command = Command::new(target_directory().join("release/rootcellar"));
        command
            .arg("serve")
            .arg("--listen")
            .arg(address.to_string())
            .arg("--dir")
            .arg(directory.join("data"));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(said)?)
            .stderr(log);
        let child = command
            .spawn()
            .map_err(|error| format!("the server does not start: {error}"))?;
        let server = Self { child, address };
        server.wait_until_it_listens()?;
        println!(
            "the server is at {}; its log is {}/log",
            server.url(),
            directory.display()
        );
        Ok(server)
    }

    /// The URL that clients use.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn wait_until_it_listens(&self) -> Result<(), String> {
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if start.elapsed() > START {
                return Err(format!(
                    "the server does not listen on {} after {START:?}",
                    self.address
                ));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill and its status is of no interest.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
