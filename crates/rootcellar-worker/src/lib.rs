//! Runs actions: the sandbox, and what is around it.

pub mod sandbox;
