//! The Remote Execution API on the wire, both ends.
//!
//! [`server`] serves any [`BlobStore`](rootcellar_store::BlobStore), and what is built on one, over gRPC.
//! [`client`] makes a store of any server of the API, and runs actions there.

pub mod client;
pub mod server;
mod status;
