//! The program's own commands, as a person types them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::command::{Finished, Running};
use crate::requirement::ServerProgram;
use crate::server::Server;

/// How long one command may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where no server listens.
const NOWHERE: &str = "http://127.0.0.1:1";

/// Runs `rootcellar put`, `get`, `tree` and `exec` against a server, and whatever needs none.
#[derive(Debug)]
pub struct CommandLine {
    program: ServerProgram,
    url: String,
    directory: TempDir,
}

impl CommandLine {
    /// Talks to `server`.
    ///
    /// # Panics
    ///
    /// When there is no room for the commands' output.
    #[must_use]
    pub fn new(program: &ServerProgram, server: &Server) -> Self {
        Self::at(program, server.url())
    }

    /// Talks to nobody.
    ///
    /// # Panics
    ///
    /// When there is no room for the commands' output.
    #[must_use]
    pub fn without_server(program: &ServerProgram) -> Self {
        Self::at(program, NOWHERE.to_owned())
    }

    fn at(program: &ServerProgram, url: String) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        Self {
            program: program.clone(),
            url,
            directory,
        }
    }

    /// Puts a file of this content, and gives back its digest as the program prints it.
    ///
    /// # Panics
    ///
    /// When the server does not take it.
    pub fn put(&self, name: &str, content: &[u8]) -> String {
        let file = self.path(name);
        std::fs::write(&file, content).expect("the client's directory is writable");
        let path = file.to_str().expect("a temporary directory has a plain name");
        let finished = self.run(&["put", path]).expect_success();
        let line = finished.output().lines().find(|line| line.ends_with(name));
        let digest = line.and_then(|line| line.split_whitespace().next());
        digest.expect("a put prints a digest and a name").to_owned()
    }

    /// A path that nothing has yet, for a command to write to.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.start(arguments, "output").finish(PATIENCE)
    }

    /// Starts a command whose output goes to a file called `output`.
    pub fn start(&self, arguments: &[&str], output: &str) -> Running {
        let mut command = Command::new(&self.program.0);
        command
            .args(arguments)
            .env_clear()
            .env("ROOTCELLAR_ENDPOINT", &self.url);
        Running::start(&mut command, &self.path(output))
    }

    /// Runs a shell script on the server, in `root`.
    pub fn script(&self, root: &Path, script: &str) -> Finished {
        let root = root.to_str().expect("temporary directories have plain names");
        self.run(&["exec", "--root", root, "--", "sh", "-c", script])
    }
}
