//! The wire, as clients see it: a server over a store in memory, on a real socket.
//!
//! Each test is a claim about one or more numbered requirements of the API, named in its comment.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod action_cache;
mod assets;
mod bytestream_model;
mod bytestream_query;
mod bytestream_read;
mod bytestream_write;
mod capabilities;
mod cas;
mod execution;
mod faulty;
mod feed;
mod get_tree;
mod health;
mod hostile;
mod operations;
mod reflection;
mod server;
mod shutdown;
mod slow;
mod worker;
