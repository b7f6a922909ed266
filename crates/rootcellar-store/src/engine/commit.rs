//! The commit lane: what is put, written and acknowledged in batches.
//!
//! ```text
//!   put ──> queue ──┐ all that waits, up to a bound          one commit
//!   put ──> queue ──┼─> room? ──> layout.write ──[layout.sync]──> index ──> acknowledged
//!   put ──> queue ──┘
//! ```
//!
//! The step in brackets is that of [`Durability::Always`]: one sync serves all who wait. Since one commit follows the other, a blob
//! that is being put by several is written once: the others find it in the batch, or in the index. Whoever goes away changes
//! nothing; what is queued is written.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rootcellar_digest::Digest;
use tokio::sync::oneshot;

use super::core::Engine;
use super::index::{Entry, Flags};
use super::lanes::{Lane, Next};
use super::options::Durability;
use crate::layout::{New, Place};
use crate::{Content, Error, ErrorKind, Result, Verified};
use rootcellar_digest::{DigestMap, Secret};

/// A commit takes requests until it has so much: some milliseconds of writing.
pub(super) const COMMIT_BYTES: u64 = 16 << 20;
pub(super) const COMMIT_BLOBS: usize = 8192;

/// Blobs that are put together, none of them empty.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) blobs: Vec<Verified>,
    /// One outcome for each blob.
    pub(super) reply: oneshot::Sender<Vec<Result<()>>>,
}

impl Request {
    fn bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.digest().size_bytes()).sum()
    }

    fn refuse(self, error: impl Fn() -> Error) {
        let outcomes = self.blobs.iter().map(|blob| Err(error().on(blob.digest()))).collect();
        self.answer(outcomes);
    }

    fn answer(self, outcomes: Vec<Result<()>>) {
        // Whoever went away does not want to know.
        let _is_wanted = self.reply.send(outcomes);
    }
}

/// Requests in the order in which they came. Each holds its own content, so callers bound how much waits.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<Request>,
    /// Bytes for which the first request waits, if it does.
    needs: Option<u64>,
    /// Why no room can be made for it.
    refusal: Option<String>,
    /// Requests in the last commit, and those that came during it.
    expected: usize,
    /// How many requests there were when more were waited for.
    seen: usize,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, request: Request) {
        self.waiting().requests.push_back(request);
    }

    /// Whether it is worth a moment to wait for more: those who were served last are about to come again. Without this they fall
    /// into two groups, of which one always waits for the other's sync.
    fn is_gathering(&self) -> bool {
        let mut waiting = self.waiting();
        let here = waiting.requests.len();
        let has_grown = here > waiting.seen;
        waiting.seen = here;
        has_grown && here < waiting.expected
    }

    /// Notes that so many requests are about to be answered.
    fn note_served(&self, requests: usize) {
        let mut waiting = self.waiting();
        waiting.expected = requests + waiting.requests.len();
        waiting.seen = 0;
    }

    /// Bytes that the first request waits for.
    pub(super) fn needs(&self) -> u64 {
        self.waiting().needs.unwrap_or(0)
    }

    /// Says that no room can be made for the first request.
    pub(super) fn refuse(&self, reason: &str) {
        let mut waiting = self.waiting();
        if waiting.needs.is_some() {
            waiting.refusal = Some(reason.to_owned());
        }
    }

    fn take(&self) -> (Vec<Request>, Option<String>) {
        let mut waiting = self.waiting();
        waiting.needs = None;
        let refusal = waiting.refusal.take();
        let (mut requests, mut bytes, mut blobs) = (Vec::new(), 0, 0);
        while let Some(request) = waiting.requests.pop_front() {
            bytes += request.bytes();
            blobs += request.blobs.len();
            requests.push(request);
            // After a refusal the first request is the one that is meant.
            if bytes >= COMMIT_BYTES || blobs >= COMMIT_BLOBS || refusal.is_some() {
                break;
            }
        }
        (requests, refusal)
    }

    /// Puts requests back to the front.
    fn put_back(&self, requests: Vec<Request>, needs: u64) {
        let mut waiting = self.waiting();
        for request in requests.into_iter().rev() {
            waiting.requests.push_front(request);
        }
        waiting.needs = Some(needs);
    }
}

/// What a commit is to write: each blob once, whoever put it.
#[derive(Debug)]
struct Batch<'a> {
    news: Vec<New<'a>>,
    /// Where in `news` each blob of the requests is, one request behind the other. `None` if it was there already.
    at: Vec<Option<usize>>,
}

impl Batch<'_> {
    /// Puts the smallest blobs first.
    fn order_by_size(&mut self) {
        let size = |at: &usize| self.news[*at].blob.digest().size_bytes();
        let mut order: Vec<usize> = (0..self.news.len()).collect();
        order.sort_by_key(size);
        let mut place = vec![0; order.len()];
        for (to, from) in order.iter().enumerate() {
            place[*from] = to;
        }
        self.news.sort_by_key(|new| new.blob.digest().size_bytes());
        for at in self.at.iter_mut().flatten() {
            *at = place[*at];
        }
    }

    /// What to answer to each of the requests, given the outcomes of `news`.
    fn answers(&self, requests: &[Request], outcomes: &[Result<()>]) -> Vec<Vec<Result<()>>> {
        let mut places = self.at.iter();
        let answer = |at: &Option<usize>| match at.map(|at| &outcomes[at]) {
            Some(Err(error)) => Err(error.again()),
            Some(Ok(())) | None => Ok(()),
        };
        let answers = |request: &Request| places.by_ref().take(request.blobs.len()).map(answer).collect();
        requests.iter().map(answers).collect()
    }
}

/// There is less room than these bytes, which writing takes.
struct NeedsRoom(u64);

impl Engine {
    pub(super) fn step_commit(&self) -> Next {
        if self.durability == Durability::Always && self.queue.is_gathering() {
            return Next::Soon;
        }
        let (mut requests, refusal) = self.queue.take();
        if requests.is_empty() {
            return Next::Idle;
        }
        if let Err(error) = self.check_gate() {
            for request in requests {
                request.refuse(|| error.again());
            }
            return Next::Again;
        }
        let answers = loop {
            let needs = match self.commit_all(&requests) {
                Ok(answers) => break answers,
                Err(NeedsRoom(bytes)) => bytes,
            };
            let last = requests.pop().expect("what needs nothing is held");
            let is_first = requests.is_empty();
            if let (true, Some(reason)) = (is_first, &refusal) {
                self.commit_what_fits(last, reason);
                return Next::Again;
            }
            self.queue.put_back(vec![last], needs);
            if is_first {
                self.waker.wake(Lane::Upkeep);
                return Next::Idle;
            }
        };
        self.queue.note_served(requests.len());
        answer_all(requests, answers);
        self.wake_upkeep_if_low();
        Next::Again
    }

    /// Stores what `requests` put, if there is room for it, and tells what to answer to each.
    fn commit_all(&self, requests: &[Request]) -> std::result::Result<Vec<Vec<Result<()>>>, NeedsRoom> {
        let batch = self.batch(requests);
        let needs = self.growth(&batch.news);
        let _held = self.budget.hold(needs).ok_or(NeedsRoom(needs))?;
        let outcomes = self.commit(&batch);
        Ok(batch.answers(requests, &outcomes))
    }

    /// Stores what there is room for of a request, now that no more room can be made: the smallest blobs, which are the most.
    fn commit_what_fits(&self, request: Request, reason: &str) {
        let requests = [request];
        let mut batch = self.batch(&requests);
        batch.order_by_size();
        let room = self.budget.room();
        let counts: Vec<usize> = (1..=batch.news.len()).collect();
        let fitting = counts.partition_point(|count| self.growth(&batch.news[..*count]) <= room);
        let held = self.budget.hold(self.growth(&batch.news[..fitting]));
        let refused = batch.news.split_off(if held.is_some() { fitting } else { 0 });
        let refuse = |new: New<'_>| Err(Error::new(ErrorKind::Exhausted, "put", reason).on(new.blob.digest()));
        let mut outcomes = self.commit(&batch);
        outcomes.extend(refused.into_iter().map(refuse));
        let answers = batch.answers(&requests, &outcomes);
        answer_all(requests, answers);
    }

    /// What of `requests` is not stored yet.
    fn batch<'a>(&self, requests: &'a [Request]) -> Batch<'a> {
        let used = self.tick();
        let blobs = || requests.iter().flat_map(|request| &request.blobs);
        let digests: Vec<Digest> = blobs().map(Verified::digest).collect();
        let mut news = Vec::with_capacity(digests.len());
        let mut named = DigestMap::with_capacity_and_hasher(digests.len(), Secret::default());
        let place = |(blob, is_absent): (&'a Verified, bool)| {
            is_absent.then(|| {
                *named.entry(blob.digest()).or_insert_with(|| {
                    news.push(New { blob, used });
                    news.len() - 1
                })
            })
        };
        let at = blobs().zip(self.are_absent(&digests)).map(place).collect();
        Batch { news, at }
    }

    /// Bytes of disk that writing `news` takes, beyond what their spool files take already.
    fn growth(&self, news: &[New<'_>]) -> u64 {
        if news.is_empty() {
            return 0;
        }
        let mut sizes = news.iter().map(|new| new.blob.digest().size_bytes());
        let growth = self.layout.growth(&mut sizes);
        let is_given = |new: &&New<'_>| {
            let is_large = new.blob.digest().size_bytes() > self.facts.file_above_bytes;
            is_large && matches!(new.blob.content(), Content::Spooled(_))
        };
        let given = news.iter().filter(is_given).map(|new| new.blob.digest().size_bytes());
        growth.saturating_sub(given.sum())
    }

    /// Writes a batch, makes it durable if that is promised, and enters it into the index.
    fn commit(&self, batch: &Batch<'_>) -> Vec<Result<()>> {
        if batch.news.is_empty() {
            return Vec::new();
        }
        let _entering = self.entering();
        let places = self.write(&batch.news);
        self.counters().commits += 1;
        if self.durability == Durability::Always
            && let Err(error) = self.sync_layout()
        {
            if error.kind() == ErrorKind::Exhausted {
                self.take_back(&batch.news, &places);
            }
            return batch
                .news
                .iter()
                .map(|new| Err(error.again().on(new.blob.digest())))
                .collect();
        }
        let enter = |(new, place): (&New<'_>, io::Result<Place>)| self.enter(new, place);
        batch.news.iter().zip(places).map(enter).collect()
    }

    /// Gives up what was written and could not be synced, since nobody is told of it.
    fn take_back(&self, news: &[New<'_>], places: &[io::Result<Place>]) {
        let written = news.iter().zip(places);
        let written = written.filter_map(|(new, place)| Some((new.blob.digest(), *place.as_ref().ok()?)));
        if let Err(error) = self.layout.remove(&written.collect::<Vec<_>>()) {
            tracing::warn!(%error, "what could not be synced takes room until the next start");
        }
    }

    fn enter(&self, new: &New<'_>, place: io::Result<Place>) -> Result<()> {
        let digest = new.blob.digest();
        let place = place.map_err(|error| Error::io("put", "writing the blob", error).on(digest))?;
        let entry = Entry {
            place,
            checksum: new.blob.checksum(),
            used: new.used,
            flags: Flags::VERIFIED.with(Flags::CHECKSUMMED),
        };
        self.index.insert(&digest, entry)?;
        Ok(())
    }
}

fn answer_all(requests: impl IntoIterator<Item = Request>, answers: Vec<Vec<Result<()>>>) {
    for (request, answers) in requests.into_iter().zip(answers) {
        request.answer(answers);
    }
}
