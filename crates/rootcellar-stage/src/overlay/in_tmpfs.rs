//! A tree as files in memory: the lower layer for a server without privileges.
//!
//! Small files are there with their bytes. A larger one that lies by itself in the store is as long as it should be, empty, and says
//! where its bytes are (`user.overlay.redirect`).

use std::collections::HashMap;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rootcellar_digest::{Digest, Secret};
use rootcellar_reapi::{Error, InputTree};
use rootcellar_store::LocalStore;

use super::helper::MountHelper;
use super::places::Places;
use crate::Owner;
use crate::beneath::Beneath;
use crate::furnish::make_mount_points;
use crate::write::{PAGE_BYTES, Writer, blocking, io_error, staging};

/// Room for what is not counted file by file.
const SPARE_BYTES: u64 = 1 << 20;
const SPARE_FILES: u64 = 64;
/// One root may take such a part of the machine's memory.
const MEMORY_PART: u64 = 4;

/// Makes the file system, and writes the tree. All of its files are under a lease.
pub(super) async fn mount(
    store: &Arc<dyn LocalStore>,
    places: &Places,
    tree: &InputTree,
    hidden: &[&'static str],
    helper: &Arc<MountHelper>,
) -> Result<(OwnedFd, u64), Error> {
    let redirects = redirects(places, tree);
    let owner = Owner::current();
    // The root is not known yet, and what is written does not depend on it.
    let sizes = Writer::sizes(tree, |digest| redirects.contains_key(digest));
    let helper = helper.clone();
    // What a file says of where it lies is counted as if it were another one.
    let (bytes, files) = (
        sizes.pages * PAGE_BYTES + SPARE_BYTES,
        sizes.entries + sizes.elsewhere + SPARE_FILES,
    );
    check_memory(bytes)?;
    let mount = blocking(move || {
        helper
            .memory(bytes, files)
            .map_err(|error| io_error("making a file system in memory", error))
    })
    .await?;
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    let root = Beneath::open_link(Path::new(&path)).map_err(|error| staging("", error))?;
    let root = Arc::new(root);
    let writer = Writer::new(store.clone(), root.clone(), tree, owner).redirecting(redirects);
    writer.write_content().await?;
    let hidden = hidden.to_vec();
    blocking(move || make_mount_points(&root, &hidden, owner)).await?;
    writer.finish_directories().await?;
    Ok((mount, bytes))
}

/// Whoever asks for a root must not take the machine's memory with it.
fn check_memory(bytes: u64) -> Result<(), Error> {
    let memory = rustix::system::sysinfo();
    let bytes_max = memory.totalram * u64::from(memory.mem_unit) / MEMORY_PART;
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(Error::resource_exhausted(format!(
        "the input root takes {bytes} bytes of memory without its large files, and {bytes_max} are allowed"
    )))
}

/// Where the files lie that are not copied.
fn redirects(places: &Places, tree: &InputTree) -> HashMap<Digest, String, Secret> {
    let files = tree.mentioned_files().enumerate();
    let loose = files.filter_map(|(number, digest)| Some((*digest, places.loose(number)?.to_owned())));
    loose.collect()
}
