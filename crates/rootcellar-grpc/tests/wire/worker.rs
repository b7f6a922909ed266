//! Workers and actions for tests of execution: nothing is run, but everything is answered.

use std::sync::Arc;

use prost::Message as _;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi::platform::Property;
use rootcellar_proto::reapi::{Action, ActionResult, Command, Directory, ExecuteResponse, FileNode, Platform};
use rootcellar_proto::rpc;
use rootcellar_scheduler::{Assignment, Offer, WorkSession, WorkSource as _, WorkerSpec};

use crate::server::{SHA256, Server, proto};

/// Joins as a worker that any plain action can go to.
pub(crate) async fn join(server: &Server) -> Box<dyn WorkSession> {
    let mut spec = WorkerSpec::new("a test", Offer::native());
    spec.slots = 8.try_into().unwrap();
    server.dispatcher.join(spec).await.unwrap()
}

/// Waits for work.
pub(crate) async fn next(session: &dyn WorkSession) -> Assignment {
    session.next().await.unwrap().expect("the server does not shut down")
}

/// Ends a piece of work with a result.
pub(crate) async fn finish(session: &dyn WorkSession, assignment: &Assignment, result: ActionResult) {
    let response = ExecuteResponse {
        result: Some(result),
        status: Some(rpc::Status::default()),
        ..Default::default()
    };
    session.finish(assignment.lease.id, Arc::new(response)).await.unwrap();
}

/// The messages of an action, none of them stored.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) action: Action,
    pub(crate) command: Command,
    pub(crate) root: Directory,
    pub(crate) input: &'static str,
}

impl Parts {
    /// An action that differs by `name`.
    pub(crate) fn new(name: &str) -> Self {
        let input = "input";
        let command = Command {
            arguments: vec!["true".to_owned(), name.to_owned()],
            ..Default::default()
        };
        let root = Directory {
            files: vec![FileNode {
                name: "file".to_owned(),
                digest: Some(proto(Digest::of(SHA256, input.as_bytes()))),
                ..Default::default()
            }],
            ..Default::default()
        };
        let action = Action {
            command_digest: Some(proto(Digest::of(SHA256, &command.encode_to_vec()))),
            input_root_digest: Some(proto(Digest::of(SHA256, &root.encode_to_vec()))),
            ..Default::default()
        };
        Self {
            action,
            command,
            root,
            input,
        }
    }

    pub(crate) fn with_property(mut self, name: &str, value: &str) -> Self {
        let property = Property {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let platform = self.action.platform.get_or_insert_with(Platform::default);
        platform.properties.push(property);
        self
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(SHA256, &self.action.encode_to_vec())
    }

    /// Stores everything.
    pub(crate) async fn hold(&self, server: &Server) -> Digest {
        server.hold(SHA256, self.input).await;
        server.hold_message(&self.root).await;
        server.hold_message(&self.command).await;
        server.hold_message(&self.action).await
    }
}

/// A result with an exit code, and with an output that is stored.
pub(crate) async fn result(server: &Server, exit_code: i32) -> ActionResult {
    let stdout = server.hold(SHA256, "said").await;
    ActionResult {
        exit_code,
        stdout_digest: Some(proto(stdout)),
        ..Default::default()
    }
}
