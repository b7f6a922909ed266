//! What the kernel sees of an image is the tree that it was made of.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rootcellar_stage::erofs::{Attributes, BlockSize, ON_DEVICE_BYTES_MAX, Source, Tree, encode, encode_in};
use rootcellar_store::testing::{Seeded, skip};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

const ROOT: Attributes = attributes(0o755);

const fn attributes(mode: u16) -> Attributes {
    Attributes {
        mode,
        mtime: 1_321_009_871,
        mtime_nanos: 0,
    }
}

/// With a time that is not the root's.
const fn later(attributes: Attributes) -> Attributes {
    Attributes {
        mtime: 1_700_000_000,
        mtime_nanos: 123_456_789,
        ..attributes
    }
}

/// What there is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Directory(Attributes),
    File(Attributes, Vec<u8>),
    Link(Attributes, String),
}

type Model = BTreeMap<PathBuf, Seen>;

/// An image, mounted, and what it should show.
struct Mounted {
    mount: OwnedFd,
    _dir: tempfile::TempDir,
}

impl Mounted {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.mount.as_raw_fd()))
    }
}

/// Mounts an image over packs with these contents. `None` if this process may not mount.
fn mount(image: &[u8], packs: &[Vec<u8>]) -> Option<Mounted> {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<File> = packs.iter().map(|pack| file(dir.path(), pack)).collect();
    let image = file(dir.path(), image);
    match try_mount(&image, &files) {
        Ok(mount) => Some(Mounted { mount, _dir: dir }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            skip("EROFS images can be mounted by root only");
            None
        }
        Err(error) => panic!("the kernel does not mount it: {error}"),
    }
}

fn file(dir: &Path, bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile_in(dir).unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn try_mount(image: &File, packs: &[File]) -> io::Result<OwnedFd> {
    let path = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let filesystem = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_flag(filesystem.as_fd(), "ro")?;
    rustix::mount::fsconfig_set_string(filesystem.as_fd(), "source", path(image))?;
    for pack in packs {
        rustix::mount::fsconfig_set_string(filesystem.as_fd(), "device", path(pack))?;
    }
    rustix::mount::fsconfig_create(filesystem.as_fd())?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY;
    Ok(rustix::mount::fsmount(
        filesystem.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        flags,
    )?)
}

/// As a store lays blobs down: zeros up to the next sector.
fn padded(content: &[u8]) -> Vec<u8> {
    let mut pack = content.to_vec();
    pack.resize(pack.len().next_multiple_of(512), 0);
    pack
}

/// Everything at and below a path.
fn look_at(root: &Path) -> Model {
    let mut model = Model::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let path = root.join(&below);
        // The mount itself is behind a link.
        let metadata = match below.as_os_str().is_empty() {
            true => fs::metadata(&path).unwrap(),
            false => fs::symlink_metadata(&path).unwrap(),
        };
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0));
        let attributes = Attributes {
            mode: u16::try_from(metadata.mode() & 0o7777).unwrap(),
            mtime: metadata.mtime(),
            mtime_nanos: u32::try_from(metadata.mtime_nsec()).unwrap(),
        };
        let seen = if metadata.is_dir() {
            let entries: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap()).collect();
            let directories = entries.iter().filter(|entry| entry.file_type().unwrap().is_dir());
            assert_eq!(metadata.nlink(), 2 + directories.count() as u64, "{}", below.display());
            pending.extend(entries.iter().map(|entry| below.join(entry.file_name())));
            Seen::Directory(attributes)
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            Seen::Link(attributes, target.to_str().unwrap().to_owned())
        } else {
            let content = fs::read(&path).unwrap();
            assert_eq!(metadata.len(), content.len() as u64);
            Seen::File(attributes, content)
        };
        model.insert(below, seen);
    }
    model
}

/// Nodes of random kinds, with names that are hard to sort, and contents in packs.
struct Made {
    block_size: BlockSize,
    model: Model,
    packs: Vec<Vec<u8>>,
    /// Where each file's content lies.
    places: BTreeMap<PathBuf, (u16, u32)>,
}

const HEAD: [&str; 8] = ["a", "!", ".a", "..a", "-", "\u{e9}", "zz", "~"];

fn name(chance: &mut Seeded, number: u64) -> String {
    let head = HEAD[usize::try_from(chance.below(8)).unwrap()];
    let len = match chance.below(10) {
        0 => 255 - head.len() - 8,
        1 => 100,
        _ => usize::try_from(chance.below(20)).unwrap(),
    };
    format!("{head}{}{number:08}", "x".repeat(len))
}

fn any_attributes(chance: &mut Seeded) -> Attributes {
    let attributes = attributes([0o755, 0o644, 0o555, 0o400][usize::try_from(chance.below(4)).unwrap()]);
    match chance.below(5) {
        0 => later(attributes),
        _ => attributes,
    }
}

/// Contents in packs begin where blocks of this size do.
fn make(seed: u64, nodes: u64, block_size: BlockSize) -> Made {
    let align = match block_size {
        BlockSize::Sector => 512,
        BlockSize::Page => 4096,
    };
    let mut chance = Seeded::new(seed);
    let mut made = Made {
        block_size,
        model: Model::from([(PathBuf::new(), Seen::Directory(ROOT))]),
        packs: vec![Vec::new(); 3],
        places: BTreeMap::new(),
    };
    let mut directories = vec![PathBuf::new()];
    for number in 0..nodes {
        // Most of them in few directories, so that those are large.
        let parent = match chance.below(3) {
            0 => directories[usize::try_from(chance.below(directories.len() as u64)).unwrap()].clone(),
            _ => directories[directories.len() / 2].clone(),
        };
        let path = parent.join(name(&mut chance, number));
        let attributes = any_attributes(&mut chance);
        let seen = match chance.below(10) {
            0..=1 => {
                directories.push(path.clone());
                Seen::Directory(attributes)
            }
            2 => {
                let lens = [1, 32, 470, 511, 512, 513, 1024, 4000];
                let target = "t/".repeat(2000)[..lens[usize::try_from(chance.below(8)).unwrap()]].to_owned();
                // No other filesystem knows another mode of a link.
                let attributes = Attributes {
                    mode: 0o777,
                    ..attributes
                };
                Seen::Link(attributes, target)
            }
            3 => Seen::File(attributes, Vec::new()),
            _ => {
                let len = usize::try_from(1 + chance.below(3000)).unwrap();
                let content: Vec<u8> = (0..len).map(|_| chance.number().to_le_bytes()[0]).collect();
                let which = usize::try_from(chance.below(3)).unwrap();
                let pack = &mut made.packs[which];
                let sector = u32::try_from(pack.len() / 512).unwrap();
                pack.extend_from_slice(&content);
                pack.resize(pack.len().next_multiple_of(align), 0);
                made.places
                    .insert(path.clone(), (u16::try_from(which + 1).unwrap(), sector));
                Seen::File(attributes, content)
            }
        };
        made.model.insert(path, seen);
    }
    made
}

impl Made {
    fn image(&self) -> Vec<u8> {
        let mut tree = Tree::new(ROOT);
        let mut numbers = BTreeMap::from([(PathBuf::new(), Tree::ROOT)]);
        for (path, seen) in self.model.iter().skip(1) {
            let (parent, name) = (numbers[path.parent().unwrap()], path.file_name().unwrap());
            let name = name.to_str().unwrap();
            match seen {
                Seen::Directory(attributes) => {
                    numbers.insert(path.clone(), tree.add_directory(parent, name, *attributes));
                }
                Seen::File(attributes, content) => {
                    let (number, sector) = self.places.get(path).copied().unwrap_or((1, 0));
                    let source = Source::Device { number, sector };
                    tree.add_file(parent, name, *attributes, content.len() as u64, source);
                }
                Seen::Link(attributes, target) => tree.add_link(parent, name, *attributes, target),
            }
        }
        encode_in(tree, self.block_size)
    }
}

impl Made {
    fn check(&self, seen: &Model, seed: u64) {
        for (path, expected) in &self.model {
            assert_eq!(seen.get(path), Some(expected), "seed {seed}: {}", path.display());
        }
        assert_eq!(seen.len(), self.model.len(), "seed {seed}");
    }
}

#[test]
fn an_image_shows_the_tree_that_it_was_made_of() {
    for seed in 0..40 {
        let block_size = match seed % 4 {
            0 => BlockSize::Page,
            _ => BlockSize::Sector,
        };
        let made = make(seed, 20 << (seed % 6), block_size);
        let Some(mounted) = mount(&made.image(), &made.packs) else {
            return;
        };
        made.check(&look_at(&mounted.path()), seed);
    }
}

/// The tools of others find nothing wrong, and extract the tree.
#[test]
fn erofs_utils_read_an_image() {
    if !rustix::process::geteuid().is_root() {
        return skip("fsck.erofs gives what it extracts to root, which root only may");
    }
    if Command::new("fsck.erofs").arg("--help").output().is_err() {
        return skip("fsck.erofs is not installed: `cargo xtask setup` does that as root");
    }
    for seed in 0..12 {
        let made = make(seed, 20 << (seed % 6), BlockSize::Page);
        let dir = tempfile::tempdir().unwrap();
        let (image, extracted) = (dir.path().join("image"), dir.path().join("extracted"));
        fs::write(&image, made.image()).unwrap();
        let mut devices = Vec::new();
        for (number, pack) in made.packs.iter().enumerate() {
            let path = dir.path().join(format!("pack-{number}"));
            fs::write(&path, pack).unwrap();
            devices.push(format!("--device={}", path.display()));
        }
        let extract = format!("--extract={}", extracted.display());
        run(Command::new("fsck.erofs").args(&devices).arg(extract).arg(&image));
        made.check(&look_at(&extracted), seed);
        let text = run(Command::new("dump.erofs").args(&devices).arg("-s").arg(&image));
        let inodes = text
            .lines()
            .find_map(|line| line.strip_prefix("Filesystem inode count:"));
        assert_eq!(inodes.map(str::trim), Some(&*made.model.len().to_string()), "{text}");
    }
}

fn run(command: &mut Command) -> String {
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{command:?}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn an_image_of_nothing_is_an_empty_directory() {
    let Some(mounted) = mount(&encode(Tree::new(ROOT)), &[]) else {
        return;
    };
    assert_eq!(
        look_at(&mounted.path()),
        Model::from([(PathBuf::new(), Seen::Directory(ROOT))])
    );
}

#[test]
fn a_directory_of_100_000_entries_is_found_in() {
    let names: Vec<String> = (0..100_000).map(|number| format!("entry-{number}")).collect();
    let mut tree = Tree::new(ROOT);
    let source = Source::Device { number: 1, sector: 0 };
    for name in &names {
        tree.add_file(Tree::ROOT, name, attributes(0o644), 5, source);
    }
    let Some(mounted) = mount(&encode(tree), &[padded(b"hello")]) else {
        return;
    };
    let listed = fs::read_dir(mounted.path()).unwrap().count();
    assert_eq!(listed, names.len());
    for name in names.iter().step_by(997) {
        assert_eq!(fs::read(mounted.path().join(name)).unwrap(), b"hello");
    }
    assert!(!mounted.path().join("entry-100000").exists());
}

/// A file of more than 4 GiB wants a large inode. One of a TiB is larger than there are numbers for its blocks, and so are the devices
/// behind the 64th.
#[test]
fn files_are_large_and_devices_are_many() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (1..=80).map(|number| format!("file-{number}")).collect();
    let size_of = |number: u16| match number {
        2 => (5 << 30) + 7,
        5 => ON_DEVICE_BYTES_MAX,
        _ => 1000 + u64::from(number),
    };
    let mut tree = Tree::new(ROOT);
    let mut packs = Vec::new();
    for (number, name) in (1..).zip(&names) {
        let (size, sector) = (size_of(number), 1 + u32::from(number) % 3);
        tree.add_file(
            Tree::ROOT,
            name,
            attributes(0o644),
            size,
            Source::Device { number, sector },
        );
        let (pack, begin) = (file(dir.path(), &[]), u64::from(sector) * 512);
        pack.set_len((begin + size).next_multiple_of(512)).unwrap();
        pack.write_all_at(name.as_bytes(), begin + size - name.len() as u64)
            .unwrap();
        packs.push(pack);
    }
    let image = file(dir.path(), &encode(tree));
    let mount = match try_mount(&image, &packs) {
        Ok(mount) => mount,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return skip("EROFS images can be mounted by root only");
        }
        Err(error) => panic!("the kernel does not mount it: {error}"),
    };
    for (number, name) in (1..).zip(&names) {
        let file = File::open(format!("/proc/self/fd/{}/{name}", mount.as_raw_fd())).unwrap();
        let size = size_of(number);
        assert_eq!(file.metadata().unwrap().len(), size, "{name}");
        let mut end = vec![0; name.len()];
        file.read_exact_at(&mut end, size - name.len() as u64).unwrap();
        assert_eq!(end, name.as_bytes(), "{name}");
    }
}

/// What an overlay shows of an image whose large files lie by themselves.
#[test]
fn an_overlay_finds_redirected_files() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("loose");
    let large = "large ".repeat(50_000);
    let paths: Vec<String> = (0..40)
        .map(|number| format!("/sha256/{number:02}/{}", "c".repeat(20 + number)))
        .collect();
    let mut tree = Tree::new(ROOT);
    let names: Vec<String> = (0..40).map(|number| format!("file-{number}")).collect();
    for (name, path) in names.iter().zip(&paths) {
        let below = data.join(&path[1..]);
        fs::create_dir_all(below.parent().unwrap()).unwrap();
        fs::write(&below, format!("{large}{name}")).unwrap();
        let (size, mode) = (
            large.len() + name.len(),
            if name.ends_with('7') { 0o755 } else { 0o644 },
        );
        tree.add_file(Tree::ROOT, name, attributes(mode), size as u64, Source::Redirect(path));
    }
    let packed = Source::Device { number: 1, sector: 0 };
    tree.add_file(Tree::ROOT, "packed", attributes(0o644), 5, packed);
    let Some(lower) = mount(&encode(tree), &[padded(b"hello")]) else {
        return;
    };
    let overlay = mount_overlay(&lower, &data, dir.path()).unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}", overlay.as_raw_fd()));
    assert_eq!(fs::read(root.join("packed")).unwrap(), b"hello");
    for name in &names {
        assert_eq!(fs::read_to_string(root.join(name)).unwrap(), format!("{large}{name}"));
        let mode = fs::metadata(root.join(name)).unwrap().mode() & 0o777;
        assert_eq!(mode, if name.ends_with('7') { 0o755 } else { 0o644 }, "{name}");
    }
    fs::write(root.join("file-3"), "changed").unwrap();
    fs::write(root.join("packed"), "changed").unwrap();
    assert_eq!(fs::read_to_string(root.join("file-3")).unwrap(), "changed");
    assert_eq!(
        fs::read_to_string(data.join(&paths[3][1..])).unwrap(),
        format!("{large}file-3")
    );
    assert_eq!(fs::read(lower.path().join("packed")).unwrap(), b"hello");
}

/// Mounts an overlay of an image, with what it redirects to, and with layers for changes in `dir`.
fn mount_overlay(lower: &Mounted, data: &Path, dir: &Path) -> io::Result<OwnedFd> {
    let [data, upper, work] = [data.to_owned(), dir.join("upper"), dir.join("work")].map(|path| {
        fs::create_dir_all(&path).unwrap();
        File::open(path).unwrap()
    });
    let filesystem = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [
        ("metacopy", "off"),
        ("redirect_dir", "off"),
        ("index", "off"),
        ("xino", "on"),
    ] {
        rustix::mount::fsconfig_set_string(filesystem.as_fd(), key, value)?;
    }
    rustix::mount::fsconfig_set_fd(filesystem.as_fd(), "lowerdir+", lower.mount.as_fd())?;
    rustix::mount::fsconfig_set_fd(filesystem.as_fd(), "datadir+", data.as_fd())?;
    rustix::mount::fsconfig_set_fd(filesystem.as_fd(), "upperdir", upper.as_fd())?;
    rustix::mount::fsconfig_set_fd(filesystem.as_fd(), "workdir", work.as_fd())?;
    rustix::mount::fsconfig_create(filesystem.as_fd())?;
    Ok(rustix::mount::fsmount(
        filesystem.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?)
}
