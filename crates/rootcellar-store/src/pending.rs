//! A list, on disk, of digests with which something is still to be done: blobs to be copied to another store, above all.
//!
//! ```text
//!   0   magic "RCPENDNG"     8 bytes
//!   8   seed                 8 bytes, random: entries of an earlier file at the same place are none of this one
//!   16  entry, entry, ...    96 bytes each:
//!         0   checksum       u32, of the rest of the entry, with the seed and the entry's number
//!         4   what           u8: 1 is to be done, 2 is done
//!         5   function       u8, as in the layouts' logs
//!         6   hash length    u8, and a zero
//!         8   target         u64: for whom
//!         16  size           u64
//!         24  hash           64 bytes, zero behind the hash
//!         88  zero           8 bytes
//! ```
//!
//! An entry is there once it was written: a killed process loses none, a machine without power only what was not synced. Reading stops at
//! the first entry that is not whole. The file is written anew, and renamed into its place, when little of it is still to be done.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rootcellar_digest::Digest;

use crate::checksum::checksum_with_seed;
use crate::io::{Disk, DiskFile, Open, remove_if_there};
use crate::layout::{function_number, function_of};
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"RCPENDNG";
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 96;
const HASH_AT: usize = 24;
const TO_DO: u8 = 1;
const DONE: u8 = 2;
/// A smaller file is not written anew.
const COMPACT_ENTRIES_MIN: u64 = 4096;

/// How old an addition may get that is not synced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// For whom something is to be done, by a number that means something to the owner of the list.
pub(crate) type Target = u64;

/// A list of digests, each with the number of whom or what something is to be done for. Calls may block.
pub struct Pending {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Whether an addition is durable when it returns.
    is_synced: bool,
    /// Guards what is still to be done and the file that says so.
    list: Mutex<List>,
}

struct List {
    file: Arc<dyn DiskFile>,
    seed: u64,
    /// Entries in the file.
    written: u64,
    to_do: HashSet<(Target, Digest)>,
    /// Whether there are additions that are not synced.
    is_unsynced: bool,
    /// Why nothing can be added any more: nobody knows which file has the name.
    broken: Option<Error>,
}

/// A file that was written anew and has its name.
struct Anew {
    file: Arc<dyn DiskFile>,
    seed: u64,
    written: u64,
}

/// How writing a file anew failed.
enum Failed {
    /// The old one is what it was.
    Before(io::Error),
    /// Nobody knows which of both a power cut, or another name, would show.
    Halfway(io::Error),
}

impl Pending {
    /// Reads the list at `path`, or begins one there. With `is_synced` an addition survives a power cut once it has returned.
    ///
    /// # Errors
    /// I/O errors; a file that is no such list.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, is_synced: bool) -> Result<Self> {
        let to_do = read(&*disk, path).map_err(|error| io_error("reading", path, error))?;
        let anew = write_anew(&*disk, path, &to_do);
        let Anew { file, seed, written } = anew.map_err(|failed| io_error("writing", path, failed.into_error()))?;
        let list = List {
            file,
            seed,
            written,
            to_do,
            is_unsynced: false,
            broken: None,
        };
        Ok(Self {
            disk,
            path: path.to_owned(),
            is_synced,
            list: Mutex::new(list),
        })
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done, in no order.
    pub fn all(&self) -> Vec<(Target, Digest)> {
        self.list().to_do.iter().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.list().to_do.len()
    }

    /// Adds to the list what is not in it.
    ///
    /// # Errors
    /// I/O errors: then it may be in the list or not.
    pub fn add(&self, what: &[(Target, Digest)]) -> Result<()> {
        let mut list = self.list();
        if let Some(error) = &list.broken {
            return Err(error.again());
        }
        let new: Vec<_> = what.iter().copied().filter(|what| !list.to_do.contains(what)).collect();
        self.note(&mut list, TO_DO, &new)?;
        list.is_unsynced |= !new.is_empty();
        // Until it has succeeded, whoever adds the same waits for it too.
        match self.is_synced {
            true => self.sync_list(&mut list),
            false => Ok(()),
        }
    }

    /// Syncs additions that were not synced when they were made.
    ///
    /// # Errors
    /// I/O errors.
    pub fn sync(&self) -> Result<()> {
        self.sync_list(&mut self.list())
    }

    fn sync_list(&self, list: &mut List) -> Result<()> {
        if list.is_unsynced {
            let synced = list.file.sync();
            synced.map_err(|error| io_error("syncing", &self.path, error))?;
            list.is_unsynced = false;
        }
        Ok(())
    }

    /// Does that each second, for ever. Runs on a tokio runtime.
    pub async fn keep_synced(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SYNC_INTERVAL).await;
            let this = self.clone();
            let synced = tokio::task::spawn_blocking(move || this.sync());
            if let Ok(Err(error)) = synced.await {
                tracing::warn!(path = %self.path.display(), %error, "a list of what is still to be done could not be synced");
            }
        }
    }

    /// Takes from the list what is done. After a crash some of it may be in it again.
    ///
    /// # Errors
    /// I/O errors: then it is in the list still.
    pub fn done(&self, what: &[(Target, Digest)]) -> Result<()> {
        let mut list = self.list();
        let known: Vec<_> = what.iter().copied().filter(|what| list.to_do.contains(what)).collect();
        self.note(&mut list, DONE, &known)?;
        let live = list.to_do.len() as u64;
        if list.written >= COMPACT_ENTRIES_MIN && list.written / 4 > live {
            self.compact(&mut list);
        }
        Ok(())
    }

    /// Writes the file anew. If that fails the list only stays longer than it need be, as long as it is known which file it is.
    fn compact(&self, list: &mut List) {
        match write_anew(&*self.disk, &self.path, &list.to_do) {
            Ok(Anew { file, seed, written }) => {
                (list.file, list.seed, list.written) = (file, seed, written);
                list.is_unsynced = false;
            }
            Err(Failed::Before(error)) => {
                tracing::warn!(path = %self.path.display(), %error, "a list of what is still to be done could not be made shorter");
            }
            Err(Failed::Halfway(error)) => {
                tracing::error!(path = %self.path.display(), %error, "nothing can be added to a list of what is still to be done until the next start");
                list.broken = Some(io_error("replacing", &self.path, error));
            }
        }
    }

    fn note(&self, list: &mut List, what: u8, about: &[(Target, Digest)]) -> Result<()> {
        if about.is_empty() {
            return Ok(());
        }
        let numbered = about.iter().zip(list.written..);
        let entries: Vec<u8> = numbered
            .flat_map(|(about, number)| encode(list.seed, number, what, *about))
            .collect();
        let at = HEADER_BYTES as u64 + list.written * ENTRY_BYTES as u64;
        let written = list.file.write_at(&[IoSlice::new(&entries)], at);
        // What was written in part is overwritten by the next entries.
        written.map_err(|error| io_error("writing", &self.path, error))?;
        list.written += about.len() as u64;
        for about in about {
            apply(&mut list.to_do, what, *about);
        }
        Ok(())
    }
}

impl Failed {
    fn into_error(self) -> io::Error {
        match self {
            Self::Before(error) | Self::Halfway(error) => error,
        }
    }
}

/// Puts a new file with what is to be done in the place of the old one. It is open before it has the name, so that what is written to it
/// later is written to the file that has it.
fn write_anew(disk: &dyn Disk, path: &Path, to_do: &HashSet<(Target, Digest)>) -> Result<Anew, Failed> {
    let (anew, new) = write_beside(disk, path, to_do).map_err(Failed::Before)?;
    let take_place = || {
        disk.rename(&new, path)?;
        disk.sync_dir(path.parent().expect("a file lies in a directory"))
    };
    take_place().map_err(Failed::Halfway)?;
    Ok(anew)
}

fn write_beside(disk: &dyn Disk, path: &Path, to_do: &HashSet<(Target, Digest)>) -> io::Result<(Anew, PathBuf)> {
    let new = path.with_extension("new");
    remove_if_there(disk, &new)?;
    let random = disk.random()?;
    let seed = u64::from_le_bytes(random[..8].try_into().expect("8 of 16 bytes"));
    let header = [&MAGIC[..], &seed.to_le_bytes()].concat();
    let numbered = to_do.iter().zip(0_u64..);
    let entries: Vec<u8> = numbered
        .flat_map(|(about, number)| encode(seed, number, TO_DO, *about))
        .collect();
    let file = disk.open(&new, Open::Create { mode: 0o644 })?;
    file.write_at(&[IoSlice::new(&header), IoSlice::new(&entries)], 0)?;
    file.sync()?;
    let written = to_do.len() as u64;
    Ok((Anew { file, seed, written }, new))
}

fn apply(to_do: &mut HashSet<(Target, Digest)>, what: u8, about: (Target, Digest)) {
    match what {
        TO_DO => to_do.insert(about),
        _ => to_do.remove(&about),
    };
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<HashSet<(Target, Digest)>> {
    let mut to_do = HashSet::new();
    let file = match disk.open(path, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(to_do),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER_BYTES];
    file.read_at(&mut header, 0)?;
    if header[..8] != MAGIC[..] {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not a list of what is still to be done",
        ));
    }
    let seed = u64::from_le_bytes(header[8..].try_into().expect("8 bytes"));
    let entries = file.size()?.saturating_sub(HEADER_BYTES as u64) / ENTRY_BYTES as u64;
    for number in 0..entries {
        let mut entry = [0; ENTRY_BYTES];
        file.read_at(&mut entry, HEADER_BYTES as u64 + number * ENTRY_BYTES as u64)?;
        let Some((what, about)) = decode(seed, number, &entry) else {
            break;
        };
        apply(&mut to_do, what, about);
    }
    Ok(to_do)
}

fn encode(seed: u64, number: u64, what: u8, (target, digest): (Target, Digest)) -> [u8; ENTRY_BYTES] {
    let hash = digest.hash();
    let mut entry = [0; ENTRY_BYTES];
    entry[4] = what;
    entry[5] = function_number(digest.function());
    entry[6] = u8::try_from(hash.len()).expect("no hash has more than 64 bytes");
    entry[8..16].copy_from_slice(&target.to_le_bytes());
    entry[16..24].copy_from_slice(&digest.size_bytes().to_le_bytes());
    entry[HASH_AT..HASH_AT + hash.len()].copy_from_slice(hash);
    let checksum = checksum_with_seed(seed.wrapping_add(number), &entry[4..]);
    entry[..4].copy_from_slice(&checksum.to_le_bytes());
    entry
}

fn decode(seed: u64, number: u64, entry: &[u8; ENTRY_BYTES]) -> Option<(u8, (Target, Digest))> {
    let number_at = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
    let checksum = checksum_with_seed(seed.wrapping_add(number), &entry[4..]);
    if entry[..4] != checksum.to_le_bytes() {
        return None;
    }
    let function = function_of(entry[5])?;
    let hash = entry[HASH_AT..].get(..usize::from(entry[6]))?;
    let digest = Digest::new(function, hash, number_at(16)).ok()?;
    Some((entry[4], (number_at(8), digest)))
}

fn io_error(doing: &str, path: &Path, error: io::Error) -> Error {
    Error::io("note pending", format!("{doing} {}", path.display()), error)
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("path", &self.path)
            .field("blobs", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use rootcellar_digest::DigestFunction;

    use super::*;
    use crate::io::OsDisk;

    fn open(path: &Path) -> Pending {
        Pending::open(Arc::new(OsDisk), path, false).unwrap()
    }

    fn blob(number: u8) -> (Target, Digest) {
        let function = DigestFunction::ALL[usize::from(number) % DigestFunction::ALL.len()];
        (u64::from(number % 3), Digest::of(function, &[number]))
    }

    fn all(pending: &Pending) -> HashSet<(Target, Digest)> {
        pending.all().into_iter().collect()
    }

    proptest! {
        #[test]
        fn the_list_reads_back_as_it_was_whatever_was_added_and_done(steps in proptest::collection::vec((any::<bool>(), 0..40_u8), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("pending");
            let mut expected = HashSet::new();
            for part in steps.chunks(20) {
                let pending = open(&path);
                prop_assert_eq!(all(&pending), expected.clone());
                for (is_new, number) in part {
                    if *is_new {
                        pending.add(&[blob(*number)]).unwrap();
                        expected.insert(blob(*number));
                    } else {
                        pending.done(&[blob(*number)]).unwrap();
                        expected.remove(&blob(*number));
                    }
                }
            }
            prop_assert_eq!(all(&open(&path)), expected);
        }

        #[test]
        fn a_file_that_is_cut_off_or_damaged_loses_its_end_and_invents_nothing(cut in 0..2000_u64, flipped in 16..1000_usize) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("pending");
            let pending = open(&path);
            let added: Vec<_> = (0..20).map(blob).collect();
            pending.add(&added).unwrap();
            drop(pending);
            let mut bytes = fs::read(&path).unwrap();
            bytes[flipped] ^= 1;
            bytes.truncate(usize::try_from(cut).unwrap().max(HEADER_BYTES));
            fs::write(&path, &bytes).unwrap();
            let whole = (bytes.len() - HEADER_BYTES).min(flipped - HEADER_BYTES) / ENTRY_BYTES;
            prop_assert_eq!(all(&open(&path)), added[..whole.min(20)].iter().copied().collect());
        }
    }

    #[test]
    fn a_list_of_which_most_is_done_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pending");
        let pending = open(&path);
        let stays = blob(1);
        pending.add(&[stays]).unwrap();
        for number in 0..COMPACT_ENTRIES_MIN {
            let digest = Digest::of(DigestFunction::Sha256, &number.to_le_bytes());
            pending.add(&[(0, digest)]).unwrap();
            pending.done(&[(0, digest)]).unwrap();
        }
        let size = fs::metadata(&path).unwrap().len();
        assert!(size < COMPACT_ENTRIES_MIN * ENTRY_BYTES as u64, "{size}");
        assert_eq!(all(&open(&path)), HashSet::from([stays]));
    }

    #[test]
    fn a_list_that_cannot_be_made_shorter_forgets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pending");
        let pending = open(&path);
        let stay: Vec<_> = (0..20).map(blob).collect();
        pending.add(&stay).unwrap();
        // No file can take this name.
        fs::create_dir_all(path.with_extension("new").join("x")).unwrap();
        for number in 0..2 * COMPACT_ENTRIES_MIN {
            let digest = Digest::of(DigestFunction::Sha256, &number.to_le_bytes());
            pending.add(&[(0, digest)]).unwrap();
            pending.done(&[(0, digest)]).unwrap();
        }
        assert_eq!(all(&pending), stay.iter().copied().collect());
        fs::remove_dir_all(path.with_extension("new")).unwrap();
        assert_eq!(all(&open(&path)), stay.into_iter().collect());
    }

    #[test]
    fn a_file_that_is_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pending");
        fs::write(&path, "this is something else").unwrap();
        let error = Pending::open(Arc::new(OsDisk), &path, false).unwrap_err();
        assert!(error.to_string().contains("is not a list"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"this is something else");
    }
}
