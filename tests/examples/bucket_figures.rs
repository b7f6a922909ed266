//! What a bucket costs beside the `object_store` crate alone, and how many requests a build makes of it.
//!
//!     cargo run --release -p rootcellar-tests --example bucket_figures
//!
//! The service is a process of its own, so that its processor time is not counted; both sides sign in the same way. Ratios come from runs
//! that alternate.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectStoreExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use prost::Message as _;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::{Action, ActionResult, OutputFile};
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::{ActionCache, ActionCacheOptions};
use rootcellar_store::bucket::{Bucket, BucketOptions};
use rootcellar_store::testing::Seeded;
use rootcellar_store::{BlobStore as _, ByteRange, SystemClock, Verified};
use rootcellar_tests::s3::{ACCESS_KEY_ID, BUCKET, S3Server, SECRET_ACCESS_KEY};
use rustix::time::{ClockId, clock_gettime};

const BLOB_BYTES: usize = 16 << 20;
const BLOBS: usize = 12;
const RUNS: usize = 7;

fn main() {
    if std::env::args().any(|argument| argument == "--serve") {
        return serve();
    }
    let mut service = Command::new(std::env::current_exe().unwrap())
        .arg("--serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut endpoint = String::new();
    BufReader::new(service.stdout.take().unwrap())
        .read_line(&mut endpoint)
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(figures(endpoint.trim()));
    drop(service.stdin.take());
    service.wait().unwrap();
}

/// The service, until nobody holds its standard input any more.
fn serve() {
    let server = S3Server::start();
    println!("{}", server.endpoint());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn objects(endpoint: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_bucket_name(BUCKET)
        .with_access_key_id(ACCESS_KEY_ID)
        .with_secret_access_key(SECRET_ACCESS_KEY)
        .build()
        .unwrap()
}

async fn figures(endpoint: &str) {
    let objects = Arc::new(objects(endpoint));
    for at_a_time in [1, 4] {
        transfers(&objects, at_a_time).await;
    }
    trace(&objects).await;
}

/// Time on the clock, and of this process's processors.
async fn timed(work: impl Future<Output = ()>) -> (Duration, Duration) {
    let cpu = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap(),
            u32::try_from(time.tv_nsec).unwrap(),
        )
    };
    let (begin, cpu_begin) = (Instant::now(), cpu());
    work.await;
    (begin.elapsed(), cpu() - cpu_begin)
}

/// Puts and gets, beside the crate alone.
async fn transfers(objects: &Arc<AmazonS3>, at_a_time: usize) {
    let mut times: [Vec<(Duration, Duration)>; 4] = Default::default();
    for run in 0..RUNS {
        let mut seeded = Seeded::new(u64::try_from(run * 10 + at_a_time).unwrap());
        let contents: Vec<Bytes> = (0..2 * BLOBS).map(|_| seeded.bytes(BLOB_BYTES)).collect();
        let (alone, ours) = contents.split_at(BLOBS);
        let prefix = format!("run{run}-{at_a_time}");
        let bucket = Bucket::new(
            objects.clone(),
            &prefix,
            BucketOptions::default(),
            Arc::new(SystemClock),
        )
        .unwrap();
        let name = |number: usize| Path::from(format!("{prefix}/alone/{number}"));
        // What is put was hashed as it came from a client, and is not hashed again.
        let verified: Vec<Verified> = ours
            .iter()
            .map(|content| Verified::of(DigestFunction::Sha256, content.clone()))
            .collect();
        let digests: Vec<Digest> = verified.iter().map(Verified::digest).collect();

        let put_alone = stream::iter(alone.iter().cloned().enumerate())
            .map(Ok)
            .try_for_each_concurrent(at_a_time, |(number, content)| {
                let name = name(number);
                async move { objects.put(&name, content.into()).await.map(|_| ()) }
            });
        times[0].push(timed(async { put_alone.await.unwrap() }).await);
        let put = stream::iter(verified)
            .map(Ok)
            .try_for_each_concurrent(at_a_time, |blob| bucket.put(blob));
        times[1].push(timed(async { put.await.unwrap() }).await);

        let get_alone = stream::iter(0..BLOBS).for_each_concurrent(at_a_time, |number| {
            let name = name(number);
            async move { drain(objects.get(&name).await.unwrap().into_stream().map(Result::unwrap)).await }
        });
        times[2].push(timed(get_alone).await);
        let bucket = &bucket;
        let get = stream::iter(digests).for_each_concurrent(at_a_time, |digest| async move {
            drain(
                bucket
                    .get(digest, ByteRange::ALL)
                    .await
                    .unwrap()
                    .into_stream()
                    .map(Result::unwrap),
            )
            .await;
        });
        times[3].push(timed(get).await);
    }
    let mebibytes = (BLOBS * BLOB_BYTES) as f64 / f64::from(1 << 20);
    let [put_alone, put, get_alone, get] = times.map(median);
    for (what, alone, ours) in [("put", put_alone, put), ("get", get_alone, get)] {
        println!(
            "16 MiB {what}, {at_a_time} at a time: {:.0} MiB/s, alone {:.0}: ratio {:.2}; processor time a blob {:.1} ms, alone {:.1}",
            mebibytes / ours.0,
            mebibytes / alone.0,
            alone.0 / ours.0,
            ours.1 * 1e3 / BLOBS as f64,
            alone.1 * 1e3 / BLOBS as f64
        );
    }
}

async fn drain(mut pieces: impl stream::Stream<Item = Bytes> + Unpin) {
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        bytes += piece.len();
    }
    assert_eq!(bytes, BLOB_BYTES);
}

fn median(mut times: Vec<(Duration, Duration)>) -> (f64, f64) {
    times.sort();
    let wall = times[times.len() / 2].0.as_secs_f64();
    times.sort_by_key(|(_, cpu)| *cpu);
    (wall, times[times.len() / 2].1.as_secs_f64())
}

/// Actions of a build, and what each of them has.
const ACTIONS: u64 = 400;
const INPUTS: u64 = 25;
const OUTPUTS: u64 = 4;
const BUILDS: u64 = 50;

/// One clean build by one front end, then builds by others, each of which changes a twentieth of all actions and reads what it did not make.
async fn trace(objects: &Arc<AmazonS3>) {
    let front = || {
        let bucket = Bucket::new(
            objects.clone(),
            "trace",
            BucketOptions::default(),
            Arc::new(SystemClock),
        )
        .unwrap();
        let records = Arc::new(bucket.records());
        let cache = ActionCache::new(records, Arc::new(bucket.clone()), ActionCacheOptions::default());
        (bucket, cache.with_clock(Arc::new(SystemClock)))
    };
    let fronts = [front(), front()];
    for build in 0..BUILDS {
        let (bucket, cache) = &fronts[usize::from(build % 2 == 1)];
        for action in 0..ACTIONS {
            let is_changed = build == 0 || (action + build) % 20 == 0;
            let version = if is_changed { build } else { last_change(action, build) };
            let mut inputs: Vec<Verified> = (0..INPUTS)
                .map(|input| blob("input", action / 4 * INPUTS + input, 0))
                .collect();
            let outputs: Vec<Verified> = (0..OUTPUTS)
                .map(|output| blob("output", action * OUTPUTS + output, version))
                .collect();
            let names = |blobs: &[Verified]| blobs.iter().map(Verified::digest).collect::<Vec<_>>();
            // The action that a client uploads beside its inputs.
            let described = described(&blob("command", action, 0), version);
            let name = described.digest();
            if let Some(result) = cache.get(name).await.unwrap() {
                assert!(!is_changed && result.output_files.len() == outputs.len());
                for read in bucket.get_many(&names(&outputs)).await {
                    read.unwrap();
                }
                continue;
            }
            assert!(is_changed);
            let command = blob("command", action, 0);
            inputs.extend([command, described]);
            let missing = bucket.find_missing(&names(&inputs)).await.unwrap();
            let result = result(&names(&outputs));
            let sent = inputs.into_iter().filter(|blob| missing.contains(&blob.digest()));
            for put in bucket.put_many(sent.chain(outputs).collect()).await {
                put.unwrap();
            }
            cache.put(name, result).await.unwrap();
        }
    }
    let (mut heads, mut gets, mut puts) = (0, 0, 0);
    for (bucket, _) in &fronts {
        let counts = bucket.requests();
        heads += counts.heads;
        gets += counts.gets;
        puts += counts.puts;
    }
    println!(
        "{BUILDS} builds: {heads} HEAD, {gets} GET, {puts} PUT: {:.3} HEAD for each GET",
        heads as f64 / gets as f64
    );
}

/// An action, which another version of its inputs makes another one.
fn described(command: &Verified, version: u64) -> Verified {
    let root = Digest::of(DigestFunction::Sha256, format!("root {version}").as_bytes());
    let action = Action {
        command_digest: Some(to_proto(command.digest())),
        input_root_digest: Some(to_proto(root)),
        ..Action::default()
    };
    Verified::of(DigestFunction::Sha256, action.encode_to_vec().into())
}

fn result(outputs: &[Digest]) -> ActionResult {
    let file = |digest: &Digest| OutputFile {
        path: digest.hash_hex().to_string(),
        digest: Some(to_proto(*digest)),
        ..OutputFile::default()
    };
    ActionResult {
        output_files: outputs.iter().map(file).collect(),
        ..ActionResult::default()
    }
}

/// The build that changed an action last before this one.
fn last_change(action: u64, build: u64) -> u64 {
    (1..build)
        .rev()
        .find(|earlier| (action + earlier).is_multiple_of(20))
        .unwrap_or(0)
}

fn blob(what: &str, number: u64, version: u64) -> Verified {
    let content = format!("{what} {number} {version}").repeat(20);
    Verified::of(DigestFunction::Sha256, content.into())
}
