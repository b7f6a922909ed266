//! Where a bucket is, and with which credentials.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use rootcellar_store::bucket::{Bucket, BucketOptions};
use rootcellar_store::{Clock, ErrorKind};

use crate::config::storage;

/// How long a service may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// No request is made again after that: credentials in it would be old.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Opens a bucket, and asks it something, so that what is wrong is told at once.
pub(super) async fn open(settings: &storage::Bucket, clock: Arc<dyn Clock>) -> anyhow::Result<Bucket> {
    let (scheme, rest) = settings.url.split_once("://").context("url")?;
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let (objects, prefix): (Arc<dyn ObjectStore>, &str) = match scheme {
        "s3" => (Arc::new(s3(settings, name)?), prefix),
        "gs" => (Arc::new(google(settings, name)?), prefix),
        "az" => (Arc::new(azure(settings, name)?), prefix),
        "file" => (Arc::new(directory(rest)?), ""),
        other => bail!("url: there is no object store of the sort {other:?}"),
    };
    let bucket = Bucket::new(objects, prefix, options(settings), clock)?;
    match bucket.check().await {
        // It may come back. Whoever asks for something it has hears of it.
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            tracing::warn!(%error, "the bucket is not to be had now");
        }
        checked => checked.with_context(|| settings.url.clone())?,
    }
    Ok(bucket)
}

fn options(settings: &storage::Bucket) -> BucketOptions {
    let mut presence = BucketOptions::default().presence;
    if let Some(seconds) = settings.existence_seconds {
        presence.ttl = Duration::from_secs(seconds);
    }
    if let Some(entries) = settings.existence_entries.and_then(NonZero::new) {
        presence.entries_max = entries;
    }
    let mut options = BucketOptions::default()
        .with_presence(presence)
        .with_zstd_level(settings.zstd_level)
        .with_touch_after(settings.touch_after_hours.map(Duration::from_hours));
    options.requests_max = settings.requests_max.unwrap_or(options.requests_max);
    options
}

fn retry(settings: &storage::Bucket) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: settings.retries_max.unwrap_or(10),
        retry_timeout: RETRY_TIMEOUT,
    }
}

/// A blob of gigabytes takes its time; a service that sends nothing for a while does not answer.
fn client() -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_read_timeout(SILENCE_MAX)
}

fn s3(settings: &storage::Bucket, name: &str) -> anyhow::Result<object_store::aws::AmazonS3> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(name)
        .with_client_options(client())
        .with_retry(retry(settings));
    let path_style = settings.path_style.unwrap_or(settings.endpoint.is_some());
    builder = builder.with_virtual_hosted_style_request(!path_style);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let (Some(id), Some(key)) = (&settings.access_key_id, &settings.secret_access_key) {
        let (id, key) = (
            id.read().context("access_key_id")?,
            key.read().context("secret_access_key")?,
        );
        builder = builder.with_access_key_id(id).with_secret_access_key(key);
    }
    if let Some(token) = &settings.session_token {
        builder = builder.with_token(token.read().context("session_token")?);
    }
    Ok(builder.build()?)
}

fn google(settings: &storage::Bucket, name: &str) -> anyhow::Result<object_store::gcp::GoogleCloudStorage> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(name)
        .with_client_options(client())
        .with_retry(retry(settings));
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(file) = &settings.service_account_file {
        builder = builder.with_service_account_path(file.to_string_lossy());
    }
    Ok(builder.build()?)
}

fn azure(settings: &storage::Bucket, name: &str) -> anyhow::Result<object_store::azure::MicrosoftAzure> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(name)
        .with_client_options(client())
        .with_retry(retry(settings));
    if let Some(endpoint) = &settings.endpoint {
        builder = builder
            .with_endpoint(endpoint.clone())
            .with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(account) = &settings.account {
        builder = builder.with_account(account);
    }
    if let Some(key) = &settings.account_key {
        builder = builder.with_access_key(key.read().context("account_key")?);
    }
    Ok(builder.build()?)
}

fn directory(path: &str) -> anyhow::Result<LocalFileSystem> {
    std::fs::create_dir_all(path).with_context(|| path.to_owned())?;
    LocalFileSystem::new_with_prefix(path).with_context(|| path.to_owned())
}
