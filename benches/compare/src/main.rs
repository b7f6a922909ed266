//! Engines that people would put blobs into, beside the store: fjall, redb and SQLite.
//!
//! Each keeps a blob under its digest, is told not to sync each commit (as the store's `interval`), hashes nothing when it stores
//! (neither does the store: blobs come hashed) and compares a checksum of its own when it reads. Memory is counted at the allocator, in
//! the same way for all.

mod allocator;
mod fjall_engine;
mod key;
mod redb_engine;
mod sqlite_engine;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use rootcellar_bench::{CandidateKind, DiskCandidate, MIXES, Mix, Report, Workload, measure};
use rootcellar_store::layout::{HybridKind, PackedKind};

/// Compares engines under the workload of builds.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where they are made. What is made there is removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,

    /// Mixes of sizes; see `rootcellar bench layouts --mix list`.
    #[arg(long = "mix", default_values = ["deb-root", "node-modules"])]
    mixes: Vec<String>,

    /// Mebibytes of each mix.
    #[arg(long, default_value_t = 256)]
    mib: u64,

    /// Writes the numbers to a file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,

    /// Writes a page with charts.
    #[arg(long)]
    html: Option<PathBuf>,
}

fn main() {
    let arguments = Arguments::parse();
    let named = |name: &String| {
        let known = MIXES.map(|mix| mix.name).join(", ");
        Mix::named(name).unwrap_or_else(|| panic!("there is no mix {name:?}; there are {known}"))
    };
    let mixes: Vec<Mix> = arguments.mixes.iter().map(named).collect();
    let workloads: Vec<Workload> = mixes
        .iter()
        .map(|mix| Workload::of_mix(mix, 1, arguments.mib << 20))
        .collect();
    let hybrid = DiskCandidate::new(Arc::new(HybridKind::default()));
    let packed = DiskCandidate::new(Arc::new(PackedKind));
    let kinds: [&dyn CandidateKind; 5] = [
        &hybrid,
        &packed,
        &fjall_engine::Kind,
        &redb_engine::Kind,
        &sqlite_engine::Kind,
    ];
    std::fs::create_dir_all(&arguments.dir).expect("the directory can be made");
    let mut report = Report::new();
    report.samples = measure(&kinds, &workloads, &arguments.dir, Some(allocator::allocated), |what| {
        eprintln!("{what}")
    });
    print!("{}", report.to_text());
    if let Some(file) = arguments.json {
        std::fs::write(file, report.to_json()).expect("the file can be written");
    }
    if let Some(file) = arguments.html {
        std::fs::write(file, report.to_html()).expect("the file can be written");
    }
}
