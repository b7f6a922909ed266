//! Trees, actions and results of the Remote Execution API, over any store.
//!
//! This crate knows what the API's messages mean and which of them are valid; it knows no network. What comes from outside is
//! parsed once into a type that cannot hold anything else: [`Functions`] make digests of digest messages, [`ReadName`] and
//! [`WriteName`] are resource names, [`RelPath`] is a path that cannot leave the root, and a [`Directory`] is one that a
//! filesystem can hold.
//!
//! A [`LoadedAction`] is what there is to run, and its [`Outputs`] what to bring back. [`ActionCache`] and [`AssetIndex`] keep
//! what was made or pushed, and serve it only while every blob that it needs is in the store.

mod action;
mod action_cache;
mod assets;
mod canonical;
mod closure;
mod digest_list;
mod directory;
mod error;
#[cfg(test)]
mod forgetful_store;
pub mod functions;
mod inlined;
mod instance;
mod message_blob;
mod node_name;
mod node_properties;
mod outputs;
mod protobuf_time;
mod quoted;
mod rel_path;
pub mod resource_name;
pub mod result;
mod spilled_records;
pub mod tree;
mod wire;

pub use action::{ActionLimits, EnvironmentVariable, LoadedAction, PlatformProperty};
pub use action_cache::{
    ActionCache, ActionCacheOptions, ActionResults, ResultsBehindOptions, ResultsBehindStatistics, UpstreamBlobs,
};
pub use assets::{AssetIndex, AssetNameLimits, AssetOptions};
pub use canonical::encode_directory;
pub use closure::ClosureLimits;
pub use directory::{Directory, DirectoryNode, FileNode, NODE_BYTES_MAX, Node, SymlinkNode};
pub use error::{Error, ErrorKind, FieldViolation, Result, VIOLATIONS_MAX};
pub use functions::Functions;
pub use inlined::Inlining;
pub use instance::{INSTANCE_NAME_BYTES_MAX, InstanceName, RESERVED_SEGMENTS};
pub use node_name::{NODE_NAME_BYTES_MAX, NodeName};
pub use node_properties::{NodeProperties, SUBTREE_READ_ONLY};
pub use outputs::{OUTPUT_PATH_BYTES_MAX, OUTPUT_PROPERTIES, OutputKind, OutputPath, OutputProperties, Outputs};
pub use rel_path::{PATH_BYTES_MAX, RelPath};
pub use resource_name::{ReadName, WriteName};
pub use tree::{InputTree, TreeLimits, TreePage, TreePages};
