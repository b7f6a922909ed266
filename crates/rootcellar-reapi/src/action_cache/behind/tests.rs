use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use rootcellar_digest::{DigestFunction, DigestSet};
use rootcellar_proto::reapi;
use rootcellar_store::testing::ManualClock;
use rootcellar_store::{Error as StoreError, ErrorKind as StoreErrorKind, MemoryRecords, Records as _};

use super::*;
use crate::action_cache::{ActionCache, ActionCacheOptions, KIND};
use crate::forgetful_store::ForgetfulStore;
use crate::functions;

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Another server: its blobs, and its results, of which it takes none before their blobs.
#[derive(Debug, Default)]
struct Elsewhere {
    blobs: Mutex<DigestSet>,
    results: Mutex<HashMap<Digest, reapi::ActionResult>>,
    is_down: AtomicBool,
    is_left_alone: AtomicBool,
    asked: AtomicU64,
    /// Results that it refuses whatever happens.
    refused: Mutex<DigestSet>,
    /// Results that it does not take for now.
    not_now: Mutex<DigestSet>,
    /// Blobs that are lost.
    nowhere: Mutex<DigestSet>,
    /// A put that was begun waits for this.
    gate: tokio::sync::Mutex<()>,
    /// A question that was answered waits for this before the answer arrives.
    late: tokio::sync::Mutex<()>,
    puts_begun: AtomicU64,
}

impl Elsewhere {
    fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    fn answer(&self) -> Result<()> {
        match self.is_down.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Unavailable, "down")),
            false => Ok(()),
        }
    }

    fn result(&self, action: Digest) -> Option<reapi::ActionResult> {
        self.results.lock().unwrap().get(&action).cloned()
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("elsewhere")
    }
}

#[async_trait]
impl ActionResults for Elsewhere {
    async fn get(&self, action: Digest) -> Result<Option<reapi::ActionResult>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.answer()?;
        let answer = self.result(action);
        drop(self.late.lock().await);
        Ok(answer)
    }

    async fn put(&self, action: Digest, result: reapi::ActionResult) -> Result<()> {
        self.answer()?;
        self.puts_begun.fetch_add(1, Ordering::Relaxed);
        drop(self.gate.lock().await);
        if self.refused.lock().unwrap().contains(&action) {
            return Err(Error::invalid_argument("never"));
        }
        if self.not_now.lock().unwrap().contains(&action) {
            return Err(Error::resource_exhausted("not now"));
        }
        for file in &result.output_files {
            let digest = functions::from_proto(FUNCTION, file.digest.as_ref().unwrap()).unwrap();
            assert!(
                self.blobs.lock().unwrap().contains(&digest),
                "a result came before its blobs"
            );
        }
        self.results.lock().unwrap().insert(action, result);
        Ok(())
    }
}

#[async_trait]
impl UpstreamBlobs for Elsewhere {
    async fn write_out(&self, digests: &[Digest]) -> rootcellar_store::Result<Vec<Digest>> {
        if self.answer().is_err() {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "find missing", "down"));
        }
        if digests.iter().any(|digest| digest.function() != FUNCTION) {
            return Err(StoreError::new(
                StoreErrorKind::InvalidArgument,
                "find missing",
                "unknown function",
            ));
        }
        let nowhere = self.nowhere.lock().unwrap().clone();
        self.blobs.lock().unwrap().extend(digests);
        Ok(digests
            .iter()
            .copied()
            .filter(|digest| nowhere.contains(digest))
            .collect())
    }

    async fn is_here(&self, digest: Digest) -> rootcellar_store::Result<bool> {
        Ok(!self.nowhere.lock().unwrap().contains(&digest))
    }

    fn is_failing(&self) -> bool {
        self.is_left_alone.load(Ordering::Relaxed)
    }

    fn may_be_asked(&self) -> bool {
        !self.is_failing()
    }

    fn note_answer(&self, has_answered: bool) {
        self.is_left_alone.store(!has_answered, Ordering::Relaxed);
    }
}

struct Setup {
    elsewhere: Arc<Elsewhere>,
    store: Arc<ForgetfulStore>,
    records: Arc<MemoryRecords>,
    options: ResultsBehindOptions,
    _dir: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            elsewhere: Arc::default(),
            store: Arc::new(ForgetfulStore::new()),
            records: Arc::new(MemoryRecords::new(1 << 20, Arc::new(ManualClock::default()))),
            options: ResultsBehindOptions::new(dir.path().join("list")),
            _dir: dir,
        }
    }

    async fn front(&self) -> ActionCache {
        let cache = ActionCache::new(self.records.clone(), self.store.clone(), ActionCacheOptions::default());
        let blobs = vec![self.elsewhere.clone() as _];
        cache
            .with_upstream_behind(self.elsewhere.clone(), blobs, &self.options)
            .await
            .unwrap()
    }

    /// A result with a file of its own.
    async fn result(&self, content: &str) -> reapi::ActionResult {
        let digest = self.store.keep(FUNCTION, content.to_owned()).await;
        let file = reapi::OutputFile {
            path: content.to_owned(),
            digest: Some(functions::to_proto(digest)),
            ..Default::default()
        };
        reapi::ActionResult {
            output_files: vec![file],
            ..Default::default()
        }
    }
}

fn action(number: u32) -> Digest {
    Digest::of(FUNCTION, format!("action {number}").as_bytes())
}

fn statistics(front: &ActionCache) -> ResultsBehindStatistics {
    front.behind_statistics().unwrap()
}

/// Waits until nothing waits.
async fn settle(front: &ActionCache) {
    settle_but(front, 0).await;
}

/// Waits until no more than so many results wait.
async fn settle_but(front: &ActionCache, results: usize) {
    let settled = async {
        while statistics(front).results > results {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(60), settled).await;
    outcome.unwrap_or_else(|_| panic!("{:?}", statistics(front)));
}

#[tokio::test]
async fn a_result_is_served_at_once_and_gets_there_after_its_blobs_when_it_can() {
    let setup = Setup::new();
    let front = setup.front().await;
    setup.elsewhere.set_down(true);
    let mut results = Vec::new();
    for number in 0..20 {
        let result = setup.result(&number.to_string()).await;
        front.put(action(number), result.clone()).await.unwrap();
        assert_eq!(front.get(action(number)).await.unwrap(), Some(result.clone()));
        results.push(result);
    }
    assert_eq!(statistics(&front).results, 20);
    setup.elsewhere.set_down(false);
    settle(&front).await;
    for (number, result) in (0..).zip(results) {
        assert_eq!(setup.elsewhere.result(action(number)), Some(result.clone()));
        assert_eq!(front.get(action(number)).await.unwrap(), Some(result));
    }
    let statistics = statistics(&front);
    assert_eq!((statistics.written, statistics.lost), (20, 0));
    assert!(statistics.failures > 0);
}

#[tokio::test]
async fn what_waits_survives_the_process_and_is_written_once() {
    let setup = Setup::new();
    setup.elsewhere.set_down(true);
    let result = setup.result("content").await;
    let front = setup.front().await;
    front.put(action(1), result.clone()).await.unwrap();
    front.close().await;
    drop(front);
    let front = setup.front().await;
    assert_eq!(statistics(&front).results, 1);
    assert_eq!(front.get(action(1)).await.unwrap(), Some(result.clone()));
    setup.elsewhere.set_down(false);
    settle(&front).await;
    assert_eq!(setup.elsewhere.result(action(1)), Some(result));
    front.close().await;
    drop(front);
    assert_eq!(statistics(&setup.front().await).results, 0, "it is not written again");
}

#[tokio::test]
async fn a_result_that_comes_while_an_earlier_one_is_written_takes_its_place() {
    let setup = Setup::new();
    let front = setup.front().await;
    let (earlier, later) = (setup.result("earlier").await, setup.result("later").await);
    let gate = setup.elsewhere.gate.lock().await;
    front.put(action(1), earlier).await.unwrap();
    while setup.elsewhere.puts_begun.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    front.put(action(1), later.clone()).await.unwrap();
    assert_eq!(front.get(action(1)).await.unwrap(), Some(later.clone()));
    drop(gate);
    settle(&front).await;
    assert_eq!(setup.elsewhere.result(action(1)), Some(later));
    assert_eq!(statistics(&front).written, 2);
    front.close().await;
    drop(front);
    assert_eq!(statistics(&setup.front().await).results, 0, "both are done");
}

#[tokio::test]
async fn an_older_answer_that_arrives_late_does_not_take_the_place_of_what_was_put_meanwhile() {
    let setup = Setup::new();
    let front = setup.front().await;
    let (older, newer) = (setup.result("older").await, setup.result("newer").await);
    setup.elsewhere.results.lock().unwrap().insert(action(1), older);
    let (late, gate) = (setup.elsewhere.late.lock().await, setup.elsewhere.gate.lock().await);
    let asking = tokio::spawn({
        let front = front.clone();
        async move { front.get(action(1)).await }
    });
    while setup.elsewhere.asked.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    front.put(action(1), newer.clone()).await.unwrap();
    drop(late);
    assert_eq!(asking.await.unwrap().unwrap(), Some(newer.clone()));
    drop(gate);
    settle(&front).await;
    assert_eq!(setup.elsewhere.result(action(1)), Some(newer));
}

#[tokio::test]
async fn a_result_that_is_not_taken_for_now_holds_up_no_others_and_is_tried_again() {
    let setup = Setup::new();
    let front = setup.front().await;
    setup.elsewhere.not_now.lock().unwrap().extend((0..20).map(action));
    for number in 0..40 {
        front.put(action(number), setup.result("content").await).await.unwrap();
    }
    settle_but(&front, 20).await;
    assert_eq!(statistics(&front).written, 20);
    setup.elsewhere.not_now.lock().unwrap().clear();
    settle(&front).await;
    assert_eq!((statistics(&front).written, statistics(&front).lost), (40, 0));
}

#[tokio::test]
async fn puts_of_one_action_take_the_room_of_one() {
    let mut setup = Setup::new();
    setup.options = setup
        .options
        .with_results_max(2)
        .with_patience(Duration::from_millis(100));
    let front = setup.front().await;
    setup.elsewhere.set_down(true);
    for number in 0..10 {
        front
            .put(action(1), setup.result(&number.to_string()).await)
            .await
            .unwrap();
    }
    front.close().await;
    drop(front);
    let front = setup.front().await;
    assert_eq!(statistics(&front).results, 1);
    setup.elsewhere.set_down(false);
    settle(&front).await;
    assert_eq!(setup.elsewhere.result(action(1)), Some(setup.result("9").await));
}

#[tokio::test]
async fn what_an_earlier_process_left_takes_as_much_room_as_it_did() {
    let mut setup = Setup::new();
    // Room for one record of the greatest length, or for some ten of these.
    setup.options = setup.options.with_patience(Duration::from_millis(100));
    setup.options.bytes_max = 45 << 10;
    setup.elsewhere.set_down(true);
    let front = setup.front().await;
    for number in 0..10 {
        front.put(action(number), setup.result("content").await).await.unwrap();
    }
    front.close().await;
    drop(front);
    let front = setup.front().await;
    assert_eq!(statistics(&front).results, 10);
    front.put(action(10), setup.result("content").await).await.unwrap();
}

#[tokio::test]
async fn when_no_more_may_wait_a_put_waits_and_is_refused() {
    let mut setup = Setup::new();
    setup.options = setup
        .options
        .with_results_max(2)
        .with_patience(Duration::from_millis(100));
    let front = setup.front().await;
    setup.elsewhere.set_down(true);
    for number in [1, 2] {
        front.put(action(number), setup.result("content").await).await.unwrap();
    }
    let error = front.put(action(3), setup.result("content").await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("2 action results wait"), "{error}");
    assert_eq!(statistics(&front).refused, 1);
    setup.elsewhere.set_down(false);
    settle(&front).await;
    front.put(action(3), setup.result("content").await).await.unwrap();
    settle(&front).await;
    assert!(setup.elsewhere.result(action(3)).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_ever_is_counted_and_does_not_hold_up_the_others() {
    let setup = Setup::new();
    let front = setup.front().await;
    setup.elsewhere.set_down(true);
    for number in 0..3 {
        front.put(action(number), setup.result("content").await).await.unwrap();
    }
    setup.elsewhere.refused.lock().unwrap().insert(action(0));
    setup.records.remove(KIND, &digest_list::key(action(1))).await.unwrap();
    let lost = setup.result("lost").await;
    front.put(action(3), lost.clone()).await.unwrap();
    let lost = functions::from_proto(FUNCTION, lost.output_files[0].digest.as_ref().unwrap());
    setup.elsewhere.nowhere.lock().unwrap().insert(lost.unwrap());
    let of_another_function = Digest::of(DigestFunction::Blake3, b"action");
    let blob = setup.store.keep(DigestFunction::Blake3, "content").await;
    let result = reapi::ActionResult {
        stdout_digest: Some(functions::to_proto(blob)),
        ..Default::default()
    };
    front.put(of_another_function, result).await.unwrap();
    setup.elsewhere.set_down(false);
    settle(&front).await;
    assert!(setup.elsewhere.result(action(2)).is_some());
    assert!(setup.elsewhere.result(action(3)).is_none());
    let statistics = statistics(&front);
    assert_eq!((statistics.written, statistics.lost), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn results_that_are_refused_again_and_again_give_way_to_others() {
    let mut setup = Setup::new();
    setup.options = setup.options.with_results_max(10).with_patience(Duration::from_secs(1));
    let front = setup.front().await;
    setup.elsewhere.not_now.lock().unwrap().extend((0..10).map(action));
    for number in 0..10 {
        front.put(action(number), setup.result("content").await).await.unwrap();
    }
    let put = async |number| front.put(action(number), setup.result("content").await).await;
    put(10).await.unwrap_err();
    assert_eq!(statistics(&front).lost, 1);
    put(10).await.unwrap();
    settle_but(&front, 9).await;
    assert!(setup.elsewhere.result(action(10)).is_some());
    assert_eq!(statistics(&front).lost, 1);
}

#[tokio::test]
async fn while_nobody_answers_there_what_is_kept_here_is_served_if_it_is_complete() {
    let setup = Setup::new();
    let front = setup.front().await;
    let (known, newer) = (setup.result("known").await, setup.result("newer").await);
    for number in [1, 2] {
        front.put(action(number), known.clone()).await.unwrap();
    }
    settle(&front).await;
    setup.elsewhere.set_down(true);
    let asked = setup.elsewhere.asked.load(Ordering::Relaxed);
    assert_eq!(front.get(action(1)).await.unwrap(), Some(known.clone()));
    assert_eq!(front.get(action(3)).await.unwrap(), None);
    assert_eq!(
        setup.elsewhere.asked.load(Ordering::Relaxed),
        asked + 1,
        "then it is left alone"
    );
    setup
        .store
        .forget(functions::from_proto(FUNCTION, known.output_files[0].digest.as_ref().unwrap()).unwrap());
    assert_eq!(front.get(action(2)).await.unwrap(), None, "a blob is missing");
    setup.elsewhere.set_down(false);
    setup.elsewhere.note_answer(true);
    setup.elsewhere.results.lock().unwrap().insert(action(1), newer.clone());
    assert_eq!(front.get(action(1)).await.unwrap(), Some(newer));
}
