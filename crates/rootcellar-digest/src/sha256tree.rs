//! SHA256TREE: SHA-256 of 1 KiB leaves, combined pairwise up a binary tree.
//!
//! ```text
//!              node(node(L0 L1) node(L2 L3)) , L4      a blob of 4 KiB and a bit
//!             /                            \
//!      node(L0 L1)      node(L2 L3)        L4          left: the largest power of two of leaves
//!       /    \           /    \                        that leaves something for the right
//!      L0    L1         L2    L3
//! ```
//!
//! A leaf is the plain SHA-256 of its bytes, so a blob of up to 1,024 bytes has its SHA-256 hash. A node is one run of the
//! SHA-256 block compression over its children's hashes from an initial state of its own, *without* the final addition of
//! that state (REAPI, `DigestFunction.SHA256TREE`; requirement DIG-10).
//!
//! Streaming keeps one hash for each complete subtree whose sibling is still to come: 54 of them at the most.

use crate::sha256::{Hash, Sha256};

const LEAF_LEN: u64 = 1024;
const NODE_STATE: [u32; 8] = [
    0xcbbb_9d5d,
    0x629a_292a,
    0x9159_015a,
    0x152f_ecd8,
    0x6733_2667,
    0x8eb4_4a87,
    0xdb0c_2e0d,
    0x47b5_481d,
];

/// A SHA256TREE computation.
#[derive(Clone, Default)]
pub(crate) struct Sha256Tree {
    /// The leaf that is being filled; finished only when a byte after it arrives, since the last leaf is combined differently.
    leaf: Sha256,
    leaf_len: u64,
    leaves_finished: u64,
    /// Complete subtrees, largest first: one for each bit set in `leaves_finished`.
    subtrees: Vec<Hash>,
}

impl Sha256Tree {
    pub(crate) fn update(&mut self, mut content: &[u8]) {
        while !content.is_empty() {
            if self.leaf_len == LEAF_LEN {
                self.finish_leaf();
            }
            let room = usize::try_from(LEAF_LEN - self.leaf_len).expect("a leaf is 1 KiB");
            let (head, tail) = content.split_at(room.min(content.len()));
            self.leaf.update(head);
            self.leaf_len += head.len() as u64;
            content = tail;
        }
    }

    pub(crate) fn finish(self) -> Hash {
        let last = self.leaf.finish();
        self.subtrees.iter().rev().fold(last, |right, left| node(left, &right))
    }

    fn finish_leaf(&mut self) {
        let mut subtree = std::mem::take(&mut self.leaf).finish();
        self.leaf_len = 0;
        // Adding one to a binary counter: every carry joins two complete subtrees of one size.
        for _ in 0..self.leaves_finished.trailing_ones() {
            let left = self.subtrees.pop().expect("one subtree for each bit of the counter");
            subtree = node(&left, &subtree);
        }
        self.leaves_finished += 1;
        self.subtrees.push(subtree);
    }
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut block = [0; 64];
    block[..32].copy_from_slice(left);
    block[32..].copy_from_slice(right);
    let mut state = NODE_STATE;
    sha2::block_api::compress256(&mut state, &[block]);
    let mut hash = [0; 32];
    for ((bytes, sum), initial) in hash.chunks_exact_mut(4).zip(state).zip(NODE_STATE) {
        // The compression ends by adding the initial state; the function wants the working variables themselves.
        bytes.copy_from_slice(&sum.wrapping_sub(initial).to_be_bytes());
    }
    hash
}
