//! Three servers as shards, and a front end over them: one of them is killed under load, and shards come and go.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_grpc::client::{ActionCache, Endpoint, Remote, Retry};
use rootcellar_store::testing::Seeded;
use rootcellar_store::{BlobStore, BlobStoreExt as _};
use rootcellar_tests::{CommandLine, Server, ServerOptions, ServerProgram, need, wait_until};

const FUNCTION: DigestFunction = DigestFunction::Sha256;
const CLIENTS: u64 = 4;

fn shard(program: &ServerProgram) -> Server {
    let options = ServerOptions {
        arguments: vec!["--no-execution".to_owned(), "--inventory".to_owned()],
        ..ServerOptions::default()
    };
    Server::start_with(program, &options)
}

/// The configuration of a front end over shards, by their numbers.
fn config(shards: &[&Server], replicas: usize) -> String {
    let mut config = format!("[storage.sharded]\nreplicas = {replicas}\n");
    for (number, shard) in shards.iter().enumerate() {
        writeln!(config, "shards.s{number}.remote.url = {:?}", shard.url()).unwrap();
    }
    config
}

fn front(program: &ServerProgram, config: String) -> Server {
    let options = ServerOptions {
        config: Some(config),
        ..ServerOptions::default()
    };
    Server::start_with(program, &options)
}

/// A store that asks nothing twice: what fails, fails.
fn impatient(server: &Server) -> Remote {
    let mut retry = Retry::default();
    retry.attempts_max = 1;
    let endpoint = Endpoint::parse(&server.url(), "").unwrap().with_retry(retry);
    Remote::new(endpoint.connect_lazily())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// What clients did and saw.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    requests: AtomicU64,
    failures: std::sync::Mutex<Vec<String>>,
    put: std::sync::Mutex<Vec<Digest>>,
}

impl Load {
    fn note<T, E: std::fmt::Display>(&self, what: &str, outcome: Result<T, E>) -> Option<T> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        outcome
            .map_err(|error| self.failures.lock().unwrap().push(format!("{what}: {error}")))
            .ok()
    }

    /// Puts and reads, again and again, as builds do.
    async fn client(self: Arc<Self>, store: Remote, seed: u64) {
        let mut seeded = Seeded::new(seed);
        let mut known: Vec<Digest> = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let mut blobs: Vec<_> = (0..20).map(|_| seeded.blob(FUNCTION, 3000)).collect();
            blobs.push(seeded.blob(FUNCTION, 400_000));
            let digests: Vec<Digest> = blobs.iter().map(rootcellar_store::Verified::digest).collect();
            self.note("find missing", store.find_missing(&digests).await);
            for (digest, outcome) in digests.iter().zip(store.put_many(blobs).await) {
                if self.note("put", outcome).is_some() {
                    known.push(*digest);
                    self.put.lock().unwrap().push(*digest);
                }
            }
            let missing = self.note(
                "find missing",
                store.find_missing(&known[known.len().saturating_sub(500)..]).await,
            );
            assert!(
                missing.is_none_or(|missing| missing.is_empty()),
                "what was put is missing"
            );
            let at = usize::try_from(seeded.below(known.len() as u64)).unwrap();
            for digest in &known[at..(at + 15).min(known.len())] {
                if let Some(content) = self.note("get", store.read(*digest, 1 << 20).await) {
                    assert!(Digest::of(FUNCTION, &content) == *digest);
                }
            }
        }
    }
}

#[test]
fn a_shard_that_is_killed_under_load_fails_no_request_and_is_healed_when_it_is_back() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let mut shards = [shard(&program), shard(&program), shard(&program)];
    let front = front(&program, config(&shards.each_ref(), 2));
    let load = Arc::new(Load::default());
    block_on(async {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|seed| tokio::spawn(load.clone().client(impatient(&front), seed)))
            .collect();
        tokio::time::sleep(Duration::from_secs(2)).await;
        shards[1].kill();
        tokio::time::sleep(Duration::from_secs(4)).await;
        shards[1].start_again();
        tokio::time::sleep(Duration::from_secs(2)).await;
        load.is_over.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
    });
    let failures = load.failures.lock().unwrap().clone();
    let requests = load.requests.load(Ordering::Relaxed);
    assert!(
        failures.is_empty(),
        "{} of {requests} requests failed: {:?}",
        failures.len(),
        failures.first()
    );
    assert!(requests > 1000, "{requests} requests");
    let put = load.put.lock().unwrap().clone();
    assert_two_copies(&shards, &put);
}

/// Waits until of each blob there are two copies.
fn assert_two_copies(shards: &[Server], put: &[Digest]) {
    let copies = || {
        block_on(async {
            let mut copies = vec![0; put.len()];
            for shard in shards {
                let missing: HashSet<Digest> = impatient(shard).find_missing(put).await.unwrap().into_iter().collect();
                for (digest, copies) in put.iter().zip(&mut copies) {
                    *copies += usize::from(!missing.contains(digest));
                }
            }
            copies
        })
    };
    let is_healed = wait_until(Duration::from_secs(60), || copies().iter().all(|copies| *copies >= 2));
    let lacking = copies().into_iter().filter(|copies| *copies < 2).count();
    assert!(is_healed, "{lacking} of {} blobs have fewer than two copies", put.len());
}

#[test]
fn a_shard_that_is_added_gets_its_share_by_rebalancing() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let shards = [shard(&program), shard(&program), shard(&program)];
    let mut front_of_two = front(&program, config(&[&shards[0], &shards[1]], 1));
    let put: Vec<Digest> = block_on(async {
        let (store, mut put) = (impatient(&front_of_two), Vec::new());
        for number in 0..300_u32 {
            let content = Bytes::from(format!("blob {number}"));
            put.push(store.put_bytes(FUNCTION, content).await.unwrap());
        }
        put
    });
    front_of_two.stop();
    let new = config(&shards.each_ref(), 1);
    let front_of_three = front(&program, new.clone());
    let missing = || {
        block_on(async { impatient(&front_of_three).find_missing(&put).await })
            .unwrap()
            .len()
    };
    // A third has to move, and cannot be found where it belongs before it has.
    assert!((60..150).contains(&missing()), "{}", missing());
    let client = CommandLine::without_server(&program);
    let file = client.path("front.toml");
    // In the directory of the front end, which goes on.
    fs::write(&file, format!("dir = {:?}\n{new}", front_of_three.data())).unwrap();
    let done = client
        .run(&["rebalance", "--config", file.to_str().unwrap()])
        .expect_success();
    assert!(
        done.output().contains("3 shards") && done.output().contains("0 failed"),
        "{done}"
    );
    assert_eq!(missing(), 0);
    let again = client
        .run(&["rebalance", "--config", file.to_str().unwrap()])
        .expect_success();
    assert!(again.output().contains(": 0 copied"), "{again}");
}

#[test]
fn a_shard_that_does_not_tell_what_it_holds_cannot_be_rebalanced_and_that_is_said() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let options = ServerOptions {
        arguments: vec!["--no-execution".to_owned()],
        ..ServerOptions::default()
    };
    let silent = Server::start_with(&program, &options);
    let client = CommandLine::without_server(&program);
    let file = client.path("front.toml");
    fs::write(
        &file,
        format!("dir = {:?}\n{}", client.path("data"), config(&[&silent], 1)),
    )
    .unwrap();
    let refused = client
        .run(&["rebalance", "--config", file.to_str().unwrap()])
        .expect_failure();
    assert!(refused.output().contains("--inventory"), "{refused}");
}

#[test]
fn action_results_and_assets_are_shared_by_front_ends_of_shards_and_survive_one_of_them() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let mut shards = [shard(&program), shard(&program), shard(&program)];
    let config = config(&shards.each_ref(), 2);
    let (one, other) = (front(&program, config.clone()), front(&program, config));
    let cache = |server: &Server| ActionCache::new(Endpoint::parse(&server.url(), "").unwrap().connect_lazily());
    block_on(async {
        let output = impatient(&one)
            .put_bytes(FUNCTION, Bytes::from_static(b"output"))
            .await
            .unwrap();
        let result = rootcellar_proto::reapi::ActionResult {
            stdout_digest: Some(rootcellar_proto::reapi::Digest {
                hash: output.hash_hex().to_string(),
                size_bytes: 6,
            }),
            ..Default::default()
        };
        let actions: Vec<Digest> = (0..20_u8).map(|number| Digest::of(FUNCTION, &[number])).collect();
        for action in &actions {
            cache(&one).update(*action, result.clone()).await.unwrap();
        }
        shards[2].kill();
        for action in &actions {
            assert!(cache(&other).get(*action).await.unwrap().is_some(), "{action}");
        }
        // Complete or not at all: the output is on two shards, and both are gone now.
        shards[0].kill();
        shards[1].kill();
        assert!(!matches!(cache(&other).get(actions[0]).await, Ok(Some(_))));
    });
}

#[test]
fn a_disk_may_be_anywhere_in_a_storage_and_two_servers_do_not_share_a_directory() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    for config in [
        "[storage.limited]\noperations = 100\nstore.disk = {}\n",
        "[storage.existence_cached]\nstore.disk = {}\n",
        "[storage.sharded]\nshards.a.disk = {}\n",
        "[storage.tiered]\nfast.memory.max_size = \"16MiB\"\nslow.disk = {}\n",
        "[storage.memory]\nmax_size = \"64MiB\"\n",
    ] {
        let mut server = front(&program, config.to_owned());
        let digest =
            block_on(async { impatient(&server).put_bytes(FUNCTION, Bytes::from_static(b"x")).await }).unwrap();
        server.restart();
        let is_there = block_on(async { impatient(&server).contains(digest).await }).unwrap();
        assert_eq!(is_there, config.contains("disk"), "{config}");
        let second = CommandLine::without_server(&program);
        let file = second.path("config.toml");
        fs::write(&file, config).unwrap();
        let (file, data) = (file.to_str().unwrap().to_owned(), server.data());
        let arguments = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--config",
            &file,
            "--dir",
            data.to_str().unwrap(),
        ];
        let refused = second.run(&arguments).expect_failure();
        assert!(refused.output().contains("use"), "{refused}");
        let again = block_on(async {
            impatient(&server)
                .put_bytes(FUNCTION, Bytes::from(vec![1; 300_000]))
                .await
        });
        again.unwrap();
    }
}
