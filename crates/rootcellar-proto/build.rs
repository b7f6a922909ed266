//! Compiles `proto/` into Rust modules, gRPC clients and servers, and a descriptor set for reflection.
//!
//! `protox` parses the files, so that a build needs no `protoc`. Everything lands in `OUT_DIR`; nothing generated is
//! kept in the repository.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The directory that import paths start from.
const PROTO_ROOT: &str = "../../proto";

/// The files whose packages become modules; well-known types come from `prost-types`.
const PROTO_FILES: [&str; 12] = [
    "build/bazel/remote/asset/v1/remote_asset.proto",
    "build/bazel/remote/execution/v2/remote_execution.proto",
    "build/bazel/remote/logstream/v1/remote_logstream.proto",
    "build/bazel/semver/semver.proto",
    "google/bytestream/bytestream.proto",
    "google/longrunning/operations.proto",
    "google/rpc/code.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "grpc/health/v1/health.proto",
    "rootcellar/execution/v1/resource_usage.proto",
    "rootcellar/inventory/v1/inventory.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO_ROOT}");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([PROTO_ROOT])?;
    compiler.include_imports(true).open_files(PROTO_FILES)?;
    write_reflection_set(&mut compiler, &out_dir)?;
    generate(&mut compiler)?;
    Ok(())
}

/// Writes the descriptor set that the crate embeds, without comments: reflection has no use for them.
fn write_reflection_set(compiler: &mut protox::Compiler, out_dir: &Path) -> Result<(), Box<dyn Error>> {
    compiler.include_source_info(false);
    fs::write(
        out_dir.join("descriptor_set.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    Ok(())
}

/// Generates the modules, with the comments as their documentation.
fn generate(compiler: &mut protox::Compiler) -> Result<(), Box<dyn Error>> {
    compiler.include_source_info(true);

    let mut config = tonic_prost_build::Config::new();
    config
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .bytes(["."]);

    tonic_prost_build::configure()
        .build_transport(false)
        .include_file("packages.rs")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}
