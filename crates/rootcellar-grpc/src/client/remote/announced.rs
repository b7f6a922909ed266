//! What a server announces, asked for once.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use rootcellar_reapi::{Error, ErrorKind};

use crate::client::Connection;

type Attempt = Shared<BoxFuture<'static, Result<u64, Arc<Error>>>>;

/// The bytes of a batch that a server takes. Whoever wants to know while somebody asks shares the answer, and the error, too.
#[derive(Default)]
pub(super) struct Announced {
    batch_bytes: OnceLock<u64>,
    attempt: Mutex<Option<Attempt>>,
}

impl Announced {
    /// Bytes of a batch; 0 is no limit.
    pub(super) async fn batch_bytes(&self, connection: &Connection) -> Result<u64, Arc<Error>> {
        if let Some(known) = self.batch_bytes.get() {
            return Ok(*known);
        }
        let attempt = {
            let mut attempt = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
            attempt
                .get_or_insert_with(|| ask(connection.clone()).boxed().shared())
                .clone()
        };
        let outcome = attempt.clone().await;
        match &outcome {
            Ok(batch_bytes) => {
                // Another one of those who shared the answer may have been there first.
                let _is_first = self.batch_bytes.set(*batch_bytes).is_ok();
            }
            // Who comes later asks again.
            Err(_) => {
                let mut current = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
                if current.as_ref().is_some_and(|current| current.ptr_eq(&attempt)) {
                    *current = None;
                }
            }
        }
        outcome
    }
}

async fn ask(connection: Connection) -> Result<u64, Arc<Error>> {
    match connection.capabilities().await {
        Ok(capabilities) => {
            let cache = capabilities.cache_capabilities.unwrap_or_default();
            Ok(u64::try_from(cache.max_batch_total_size_bytes).unwrap_or(0))
        }
        // A server that does not tell its limits has the usual ones.
        Err(error) if error.kind() == ErrorKind::Unimplemented => Ok(0),
        Err(error) => Err(Arc::new(error)),
    }
}

impl fmt::Debug for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announced")
            .field("batch_bytes", &self.batch_bytes)
            .finish_non_exhaustive()
    }
}
