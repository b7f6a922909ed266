//! Buckets of services in memory and in a directory, as they are and as networks make them. What speaks S3 is in the end-to-end tests.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod conformance;
mod faulty;
mod objects;
