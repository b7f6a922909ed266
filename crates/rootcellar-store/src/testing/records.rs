//! The clauses of [`Records`], one function each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};

use super::{ManualClock, ROOMY_BYTES, Seeded, report};
use crate::{Clock as _, Record, RecordKind, Records};

/// A store under test, and the clock that it was given.
pub type Subject = (Arc<dyn Records>, Arc<ManualClock>);

type Clause = (&'static str, u64, fn(Subject) -> BoxFuture<'static, ()>);

/// A bound that the contents of one clause exceed several times.
const TIGHT_BYTES: u64 = 64 << 10;

const KIND: RecordKind = RecordKind("kind");

const BOUNDED: &str = "3. bounded";

const CLAUSES: [Clause; 5] = [
    ("1. last write wins", ROOMY_BYTES, |subject| {
        last_write_wins(subject).boxed()
    }),
    ("2. expired is absent", ROOMY_BYTES, |subject| {
        expired_is_absent(subject).boxed()
    }),
    (BOUNDED, TIGHT_BYTES, |subject| bounded(subject).boxed()),
    ("4. whole or absent", ROOMY_BYTES, |subject| {
        whole_or_absent(subject).boxed()
    }),
    ("keys of different kinds never meet", ROOMY_BYTES, |subject| {
        kinds_never_meet(subject).boxed()
    }),
];

/// Runs every clause on a store that `make` makes, bounded to about the number of bytes that it is given.
///
/// # Panics
/// Names the first clause that is broken, and how.
pub async fn check_records(make: impl AsyncFn(u64, Arc<ManualClock>) -> Arc<dyn Records>) {
    check(&CLAUSES, make).await;
}

/// Runs every clause but that of the bound, for a store that leaves the bound to what it stands on.
///
/// # Panics
/// Names the first clause that is broken, and how.
pub async fn check_unbounded_records(make: impl AsyncFn(u64, Arc<ManualClock>) -> Arc<dyn Records>) {
    let others: Vec<Clause> = CLAUSES.into_iter().filter(|(clause, ..)| *clause != BOUNDED).collect();
    check(&others, make).await;
}

async fn check(clauses: &[Clause], make: impl AsyncFn(u64, Arc<ManualClock>) -> Arc<dyn Records>) {
    for (clause, bytes_max, run) in clauses.iter().copied() {
        let clock = Arc::new(ManualClock::default());
        let records = make(bytes_max, clock.clone()).await;
        report(clause, records.to_string(), run((records, clock))).await;
    }
}

fn lasting(value: impl Into<Bytes>) -> Record {
    Record {
        value: value.into(),
        expires: None,
    }
}

/// Clause 1, for values of all lengths, after a removal too.
pub async fn last_write_wins((records, _clock): Subject) {
    let mut seeded = Seeded::new(31);
    assert_eq!(records.get(KIND, b"key").await.unwrap(), None);
    for len in [0, 1, 100, 5000, 300_000, 10] {
        let record = lasting(seeded.bytes(len));
        records.put(KIND, b"key", record.clone()).await.unwrap();
        assert_eq!(records.get(KIND, b"key").await.unwrap(), Some(record));
    }
    records.remove(KIND, b"key").await.unwrap();
    assert_eq!(records.get(KIND, b"key").await.unwrap(), None);
    records.remove(KIND, b"key").await.unwrap();
    records.put(KIND, b"key", lasting("again")).await.unwrap();
    assert_eq!(records.get(KIND, b"key").await.unwrap(), Some(lasting("again")));
}

/// Clause 2: present until the clock shows the expiry; a later write counts by its own.
pub async fn expired_is_absent((records, clock): Subject) {
    let hour = Duration::from_secs(3600);
    let record = Record {
        value: Bytes::from_static(b"soon"),
        expires: Some(clock.now() + hour),
    };
    records.put(KIND, b"short", record.clone()).await.unwrap();
    records.put(KIND, b"prolonged", record.clone()).await.unwrap();
    clock.advance(hour - Duration::from_secs(1));
    assert_eq!(records.get(KIND, b"short").await.unwrap(), Some(record));
    records.put(KIND, b"prolonged", lasting("later")).await.unwrap();
    clock.advance(Duration::from_secs(1));
    assert_eq!(records.get(KIND, b"short").await.unwrap(), None);
    assert_eq!(records.get(KIND, b"prolonged").await.unwrap(), Some(lasting("later")));
}

/// Clause 3: of many records those stay that were used last, a read being a use.
pub async fn bounded((records, clock): Subject) {
    const RECORDS: usize = 200;
    let key = |n: usize| n.to_be_bytes();
    let value = Bytes::from(vec![7; 1000]);
    for n in 0..RECORDS {
        records.put(KIND, &key(n), lasting(value.clone())).await.unwrap();
        clock.advance(Duration::from_secs(1));
        let first = records.get(KIND, &key(0)).await.unwrap();
        assert!(first.is_some(), "a record in constant use went, after {n} others");
        clock.advance(Duration::from_secs(1));
    }
    let mut present = Vec::new();
    for n in 0..RECORDS {
        if records.get(KIND, &key(n)).await.unwrap().is_some() {
            present.push(n);
        }
    }
    let sum = present.len() * value.len();
    assert!(sum as u64 <= TIGHT_BYTES, "{sum} bytes of values are kept");
    assert!(present.len() > 10, "only {} records are kept", present.len());
    let last: Vec<usize> = (RECORDS + 1 - present.len()..RECORDS).collect();
    assert_eq!(present[0], 0);
    assert_eq!(present[1..], last, "the records used longest ago were to go first");
}

/// Clause 4: readers of a record that is being overwritten see one value or another.
pub async fn whole_or_absent((records, _clock): Subject) {
    const VALUE_BYTES: usize = 20_000;
    const WRITERS: u8 = 8;
    let runs = (0..WRITERS).map(|fill| {
        let records = records.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                records
                    .put(KIND, b"key", lasting(vec![fill; VALUE_BYTES]))
                    .await
                    .unwrap();
                let seen = records.get(KIND, b"key").await.unwrap().unwrap().value;
                assert_eq!(seen, vec![seen[0]; VALUE_BYTES], "a mixture of values");
            }
        })
    });
    for outcome in join_all(runs).await {
        outcome.unwrap();
    }
}

/// One key, and keys that begin alike, under several kinds.
pub async fn kinds_never_meet((records, _clock): Subject) {
    let kinds = ["a", "ab", "b"].map(RecordKind);
    for kind in kinds {
        for key in [&b""[..], b"b", b"key"] {
            assert_eq!(records.get(kind, key).await.unwrap(), None);
            let value = [kind.0.as_bytes(), b"/", key].concat();
            records.put(kind, key, lasting(value.clone())).await.unwrap();
            assert_eq!(records.get(kind, key).await.unwrap(), Some(lasting(value)));
        }
    }
    records.remove(kinds[0], b"b").await.unwrap();
    assert!(records.get(kinds[2], b"b").await.unwrap().is_some());
    assert!(records.get(kinds[1], b"").await.unwrap().is_some());
}
