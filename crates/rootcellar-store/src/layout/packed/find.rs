//! Which packs there are when a store starts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::pack::{Pack, data_path, parse_name};
use crate::io::{DiskFile, Open, remove_if_there};
use crate::layout::{Ground, Region};
use crate::{Error, Result};

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) packs: BTreeMap<Region, Arc<Pack>>,
    /// The first number that no pack has, and none before had.
    pub(super) next_number: u32,
}

/// Lists the packs in `dir`, which is made if it is not there. Half of a pack is what a crash left of one that was being made or
/// dropped, and is removed.
pub(super) fn find(ground: &Ground, dir: &Path) -> Result<Found> {
    let failed = |error| Error::io("open", format!("looking for packs in {}", dir.display()), error);
    make_dir(ground, dir).map_err(failed)?;
    let (data, logs) = names(ground, dir).map_err(failed)?;
    let next_number = data.union(&logs).max().map_or(1, |last| last.number() + 1);
    for half in data.symmetric_difference(&logs) {
        tracing::info!(pack = half.number(), "removing half of a pack that a crash has left");
        for path in [dir.join(format!("{:08}.log", half.number())), data_path(dir, *half)] {
            remove_if_there(&*ground.disk, &path).map_err(failed)?;
        }
    }
    let mut packs = BTreeMap::new();
    for region in data.intersection(&logs) {
        packs.insert(*region, open(ground, dir, *region).map_err(failed)?);
    }
    Ok(Found { packs, next_number })
}

fn make_dir(ground: &Ground, dir: &Path) -> io::Result<()> {
    ground.disk.make_dir(dir)?;
    ground.disk.sync_dir(&ground.dir)
}

fn names(ground: &Ground, dir: &Path) -> io::Result<(BTreeSet<Region>, BTreeSet<Region>)> {
    let (mut data, mut logs) = (BTreeSet::new(), BTreeSet::new());
    for name in ground.disk.list(dir)? {
        match parse_name(&name.name) {
            Some((region, true)) => logs.insert(region),
            Some((region, false)) => data.insert(region),
            None => {
                tracing::warn!(dir = %dir.display(), name = name.name, "leaving alone what is no pack's file");
                continue;
            }
        };
    }
    Ok((data, logs))
}

fn open(ground: &Ground, dir: &Path, region: Region) -> io::Result<Arc<Pack>> {
    let path = data_path(dir, region);
    let data = ground.disk.open(&path, Open::Read)?;
    let bytes = data.size()?;
    let pack = Pack::new(region, path, data, ground.bytes.share());
    pack.set_bytes(bytes, 0);
    Ok(Arc::new(pack))
}

/// The file of a pack that is open for reading, for writing.
pub(super) fn reopen(ground: &Ground, pack: &Pack) -> io::Result<Arc<dyn DiskFile>> {
    ground.disk.open(&pack.path, Open::Update)
}
