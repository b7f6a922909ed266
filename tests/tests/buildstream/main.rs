//! Real BuildStream builds on a real server, and caches its artifacts and sources there.
//!
//! Each file is one of the promises: that a build is right, that work is not done twice, that a failure is told,
//! that what cannot be done is refused by name, that what is stopped stops, and that workspaces build incrementally.

// A panic is a test's report, in the functions that tests share too.
#![allow(clippy::unwrap_used)]

mod building;
mod caching;
mod debian;
mod failing;
mod names;
mod refusing;
mod stopping;
mod workspaces;

use rootcellar_tests::{BstProgram, BuildStream, Project, Server, ServerOptions, ServerProgram, Services, need};

/// What BuildStream says when it found the result of an action before it uploaded anything.
const ACTION_CACHE_HIT: &str = "Action result found in action cache";

/// What BuildStream says when it waits for a command to run.
const EXECUTION: &str = "Waiting for the remote build to complete";

/// The three parties of a build. A test that has no kitchen has said that it skips.
struct Kitchen {
    server: Server,
    project: Project,
    bst: BstProgram,
}

impl Kitchen {
    fn open() -> Option<Self> {
        Self::open_with(&ServerOptions::default())
    }

    fn open_with(options: &ServerOptions) -> Option<Self> {
        let program = need(ServerProgram::find())?;
        let bst = need(BstProgram::find())?;
        let project = need(Project::copy_of("kitchen"))?;
        Some(Self {
            server: Server::start_with(&program, options),
            project,
            bst,
        })
    }

    fn client(&self, services: &Services) -> BuildStream {
        BuildStream::new(&self.bst, &self.server.url(), services)
    }
}
