//! fjall: a log-structured tree, with large values kept apart from the keys. Its blocks have checksums.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use rootcellar_bench::{Candidate, CandidateKind};
use rootcellar_digest::Digest;
use rootcellar_store::Verified;

use crate::key::{content, key};

#[derive(Debug)]
pub(crate) struct Kind;

struct Open {
    database: Database,
    blobs: Keyspace,
}

impl CandidateKind for Kind {
    fn name(&self) -> String {
        "fjall".to_owned()
    }

    fn open(&self, dir: &Path) -> Box<dyn Candidate> {
        let database = Database::builder(dir.join("fjall")).open().expect("the database opens");
        let options = || KeyspaceCreateOptions::default().with_kv_separation(Some(KvSeparationOptions::default()));
        let blobs = database.keyspace("blobs", options).expect("the keyspace opens");
        Box::new(Open { database, blobs })
    }
}

impl Candidate for Open {
    fn put_many(&self, blobs: Vec<Verified>) {
        let mut batch = self.database.batch();
        for blob in &blobs {
            batch.insert(&self.blobs, key(&blob.digest()), content(blob));
        }
        batch.commit().expect("the batch is stored");
    }

    fn get_each(&self, digests: &[Digest]) -> u64 {
        let read = |digest: &Digest| {
            let found = self
                .blobs
                .get(key(digest))
                .expect("the database answers")
                .expect("the blob is there");
            std::hint::black_box(found.to_vec()).len() as u64
        };
        digests.iter().map(read).sum()
    }

    fn find_missing(&self, digests: &[Digest]) -> usize {
        let is_missing = |digest: &&Digest| !self.blobs.contains_key(key(digest)).expect("the database answers");
        digests.iter().filter(is_missing).count()
    }

    fn close(self: Box<Self>) {
        self.database
            .persist(PersistMode::SyncAll)
            .expect("the database is synced");
    }
}
