//! A process that is killed under load, fifty times: what it acknowledged is there, and what is there is whole.
//!
//! A child puts blobs from several tasks, into a store with room or into one that evicts and compacts all the time, and prints each
//! digest once its put has returned, until it is killed with SIGKILL.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::testing::Seeded;
use rootcellar_store::{BlobStore as _, DiskOptions, Durability, FsckOptions, LocalStore as _, fsck};

use super::child::{self, Job};
use super::{LAYOUTS, assert_whole_or_gone, disk_bytes, open, options};

const KILLS: u64 = 50;
const TASKS: u64 = 4;
const ROOMY_BYTES: u64 = 1 << 30;
/// Filled within a few kills.
const TIGHT_BYTES: u64 = 8 << 20;

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged_and_tears_nothing() {
    if let Some(job) = child::job() {
        return load(&job);
    }
    let mut seeded = Seeded::new(0xdead);
    let mut stores: Vec<Store> = LAYOUTS
        .into_iter()
        .flat_map(|layout| [Store::new(layout, ROOMY_BYTES), Store::new(layout, TIGHT_BYTES)])
        .collect();
    for round in 0..KILLS {
        let which = usize::try_from(round).unwrap() % stores.len();
        let acks_before_kill = 1 + seeded.below(200);
        stores[which].kill_once(round, acks_before_kill);
    }
}

struct Store {
    dir: tempfile::TempDir,
    layout: &'static str,
    bytes_max: u64,
    acknowledged: Vec<Digest>,
}

impl Store {
    fn new(layout: &'static str, bytes_max: u64) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            layout,
            bytes_max,
            acknowledged: Vec::new(),
        }
    }

    fn kill_once(&mut self, round: u64, acks_before_kill: u64) {
        let test = "kill::a_killed_process_loses_nothing_that_it_acknowledged_and_tears_nothing";
        let words = format!("{} {} {round}", self.layout, self.bytes_max);
        let mut child = child::command(test, self.dir.path(), &words)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        self.acknowledged.extend(kill_after(&mut child, acks_before_kill));
        println!("round {round}: {words}, killed after {acks_before_kill} acknowledgements or a few more");
        let bytes = disk_bytes(self.dir.path());
        assert!(bytes <= self.bytes_max, "round {round}: {bytes} bytes");
        self.check();
    }

    #[tokio::main]
    async fn check(&self) {
        let report = fsck(self.dir.path(), &FsckOptions::default(), |_| {}).unwrap();
        assert_eq!(
            (report.damaged.len(), report.torn.len(), report.damaged_log_slots),
            (0, 0, 0)
        );
        let store = open(self.dir.path(), options(self.layout, self.bytes_max)).await;
        let statistics = store.statistics();
        assert_eq!(statistics.doubtful_blobs, 0);
        assert_eq!(std::fs::read_dir(self.dir.path().join("tmp")).unwrap().count(), 0);
        let missing = store.find_missing(&self.acknowledged).await.unwrap();
        let is_roomy = self.bytes_max == ROOMY_BYTES;
        assert!(
            statistics.blobs == report.blobs || !is_roomy,
            "a start finds all of them"
        );
        assert!(missing.is_empty() || !is_roomy, "lost {missing:?}");
        for digest in &self.acknowledged {
            if !missing.contains(digest) {
                assert_whole_or_gone(&store, *digest).await;
            }
        }
        let lost = store.find_missing(&self.acknowledged).await.unwrap();
        assert!(lost.is_empty() || !is_roomy, "lost {lost:?}");
    }
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

/// What the child does until it is killed.
#[tokio::main]
async fn load(job: &Job) {
    let number = |word: usize| job.words[word].parse::<u64>().unwrap();
    let round = number(2);
    let durability = match round % 4 {
        0 => Durability::Always,
        1 => Durability::None,
        _ => Durability::Interval(Duration::from_millis(20)),
    };
    let options = DiskOptions {
        durability,
        ..options(&job.words[0], number(1))
    };
    let store = Arc::new(open(Path::new(&job.dir), options).await);
    let put_forever = |task| {
        let (store, mut seeded) = (store.clone(), Seeded::new(1000 * round + task));
        async move {
            loop {
                let len = usize::try_from(1 + seeded.below(200_000)).unwrap();
                let spooled = seeded.ingested(store.spool(), DigestFunction::Blake3, len).await;
                let small = (0..4).map(|n| seeded.blob(DigestFunction::Sha256, (len + n) % 6000));
                let mut blobs: Vec<_> = small.collect();
                blobs.push(spooled);
                let digests = super::digests(&blobs);
                for outcome in store.put_many(blobs).await {
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
