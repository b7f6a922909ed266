//! `tree`: lists a directory that the server holds, with all below it.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use rootcellar_digest::Digest;
use rootcellar_grpc::client::Remote;
use rootcellar_reapi::{Directory, InputTree, NodeProperties};

use super::missing::load_tree;
use super::{after_writing, connect};
use crate::cli;

/// Prints a line for each path. Only directories are fetched.
pub(crate) async fn run(options: cli::Tree) -> anyhow::Result<ExitCode> {
    let remote = Remote::new(connect(&options.endpoint).await?);
    let tree = load_tree(&remote, options.digest).await?;
    after_writing(list(&tree, &mut BufWriter::new(io::stdout().lock())))
}

/// A path in the list.
struct Line<'a> {
    /// As `ls -l` has it: `d`, `l` or `-`.
    kind: char,
    mode: u32,
    size_bytes: u64,
    digest: Option<Digest>,
    path: String,
    target: Option<&'a str>,
}

/// Lists what is in `tree`, each directory before what it holds, names in the order of their bytes.
fn list(tree: &InputTree, out: &mut impl Write) -> io::Result<()> {
    let mut pending = lines(tree, "", tree.root());
    while let Some(line) = pending.pop() {
        writeln!(out, "{line}")?;
        if let ('d', Some(digest)) = (line.kind, line.digest) {
            pending.extend(lines(tree, &line.path, tree.child(&digest)));
        }
    }
    out.flush()
}

/// What is in a directory, the first line last.
fn lines<'a>(tree: &InputTree, path: &str, directory: &'a Directory) -> Vec<Line<'a>> {
    let directories = directory.directories().iter();
    let directories = directories.map(|node| {
        let mode = mode(tree.child(&node.digest).properties(), 0o755);
        Line::of_blob('d', mode, node.digest, join(path, node.name.as_str()))
    });
    let files = directory.files().iter().map(|file| {
        let default = if file.is_executable { 0o755 } else { 0o644 };
        let mode = mode(&file.properties, default);
        Line::of_blob('-', mode, file.digest, join(path, file.name.as_str()))
    });
    let links = directory.symlinks().iter().map(|link| Line {
        kind: 'l',
        mode: 0o777,
        size_bytes: link.target.len() as u64,
        digest: None,
        path: join(path, link.name.as_str()),
        target: Some(&link.target),
    });
    let mut lines: Vec<Line<'a>> = directories.chain(files).chain(links).collect();
    lines.sort_unstable_by(|a, b| b.path.cmp(&a.path));
    lines
}

impl Line<'_> {
    fn of_blob(kind: char, mode: u32, digest: Digest, path: String) -> Self {
        Self {
            kind,
            mode,
            size_bytes: digest.size_bytes(),
            digest: Some(digest),
            path,
            target: None,
        }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} {:>12} ", self.kind, Permissions(self.mode), self.size_bytes)?;
        match self.digest {
            Some(digest) => write!(f, "{digest}")?,
            None => f.write_str("-")?,
        }
        write!(f, " {}", Shown(&self.path))?;
        match self.target {
            Some(target) => write!(f, " -> {}", Shown(target)),
            None => Ok(()),
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        return name.to_owned();
    }
    format!("{path}/{name}")
}

fn mode(properties: &NodeProperties, default: u32) -> u32 {
    properties.unix_mode.unwrap_or(default)
}

/// Permissions as `ls -l` writes them.
struct Permissions(u32);

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in (0..9).rev().zip("rwxrwxrwx".chars()) {
            let is_set = self.0 & (1 << bit) != 0;
            write!(f, "{}", if is_set { letter } else { '-' })?;
        }
        Ok(())
    }
}

/// A name from somewhere else, on one line and with nothing in it that a terminal obeys.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rootcellar_digest::DigestFunction;
    use rootcellar_proto::reapi;
    use rootcellar_reapi::functions::to_proto;
    use rootcellar_reapi::{TreeLimits, encode_directory};

    use super::*;

    const SHA256: DigestFunction = DigestFunction::Sha256;

    fn file(name: &str, mode: Option<u32>) -> reapi::FileNode {
        reapi::FileNode {
            name: name.to_owned(),
            digest: Some(to_proto(Digest::of(SHA256, b"content"))),
            is_executable: true,
            node_properties: Some(reapi::NodeProperties {
                unix_mode: mode,
                ..Default::default()
            }),
        }
    }

    fn link(name: &str, target: &str) -> reapi::SymlinkNode {
        reapi::SymlinkNode {
            name: name.to_owned(),
            target: target.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_list_has_a_line_for_each_path_and_obeys_no_name() {
        let below = encode_directory(reapi::Directory {
            files: vec![file("x", Some(0o640))],
            ..Default::default()
        });
        let child = |name: &str| reapi::DirectoryNode {
            name: name.to_owned(),
            digest: Some(to_proto(Digest::of(SHA256, &below))),
        };
        let root = encode_directory(reapi::Directory {
            files: vec![file("b", None)],
            directories: vec![child("a"), child("d")],
            symlinks: vec![link("c", "a/x"), link("e\n\u{1b}[2J", "\u{7}")],
            ..Default::default()
        });
        let digest = Digest::of(SHA256, &root);
        let directories = [(digest, root), (Digest::of(SHA256, &below), below.clone())];
        let tree = InputTree::from_encoded(digest, directories.into(), &TreeLimits::default()).unwrap();
        let mut out = Vec::new();
        list(&tree, &mut out).unwrap();

        let (dir, content) = (Digest::of(SHA256, &below), Digest::of(SHA256, b"content"));
        let expected = [
            format!("drwxr-xr-x {:>12} {dir} a", below.len()),
            format!("-rw-r----- {:>12} {content} a/x", 7),
            format!("-rwxr-xr-x {:>12} {content} b", 7),
            format!("lrwxrwxrwx {:>12} - c -> a/x", 3),
            format!("drwxr-xr-x {:>12} {dir} d", below.len()),
            format!("-rw-r----- {:>12} {content} d/x", 7),
            format!("lrwxrwxrwx {:>12} - e\\n\\u{{1b}}[2J -> \\u{{7}}", 1),
        ];
        let listed = String::from_utf8(out).unwrap();
        assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    }
}
