//! The client's side of the wire.
//!
//! An [`Endpoint`] says where a server is. Connecting to it makes a [`Connection`], of which clones are cheap and share one
//! socket. What a server offers stands on that:
//!
//! ```text
//!   Endpoint ── connect ──> Connection ──┬── Remote         its CAS, as a BlobStore like any other
//!                                        ├── Executor       actions, run there
//!                                        ├── ActionCache    results of actions
//!                                        ├── RemoteRecords  records, in its action cache
//!                                        ├── Assets         names of blobs and directories
//!                                        └── capabilities   what of that it offers
//! ```
//!
//! A call that the server could not answer for the moment, or whose connection broke, is made again after a while, and not
//! for ever: [`Retry`] has the numbers. Every call made here may be made twice without harm. Errors name the endpoint.

mod action_cache;
mod assets;
mod connection;
mod endpoint;
mod executor;
mod failure;
mod records;
mod remote;
mod retry;

pub use self::action_cache::ActionCache;
pub use self::assets::{Asset, AssetName, Assets};
pub use self::connection::Connection;
pub use self::endpoint::{Endpoint, Transport};
pub use self::executor::{ExecuteOptions, Execution, Executor, Progress};
pub use self::failure::check_status;
pub use self::records::RemoteRecords;
pub use self::remote::{Remote, RemoteLimits, Traffic};
pub use self::retry::Retry;
