//! What the services of one server share.

use std::sync::Arc;

use rootcellar_reapi::{Error, Functions, InstanceName, Result};
use rootcellar_store::BlobStore;

use super::arrivals::Arrivals;
use super::limits::Limits;

/// The store and the rules that all services work with.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: Arc<dyn BlobStore>,
    pub(crate) functions: Functions,
    pub(crate) limits: Limits,
    pub(crate) arrivals: Arc<Arrivals>,
}

impl Core {
    /// Lets every well-formed instance name pass: all instances share one store.
    pub(crate) fn check_instance(&self, name: &str) -> Result<InstanceName> {
        InstanceName::parse(name)
    }

    /// Refuses blobs larger than the announced limit (CAP-10).
    pub(crate) fn check_size(&self, size_bytes: u64) -> Result<()> {
        match self.limits.blob_bytes_max {
            Some(max) if size_bytes > max => Err(Error::invalid_argument(format!(
                "a blob of {size_bytes} bytes is larger than the {max} that are taken here"
            ))),
            _ => Ok(()),
        }
    }
}
