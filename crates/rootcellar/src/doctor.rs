//! `rootcellar doctor`: what of execution works on this machine, tried and not guessed.

use std::path::Path;
use std::process::ExitCode;

use rootcellar_worker::sandbox::{ProbedPart, Sandbox};
use rootcellar_worker::{Cgroups, ResourceLimits};

use crate::config::StagerKind;
use crate::{cli, stagers};

/// Tries everything, and tells what came of it.
pub(crate) async fn run(options: cli::Doctor) -> anyhow::Result<ExitCode> {
    let sandbox = Sandbox::of_this_program();
    let parts = sandbox.probe().await?;
    let cgroups = Cgroups::find(ResourceLimits::default());
    let mut reasons = Vec::new();
    for kind in stagers::MOUNTING {
        let tried = stagers::probe(kind, existing(&options.dir), &sandbox).await;
        reasons.push((kind, tried.err().map(|reason| reason.to_string())));
    }
    show(&parts, &reasons, &cgroups);
    Ok(if parts.iter().all(|part| part.failure.is_none()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The directory itself, or the one that it would be made in: nothing is left behind here.
fn existing(dir: &Path) -> &Path {
    let named = |dir: &&Path| !dir.as_os_str().is_empty();
    let mut around = dir.ancestors().take_while(named);
    around.find(|dir| dir.is_dir()).unwrap_or(Path::new("."))
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn show(parts: &[ProbedPart], stagers: &[(StagerKind, Option<String>)], cgroups: &Cgroups) {
    println!("sandbox: what an action runs in");
    for part in parts {
        line(&part.name, part.failure.as_deref());
    }
    println!("stagers: how an input root becomes a directory; the first that works is used");
    for (kind, reason) in stagers {
        let what = match kind {
            StagerKind::Overlay => "mounted by root, nothing is copied",
            StagerKind::OverlayTmpfs => "mounted in a user namespace, small files are copied to memory once",
            StagerKind::Copy => "every file is copied",
        };
        line(&format!("{}: {what}", kind.name()), reason.as_deref());
    }
    line("copy: every file is copied", None);
    println!("control groups: what bounds and counts all processes of an action together");
    for (controller, found) in cgroups.controllers() {
        match found {
            Ok(version) => line(&format!("{controller}: {version}"), None),
            Err(reason) => line(&controller.to_string(), Some(reason)),
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn line(name: &str, failure: Option<&str>) {
    match failure {
        None => println!("  ok   {name}"),
        Some(reason) => println!("  no   {name}\n         {reason}"),
    }
}
