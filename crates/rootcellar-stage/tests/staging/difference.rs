//! What an overlay captures by looking at what changed is what a copy captures by looking at everything.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rootcellar_proto::reapi;
use rootcellar_reapi::{Outputs, RelPath};
use rootcellar_stage::Captured;
use rootcellar_store::testing::Seeded;
use rustix::fs::{CWD, Mode, RenameFlags};

use super::{Fixture, Kind, grow, options, pick};

/// Trees and the edits of each.
const SEEDS: u64 = 60;
const EDITS: u64 = 25;

/// Changes a tree as an action might. Equal chances make equal changes to equal trees.
struct Editor<'a> {
    root: &'a Path,
    chance: Seeded,
    made: u64,
}

impl Editor<'_> {
    fn edit(&mut self) {
        let at = self.any();
        let path = self.root.join(&at);
        let is_dir = path.symlink_metadata().unwrap().is_dir();
        match self.chance.below(17) {
            0 => drop(self.make_file()),
            1 => fs::create_dir(self.new_path()).unwrap(),
            2 => {
                let deep = self.new_path().join("a/b");
                fs::create_dir_all(&deep).unwrap();
                fs::write(deep.join("file"), "deep").unwrap();
            }
            3 => symlink(
                pick(&mut self.chance, &["/", "..", "nowhere", "/etc/passwd"]),
                self.new_path(),
            )
            .unwrap(),
            4 | 5 if !at.as_os_str().is_empty() => remove(&path),
            6 if !at.as_os_str().is_empty() => {
                let to = self.new_path();
                if !to.starts_with(&path) {
                    rename(&path, &to);
                }
            }
            7 if !is_dir => self.change_content(&path),
            8 => self.change_mode(&path),
            9 if !is_dir => self.exchange(&path),
            10 if !is_dir => {
                fs::hard_link(&path, self.new_path()).unwrap();
            }
            // Something of another type in its place.
            11 if !at.as_os_str().is_empty() => {
                remove(&path);
                match self.chance.below(3) {
                    0 => fs::write(&path, "a file now").unwrap(),
                    1 => fs::create_dir(&path).unwrap(),
                    _ => symlink("somewhere", &path).unwrap(),
                }
            }
            // The same again.
            12 if is_dir && !at.as_os_str().is_empty() => {
                remove(&path);
                fs::create_dir(&path).unwrap();
                fs::write(path.join("plain-0"), "new below an old name").unwrap();
            }
            13 => rustix::fs::mkfifoat(CWD, self.new_path(), Mode::RWXU).unwrap(),
            14 if is_regular(&path) => {
                let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                file.write_all(b"appended").unwrap();
            }
            // Opened to be written, and not written.
            15 if is_regular(&path) => drop(OpenOptions::new().read(true).write(true).open(&path).unwrap()),
            16 if is_regular(&path) => File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap(),
            _ => {}
        }
    }

    /// Something in the tree; the empty path is the root.
    fn any(&mut self) -> PathBuf {
        let all: Vec<PathBuf> = everything(self.root).into_iter().collect();
        all[usize::try_from(self.chance.below(all.len() as u64)).unwrap()].clone()
    }

    /// A name that is not taken, in some directory.
    fn new_path(&mut self) -> PathBuf {
        self.made += 1;
        let at = self.root.join(self.any());
        let dir = if at.symlink_metadata().unwrap().is_dir() {
            at
        } else {
            at.parent().unwrap().to_owned()
        };
        dir.join(format!("made-{}", self.made))
    }

    fn make_file(&mut self) -> PathBuf {
        let path = self.new_path();
        let size = pick(&mut self.chance, &[0, 10, 5_000, 200_000]);
        fs::write(&path, self.chance.bytes(size)).unwrap();
        path
    }

    fn change_content(&mut self, path: &Path) {
        if !is_regular(path) {
            return;
        }
        let file = OpenOptions::new().write(true).open(path).unwrap();
        match self.chance.below(3) {
            0 => file.set_len(self.chance.below(100_000)).unwrap(),
            1 => file.write_all_at(b"in the middle", 100).unwrap(),
            _ => fs::write(path, "written anew").unwrap(),
        }
    }

    fn change_mode(&mut self, path: &Path) {
        if !path.symlink_metadata().unwrap().is_symlink() {
            let mode = pick(&mut self.chance, &[0o755, 0o644, 0o700, 0o600, 0o4755]);
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    }

    fn exchange(&mut self, path: &Path) {
        let other = self.make_file();
        match rustix::fs::renameat_with(CWD, path, CWD, &other, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

fn is_regular(path: &Path) -> bool {
    path.symlink_metadata().unwrap().is_file()
}

fn remove(path: &Path) {
    if path.symlink_metadata().unwrap().is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

/// As `mv` does: what cannot be renamed is copied.
fn rename(from: &Path, to: &Path) {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy(from, to);
            remove(from);
        }
        renamed => renamed.unwrap(),
    }
}

fn copy(from: &Path, to: &Path) {
    let metadata = from.symlink_metadata().unwrap();
    if metadata.is_symlink() {
        symlink(fs::read_link(from).unwrap(), to).unwrap();
    } else if metadata.is_file() {
        fs::copy(from, to).unwrap();
    } else if metadata.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
        fs::set_permissions(to, metadata.permissions()).unwrap();
    } else {
        rustix::fs::mkfifoat(CWD, to, Mode::RWXU).unwrap();
    }
}

/// Every path of a tree, but what the sandbox mounts over.
fn everything(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::from([PathBuf::new()]);
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let entry = entry.unwrap();
            let path = dir.join(entry.file_name());
            if ["dev", "proc", "tmp"].contains(&path.to_str().unwrap()) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                pending.push(path.clone());
            }
            found.insert(path);
        }
    }
    found
}

fn wanted(root: &Path, seed: u64) -> Outputs {
    let mut chance = Seeded::new(seed);
    let all: Vec<PathBuf> = everything(root).into_iter().collect();
    let mut paths = vec![String::from("."), String::from("plain-0/nothing")];
    for _ in 0..6 {
        let path = &all[usize::try_from(chance.below(all.len() as u64)).unwrap()];
        paths.extend(path.to_str().filter(|path| !path.is_empty()).map(str::to_owned));
    }
    paths.sort();
    paths.dedup();
    let properties: &[&str] = if seed.is_multiple_of(3) { &["unix_mode"] } else { &[] };
    let command = reapi::Command {
        output_paths: paths,
        output_directory_format: i32::try_from(seed % 3).unwrap(),
        output_node_properties: properties.iter().map(ToString::to_string).collect(),
        ..reapi::Command::default()
    };
    Outputs::parse(&command, &RelPath::root()).unwrap()
}

async fn edited_and_captured(kind: Kind, seed: u64) -> Captured {
    let fixture = Fixture::new(kind).await;
    let root = fixture.tree(|dir| grow(&mut Seeded::new(seed), dir, 4)).await;
    let staged = fixture.stage_with(root, options("")).await.unwrap();
    let mut editor = Editor {
        root: staged.path(),
        chance: Seeded::new(seed + 1000),
        made: 0,
    };
    for _ in 0..EDITS {
        editor.edit();
    }
    let captured = staged.capture(&wanted(staged.path(), seed)).await.unwrap();
    fixture.check_closure(&captured).await;
    staged.remove().await.unwrap();
    captured
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlay_captures_what_a_copy_captures() {
    let kinds: Vec<Kind> = Kind::all().into_iter().filter(|kind| *kind != Kind::Copy).collect();
    for seed in 0..SEEDS {
        let copied = edited_and_captured(Kind::Copy, seed).await;
        for kind in &kinds {
            let mounted = edited_and_captured(*kind, seed).await;
            assert_eq!(mounted, copied, "{kind:?}, seed {seed}");
        }
    }
}
