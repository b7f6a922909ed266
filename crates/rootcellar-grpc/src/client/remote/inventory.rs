//! What a server holds, if it tells.

use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::inventory::inventory_client::InventoryClient;
use rootcellar_proto::inventory::{ListBlobsRequest, ListBlobsResponse};
use rootcellar_reapi::Functions;
use rootcellar_store::{Error, ErrorKind, Inventory, Result};
use tonic::{Code, Status};

use super::{Remote, kind};

impl Remote {
    fn list_error(&self, status: &Status) -> Error {
        let error = self.connection.error(status);
        if status.code() == Code::Unimplemented {
            let reason = format!("{self} does not tell what it holds: is it a rootcellar, started with --inventory?");
            return Error::new(ErrorKind::InvalidArgument, "list", reason);
        }
        Error::new(kind(error.kind()), "list", error.to_string())
    }

    fn page(&self, message: &ListBlobsResponse) -> Result<Vec<Digest>> {
        let functions = Functions::new(DigestFunction::ALL.to_vec()).expect("each function is there once");
        let digests = functions.digests(message.digest_function, "blob_digests", &message.blob_digests);
        digests.map_err(|error| {
            let reason = format!("{self}: the server lists what is no digest: {error}");
            Error::new(ErrorKind::Internal, "list", reason)
        })
    }
}

/// Of a server of this project that was told to tell ([`Services::with_inventory`](crate::server::Services::with_inventory)).
impl Inventory for Remote {
    fn list(&self) -> BoxStream<'static, Result<Vec<Digest>>> {
        let (remote, pages_of) = (self.clone(), self.clone());
        let open = async move {
            let request = ListBlobsRequest {
                instance_name: remote.connection.instance_name(),
            };
            let mut client = InventoryClient::new(remote.connection.channel());
            let opened = client
                .list_blobs(request)
                .await
                .map_err(|status| remote.list_error(&status))?;
            Ok(opened.into_inner().map_err(move |status| remote.list_error(&status)))
        };
        let messages = stream::once(open).try_flatten();
        messages.map(move |message| pages_of.page(&message?)).boxed()
    }
}
