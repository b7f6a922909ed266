//! Logs: what lies where, in the order in which it came to lie there.
//!
//! A log is written by one process, from its header on, and never continued by another one, except that blobs of it can be said
//! to be gone. So whoever reads it knows under which boot of the machine all of it was written. What it says is drawn in
//! `slot.rs`.
//!
//! An entry that is there, with the right check, was written after the bytes it speaks of. Whether those bytes are on the disk is
//! another question:
//!
//! ```text
//!   written under this boot, and no sync failed    certain: the page cache is whole, whatever became of the process
//!   before the position that a mark names          certain: it was synced before the mark was written
//!   written under another boot                     doubtful: the machine went down, and may have lost some of it
//!   else                                           lost: the page cache may have what the disk never will
//! ```

mod book;
mod reader;
mod slot;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use self::book::LogBook;
pub(crate) use self::reader::LogText;
pub(crate) use self::slot::{BlobEntry, ENTRY_BYTES_MAX, Entry, LogKind, entry_bytes, function_number, function_of};
