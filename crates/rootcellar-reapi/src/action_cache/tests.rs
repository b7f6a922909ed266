use std::time::Duration;

use proptest::prelude::*;
use rootcellar_digest::DigestFunction;
use rootcellar_store::testing::ManualClock;
use rootcellar_store::{Kept, MemoryRecords, Record};

use super::*;
use crate::forgetful_store::ForgetfulStore;
use crate::{ErrorKind, functions};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

struct Setup {
    cache: ActionCache,
    store: Arc<ForgetfulStore>,
    records: Arc<MemoryRecords>,
}

fn setup_with(options: ActionCacheOptions) -> Setup {
    let store = Arc::new(ForgetfulStore::new());
    let records = Arc::new(MemoryRecords::new(64 << 20, Arc::new(ManualClock::default())));
    Setup {
        cache: ActionCache::new(records.clone(), store.clone(), options),
        store,
        records,
    }
}

fn setup() -> Setup {
    setup_with(ActionCacheOptions::default())
}

fn action_digest() -> Digest {
    Digest::of(FUNCTION, b"an action that nobody uploaded")
}

fn with_exit_code(exit_code: i32) -> reapi::ActionResult {
    reapi::ActionResult {
        exit_code,
        ..Default::default()
    }
}

fn with_stdout(stdout: Digest) -> reapi::ActionResult {
    reapi::ActionResult {
        stdout_digest: Some(functions::to_proto(stdout)),
        ..with_exit_code(0)
    }
}

/// A result with `count` output files, all in the store.
async fn with_files(store: &ForgetfulStore, count: usize) -> (reapi::ActionResult, Vec<Digest>) {
    let mut result = reapi::ActionResult::default();
    let mut digests = Vec::new();
    for number in 0..count {
        let digest = store.keep(FUNCTION, number.to_string()).await;
        digests.push(digest);
        result.output_files.push(reapi::OutputFile {
            path: number.to_string(),
            digest: Some(functions::to_proto(digest)),
            ..Default::default()
        });
    }
    digests.sort_unstable();
    (result, digests)
}

/// Uploads an action and loads it.
async fn load(store: &ForgetfulStore, do_not_cache: bool) -> LoadedAction {
    let command = reapi::Command {
        arguments: vec!["true".to_owned()],
        ..Default::default()
    };
    let command = store.keep_message(FUNCTION, &command).await;
    let action = reapi::Action {
        command_digest: Some(functions::to_proto(command)),
        input_root_digest: Some(functions::to_proto(Digest::empty(FUNCTION))),
        do_not_cache,
        ..Default::default()
    };
    let digest = store.keep_message(FUNCTION, &action).await;
    LoadedAction::load(store, digest, &ActionLimits::default())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_result_reads_back_as_it_was_put() {
    let Setup { cache, store, .. } = setup();
    let (result, _) = with_files(&store, 3).await;
    assert_eq!(cache.get(action_digest()).await.unwrap(), None);
    assert_eq!(cache.put(action_digest(), result.clone()).await.unwrap(), result);
    assert_eq!(cache.get(action_digest()).await.unwrap(), Some(result));
}

#[tokio::test]
async fn a_later_result_replaces_an_earlier_one() {
    let Setup { cache, .. } = setup();
    for exit_code in [1, 2] {
        cache.put(action_digest(), with_exit_code(exit_code)).await.unwrap();
    }
    assert_eq!(cache.get(action_digest()).await.unwrap(), Some(with_exit_code(2)));
}

#[tokio::test]
async fn the_function_and_the_size_are_part_of_the_key() {
    let Setup { cache, .. } = setup();
    let digest = action_digest();
    cache.put(digest, with_exit_code(7)).await.unwrap();
    for function in [DigestFunction::Blake3, DigestFunction::Sha256Tree] {
        let namesake = Digest::new(function, digest.hash(), digest.size_bytes()).unwrap();
        assert_eq!(cache.get(namesake).await.unwrap(), None);
    }
    let longer = Digest::new(FUNCTION, digest.hash(), digest.size_bytes() + 1).unwrap();
    assert_eq!(cache.get(longer).await.unwrap(), None);
}

#[tokio::test]
async fn a_result_is_served_only_while_all_its_blobs_are_there() {
    let Setup { cache, store, .. } = setup();
    let (result, digests) = with_files(&store, 3).await;
    cache.put(action_digest(), result.clone()).await.unwrap();
    for (number, digest) in (0..3).map(|number| (number, Digest::of(FUNCTION, number.to_string().as_bytes()))) {
        assert!(digests.contains(&digest));
        store.forget(digest);
        assert_eq!(cache.get(action_digest()).await.unwrap(), None, "without file {number}");
        store.keep(FUNCTION, number.to_string()).await;
        assert_eq!(cache.get(action_digest()).await.unwrap(), Some(result.clone()));
    }
}

#[tokio::test]
async fn a_hit_asks_the_store_once_and_uses_every_blob() {
    let Setup { cache, store, .. } = setup();
    let action = load(&store, false).await;
    let (result, digests) = with_files(&store, 50).await;
    cache.put(action.digest, result).await.unwrap();
    store.take_asked();
    cache.get(action.digest).await.unwrap().unwrap();
    assert_eq!(store.take_asked(), [digests]);
}

/// Puts a result of 50 files of an action that was uploaded, and asks for it once, in a store that answers for moments.
async fn known_complete(kept: Kept) -> (Setup, Digest, Vec<Digest>) {
    let setup = setup();
    setup.store.say_kept(kept);
    let action = load(&setup.store, false).await;
    let (result, digests) = with_files(&setup.store, 50).await;
    setup.cache.put(action.digest, result).await.unwrap();
    setup.cache.get(action.digest).await.unwrap().unwrap();
    setup.store.take_asked();
    (setup, action.digest, digests)
}

#[tokio::test]
async fn a_result_that_is_known_to_be_complete_is_not_looked_through_again() {
    let (Setup { cache, store, .. }, action, digests) = known_complete(Kept::All).await;
    assert!(cache.get(action).await.unwrap().is_some());
    assert!(store.take_asked().is_empty());
    store.forget(digests[7]);
    assert_eq!(cache.get(action).await.unwrap(), None, "a blob was lost since");
}

#[tokio::test]
async fn another_result_in_its_place_is_looked_through() {
    let (Setup { cache, store, .. }, action, _) = known_complete(Kept::All).await;
    let (other, digests) = with_files(&store, 20).await;
    cache.put(action, other.clone()).await.unwrap();
    store.take_asked();
    assert_eq!(cache.get(action).await.unwrap(), Some(other));
    assert_eq!(store.take_asked(), [digests]);
}

#[tokio::test]
async fn blobs_used_long_ago_are_used_again_without_delaying_the_hit() {
    let (Setup { cache, store, .. }, action, digests) = known_complete(Kept::AllUsedLongAgo).await;
    for _hit in 0..3 {
        assert!(cache.get(action).await.unwrap().is_some());
    }
    assert!(store.take_asked().is_empty(), "nothing was waited for");
    let mut renewals = std::mem::take(&mut *cache.renewals.lock().unwrap());
    while let Some(outcome) = renewals.join_next().await {
        outcome.unwrap();
    }
    assert_eq!(store.take_asked(), [digests], "three hits renew once");
}

#[tokio::test]
async fn a_closure_too_long_for_a_record_is_kept_alive_with_its_result() {
    let Setup { cache, store, .. } = setup();
    let (result, digests) = with_files(&store, 3000).await;
    cache.put(action_digest(), result.clone()).await.unwrap();
    store.take_asked();
    assert_eq!(cache.get(action_digest()).await.unwrap(), Some(result));
    let asked = store.take_asked().concat();
    let list = asked.iter().find(|digest| !digests.contains(digest)).unwrap();
    assert_eq!(asked.len(), digests.len() + 1);
    store.forget(*list);
    assert_eq!(cache.get(action_digest()).await.unwrap(), None);
}

#[tokio::test]
async fn a_result_without_its_blobs_is_not_taken() {
    let Setup { cache, .. } = setup();
    let absent = Digest::of(FUNCTION, b"absent");
    let error = cache.put(action_digest(), with_stdout(absent)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert_eq!(error.missing(), [absent]);
    assert_eq!(cache.get(action_digest()).await.unwrap(), None);
}

#[tokio::test]
async fn what_a_client_inlined_is_kept_as_a_blob() {
    let Setup { cache, store, .. } = setup();
    let sent = reapi::ActionResult {
        stdout_raw: "hello".into(),
        ..with_exit_code(0)
    };
    let kept = cache.put(action_digest(), sent).await.unwrap();
    let stdout = Digest::of(FUNCTION, b"hello");
    assert_eq!(kept, with_stdout(stdout));
    assert_eq!(store.find_missing(&[stdout]).await.unwrap(), []);
}

#[tokio::test]
async fn no_result_is_encoded_as_nothing() {
    let Setup { cache, .. } = setup();
    let kept = cache
        .put(action_digest(), reapi::ActionResult::default())
        .await
        .unwrap();
    assert!(kept.encoded_len() > 0);
    assert_eq!(cache.get(action_digest()).await.unwrap(), Some(kept));
}

#[tokio::test]
async fn no_result_is_kept_of_an_action_that_forbids_it() {
    let Setup { cache, store, .. } = setup();
    let action = load(&store, true).await;
    let error = cache.put(action.digest, with_exit_code(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        !cache
            .put_executed(&action, &with_stdout(Digest::empty(FUNCTION)))
            .await
            .unwrap()
    );
    assert_eq!(cache.get(action.digest).await.unwrap(), None);
}

#[tokio::test]
async fn an_action_that_forbids_caching_may_come_after_its_result() {
    let Setup { cache, store, .. } = setup();
    let action = load(&store, true).await;
    store.forget(action.digest);
    cache.put(action.digest, with_exit_code(3)).await.unwrap();
    assert_eq!(cache.get(action.digest).await.unwrap(), Some(with_exit_code(3)));
    assert_eq!(cache.get_for_execution(&action).await.unwrap(), None);
    load(&store, true).await;
    assert_eq!(cache.get(action.digest).await.unwrap(), None);
}

#[tokio::test]
async fn failures_of_executions_are_not_kept_unless_that_is_wished() {
    for keep_failures in [false, true] {
        let Setup { cache, store, .. } = setup_with(ActionCacheOptions {
            keep_failures,
            ..Default::default()
        });
        let action = load(&store, false).await;
        let kept = cache.put_executed(&action, &with_exit_code(1)).await.unwrap();
        assert_eq!(kept, keep_failures);
        assert_eq!(cache.get(action.digest).await.unwrap().is_some(), keep_failures);
    }
}

#[tokio::test]
async fn a_failure_that_a_client_stored_is_read_back_but_answers_no_execution() {
    let Setup { cache, store, .. } = setup();
    let action = load(&store, false).await;
    cache.put(action.digest, with_exit_code(1)).await.unwrap();
    assert_eq!(cache.get(action.digest).await.unwrap(), Some(with_exit_code(1)));
    assert_eq!(cache.get_for_execution(&action).await.unwrap(), None);
    let success = with_stdout(Digest::empty(FUNCTION));
    assert!(cache.put_executed(&action, &success).await.unwrap());
    assert_eq!(cache.get_for_execution(&action).await.unwrap(), Some(success));
}

#[tokio::test]
async fn a_result_that_fits_into_no_message_is_refused() {
    let Setup { cache, .. } = setup_with(ActionCacheOptions {
        result_bytes_max: 100,
        ..Default::default()
    });
    let metadata = |len| reapi::ExecutedActionMetadata {
        worker: "w".repeat(len),
        ..Default::default()
    };
    let result = |len| reapi::ActionResult {
        execution_metadata: Some(metadata(len)),
        ..Default::default()
    };
    let error = cache.put(action_digest(), result(100)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    cache.put(action_digest(), result(90)).await.unwrap();
}

#[tokio::test]
async fn a_damaged_entry_is_a_miss_and_is_dropped() {
    let Setup { cache, records, .. } = setup();
    let key = digest_list::key(action_digest());
    let record = Record {
        value: Bytes::from_static(b"\0\x01rubbish"),
        expires: None,
    };
    records.put(KIND, &key, record).await.unwrap();
    assert_eq!(cache.get(action_digest()).await.unwrap(), None);
    assert_eq!(records.get(KIND, &key).await.unwrap(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Put { action: u8, blobs: Vec<u8> },
    Forget(u8),
    Keep(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let blob = 0..6u8;
    let step = prop_oneof![
        (0..3u8, proptest::collection::vec(blob.clone(), 0..4)).prop_map(|(action, blobs)| Step::Put { action, blobs }),
        blob.clone().prop_map(Step::Forget),
        blob.prop_map(Step::Keep),
    ];
    proptest::collection::vec(step, 0..40)
}

fn of_number(number: u8) -> Digest {
    Digest::of(FUNCTION, &[number])
}

/// What the cache should hold: the latest accepted result of each action, and the blobs that are there.
#[derive(Default)]
struct Model {
    results: std::collections::BTreeMap<u8, Vec<u8>>,
    blobs: std::collections::BTreeSet<u8>,
}

impl Model {
    fn put(&mut self, action: u8, blobs: &[u8]) -> bool {
        let is_complete = self.has_all(blobs);
        if is_complete {
            self.results.insert(action, blobs.to_vec());
        }
        is_complete
    }

    fn has_all(&self, blobs: &[u8]) -> bool {
        blobs.iter().all(|blob| self.blobs.contains(blob))
    }

    fn served(&self, action: u8) -> Option<&Vec<u8>> {
        self.results.get(&action).filter(|blobs| self.has_all(blobs))
    }
}

fn of_blobs(blobs: &[u8]) -> reapi::ActionResult {
    let file = |number: &u8| reapi::OutputFile {
        path: number.to_string(),
        digest: Some(functions::to_proto(of_number(*number))),
        ..Default::default()
    };
    reapi::ActionResult {
        exit_code: 1,
        output_files: blobs.iter().map(file).collect(),
        ..Default::default()
    }
}

async fn follow(steps: &[Step]) {
    let Setup { cache, store, .. } = setup();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Put { action, blobs } => {
                let outcome = cache.put(of_number(100 + action), of_blobs(blobs)).await;
                assert_eq!(outcome.is_ok(), model.put(*action, blobs));
            }
            Step::Forget(blob) => {
                store.forget(of_number(*blob));
                model.blobs.remove(blob);
            }
            Step::Keep(blob) => {
                store.keep(FUNCTION, vec![*blob]).await;
                model.blobs.insert(*blob);
            }
        }
        for action in 0..3 {
            let served = cache.get(of_number(100 + action)).await.unwrap();
            assert_eq!(served, model.served(action).map(|blobs| of_blobs(blobs)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_served_is_always_the_latest_result_and_complete(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(follow(&steps));
    }
}

#[tokio::test]
async fn an_entry_has_no_end_of_its_own() {
    let clock = Arc::new(ManualClock::default());
    let store = Arc::new(ForgetfulStore::new());
    let records = Arc::new(MemoryRecords::new(1 << 20, clock.clone()));
    let cache = ActionCache::new(records, store, ActionCacheOptions::default());
    cache.put(action_digest(), with_exit_code(1)).await.unwrap();
    clock.advance(Duration::from_secs(10 * 365 * 86_400));
    assert!(cache.get(action_digest()).await.unwrap().is_some());
}

/// Results in memory, of another server as it were, which checks nothing.
#[derive(Debug, Default)]
struct Elsewhere {
    results: Mutex<std::collections::HashMap<Digest, reapi::ActionResult>>,
    is_down: std::sync::atomic::AtomicBool,
}

impl Elsewhere {
    fn answer(&self) -> Result<std::sync::MutexGuard<'_, std::collections::HashMap<Digest, reapi::ActionResult>>> {
        match self.is_down.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Unavailable, "down")),
            false => Ok(self.results.lock().unwrap()),
        }
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("elsewhere")
    }
}

#[async_trait::async_trait]
impl ActionResults for Elsewhere {
    async fn get(&self, action: Digest) -> Result<Option<reapi::ActionResult>> {
        Ok(self.answer()?.get(&action).cloned())
    }

    async fn put(&self, action: Digest, result: reapi::ActionResult) -> Result<()> {
        self.answer()?.insert(action, result);
        Ok(())
    }
}

/// Two caches whose results are elsewhere, over one store.
fn two_fronts() -> (Arc<Elsewhere>, Arc<ForgetfulStore>, [ActionCache; 2]) {
    let (elsewhere, store) = (Arc::new(Elsewhere::default()), Arc::new(ForgetfulStore::new()));
    let front = || {
        let records = Arc::new(MemoryRecords::new(1 << 20, Arc::new(ManualClock::default())));
        ActionCache::new(records, store.clone(), ActionCacheOptions::default()).with_upstream(elsewhere.clone())
    };
    (elsewhere.clone(), store.clone(), [front(), front()])
}

#[tokio::test]
async fn what_one_front_end_puts_the_other_one_gets() {
    let (_elsewhere, store, [one, other]) = two_fronts();
    for count in [2, 3] {
        let (result, _) = with_files(&store, count).await;
        assert_eq!(one.put(action_digest(), result.clone()).await.unwrap(), result);
        for _again in 0..2 {
            assert_eq!(other.get(action_digest()).await.unwrap(), Some(result.clone()));
            assert_eq!(one.get(action_digest()).await.unwrap(), Some(result.clone()));
        }
    }
}

#[tokio::test]
async fn a_result_from_elsewhere_is_served_only_while_all_its_blobs_are_there() {
    let (elsewhere, store, [one, _]) = two_fronts();
    let (result, files) = with_files(&store, 3).await;
    elsewhere.put(action_digest(), result.clone()).await.unwrap();
    assert_eq!(one.get(action_digest()).await.unwrap(), Some(result.clone()));
    store.forget(files[1]);
    assert_eq!(one.get(action_digest()).await.unwrap(), None);
    let (again, _) = with_files(&store, 3).await;
    assert_eq!(one.get(action_digest()).await.unwrap(), Some(again));
    let nowhere = Digest::of(FUNCTION, b"nobody has it");
    elsewhere.put(action_digest(), with_stdout(nowhere)).await.unwrap();
    assert_eq!(one.get(action_digest()).await.unwrap(), None);
}

#[tokio::test]
async fn what_cannot_be_asked_elsewhere_is_an_error_and_what_is_gone_there_is_gone() {
    let (elsewhere, _store, [one, _]) = two_fronts();
    one.put(action_digest(), with_exit_code(3)).await.unwrap();
    elsewhere.is_down.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(
        one.get(action_digest()).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        one.put(action_digest(), with_exit_code(4)).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    elsewhere.is_down.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(one.get(action_digest()).await.unwrap(), Some(with_exit_code(3)));
    elsewhere.results.lock().unwrap().clear();
    assert_eq!(one.get(action_digest()).await.unwrap(), None);
}

/// A store that relies on what was there, as a bucket does.
#[derive(Debug)]
struct Relying {
    store: Arc<ForgetfulStore>,
    kept_for: Duration,
    clock: Arc<ManualClock>,
    asked: std::sync::atomic::AtomicUsize,
}

impl fmt::Display for Relying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("relying")
    }
}

#[async_trait::async_trait]
impl BlobStore for Relying {
    async fn find_missing(&self, digests: &[Digest]) -> rootcellar_store::Result<Vec<Digest>> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.store.find_missing(digests).await
    }

    async fn get(
        &self,
        digest: Digest,
        range: rootcellar_store::ByteRange,
    ) -> rootcellar_store::Result<rootcellar_store::Blob> {
        self.store.get(digest, range).await
    }

    async fn put(&self, blob: rootcellar_store::Verified) -> rootcellar_store::Result<()> {
        self.store.put(blob).await
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<rootcellar_store::Result<Bytes>> {
        self.store.get_many(digests).await
    }

    async fn put_many(&self, blobs: Vec<rootcellar_store::Verified>) -> Vec<rootcellar_store::Result<()>> {
        self.store.put_many(blobs).await
    }

    fn has_kept_since(&self, _digests: &[Digest], when: SystemTime) -> bool {
        self.clock
            .now()
            .duration_since(when)
            .is_ok_and(|age| age < self.kept_for)
    }
}

#[tokio::test]
async fn a_result_that_one_server_found_complete_others_do_not_look_through_for_a_while() {
    let clock = Arc::new(ManualClock::default());
    clock.advance(Duration::from_secs(1_000_000));
    let forgetful = Arc::new(ForgetfulStore::new());
    let records = Arc::new(MemoryRecords::new(1 << 20, clock.clone()));
    let kept_for = Duration::from_secs(600);
    let front = || {
        let store = Arc::new(Relying {
            store: forgetful.clone(),
            kept_for,
            clock: clock.clone(),
            asked: std::sync::atomic::AtomicUsize::new(0),
        });
        let cache = ActionCache::new(records.clone(), store.clone(), ActionCacheOptions::default());
        (cache.with_clock(clock.clone()), store)
    };
    let ((one, _), (other, store)) = (front(), front());
    let action = load(&forgetful, false).await.digest;
    let (result, files) = with_files(&forgetful, 3).await;
    one.put(action, result.clone()).await.unwrap();
    let asked = || store.asked.load(std::sync::atomic::Ordering::Relaxed);
    for _again in 0..3 {
        assert_eq!(other.get(action).await.unwrap(), Some(result.clone()));
    }
    assert_eq!(asked(), 0);
    clock.advance(kept_for);
    for _again in 0..3 {
        assert_eq!(other.get(action).await.unwrap(), Some(result.clone()));
    }
    assert_eq!(asked(), 1, "it is looked through once, and that is noted");
    clock.advance(kept_for);
    forgetful.forget(files[0]);
    assert_eq!(one.get(action).await.unwrap(), None);
}
