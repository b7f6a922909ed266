//! `rootcellar fsck`: checks a store that no server uses.

use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use rootcellar_store::{FsckOptions, FsckReport, fsck};

use crate::cli;

/// Reads everything in a store, and tells what is wrong.
pub(crate) fn run(options: &cli::Fsck) -> anyhow::Result<ExitCode> {
    let style = ProgressStyle::with_template(
        "{spinner} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left {msg}",
    );
    let bar = ProgressBar::new(0).with_style(style.expect("the template is part of this program"));
    let checked = FsckOptions {
        repair: options.repair,
        ..FsckOptions::default()
    };
    let report = fsck(&options.dir, &checked, |progress| {
        bar.set_length(progress.bytes_in_all.max(progress.bytes));
        bar.set_position(progress.bytes);
    });
    bar.finish_and_clear();
    let report = report.with_context(|| format!("checking {}", options.dir.display()))?;
    show(&report, options);
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn show(report: &FsckReport, options: &cli::Fsck) {
    if options.json {
        println!("{}", json(report));
        return;
    }
    print!("{report}");
    let verdict = match (report.is_clean(), options.repair) {
        (true, _) => "the store is as it should be",
        (false, true) => "repaired: what was damaged is missing now, and clients will upload it again",
        (false, false) => "run it again with --repair to drop what is damaged and remove what a crash has left",
    };
    println!("{verdict}");
}

fn json(report: &FsckReport) -> serde_json::Value {
    let damaged = |(digest, reason): &(rootcellar_digest::Digest, String)| serde_json::json!({ "digest": digest.to_string(), "reason": reason });
    serde_json::json!({
        "layout": report.layout,
        "was_closed": report.was_closed,
        "blobs": report.blobs,
        "bytes": report.bytes,
        "disk_bytes": report.disk_bytes,
        "twice": report.twice,
        "damaged": report.damaged.iter().map(damaged).collect::<Vec<_>>(),
        "torn": report.torn.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "damaged_log_slots": report.damaged_log_slots,
        "orphans": report.orphans.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "is_clean": report.is_clean(),
    })
}
