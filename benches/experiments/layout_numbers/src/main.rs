//! Measures what the store's layout costs when roots are staged from it. One subcommand a table; README.md has them
//! all.

mod bytes;
mod churn;
mod image;
mod ingest;
mod measure;
mod mix;
mod mount;
mod preallocate;
mod stage;
mod store;

use std::path::PathBuf;

use store::Shape;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn shape(packed_max: u64, align: u64, pack_bytes: u64) -> Shape {
    Shape {
        packed_max,
        align,
        pack_bytes,
    }
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().expect("a subcommand: see README.md");
    let scratch = PathBuf::from(
        arguments
            .next()
            .expect("a scratch directory on the disk to be measured"),
    );
    let mix = arguments.next().unwrap_or_else(|| "deb-root".to_owned());
    let runs = arguments
        .next()
        .map_or(3, |runs| runs.parse().expect("a number of runs"));
    let files = arguments
        .next()
        .map_or(50_000, |files| files.parse().expect("a number of files"));
    std::fs::create_dir_all(&scratch)?;
    let thresholds = [0, 1, 4, 8, 16, 32, 64].map(|kib| shape(kib * KIB, 512, 256 * MIB));
    match &*what {
        "bytes" => bytes::run(),
        "threshold" => {
            let all_packed = shape(u64::MAX, 512, 256 * MIB);
            let shapes: Vec<Shape> = thresholds.into_iter().chain([all_packed]).collect();
            stage::run(&scratch, &mix, &shapes, runs, files)?;
        }
        "one-size" => stage::one_size(&scratch, runs, files)?,
        "align" => {
            let shapes = [(16, 512), (16, 1024), (16, 4096), (4, 512), (4, 4096)];
            let shapes = shapes.map(|(kib, align)| shape(kib * KIB, align, 256 * MIB));
            stage::run(&scratch, &mix, &shapes, runs, files)?;
        }
        "pack" => {
            let shapes = [4, 16, 64, 256, 1024].map(|mib| shape(16 * KIB, 512, mib * MIB));
            stage::run(&scratch, &mix, &shapes, runs, files)?;
        }
        "memory" => stage::memory(
            &scratch,
            &mix,
            &[thresholds[0], thresholds[2], thresholds[4], thresholds[6]],
            files,
        )?,
        "devices" => stage::devices(&scratch)?,
        "ingest" => ingest::run(&scratch, runs)?,
        "preallocate" => preallocate::run(&scratch, runs)?,
        "churn" => churn::run(&mix),
        other => panic!("no subcommand {other}: see README.md"),
    }
    Ok(())
}
