//! A disk in memory that loses power.
//!
//! It keeps apart what was synced and what was only written. When the power goes, a seed decides what of the latter is on the disk:
//! of each write every 512-byte sector by itself, and of each change of a directory all or nothing, in any combination. That is
//! what [`Disk`](crate::io::Disk) allows, and more than most filesystems do.

mod names;
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::names::{Change, Names};
use self::node::Node;
use super::Seeded;
use crate::io::{BootId, Disk, DiskFile, Name, Open};

/// What is on the disk after a power cut, of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it is gone.
    Everything,
    /// Each part of it by chance.
    Some,
    /// Everything is there: the kernel had just written it.
    Nothing,
}

/// Something that the disk does in place of what it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is no space: what makes a file longer fails.
    NoSpace,
    /// Syncs fail. Of what they were to make durable, each part is by chance; the rest never will be, though it can be read
    /// until the power goes: Linux reports a write that failed once, and takes the pages for clean from then on.
    NoSync,
    /// Nothing can be read or written.
    NoPower,
}

/// A [`Disk`] in memory. Clones share it.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<World>>);

type Watcher = Arc<dyn Fn(&SimulatedDisk) + Send + Sync>;

struct World {
    files: BTreeMap<u64, Node>,
    next_file: u64,
    /// Names as programs see them.
    names: Names,
    /// Names as they are after a power cut that loses everything.
    durable_names: Names,
    /// Changes of names that are not durable, oldest first.
    changes: Vec<Change>,
    boot: u64,
    seed: u64,
    fault: Option<Fault>,
    /// Whether a sync has failed under this boot.
    has_failed_to_sync: bool,
    never_fails_to_sync: bool,
    /// What can be synced while syncs fail.
    is_spared: Option<fn(&Path) -> bool>,
    /// What is never synced, although the disk says so.
    is_ignored: Option<fn(&Path) -> bool>,
    locked: bool,
    /// Calls that change something.
    changes_made: u64,
    watcher: Option<Watcher>,
}

impl SimulatedDisk {
    /// An empty disk. What is random about it follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            files: BTreeMap::new(),
            next_file: 1,
            names: Names::default(),
            durable_names: Names::default(),
            changes: Vec::new(),
            boot: 1,
            seed,
            fault: None,
            has_failed_to_sync: false,
            never_fails_to_sync: false,
            is_spared: None,
            is_ignored: None,
            locked: false,
            changes_made: 0,
            watcher: None,
        })))
    }

    /// A disk that does not sync the files and directories that `is_ignored` picks, and says that it did. What is built on a sync
    /// must break on it: a proof that does not notice proves nothing.
    #[must_use]
    pub fn ignoring_syncs_of(self, is_ignored: fn(&Path) -> bool) -> Self {
        self.world().is_ignored = Some(is_ignored);
        self
    }

    /// A disk whose syncs do not fail, for a layout that does not remember what was synced: after a failed one it has lost everything.
    #[must_use]
    pub fn without_failed_syncs(self) -> Self {
        self.world().never_fails_to_sync = true;
        self
    }

    /// A disk whose syncs of the files that `is_spared` picks do not fail when others do.
    #[must_use]
    pub fn sparing_syncs_of(self, is_spared: fn(&Path) -> bool) -> Self {
        self.world().is_spared = Some(is_spared);
        self
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `watcher` called before each call that changes something, by whoever makes it: a moment at which the power can go.
    pub fn watch(&self, watcher: impl Fn(&Self) + Send + Sync + 'static) {
        self.world().watcher = Some(Arc::new(watcher));
    }

    /// Calls that changed something so far.
    pub fn changes_made(&self) -> u64 {
        self.world().changes_made
    }

    /// Whether a sync has failed since the disk's machine was started.
    pub fn has_failed_to_sync(&self) -> bool {
        self.world().has_failed_to_sync
    }

    /// Has calls fail from now on, or no more.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.world().fault = fault;
    }

    /// The disk as it is at the next boot if the power goes now.
    #[must_use]
    pub fn after_power_cut(&self, loss: Loss, seed: u64) -> Self {
        let world = self.world();
        let mut chance = Seeded::new(seed);
        let content = |(number, node): (&u64, &Node)| {
            let content = node.after_cut(loss, &mut chance);
            let node = Node {
                durable: content.clone(),
                content,
                pending: Vec::new(),
                reserved: node.reserved,
            };
            (*number, node)
        };
        let files = world.files.iter().map(content).collect();
        let mut names = world.durable_names.clone();
        for change in &world.changes {
            let is_there = match loss {
                Loss::Everything => false,
                Loss::Some => chance.below(2) == 0,
                Loss::Nothing => true,
            };
            if is_there {
                names.apply(change);
            }
        }
        names.prune();
        world.copy(files, names.clone(), names, world.boot + 1)
    }

    /// The disk as the next process finds it if this one is killed now.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let world = self.world();
        let copy = world.copy(
            world.files.clone(),
            world.names.clone(),
            world.durable_names.clone(),
            world.boot,
        );
        copy.world().changes = world.changes.clone();
        copy
    }

    /// All files and their sizes.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let world = self.world();
        let size = |(path, file): (&PathBuf, &u64)| (path.clone(), world.files[file].content.len() as u64);
        world.names.files.iter().map(size).collect()
    }

    /// Bytes of all files, each counted once whatever names it has.
    pub fn bytes(&self) -> u64 {
        let world = self.world();
        let files: BTreeSet<&u64> = world.names.files.values().collect();
        files
            .into_iter()
            .map(|file| world.files[file].content.len() as u64)
            .sum()
    }

    /// Flips a bit of a file, behind everybody's back.
    ///
    /// # Panics
    /// If there is no such file, or it is shorter.
    pub fn flip(&self, path: &Path, byte: usize) {
        let mut world = self.world();
        let file = world.names.files[path];
        let node = world.files.get_mut(&file).expect("a name means a file");
        Arc::make_mut(&mut node.content)[byte] ^= 1;
        if let Some(durable) = Arc::make_mut(&mut node.durable).get_mut(byte) {
            *durable ^= 1;
        }
    }

    /// Begins a call that changes something.
    fn change(&self) -> io::Result<MutexGuard<'_, World>> {
        let watcher = self.world().watcher.clone();
        if let Some(watcher) = watcher {
            watcher(self);
        }
        let mut world = self.world();
        world.changes_made += 1;
        world.check_power()?;
        Ok(world)
    }
}

impl World {
    fn copy(&self, files: BTreeMap<u64, Node>, names: Names, durable_names: Names, boot: u64) -> SimulatedDisk {
        SimulatedDisk(Arc::new(Mutex::new(Self {
            files,
            next_file: self.next_file,
            names,
            durable_names,
            changes: Vec::new(),
            boot,
            seed: self.seed,
            fault: None,
            has_failed_to_sync: self.has_failed_to_sync && boot == self.boot,
            never_fails_to_sync: self.never_fails_to_sync,
            is_spared: self.is_spared,
            is_ignored: self.is_ignored,
            locked: false,
            changes_made: 0,
            watcher: None,
        })))
    }

    fn check_power(&self) -> io::Result<()> {
        match self.fault {
            Some(Fault::NoPower) => Err(io::Error::other("the power is gone")),
            _ => Ok(()),
        }
    }

    fn check_space(&self) -> io::Result<()> {
        match self.fault {
            Some(Fault::NoSpace) => Err(rustix::io::Errno::NOSPC.into()),
            _ => Ok(()),
        }
    }

    fn check_sync(&mut self) -> io::Result<()> {
        match self.fault {
            Some(Fault::NoSync) if !self.never_fails_to_sync => {
                self.has_failed_to_sync = true;
                Err(io::Error::other("the disk has failed"))
            }
            _ => Ok(()),
        }
    }

    fn ignores_sync_of(&self, path: &Path) -> bool {
        self.is_ignored.is_some_and(|is_ignored| is_ignored(path))
    }

    fn ignores_sync_of_file(&self, file: u64) -> bool {
        self.is_ignored
            .is_some_and(|is_ignored| self.has_name(file, is_ignored))
    }

    /// Whether a file has such a name.
    fn has_name(&self, file: u64, is_such: fn(&Path) -> bool) -> bool {
        let mut names = self.names.files.iter().filter(|(_, named)| **named == file);
        names.any(|(path, _)| is_such(path))
    }

    fn make(&mut self, change: Change) {
        self.names.apply(&change);
        self.changes.push(change);
    }

    fn has_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || self.names.dirs.contains(path)
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        let file = self.names.files.get(path);
        file.copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn node(&mut self, file: u64) -> &mut Node {
        self.files.get_mut(&file).expect("files stay until the disk goes")
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = match how {
            Open::Read | Open::Update => {
                let world = self.world();
                world.check_power()?;
                world.file(path)?
            }
            Open::Create { .. } => {
                let mut world = self.change()?;
                world.check_space()?;
                if world.file(path).is_ok() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                if !path.parent().is_some_and(|dir| world.has_dir(dir)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let file = world.next_file;
                world.next_file += 1;
                let empty = Arc::new(Vec::new());
                let node = Node {
                    content: empty.clone(),
                    durable: empty,
                    pending: Vec::new(),
                    reserved: 0,
                };
                world.files.insert(file, node);
                world.make(Change::Put(path.to_owned(), file));
                file
            }
        };
        let disk = self.clone();
        Ok(Arc::new(OpenFile { disk, file }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.change()?;
        let file = world.file(from)?;
        if world.file(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !to.parent().is_some_and(|dir| world.has_dir(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.make(Change::Put(to.to_owned(), file));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.change()?;
        world.file(from)?;
        world.make(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.change()?;
        world.file(path)?;
        world.make(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut dirs: Vec<&Path> = path.ancestors().filter(|dir| !self.world().has_dir(dir)).collect();
        while let Some(dir) = dirs.pop() {
            self.change()?.make(Change::MakeDir(dir.to_owned()));
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Name>> {
        let world = self.world();
        world.check_power()?;
        if !world.has_dir(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name = |found: &PathBuf, is_dir| {
            let name = found.file_name().filter(|_| found.parent() == Some(path))?;
            Some(Name {
                name: name.to_string_lossy().into_owned(),
                is_dir,
            })
        };
        let files = world.names.files.keys().filter_map(|file| name(file, false));
        let dirs = world.names.dirs.iter().filter_map(|dir| name(dir, true));
        Ok(files.chain(dirs).collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.change()?;
        world.check_sync()?;
        if !world.has_dir(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if world.ignores_sync_of(path) {
            return Ok(());
        }
        let (synced, left): (Vec<Change>, Vec<Change>) = std::mem::take(&mut world.changes)
            .into_iter()
            .partition(|change| change.is_in(path));
        world.changes = left;
        for change in synced {
            world.durable_names.apply(&change);
        }
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>> {
        let mut world = self.world();
        if world.locked {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "the simulation"));
        }
        world.locked = true;
        Ok(Box::new(Lock(self.clone())))
    }

    fn boot_id(&self) -> io::Result<BootId> {
        let boot = u128::from(self.world().boot);
        Ok(BootId(boot.to_be_bytes()))
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut world = self.world();
        let mut seeded = Seeded::new(world.seed);
        world.seed = seeded.number();
        let number = (u128::from(seeded.number()) << 64) | u128::from(seeded.number());
        Ok(number.to_be_bytes())
    }
}

/// The lock on a simulated disk.
#[derive(Debug)]
struct Lock(SimulatedDisk);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.world().locked = false;
    }
}

struct OpenFile {
    disk: SimulatedDisk,
    file: u64,
}

fn index(at: u64) -> usize {
    usize::try_from(at).expect("simulated files are small")
}

impl DiskFile for OpenFile {
    fn size(&self) -> io::Result<u64> {
        let mut world = self.disk.world();
        world.check_power()?;
        Ok(world.node(self.file).content.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.check_power()?;
        let content = &world.node(self.file).content;
        let found = content.get(index(at)..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn read_cached(&self, buffer: &mut [u8], at: u64) -> io::Result<bool> {
        self.read_at(buffer, at).map(|()| true)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        let at = index(at);
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        if bytes.is_empty() {
            return Ok(());
        }
        let mut world = self.disk.change()?;
        let node = world.node(self.file);
        let has_space = at + bytes.len() <= node.content.len().max(index(node.reserved));
        if !has_space {
            world.check_space()?;
        }
        world.node(self.file).write(at, &bytes);
        Ok(())
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        let mut world = self.disk.change()?;
        let is_more = world.node(self.file).reserved < size;
        if is_more {
            world.check_space()?;
            world.node(self.file).reserved = size;
        }
        Ok(())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut world = self.disk.change()?;
        if index(size) > world.node(self.file).content.len() {
            world.check_space()?;
        }
        let node = world.node(self.file);
        node.set_size(index(size));
        node.reserved = 0;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.change()?;
        let is_spared = world
            .is_spared
            .is_some_and(|is_spared| world.has_name(self.file, is_spared));
        if !is_spared && let Err(error) = world.check_sync() {
            let mut chance = Seeded::new(world.changes_made);
            world.node(self.file).fail_to_sync(&mut chance);
            return Err(error);
        }
        if !world.ignores_sync_of_file(self.file) {
            world.node(self.file).sync();
        }
        Ok(())
    }

    fn as_file(&self) -> Option<&File> {
        None
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.world();
        f.debug_struct("SimulatedDisk")
            .field("files", &world.names.files.len())
            .field("boot", &world.boot)
            .finish_non_exhaustive()
    }
}
