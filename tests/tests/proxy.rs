//! A server in front of another one that is not always there.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_grpc::client::{ActionCache, Connection, Endpoint, Remote};
use rootcellar_proto::reapi::{self, ActionResult};
use rootcellar_store::BlobStoreExt as _;
use rootcellar_tests::{Server, ServerOptions, ServerProgram, need, wait_until};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

fn connect(server: &Server) -> Connection {
    Endpoint::parse(&server.url(), "").unwrap().connect_lazily()
}

/// Stores a blob, and a result that needs it, as a client does.
async fn put(server: &Server, number: u32) -> Digest {
    let content = format!("output {number}").repeat(1000);
    let store = Remote::new(connect(server));
    let output = store.put_bytes(FUNCTION, Bytes::from(content)).await.unwrap();
    let result = ActionResult {
        stdout_digest: Some(reapi::Digest {
            hash: output.hash_hex().to_string(),
            size_bytes: i64::try_from(output.size_bytes()).unwrap(),
        }),
        ..Default::default()
    };
    let action = Digest::of(FUNCTION, format!("action {number}").as_bytes());
    ActionCache::new(connect(server)).update(action, result).await.unwrap();
    action
}

/// Which of these actions have a result, with all that it needs.
async fn have_results(server: &Server, actions: &[Digest]) -> usize {
    let cache = ActionCache::new(connect(server));
    let mut count = 0;
    for action in actions {
        count += usize::from(cache.get(*action).await.unwrap().is_some());
    }
    count
}

/// A server that others stand in front of.
fn upstream(program: &ServerProgram) -> Server {
    let options = ServerOptions {
        arguments: vec!["--no-execution".to_owned()],
        ..ServerOptions::default()
    };
    Server::start_with(program, &options)
}

fn with_config(program: &ServerProgram, config: String) -> Server {
    let options = ServerOptions {
        config: Some(config),
        ..ServerOptions::default()
    };
    Server::start_with(program, &options)
}

fn outage_and_crashes(program: &ServerProgram, config: impl FnOnce(&str) -> String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut there = upstream(program);
    let mut here = with_config(program, config(&there.url()));
    let arrive = |here: &Server, there: &Server, actions: &[Digest]| {
        let have_arrived = || runtime.block_on(have_results(there, actions)) == actions.len();
        assert!(wait_until(Duration::from_secs(60), have_arrived), "{}", here.log());
    };
    let first = [runtime.block_on(put(&here, 0))];
    arrive(&here, &there, &first);

    there.kill();
    let actions: Vec<Digest> = (1..20).map(|number| runtime.block_on(put(&here, number))).collect();
    for _ in 0..2 {
        assert_eq!(runtime.block_on(have_results(&here, &actions)), actions.len());
        assert_eq!(runtime.block_on(have_results(&here, &first)), 1);
        here.crash_and_restart();
    }
    there.start_again();
    arrive(&here, &there, &actions);
    assert!(here.log().contains("write-behind"), "{}", here.log());
}

#[test]
fn what_is_written_behind_another_server_survives_this_one_and_an_outage_of_that() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    outage_and_crashes(&program, |url| {
        format!("[storage.tiered]\nwrite = \"behind\"\nfast.disk = {{}}\nslow.remote.url = {url:?}\n")
    });
}

#[test]
fn what_is_written_behind_may_lie_behind_other_tiers() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let dirs = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| dirs.path().join(name));
    outage_and_crashes(&program, |url| {
        format!(
            "[storage.tiered]\nfast.memory.max_size = \"16MiB\"\n\
             [storage.tiered.slow.tiered]\nwrite = \"behind\"\nfast.disk.dir = {one:?}\n\
             [storage.tiered.slow.tiered.slow.tiered]\nwrite = \"behind\"\nfast.disk.dir = {two:?}\nslow.remote.url = {url:?}\n"
        )
    });
}

#[test]
fn what_nobody_writes_any_more_after_a_change_of_the_configuration_is_told() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut there = upstream(&program);
    let tiered = format!(
        "[storage.tiered]\nfast.disk = {{}}\nslow.remote.url = {:?}\n",
        there.url()
    );
    there.kill();
    let mut here = with_config(&program, format!("{tiered}write = \"behind\"\n"));
    runtime.block_on(put(&here, 1));
    here.reconfigure(&tiered);
    for list in ["storage.tiered.pending", "storage.tiered.results.pending"] {
        assert!(here.log().contains(list), "{}", here.log());
    }
    here.reconfigure(&format!("{tiered}write = \"behind\"\n"));
    assert!(!here.log().contains("nobody does it"), "{}", here.log());
}
