//! A tree as GetTree sends it: every distinct directory that is there, the root first, in pages.
//!
//! The walk goes breadth first and keeps digests only: those it has seen, and those it has yet to visit. Directories are in
//! memory a batch at a time. The order follows from the tree and from what is missing in it, so that a call with the token of
//! a page walks the same way again, sends nothing up to the directory that was sent last, and goes on behind it.
//!
//! A directory is passed on in the bytes in which it is stored. They are read, since the tree goes on in them; they are not encoded
//! again, so fields that this server does not know arrive, and a client that hashes a directory finds the digest that it knows.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint};
use rootcellar_digest::Digest;
use rootcellar_store::BlobStore;

use super::{TreeLimits, fetch, page_token};
use crate::{Error, Result};

/// Bounds on one page of GetTree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Directories in a page.
    pub directories_max: usize,
    /// Bytes in the encoded page: what a message may have.
    pub bytes_max: usize,
}

/// A page of a mebibyte keeps both ends busy, and is well within the 4 MiB that every gRPC peer accepts.
impl Default for PageLimits {
    fn default() -> Self {
        Self {
            directories_max: 10_000,
            bytes_max: 1 << 20,
        }
    }
}

impl PageLimits {
    /// Makes the pages as small as the `page_size` of a request asks for; zero asks for nothing.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if `page_size` is negative.
    pub fn requested(self, page_size: i32) -> Result<Self> {
        let Ok(page_size) = usize::try_from(page_size) else {
            return Err(Error::invalid_argument(format!(
                "page_size cannot be negative: {page_size}"
            )));
        };
        let directories_max = match page_size {
            0 => self.directories_max,
            page_size => self.directories_max.min(page_size),
        };
        Ok(Self {
            directories_max,
            ..self
        })
    }
}

/// Walks over a tree in a store and hands it out in pages.
#[derive(Debug)]
pub struct TreePages {
    store: Arc<dyn BlobStore>,
    root: Digest,
    tree_limits: TreeLimits,
    page_limits: PageLimits,
    /// Sent by an earlier call: everything up to here is passed over.
    sent: Option<Digest>,
    seen: HashSet<Digest>,
    /// To be fetched, in order. All of it is in `seen`.
    pending: VecDeque<Digest>,
    /// Fetched and to be sent, in order; one batch at the most.
    ready: VecDeque<Ready>,
}

#[derive(Debug)]
struct Ready {
    digest: Digest,
    encoded: Bytes,
}

/// A page: a `GetTreeResponse` that is still to be encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePage {
    /// Encoded Directories.
    pub directories: Vec<Bytes>,
    /// Where the next page begins; empty if there is none.
    pub next_page_token: String,
}

impl TreePage {
    /// The numbers of the fields of `GetTreeResponse`.
    const DIRECTORIES_FIELD: u32 = 1;
    const NEXT_PAGE_TOKEN_FIELD: u32 = 2;

    /// Bytes of the encoded page.
    pub fn encoded_len(&self) -> usize {
        let directories = self.directories.iter().map(|encoded| record_bytes(encoded.len()));
        let token = match self.next_page_token.len() {
            0 => 0,
            len => record_bytes(len),
        };
        directories.sum::<usize>() + token
    }

    /// Encodes the page.
    pub fn encode(&self, buffer: &mut impl BufMut) {
        for encoded in &self.directories {
            put_record(Self::DIRECTORIES_FIELD, encoded, buffer);
        }
        if !self.next_page_token.is_empty() {
            put_record(Self::NEXT_PAGE_TOKEN_FIELD, self.next_page_token.as_bytes(), buffer);
        }
    }
}

fn put_record(field: u32, bytes: &[u8], buffer: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(bytes.len() as u64, buffer);
    buffer.put_slice(bytes);
}

impl TreePages {
    /// Starts at the root.
    pub fn new(store: Arc<dyn BlobStore>, root: Digest, tree_limits: TreeLimits, page_limits: PageLimits) -> Self {
        Self {
            store,
            root,
            tree_limits,
            page_limits,
            sent: None,
            seen: HashSet::from([root]),
            pending: VecDeque::from([root]),
            ready: VecDeque::new(),
        }
    }

    /// Goes on behind the page that `token` came with; an empty token is the beginning.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the token is not one of this tree.
    pub fn resume(mut self, token: &str) -> Result<Self> {
        if !token.is_empty() {
            self.sent = Some(page_token::decode(&self.root, token)?);
        }
        Ok(self)
    }

    /// The next page; `None` behind the last. The last page has no token.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the root is not there;
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if a blob in the tree is no Directory, the tree goes past its limits,
    /// or what the token says was sent is not there any more;
    /// [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted) if one directory is larger than a page may be.
    pub async fn next_page(&mut self) -> Result<Option<TreePage>> {
        self.pass_over_sent().await?;
        let mut page = Page::new(self.page_limits);
        while self.prepare().await? {
            let next = self.ready.pop_front().expect("a directory was made ready");
            if page.has_room_for(&next)? {
                page.push(next);
                continue;
            }
            page.page.next_page_token = page
                .last
                .map_or_else(String::new, |last| page_token::encode(&self.root, &last));
            self.ready.push_front(next);
            break;
        }
        Ok(page.last.map(|_| page.page))
    }

    async fn pass_over_sent(&mut self) -> Result<()> {
        while let Some(sent) = self.sent {
            if !self.prepare().await? {
                return Err(Error::invalid_argument(format!(
                    "directory {sent}, which the page token goes on from, is not in the tree any more: begin without a token"
                )));
            }
            while let Some(next) = self.ready.pop_front() {
                if next.digest == sent {
                    self.sent = None;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Makes a directory ready, if there is another.
    async fn prepare(&mut self) -> Result<bool> {
        while self.ready.is_empty() && !self.pending.is_empty() {
            let batch: Vec<Digest> = self
                .pending
                .iter()
                .copied()
                .take(fetch::batch_len(&self.pending))
                .collect();
            let answers = fetch::get_directories(&*self.store, &batch, &self.tree_limits).await?;
            // Only now, so that a dropped future has changed nothing.
            self.pending.drain(..batch.len());
            for (digest, answer) in batch.into_iter().zip(answers) {
                self.take(digest, answer)?;
            }
        }
        Ok(!self.ready.is_empty())
    }

    fn take(&mut self, digest: Digest, answer: Option<Bytes>) -> Result<()> {
        let Some(encoded) = answer else {
            return if digest == self.root {
                Err(no_root(&digest))
            } else {
                Ok(())
            };
        };
        let directory = fetch::read(digest, &encoded)?;
        for child in directory.directories() {
            if self.seen.insert(child.digest) {
                self.pending.push_back(child.digest);
            }
        }
        self.tree_limits.check_directories(self.seen.len())?;
        self.ready.push_back(Ready { digest, encoded });
        Ok(())
    }
}

fn no_root(digest: &Digest) -> Error {
    Error::not_found(format!("the root directory {digest} is not in the store"))
}

/// A page being filled.
struct Page {
    limits: PageLimits,
    page: TreePage,
    bytes: usize,
    last: Option<Digest>,
}

impl Page {
    fn new(limits: PageLimits) -> Self {
        Self {
            limits,
            page: TreePage {
                directories: Vec::new(),
                next_page_token: String::new(),
            },
            bytes: record_bytes(page_token::TOKEN_BYTES_MAX),
            last: None,
        }
    }

    /// Whether one more directory fits. Into an empty page it has to.
    fn has_room_for(&self, next: &Ready) -> Result<bool> {
        let bytes = self.bytes + next.record_bytes();
        if bytes <= self.limits.bytes_max {
            return Ok(self.page.directories.len() < self.limits.directories_max.max(1));
        }
        if self.last.is_some() {
            return Ok(false);
        }
        Err(Error::resource_exhausted(format!(
            "directory {} makes a page of {bytes} bytes where {} are allowed: read it as a blob",
            next.digest, self.limits.bytes_max
        )))
    }

    fn push(&mut self, next: Ready) {
        self.bytes += next.record_bytes();
        self.last = Some(next.digest);
        self.page.directories.push(next.encoded);
    }
}

impl Ready {
    fn record_bytes(&self) -> usize {
        record_bytes(self.encoded.len())
    }
}

/// Bytes of a field of `len` bytes with its tag, which is small, and its length.
fn record_bytes(len: usize) -> usize {
    1 + prost::length_delimiter_len(len) + len
}
