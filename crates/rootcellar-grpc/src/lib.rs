//! The Remote Execution API on the wire, both ends.
//!
//! [`server`] serves any [`BlobStore`](rootcellar_store::BlobStore), and what is built on one, over gRPC.

pub mod server;
mod status;
