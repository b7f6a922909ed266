//! EROFS images that show a tree of names over bytes that lie elsewhere.
//!
//! An image holds names, modes, times and links, and of each file only where its bytes are: in a pack of the store, which is one
//! of the image's *devices*, or in a file of its own, to which overlayfs is *redirected*. So an image is some hundred bytes a file,
//! and written in less than a microsecond.
//!
//! ```text
//!   byte 1024    superblock, 128 bytes                    format.rs
//!        1152    device slots, 128 bytes each             the packs, in the order of their numbers here, from 1
//!     aligned    inodes, each at a multiple of 32         the root first; behind each directory what is in it
//!     aligned    blocks of 512 bytes                      of directories and links that are longer than a block
//!
//!   inode        32 bytes, or 64 where a time, a size or a number of links wants them
//!                [ attributes: a redirect ]               of a file that lies elsewhere by itself
//!                [ end of a directory or a link | place of a file that has none in the inode ]
//! ```
//!
//! The format is the kernel's (`fs/erofs/erofs_fs.h`), and of it what every kernel from 6.12 on reads. Blocks have 512 bytes,
//! because blobs in packs begin on such boundaries.

mod directory;
mod format;
mod image;
mod tree;

pub use self::format::BlockSize;
pub use self::image::{encode, encode_in};
pub use self::tree::{Attributes, ON_DEVICE_BYTES_MAX, Source, Tree};
