//! A BuildStream client of a test's own: real `bst`, a private cache, and a configuration that names the services.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::command::{Finished, Running};
use crate::project::Project;
use crate::requirement::BstProgram;

/// How long one `bst` command may take; the slowest of these tests' builds take seconds.
const DEADLINE: Duration = Duration::from_secs(300);

/// What a client leaves free on the disk. Its default is a share of the whole disk, so a large one would fail builds
/// with "Cache too full" long before it is full.
const RESERVED: &str = "64M";

/// Which services of a server a client uses, and under which instance name.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// Builds run remotely, with the storage that belongs to that.
    pub execution: bool,
    /// Results of actions are looked up before anything is uploaded.
    pub action_cache: bool,
    /// Artifacts are pulled from, and pushed to, the server.
    pub artifacts: bool,
    /// Sources are pulled from, and pushed to, the server.
    pub sources: bool,
    /// The client's own cache keeps its blobs on the server.
    pub remote_cache: bool,
    /// The instance name of every service; empty is the default instance.
    pub instance: String,
}

impl Services {
    /// Remote execution with its action cache, and no other service.
    #[must_use]
    pub fn execution() -> Self {
        Self {
            execution: true,
            action_cache: true,
            ..Self::default()
        }
    }

    /// The artifact cache alone: what is not there cannot be built.
    #[must_use]
    pub fn artifacts() -> Self {
        Self {
            artifacts: true,
            ..Self::default()
        }
    }

    fn configuration(&self, url: &str) -> String {
        let service = format!("{{ url: \"{url}\", instance-name: \"{}\" }}", self.instance);
        let pushed = format!("{{ url: \"{url}\", instance-name: \"{}\", push: true }}", self.instance);
        let mut text = String::from("scheduler: { on-error: continue, network-retries: 0 }\n");
        text.push_str("logging: { error-lines: 500, message-lines: 500 }\n");
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes every write");
        if self.execution || self.action_cache {
            line("remote-execution:".to_owned());
        }
        if self.execution {
            line(format!("  execution-service: {service}"));
        }
        if self.execution && !self.remote_cache {
            line(format!("  storage-service: {service}"));
        }
        if self.action_cache {
            line(format!("  action-cache-service: {service}"));
        }
        if self.artifacts {
            line(format!("artifacts: {{ servers: [ {pushed} ] }}"));
        }
        if self.sources {
            line(format!("source-caches: {{ servers: [ {pushed} ] }}"));
        }
        line(format!("cache:\n  reserved-disk-space: {RESERVED}"));
        if self.remote_cache {
            line(format!("  storage-service: {service}"));
        }
        text
    }
}

/// A client that has seen nothing yet.
#[derive(Debug)]
pub struct BuildStream {
    program: BstProgram,
    directory: TempDir,
    commands: AtomicU32,
}

impl BuildStream {
    /// Makes a client of the server at `url`.
    ///
    /// # Panics
    ///
    /// When its directories cannot be made.
    #[must_use]
    pub fn new(program: &BstProgram, url: &str, services: &Services) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        for name in ["home", "cache", "config", "data", "output"] {
            fs::create_dir(directory.path().join(name)).expect("the test's directory is writable");
        }
        let client = Self {
            program: program.clone(),
            directory,
            commands: AtomicU32::new(0),
        };
        client.configure(url, services);
        client
    }

    /// Points the client, with all that it has cached, at other services.
    ///
    /// # Panics
    ///
    /// When the configuration cannot be written.
    pub fn configure(&self, url: &str, services: &Services) {
        fs::write(self.configuration(), services.configuration(url)).expect("the test's directory is writable");
    }

    /// Runs `bst` with `arguments` in `project` until it ends.
    ///
    /// # Panics
    ///
    /// With its output, when it does not end in time.
    pub fn run(&self, project: &Project, arguments: &[&str]) -> Finished {
        self.start(project, arguments).finish(DEADLINE)
    }

    /// Starts `bst` with `arguments` in `project`.
    ///
    /// # Panics
    ///
    /// When the process cannot be made.
    pub fn start(&self, project: &Project, arguments: &[&str]) -> Running {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new(&self.program.0);
        command
            .arg("--config")
            .arg(self.configuration())
            .args(["--no-interactive", "--no-colors"]);
        command
            .args(arguments)
            .current_dir(project.path())
            .env("HOME", self.path("home"));
        command
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_CONFIG_HOME", self.path("config"));
        command.env("XDG_DATA_HOME", self.path("data"));
        Running::start(&mut command, &self.path("output").join(number.to_string()))
    }

    /// Builds `element`, which has to succeed.
    ///
    /// # Panics
    ///
    /// With the client's output, when the build fails.
    pub fn build(&self, project: &Project, element: &str) -> Finished {
        self.run(project, &["build", element]).expect_success()
    }

    /// Checks the artifact of `element` out, without its dependencies, and returns the directory.
    ///
    /// # Panics
    ///
    /// With the client's output, when it cannot.
    pub fn checkout(&self, project: &Project, element: &str) -> PathBuf {
        let number = self.commands.load(Ordering::Relaxed);
        let directory = self.path("output").join(format!("checkout-{number}"));
        let target = directory.to_str().expect("temporary directories have plain names");
        let arguments = ["artifact", "checkout", "--deps", "none", "--directory", target, element];
        self.run(project, &arguments).expect_success();
        directory
    }

    /// Forgets everything that was built, pulled or fetched.
    ///
    /// # Panics
    ///
    /// When the cache cannot be removed.
    pub fn delete_cache(&self) {
        let cache = self.path("cache");
        fs::remove_dir_all(&cache)
            .and_then(|()| fs::create_dir(&cache))
            .expect("the client's cache is its own");
    }

    fn configuration(&self) -> PathBuf {
        self.path("config").join("buildstream.conf")
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::join(self.directory.path(), name)
    }
}
