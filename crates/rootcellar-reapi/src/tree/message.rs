//! The Tree message: a whole tree in one blob, as output directories of actions travel.
//!
//! What is written here is always in the topologically sorted form of REAPI 2.2 (`OutputDirectory.is_topologically_sorted`):
//! a plain stream of records that can be read from front to back.
//!
//! ```text
//!   0a len Directory     the root, once
//!   12 len Directory     every other distinct directory, once, behind all that refer to it
//!   12 len Directory
//! ```
//!
//! What is read may be in any order. A directory in a Tree is named by the hash of its own bytes, so both ways work on the
//! bytes as they are.

use std::collections::HashMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use rootcellar_digest::{Digest, DigestFunction};

use super::{InputTree, TreeLimits};
use crate::wire::Fields;
use crate::{Error, Result};

const ROOT_TAG: u8 = 0x0a;
const CHILDREN_TAG: u8 = 0x12;

/// Longest varint.
const LENGTH_BYTES_MAX: usize = 10;

/// Writes a tree as a Tree message in topologically sorted form. Equal trees make equal bytes.
pub fn encode(tree: &InputTree) -> Bytes {
    let record_bytes = |encoded: &Bytes| 1 + LENGTH_BYTES_MAX + encoded.len();
    let capacity = tree
        .directories()
        .iter()
        .map(|directory| record_bytes(&directory.encoded))
        .sum();
    let mut message = BytesMut::with_capacity(capacity);
    let mut tag = ROOT_TAG;
    for directory in tree.directories() {
        message.put_u8(tag);
        prost::encode_length_delimiter(directory.encoded.len(), &mut message)
            .expect("the capacity counts the longest length of each record");
        message.put_slice(&directory.encoded);
        tag = CHILDREN_TAG;
    }
    message.freeze()
}

/// What a Tree message holds.
#[derive(Debug, Clone)]
pub struct DecodedTree {
    /// The tree.
    pub tree: InputTree,
    /// Whether the message has the form that [`encode`] writes. A result that claims so must not be believed without this.
    pub is_topologically_sorted: bool,
}

/// Reads a Tree message whose digests are of `function`. The caller has bounded its size.
///
/// Records that nothing refers to are dropped, and equal records count once. A message without a root stands for the empty
/// directory if it holds nothing at all.
///
/// # Errors
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the bytes are no Tree, if a directory that is referred to is not valid
/// or not there, or if the tree goes past `limits`.
pub fn decode(function: DigestFunction, message: &Bytes, limits: &TreeLimits) -> Result<DecodedTree> {
    let records = Records::read(function, message, limits)?;
    let tree = InputTree::from_encoded(records.root, records.directories, limits)?;
    let is_topologically_sorted = records.is_plain && is_in_order(&tree, &records.order);
    Ok(DecodedTree {
        tree,
        is_topologically_sorted,
    })
}

/// The directories of a message as they lie there.
struct Records {
    root: Digest,
    /// Digests in the order of the message, the root where it stood.
    order: Vec<Digest>,
    directories: HashMap<Digest, Bytes>,
    /// Whether the message is a stream of records with short tags and lengths, and nothing else.
    is_plain: bool,
}

impl Records {
    fn read(function: DigestFunction, message: &Bytes, limits: &TreeLimits) -> Result<Self> {
        let (mut root, mut order, mut directories) = (None, Vec::new(), HashMap::new());
        let mut plain_bytes = 0;
        for field in Fields::of(message) {
            let field = field?;
            if !matches!(field.number, 1 | 2) {
                continue;
            }
            let encoded = message.slice_ref(field.message()?);
            plain_bytes += 1 + prost::length_delimiter_len(encoded.len()) + encoded.len();
            let digest = Digest::of(function, &encoded);
            if field.number == 1 && root.replace(digest).is_some() {
                return Err(Error::invalid_argument("a Tree has one root, not two"));
            }
            order.push(digest);
            directories.insert(digest, encoded);
            limits.check_directories(order.len())?;
        }
        if message.is_empty() {
            root = Some(Digest::empty(function));
            directories.insert(Digest::empty(function), Bytes::new());
        }
        Ok(Self {
            root: root.ok_or_else(|| Error::invalid_argument("not a Tree message: it has no root"))?,
            order,
            directories,
            is_plain: plain_bytes == message.len(),
        })
    }
}

/// Whether each directory comes once, behind all that refer to it. The root comes first then: all others are below it.
fn is_in_order(tree: &InputTree, order: &[Digest]) -> bool {
    // The tree holds each directory of the message that it needs once. As many records are exactly those.
    if order.len() != tree.directories().len() {
        return false;
    }
    let places: HashMap<&Digest, usize> = order.iter().zip(0..).collect();
    tree.directories().iter().all(|parent| {
        let children = parent.directory.directories();
        children
            .iter()
            .all(|child| places[&parent.digest] < places[&child.digest])
    })
}
