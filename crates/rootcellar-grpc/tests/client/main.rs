//! The client against servers on a real socket: the project's own, one whose connections break, and one that misbehaves.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod broken_connections;
mod conformance;
mod executor;
mod faulty;
mod misbehaviour;
mod proxy;
mod records;
mod servers;
mod sharing;
