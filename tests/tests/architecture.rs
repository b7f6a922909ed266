//! The shape of the workspace, as ARCHITECTURE.md draws it and `cargo metadata` sees it.
//!
//! Each row of crates depends only on rows below; crates in one row do not know each other. Dependencies for
//! development and for build scripts obey the same rule: a test that needs a higher row belongs to a higher row. (A
//! crate may name itself: that is how cargo turns a feature on for the tests of that crate alone.)
//! Packages outside of the rows (end-to-end tests, benchmarks, tasks) may use any crate, and no crate may use them.

use std::collections::BTreeSet;
use std::process::Command;

use cargo_metadata::MetadataCommand;

/// The crates from the lowest row to the highest.
const ROWS: &[&[&str]] = &[
    &["rootcellar-digest", "rootcellar-proto"],
    &["rootcellar-store"],
    &["rootcellar-reapi", "rootcellar-scheduler"],
    &["rootcellar-stage"],
    &["rootcellar-grpc", "rootcellar-worker", "rootcellar-bench"],
    &["rootcellar"],
];

/// Packages of the workspace that are no part of the product.
const OUTSIDE: &[&str] = &["rootcellar-benches", "rootcellar-tests", "xtask"];

/// What the store, as a library in someone else's server, must not bring along.
const FORBIDDEN_IN_THE_STORE: &[&str] = &["prost", "prost-types", "tonic", "tonic-prost", "hyper", "h2", "axum"];

/// The only crate of ours below the store.
const ALLOWED_IN_THE_STORE: &[&str] = &["rootcellar-digest"];

/// That one package of the workspace names another one in its manifest.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Edge {
    from: String,
    to: String,
}

#[test]
fn every_package_has_a_place() {
    let placed: BTreeSet<_> = ROWS
        .iter()
        .copied()
        .flatten()
        .chain(OUTSIDE)
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(packages(), placed);
}

#[test]
fn each_row_depends_only_on_rows_below() {
    assert_eq!(violations(&edges()), [""; 0]);
}

#[test]
fn the_store_by_default_brings_no_wire_and_no_crate_of_ours_but_digest() {
    assert_eq!(strangers_in_the_store(&reachable("rootcellar-store")), [""; 0]);
}

#[test]
fn an_edge_upwards_or_sideways_or_out_of_the_rows_is_a_violation() {
    let edge = |from: &str, to: &str| Edge {
        from: from.to_owned(),
        to: to.to_owned(),
    };
    let lawful = [
        edge("rootcellar", "rootcellar-grpc"),
        edge("rootcellar-tests", "rootcellar-grpc"),
    ];
    let unlawful = [
        edge("rootcellar-store", "rootcellar-grpc"),
        edge("rootcellar-grpc", "rootcellar-worker"),
        edge("rootcellar-store", "rootcellar-tests"),
    ];
    assert_eq!(violations(&lawful), [""; 0]);
    assert_eq!(violations(&unlawful).len(), unlawful.len());
}

#[test]
fn a_crate_on_the_wire_would_be_seen_in_the_store() {
    let strangers = strangers_in_the_store(&reachable("rootcellar-grpc"));
    for expected in ["tonic", "prost", "rootcellar-reapi"] {
        assert!(
            strangers.iter().any(|stranger| stranger == expected),
            "{expected} is not among {strangers:?}"
        );
    }
}

/// The sentences that say which edges the rows forbid.
fn violations(edges: &[Edge]) -> Vec<String> {
    let row = |name: &str| ROWS.iter().position(|row| row.contains(&name));
    let verdict = |edge: &Edge| {
        let from = row(&edge.from)?;
        let lawful = row(&edge.to).is_some_and(|to| to < from);
        (!lawful).then(|| format!("{} may not depend on {}", edge.from, edge.to))
    };
    edges.iter().filter_map(verdict).collect()
}

fn strangers_in_the_store(reachable: &BTreeSet<String>) -> Vec<String> {
    let ours = |name: &str| name.starts_with("rootcellar-") && name != "rootcellar-store";
    let strange =
        |name: &str| FORBIDDEN_IN_THE_STORE.contains(&name) || (ours(name) && !ALLOWED_IN_THE_STORE.contains(&name));
    reachable.iter().filter(|name| strange(name)).cloned().collect()
}

fn packages() -> BTreeSet<String> {
    metadata()
        .workspace_packages()
        .iter()
        .map(|package| package.name.to_string())
        .collect()
}

/// Every edge between two packages of the workspace, of every kind: normal, development and build.
fn edges() -> Vec<Edge> {
    let metadata = metadata();
    let ours = packages();
    let mut edges = Vec::new();
    for package in metadata.workspace_packages() {
        let from = package.name.to_string();
        let others = package
            .dependencies
            .iter()
            .map(|dependency| &dependency.name)
            .filter(|name| **name != from);
        let inside = others.filter(|name| ours.contains(*name));
        edges.extend(inside.map(|to| Edge {
            from: from.clone(),
            to: to.clone(),
        }));
    }
    edges
}

fn metadata() -> cargo_metadata::Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .expect("cargo describes this workspace")
}

/// The names of all packages that `package` needs, with its default features, at run time or to be built.
///
/// `cargo metadata` unites the features that all members of the workspace ask for; `cargo tree` knows what one
/// package alone would get.
fn reachable(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = [
        "tree",
        "--package",
        package,
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let tree = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .output();
    let tree = tree.expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("package names are plain");
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}
