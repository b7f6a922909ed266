//! Stores made of stores keep the contract, and keep it when what they are made of does not.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod conformance;
mod ground;
mod sharded;
mod tiered;
