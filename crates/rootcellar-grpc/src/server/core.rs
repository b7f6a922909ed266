//! What the services of one server share.

use std::sync::Arc;

use rootcellar_digest::DigestFunction;
use rootcellar_proto::reapi::ActionResult;
use rootcellar_reapi::{Error, Functions, Inlining, InstanceName, Result};
use rootcellar_store::BlobStore;

use super::arrivals::Arrivals;
use super::limits::Limits;

/// The store and the rules that all services work with.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) store: Arc<dyn BlobStore>,
    pub(super) functions: Functions,
    pub(super) limits: Limits,
    pub(super) arrivals: Arc<Arrivals>,
}

/// Bytes that a result leaves free in its message for what is around it: an operation, its name and metadata.
const ENVELOPE_BYTES: u64 = 64 * 1024;

impl Core {
    /// Lets every well-formed instance name pass: all instances share one store.
    pub(super) fn check_instance(&self, name: &str) -> Result<InstanceName> {
        InstanceName::parse(name)
    }

    /// Refuses blobs larger than the announced limit (CAP-10).
    pub(super) fn check_size(&self, size_bytes: u64) -> Result<()> {
        match self.limits.blob_bytes_max {
            Some(max) if size_bytes > max => Err(Error::invalid_argument(format!(
                "a blob of {size_bytes} bytes is larger than the {max} that are taken here"
            ))),
            _ => Ok(()),
        }
    }

    /// Puts contents that were asked for into a result, as far as the message stays small enough to be sent (AC-2).
    pub(super) async fn inline(&self, function: DigestFunction, result: &mut ActionResult, wanted: &Inlining) {
        let room = (self.limits.reply_bytes_max as u64).saturating_sub(ENVELOPE_BYTES);
        wanted.apply(&*self.store, function, result, room).await;
    }
}
