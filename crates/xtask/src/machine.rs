//! What the machine itself must have: a few Debian packages.
//!
//! Each is asked for by what the tests use of it, so that a machine that has it from elsewhere is left alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::stage::{run, succeeds};

/// A package, and how to see that it is not needed any more.
struct Package {
    name: &'static str,
    is_there: fn() -> bool,
}

/// What `cargo xtask test` needs besides Rust and its linker.
const TEST_PACKAGES: &[Package] = &[
    Package {
        name: "busybox-static",
        is_there: has_static_busybox,
    },
    Package {
        name: "python3",
        is_there: || answers("python3", &["--version"]),
    },
    Package {
        name: "python3-venv",
        is_there: || answers("python3", &["-c", "import ensurepip, venv"]),
    },
    // BuildStream asks its local sandbox what it can do whenever it starts; without bwrap it ends there.
    Package {
        name: "bubblewrap",
        is_there: || answers("bwrap", &["--version"]),
    },
    Package {
        name: "tar",
        is_there: || answers("tar", &["--version"]),
    },
    Package {
        name: "mmdebstrap",
        is_there: || answers("mmdebstrap", &["--version"]),
    },
    Package {
        name: "erofs-utils",
        is_there: || answers("fsck.erofs", &["--help"]),
    },
    Package {
        name: "xfsprogs",
        is_there: || answers("mkfs.xfs", &["-V"]),
    },
    Package {
        name: "btrfs-progs",
        is_there: || answers("mkfs.btrfs", &["--version"]),
    },
];

/// What BuildStream's own tests need besides: `bst shell` runs locally, in a sandbox whose files come through FUSE.
const UPSTREAM_PACKAGES: &[Package] = &[Package {
    name: "fuse3",
    is_there: || answers("fusermount3", &["--version"]),
}];

/// Installs the packages that `cargo xtask test` needs and the machine lacks.
pub(crate) fn install_packages() -> Result<(), String> {
    install(TEST_PACKAGES)
}

/// Installs the packages that `cargo xtask upstream` needs and the machine lacks.
pub(crate) fn install_upstream_packages() -> Result<(), String> {
    install(UPSTREAM_PACKAGES)
}

fn install(packages: &[Package]) -> Result<(), String> {
    let missing = missing(packages);
    if missing.is_empty() {
        println!("nothing is missing");
        return Ok(());
    }
    let names = missing.join(" ");
    if !answers("apt-get", &["--version"]) {
        return Err(format!(
            "this machine lacks what Debian calls {names}, and has no apt-get; install them"
        ));
    }
    if !is_root() {
        return Err(format!(
            "packages are missing; run as root: apt-get install --yes {names}"
        ));
    }
    run(&mut apt_get(&["update"]))?;
    run(apt_get(&["install", "--yes", "--no-install-recommends"]).args(&missing))?;
    let still = self::missing(packages);
    if still.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} is installed, but what the tests use of it is not there",
        still.join(", ")
    ))
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages
        .iter()
        .filter(|package| !(package.is_there)())
        .map(|package| package.name)
        .collect()
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .arg("--quiet")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn answers(program: &str, arguments: &[&str]) -> bool {
    succeeds(Command::new(program).args(arguments))
}

/// Debian's other busybox has the same path, and needs libraries that a test's root has not.
fn has_static_busybox() -> bool {
    let Ok(bytes) = fs::read(Path::new("/bin/busybox")) else {
        return false;
    };
    // The path of the dynamic loader stands in the first page of every program that has one.
    !bytes[..bytes.len().min(4096)]
        .windows(8)
        .any(|window| window == b"ld-linux")
}

pub(crate) fn is_root() -> bool {
    // `id` is on every Debian; asking it needs neither unsafe code nor a crate.
    crate::stage::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
