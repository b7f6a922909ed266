//! Reads that go on with another shard when one fails.
//!
//! Of a whole blob, the other shard reads the whole of it again and hands out what was not handed out yet: so it checks all it reads as it
//! always does. That what was handed out before belongs to the same blob is seen by a checksum of both. A part of a blob goes on where it
//! broke off.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use rootcellar_digest::Digest;
use tokio::time::timeout;

use super::Inner;
use super::shard::patience_for;
use crate::checksum::Checksummer;
use crate::{Blob, ByteRange, Error, ErrorKind, Result};

/// The shards that are still to be asked for a blob, and what those said that were.
struct Search {
    digest: Digest,
    left: VecDeque<usize>,
    /// Shards to ask when those are through, if none of them has the blob.
    further: Vec<usize>,
    /// Shards that should have it, and said that they have not, or not the right one.
    lacking: Vec<usize>,
    error: Option<Error>,
}

impl Search {
    fn note(&mut self, shard: usize, error: Error) {
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss) {
            self.lacking.push(shard);
        }
        // As for `find_missing`, what those say who answer counts.
        if self
            .error
            .as_ref()
            .is_none_or(|error| error.kind() == ErrorKind::Unavailable)
        {
            self.error = Some(error);
        }
    }

    fn next(&mut self) -> Option<usize> {
        if self.left.is_empty() {
            self.left = std::mem::take(&mut self.further).into();
        }
        self.left.pop_front()
    }

    fn fail(&mut self) -> Error {
        let none = || Error::new(ErrorKind::Unavailable, "get", "no shard is left to be asked").on(self.digest);
        self.error.take().unwrap_or_else(none)
    }
}

impl Inner {
    /// Where to look for a blob: its own shards, those first that did not just fail.
    fn search(&self, digest: Digest, without: Option<usize>) -> Search {
        let mut own = self.replicas(&digest);
        own.sort_by_key(|shard| self.shards[*shard].is_down());
        let keep = |shard: &usize| Some(*shard) != without;
        Search {
            left: own.into_iter().filter(keep).collect(),
            further: self.further(&digest).into_iter().filter(keep).collect(),
            lacking: Vec::new(),
            error: None,
            digest,
        }
    }

    /// Opens a blob, not on the shard `without`.
    pub(super) async fn get(self: Arc<Self>, digest: Digest, range: ByteRange, without: Option<usize>) -> Result<Blob> {
        let range = range.resolve(digest)?;
        if digest.is_empty_blob() {
            return Ok(Blob::from_bytes(digest, range, Bytes::new()));
        }
        let mut search = self.search(digest, without);
        let blob = self.open_next(&mut search, range.clone()).await?;
        if blob.is_in_memory() {
            return Ok(blob);
        }
        let read = Read {
            is_whole: range == (0..digest.size_bytes()),
            pieces: blob.into_stream(),
            at: range.start,
            handed_out: Checksummer::default(),
            range: range.clone(),
            sharded: self,
            search,
        };
        let pieces = stream::try_unfold(read, |mut read| async move {
            let piece = read.piece().await?;
            Ok(piece.map(|piece| (piece, read)))
        });
        Ok(Blob::from_stream(digest, range, pieces.boxed()))
    }

    /// Opens a blob on the next shard that has it.
    async fn open_next(&self, search: &mut Search, range: Range<u64>) -> Result<Blob> {
        let asked = ByteRange {
            offset: range.start,
            len: Some(range.end - range.start),
        };
        while let Some(number) = search.next() {
            let shard = &self.shards[number];
            let open = shard.store().get(search.digest, asked);
            match shard.call("get", self.options.patience, open).await {
                Ok(blob) => {
                    self.heal_what_lacks(search);
                    return Ok(blob);
                }
                Err(error) => search.note(number, error),
            }
        }
        Err(search.fail())
    }

    fn heal_what_lacks(&self, search: &mut Search) {
        let own = self.replicas(&search.digest);
        for shard in search.lacking.drain(..).filter(|shard| own.contains(shard)) {
            self.heals.note(shard, search.digest, self.options.heals_max);
        }
    }

    /// Reads small blobs, not on the shard `without`: each round asks each blob's next shard.
    pub(super) async fn get_many(&self, digests: &[Digest], without: Option<usize>) -> Vec<Result<Bytes>> {
        let mut searches: Vec<Search> = digests.iter().map(|digest| self.search(*digest, without)).collect();
        // The empty blob is there whatever the shards say.
        let empty = |digest: &Digest| digest.is_empty_blob().then(Bytes::new);
        let mut found: Vec<Option<Bytes>> = digests.iter().map(empty).collect();
        loop {
            let mut questions: HashMap<usize, Vec<usize>> = HashMap::new();
            for (place, search) in searches
                .iter_mut()
                .enumerate()
                .filter(|(place, _)| found[*place].is_none())
            {
                if let Some(shard) = search.next() {
                    questions.entry(shard).or_default().push(place);
                }
            }
            if questions.is_empty() {
                break;
            }
            let asked = questions.into_iter().map(async |(shard, places)| {
                let wanted: Vec<Digest> = places.iter().map(|place| digests[*place]).collect();
                (shard, places, self.read_from(shard, &wanted).await)
            });
            for (shard, places, outcomes) in join_all(asked).await {
                for (place, outcome) in places.into_iter().zip(outcomes) {
                    match outcome {
                        Ok(content) => {
                            self.heal_what_lacks(&mut searches[place]);
                            found[place] = Some(content);
                        }
                        Err(error) => searches[place].note(shard, error),
                    }
                }
            }
        }
        let outcomes = found.into_iter().zip(&mut searches);
        outcomes
            .map(|(content, search)| content.ok_or_else(|| search.fail()))
            .collect()
    }

    async fn read_from(&self, number: usize, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let shard = &self.shards[number];
        let bytes = digests.iter().map(Digest::size_bytes).fold(0, u64::saturating_add);
        let patience = patience_for(self.options.patience, bytes);
        shard
            .call_many("get", patience, digests, shard.store().get_many(digests))
            .await
    }
}

/// A read under way.
struct Read {
    sharded: Arc<Inner>,
    search: Search,
    is_whole: bool,
    range: Range<u64>,
    /// What was handed out so far ends here.
    at: u64,
    handed_out: Checksummer,
    pieces: BoxStream<'static, Result<Bytes>>,
}

impl Read {
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            let left = self.range.end - self.at;
            match self.next().await {
                Ok(Some(piece)) if piece.len() as u64 <= left => {
                    self.at += piece.len() as u64;
                    self.handed_out.update(&piece);
                    return Ok(Some(piece));
                }
                Ok(None) if left == 0 => return Ok(None),
                Ok(_) => {
                    let reason = "a shard read another number of bytes than it should";
                    let error = Error::new(ErrorKind::DataLoss, "get", reason).on(self.search.digest);
                    self.go_on_elsewhere(error).await?;
                }
                Err(error) => self.go_on_elsewhere(error).await?,
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        match timeout(self.sharded.options.patience, self.pieces.next()).await {
            Ok(piece) => piece.transpose(),
            Err(_) => {
                let reason = "a shard stopped in the middle of a blob";
                Err(Error::new(ErrorKind::Unavailable, "get", reason).on(self.search.digest))
            }
        }
    }

    /// Goes on with the next shard that can, if there is one; else ends with the error of the first.
    async fn go_on_elsewhere(&mut self, error: Error) -> Result<()> {
        tracing::debug!(%error, at = self.at, "a read goes on with another shard");
        let digest = self.search.digest;
        let from = if self.is_whole { 0 } else { self.at };
        loop {
            self.search.error = None;
            let Ok(blob) = self.sharded.open_next(&mut self.search, from..self.range.end).await else {
                return Err(error);
            };
            if !self.is_whole {
                self.pieces = blob.into_stream();
                return Ok(());
            }
            let patience = self.sharded.options.patience;
            match skip(self.at, self.handed_out.hash(), blob.into_stream(), patience).await {
                Ok(pieces) => {
                    self.pieces = pieces;
                    return Ok(());
                }
                Err(Skipped::OtherBytes) => {
                    let reason = "what one shard sent first is not what another one has";
                    return Err(Error::new(ErrorKind::DataLoss, "get", reason).on(digest));
                }
                Err(Skipped::Broken) => {}
            }
        }
    }
}

/// Why the bytes that were handed out could not be skipped.
enum Skipped {
    Broken,
    OtherBytes,
}

/// Skips the bytes that were handed out, which have this hash.
async fn skip(
    handed_out: u64,
    hash: u64,
    mut pieces: BoxStream<'static, Result<Bytes>>,
    patience: Duration,
) -> Result<BoxStream<'static, Result<Bytes>>, Skipped> {
    let (mut left, mut skipped, mut rest) = (handed_out, Checksummer::default(), Bytes::new());
    while left > 0 {
        let Ok(Some(Ok(piece))) = timeout(patience, pieces.next()).await else {
            return Err(Skipped::Broken);
        };
        rest = piece;
        let len = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        skipped.update(&rest[..len]);
        rest.advance(len);
        left -= len as u64;
    }
    if skipped.hash() != hash {
        return Err(Skipped::OtherBytes);
    }
    let rest = stream::iter((!rest.is_empty()).then_some(Ok(rest)));
    Ok(rest.chain(pieces).boxed())
}
