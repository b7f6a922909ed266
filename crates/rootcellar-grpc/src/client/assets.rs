//! A server's names for blobs and directories that live elsewhere, or nowhere else.

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::asset::fetch_client::FetchClient;
use rootcellar_proto::asset::push_client::PushClient;
use rootcellar_proto::asset::{
    FetchBlobRequest, FetchDirectoryRequest, PushBlobRequest, PushDirectoryRequest, Qualifier,
};
use rootcellar_proto::{reapi, rpc};
use rootcellar_reapi::functions::{from_proto, to_proto, value};
use rootcellar_reapi::{Error, ErrorKind, Result};

use super::Connection;
use super::failure::check_status;

/// Fetches and pushes assets (Remote Asset API, `Fetch` and `Push`).
#[derive(Debug, Clone)]
pub struct Assets {
    connection: Connection,
}

/// What an asset is found by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssetName {
    /// Addresses, each of which names it.
    pub uris: Vec<String>,
    /// Names and values that tell apart what one address can mean.
    pub qualifiers: Vec<(String, String)>,
}

/// An asset, which is a blob or a directory with all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asset {
    /// A blob.
    Blob(Digest),
    /// A Directory message, and the tree under it.
    Directory(Digest),
}

impl Assets {
    /// Speaks to the assets at the other end of `connection`.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Finds a blob; `None` if the server knows none of that name.
    ///
    /// # Errors
    /// What the server or the transport says.
    pub async fn fetch_blob(&self, function: DigestFunction, name: &AssetName) -> Result<Option<Digest>> {
        let request = FetchBlobRequest {
            instance_name: self.connection.instance_name(),
            uris: name.uris.clone(),
            qualifiers: name.qualifiers(),
            digest_function: value(function).into(),
            ..Default::default()
        };
        let client = FetchClient::new(self.connection.channel());
        let call = |mut client: FetchClient<_>, request| async move { client.fetch_blob(request).await };
        let outcome = self.connection.unary(client, request, call);
        let found = outcome
            .await
            .and_then(|answer| self.found(function, answer.status, answer.blob_digest));
        none_if_not_found(found)
    }

    /// Finds a directory; `None` if the server knows none of that name.
    ///
    /// # Errors
    /// What the server or the transport says.
    pub async fn fetch_directory(&self, function: DigestFunction, name: &AssetName) -> Result<Option<Digest>> {
        let request = FetchDirectoryRequest {
            instance_name: self.connection.instance_name(),
            uris: name.uris.clone(),
            qualifiers: name.qualifiers(),
            digest_function: value(function).into(),
            ..Default::default()
        };
        let client = FetchClient::new(self.connection.channel());
        let call = |mut client: FetchClient<_>, request| async move { client.fetch_directory(request).await };
        let outcome = self.connection.unary(client, request, call);
        let found = outcome
            .await
            .and_then(|answer| self.found(function, answer.status, answer.root_directory_digest));
        none_if_not_found(found)
    }

    /// Gives a name to something that the server's CAS holds.
    ///
    /// # Errors
    /// What the server or the transport says.
    pub async fn push(&self, name: &AssetName, asset: Asset) -> Result<()> {
        match asset {
            Asset::Blob(digest) => self.push_blob(name, digest).await,
            Asset::Directory(root) => self.push_directory(name, root).await,
        }
    }

    async fn push_blob(&self, name: &AssetName, digest: Digest) -> Result<()> {
        let request = PushBlobRequest {
            instance_name: self.connection.instance_name(),
            uris: name.uris.clone(),
            qualifiers: name.qualifiers(),
            blob_digest: Some(to_proto(digest)),
            digest_function: value(digest.function()).into(),
            ..Default::default()
        };
        let client = PushClient::new(self.connection.channel());
        let call = |mut client: PushClient<_>, request| async move { client.push_blob(request).await };
        let pushed = self.connection.unary(client, request, call);
        pushed.await.map(|_| ())
    }

    async fn push_directory(&self, name: &AssetName, root: Digest) -> Result<()> {
        let request = PushDirectoryRequest {
            instance_name: self.connection.instance_name(),
            uris: name.uris.clone(),
            qualifiers: name.qualifiers(),
            root_directory_digest: Some(to_proto(root)),
            digest_function: value(root.function()).into(),
            ..Default::default()
        };
        let client = PushClient::new(self.connection.channel());
        let call = |mut client: PushClient<_>, request| async move { client.push_directory(request).await };
        let pushed = self.connection.unary(client, request, call);
        pushed.await.map(|_| ())
    }

    /// Reads what was found. A server may tell that nothing was in its answer rather than by the call's status.
    fn found(
        &self,
        function: DigestFunction,
        status: Option<rpc::Status>,
        digest: Option<reapi::Digest>,
    ) -> Result<Digest> {
        check_status(&status.unwrap_or_default()).map_err(|error| error.about(&self.connection))?;
        let digest = digest.unwrap_or_default();
        from_proto(function, &digest).map_err(|error| {
            let reason = "the server names no blob of that digest function";
            Error::new(ErrorKind::Internal, reason)
                .caused_by(error)
                .about(&self.connection)
        })
    }
}

impl AssetName {
    fn qualifiers(&self) -> Vec<Qualifier> {
        let qualifiers = self.qualifiers.iter().cloned();
        qualifiers.map(|(name, value)| Qualifier { name, value }).collect()
    }
}

fn none_if_not_found(found: Result<Digest>) -> Result<Option<Digest>> {
    match found {
        Ok(digest) => Ok(Some(digest)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
