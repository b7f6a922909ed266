//! A process that is killed while it puts blobs: what it acknowledged is there, and what is there is whole.
//!
//! The test starts its own binary again with a directory in the environment. That child puts blobs from several tasks and
//! prints each digest once its put has returned, until it is killed with SIGKILL.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures_util::future::join_all;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::testing::Seeded;
use rootcellar_store::{BlobStore as _, BlobStoreExt as _, DiskOptions, LocalStore as _};

use super::{assert_whole, blob_files, named_digest, open, open_with};

const DIR: &str = "ROOTCELLAR_CRASH_DIR";
const SEED: &str = "ROOTCELLAR_CRASH_SEED";
const BYTES_MAX: &str = "ROOTCELLAR_CRASH_BYTES_MAX";
const ROUNDS: u64 = 6;
const TASKS: u64 = 4;

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    run(
        "crash::a_killed_process_loses_nothing_that_it_acknowledged",
        1 << 30,
        true,
    );
}

#[test]
fn a_process_killed_while_evicting_leaves_nothing_torn() {
    run(
        "crash::a_process_killed_while_evicting_leaves_nothing_torn",
        4 << 20,
        false,
    );
}

fn run(test: &str, bytes_max: u64, keeps_all: bool) {
    if let Some(dir) = std::env::var_os(DIR) {
        return load(dir.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut seeded = Seeded::new(0xdead);
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = spawn(test, dir.path(), round, bytes_max);
        let acks_before_kill = 1 + seeded.below(120);
        acknowledged.extend(kill_after(&mut child, acks_before_kill));
        check(dir.path(), &acknowledged, keeps_all);
        println!("round {round}: killed after {acks_before_kill} acknowledged puts or a few more");
    }
}

fn spawn(test: &str, dir: &Path, round: u64, bytes_max: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR, dir)
        .env(SEED, (1000 * round).to_string())
        .env(BYTES_MAX, bytes_max.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads acknowledgements, kills the child in the middle of its work, and reads those that it still printed.
fn kill_after(child: &mut Child, acks: u64) -> Vec<Digest> {
    let mut acknowledged = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(digest) = line.strip_prefix("ack ").and_then(|line| line.strip_suffix(" end")) else {
            continue;
        };
        acknowledged.push(digest.parse().unwrap());
        if acknowledged.len() as u64 == acks {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(!status.success() && acknowledged.len() as u64 >= acks, "{status}");
    acknowledged
}

#[tokio::main]
async fn check(dir: &Path, acknowledged: &[Digest], keeps_all: bool) {
    let store = open(dir).await;
    let files = blob_files(dir);
    assert_eq!(store.statistics().blobs, files.len() as u64, "a start finds every file");
    assert_eq!(store.statistics().damaged_blobs, 0);
    assert_eq!(std::fs::read_dir(dir.join("tmp")).unwrap().count(), 0);
    if keeps_all {
        assert_eq!(store.find_missing(acknowledged).await.unwrap(), []);
    }
    for file in files {
        let digest = named_digest(&file);
        assert!(store.contains(digest).await.unwrap());
        assert_whole(&store, digest).await;
    }
}

/// What the child does until it is killed.
#[tokio::main]
async fn load(dir: &Path) {
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let options = DiskOptions {
        bytes_max: number(BYTES_MAX),
        ..DiskOptions::default()
    };
    let store = Arc::new(open_with(dir, options).await.unwrap());
    let put_forever = |task| {
        let (store, mut seeded) = (store.clone(), Seeded::new(number(SEED) + task));
        async move {
            loop {
                let len = usize::try_from(1 + seeded.below(200_000)).unwrap();
                let spooled = seeded.ingested(store.spool(), DigestFunction::Blake3, len).await;
                let small = seeded.blob(DigestFunction::Sha256, len % 5000);
                let digests = [spooled.digest(), small.digest()];
                for outcome in store.put_many(vec![spooled, small]).await {
                    outcome.unwrap();
                }
                for digest in digests {
                    println!("ack {digest} end");
                }
            }
        }
    };
    let tasks = (0..TASKS).map(|task| tokio::spawn(put_forever(task)));
    let ended: Vec<Result<(), _>> = join_all(tasks).await;
    panic!("a task ended before the process was killed: {ended:?}");
}
