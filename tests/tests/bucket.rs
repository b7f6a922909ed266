//! Buckets of a real server of S3's protocol, which checks signatures: the conformance suites, and servers that stand on one.
//!
//! The suites run against another service where `ROOTCELLAR_TEST_S3_ENDPOINT`, `_REGION`, `_BUCKET`, `_ACCESS_KEY_ID` and
//! `_SECRET_ACCESS_KEY` say so; `tests/garage.sh` runs them against garage.

#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use rootcellar_digest::DigestFunction;
use rootcellar_store::bucket::{Bucket, BucketOptions};
use rootcellar_store::testing::{Seeded, check_blob_store, check_unbounded_records};
use rootcellar_store::{BlobStore as _, BlobStoreExt as _, ByteRange, SystemClock};
use rootcellar_tests::s3::{ACCESS_KEY_ID, BUCKET, S3Server, SECRET_ACCESS_KEY};
use rootcellar_tests::{CommandLine, Server, ServerOptions, ServerProgram, need, wait_until};

/// A service: of this test's own, or the one that the environment names.
struct Service {
    _own: Option<S3Server>,
    endpoint: String,
    region: String,
    bucket: String,
    access_key_id: String,
    secret_access_key: String,
}

impl Service {
    fn new() -> Self {
        let variable = |name: &str| env::var(format!("ROOTCELLAR_TEST_S3_{name}"));
        if let Ok(endpoint) = variable("ENDPOINT") {
            return Self {
                _own: None,
                endpoint,
                region: variable("REGION").unwrap(),
                bucket: variable("BUCKET").unwrap(),
                access_key_id: variable("ACCESS_KEY_ID").unwrap(),
                secret_access_key: variable("SECRET_ACCESS_KEY").unwrap(),
            };
        }
        let own = S3Server::start();
        Self {
            endpoint: own.endpoint(),
            _own: Some(own),
            region: "us-east-1".to_owned(),
            bucket: BUCKET.to_owned(),
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: SECRET_ACCESS_KEY.to_owned(),
        }
    }

    fn objects(&self, secret_access_key: &str) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region(&self.region)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key_id)
            .with_secret_access_key(secret_access_key)
            .build()
            .unwrap()
    }

    /// A part of the bucket that no other store has, of this run or one before.
    fn prefix() -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Short: the test's own service makes file names of the names of objects.
        let run = std::process::id() % 100_000;
        format!("t{run}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn bucket(&self, options: BucketOptions) -> Bucket {
        self.bucket_at(&Self::prefix(), options)
    }

    fn bucket_at(&self, prefix: &str, options: BucketOptions) -> Bucket {
        let objects = Arc::new(self.objects(&self.secret_access_key));
        Bucket::new(objects, prefix, options, Arc::new(SystemClock)).unwrap()
    }
}

/// The smallest parts that S3 takes have 5 MiB, so the suite's blobs go at once; `a_large_blob_goes_in_parts` has larger ones.
#[test]
fn a_bucket_of_s3_is_a_store() {
    let service = Service::new();
    block_on(check_blob_store(async |_| {
        Arc::new(service.bucket(BucketOptions::default())) as _
    }));
}

#[test]
fn a_bucket_of_s3_with_compressed_blobs_is_a_store() {
    let service = Service::new();
    let options = BucketOptions::default().with_zstd_level(Some(3));
    block_on(check_blob_store(async |_| {
        Arc::new(service.bucket(options.clone())) as _
    }));
}

#[test]
fn records_in_a_bucket_of_s3_are_records() {
    let service = Service::new();
    block_on(check_unbounded_records(async |_, clock| {
        let objects = Arc::new(service.objects(&service.secret_access_key));
        let prefix = Service::prefix();
        Arc::new(
            Bucket::new(objects, &prefix, BucketOptions::default(), clock)
                .unwrap()
                .records(),
        ) as _
    }));
}

#[test]
fn a_large_blob_goes_in_parts_and_comes_back_whole_and_in_pieces() {
    let service = Service::new();
    // Three quarters of what it could be, so that it can be compressed a little.
    let content: Bytes = Seeded::new(1).bytes(40_000_000).iter().map(|byte| byte & 63).collect();
    for zstd_level in [None, Some(1)] {
        let prefix = Service::prefix();
        let options = BucketOptions::default()
            .with_single_put_bytes_max(10 << 20)
            .with_zstd_level(zstd_level);
        let writer = service.bucket_at(&prefix, options);
        let reader = service.bucket_at(&prefix, BucketOptions::default());
        block_on(async {
            let digest = writer.put_bytes(DigestFunction::Sha256, content.clone()).await.unwrap();
            assert!(writer.requests().puts > 5, "{:?}", writer.requests());
            assert!(reader.read(digest, 1 << 30).await.unwrap() == content);
            let range = ByteRange {
                offset: 12_345_678,
                len: Some(3_000_000),
            };
            let part = reader.get(digest, range).await.unwrap();
            assert!(part.into_bytes().await.unwrap() == content.slice(12_345_678..15_345_678));
        });
    }
}

#[test]
fn a_touch_is_a_copy_that_the_service_does() {
    let service = Service::new();
    let options = BucketOptions::default().with_touch_after(Some(Duration::ZERO));
    let bucket = service.bucket(options);
    block_on(async {
        let digest = bucket
            .put_bytes(DigestFunction::Sha256, "content".into())
            .await
            .unwrap();
        for _ in 0..200 {
            assert_eq!(bucket.read(digest, 100).await.unwrap(), "content");
            if bucket.requests().deletes > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it was not touched: {:?}", bucket.requests());
    });
}

#[test]
fn wrong_credentials_are_told_for_what_they_are() {
    let service = Service::new();
    let objects = Arc::new(service.objects("another secret"));
    let bucket = Bucket::new(objects, "", BucketOptions::default(), Arc::new(SystemClock)).unwrap();
    let error = block_on(bucket.check()).unwrap_err().to_string();
    assert!(error.contains("allow") || error.contains("credentials"), "{error}");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// A server whose disk stands in front of a bucket.
fn front(program: &ServerProgram, s3: &S3Server, write: &str) -> Server {
    let endpoint = s3.endpoint();
    let config = format!(
        "[storage.tiered]\nwrite = {write:?}\nfast.disk = {{}}\n[storage.tiered.slow.bucket]\nurl = \"s3://{BUCKET}/cache\"\n\
         endpoint = {endpoint:?}\naccess_key_id.env = \"TEST_KEY\"\nsecret_access_key.env = \"TEST_SECRET\"\nretries_max = 1\n"
    );
    let options = ServerOptions {
        arguments: vec!["--no-execution".to_owned()],
        config: Some(config),
        variables: vec![("TEST_KEY", ACCESS_KEY_ID), ("TEST_SECRET", SECRET_ACCESS_KEY)],
        ..ServerOptions::default()
    };
    Server::start_with(program, &options)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn get(client: &CommandLine, digest: &str) -> Vec<u8> {
    let file = client.path("got");
    client.run(&["get", digest, "-o", text(&file)]).expect_success();
    fs::read(file).unwrap()
}

fn content(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1].wrapping_mul(7))
        .collect()
}

#[test]
fn front_ends_share_what_is_in_a_bucket_and_a_lost_disk_loses_nothing() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let s3 = S3Server::start();
    let (mut one, other) = (front(&program, &s3, "through"), front(&program, &s3, "through"));
    let (one_client, other_client) = (CommandLine::new(&program, &one), CommandLine::new(&program, &other));
    let (small, large) = (content(1000), content(3_000_000));
    let digests = [one_client.put("small", &small), one_client.put("large", &large)];
    assert_eq!(get(&other_client, &digests[0]), small);
    assert_eq!(get(&other_client, &digests[1]), large);
    one.stop();
    fs::remove_dir_all(one.data()).unwrap();
    one.start_again();
    assert_eq!(get(&one_client, &digests[1]), large);
    assert!(
        one.log().contains("tiered(disk("),
        "the composition is shown at the start: {}",
        one.log()
    );
}

#[test]
fn what_is_written_behind_survives_the_server_and_an_outage_of_the_service() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let mut s3 = S3Server::start();
    let mut front = front(&program, &s3, "behind");
    let client = CommandLine::new(&program, &front);
    s3.stop();
    let mut digests = Vec::new();
    for number in 0..20 {
        digests.push(client.put(&format!("blob-{number}"), &content(10_000 + number)));
    }
    digests.push(client.put("large", &content(3_000_000)));
    assert_eq!(s3.objects("/cas/"), 0);
    front.crash_and_restart();
    s3.start_again();
    let written = wait_until(Duration::from_secs(60), || s3.objects("/cas/sha256/") >= digests.len());
    assert!(written, "{} objects; the log:\n{}", s3.objects("/cas/"), front.log());
    for digest in &digests {
        let hash = digest.split('/').find(|part| part.len() == 64).unwrap();
        assert_eq!(s3.objects(hash), 1, "{digest}");
    }
}

#[test]
fn a_bucket_that_is_not_to_be_had_is_told_at_the_start() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let s3 = S3Server::start();
    let client = CommandLine::without_server(&program);
    let file = client.path("config.toml");
    let endpoint = s3.endpoint();
    let config = |secret: &str| {
        format!(
            "[storage.bucket]\nurl = \"s3://{BUCKET}\"\nendpoint = {endpoint:?}\nretries_max = 0\n\
             access_key_id.file = {:?}\nsecret_access_key.file = {:?}\n",
            client.path("id"),
            client.path(secret)
        )
    };
    fs::write(client.path("id"), ACCESS_KEY_ID).unwrap();
    fs::write(client.path("wrong"), "wrong").unwrap();
    fs::write(&file, config("wrong")).unwrap();
    let refused = client.run(&["serve", "--config", text(&file), "--dir", text(&client.path("data"))]);
    let said = refused.expect_failure();
    assert!(
        said.output().contains("storage.bucket") && said.output().contains("allow"),
        "{said}"
    );
    fs::write(&file, config("missing")).unwrap();
    let refused = client.run(&["serve", "--config", text(&file), "--dir", text(&client.path("data"))]);
    let said = refused.expect_failure();
    assert!(
        said.output().contains("secret_access_key") && said.output().contains("missing"),
        "{said}"
    );
}
