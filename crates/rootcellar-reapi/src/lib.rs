//! Trees, actions and results of the Remote Execution API, over any store.
//!
//! This crate knows what the API's messages mean and which of them are valid; it knows no network. What comes from outside is
//! parsed once into a type that cannot hold anything else: [`Functions`] make digests of digest messages, [`ReadName`] and
//! [`WriteName`] are resource names, [`InstanceName`] is the name of an instance.

mod error;
pub mod functions;
mod instance;
pub mod resource_name;

pub use error::{Error, ErrorKind, FieldViolation, Result, VIOLATIONS_MAX};
pub use functions::Functions;
pub use instance::{INSTANCE_NAME_BYTES_MAX, InstanceName, RESERVED_SEGMENTS};
pub use resource_name::{ReadName, WriteName};
