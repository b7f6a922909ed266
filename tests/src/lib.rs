//! The ground on which real clients meet a real server.
//!
//! A test starts a [`Server`] (the built `rootcellar`, on a free port, with a data directory of its own), gives it
//! to one or more [`BuildStream`] clients (each with a cache of its own), and lets them work on a [`Project`] (a
//! copy of one below `tests/projects`). Everything lives in temporary directories and dies with its value; when a
//! test panics, the server's log is printed.
//!
//! What a machine may lack is asked for with [`need`]: a test skips aloud, or fails where skipping is forbidden.
//! `cargo xtask e2e` builds the server, installs BuildStream and tells these tests where both are.

mod buildstream;
mod command;
mod command_line;
mod host;
mod project;
mod requirement;
pub mod s3;
mod server;

pub use buildstream::{BuildStream, Services};
pub use command::{Finished, Running};
pub use command_line::CommandLine;
pub use host::{process_with_argument, wait_until};
pub use project::Project;
pub use requirement::{BstProgram, DebianRoot, ServerProgram, need};
pub use server::{Server, ServerOptions};
