//! redb: one B-tree in one file. Its pages have checksums, which it compares when it opens a file after a crash.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase as _, TableDefinition};
use rootcellar_bench::{Candidate, CandidateKind};
use rootcellar_digest::Digest;
use rootcellar_store::Verified;

use crate::key::{content, key};

const BLOBS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("blobs");

#[derive(Debug)]
pub(crate) struct Kind;

struct Open(Database);

impl CandidateKind for Kind {
    fn name(&self) -> String {
        "redb".to_owned()
    }

    fn open(&self, dir: &Path) -> Box<dyn Candidate> {
        let database = Database::create(dir.join("blobs.redb")).expect("the database opens");
        let begin = database.begin_write().expect("a transaction begins");
        begin.open_table(BLOBS).expect("the table opens");
        begin.commit().expect("the transaction ends");
        Box::new(Open(database))
    }
}

impl Candidate for Open {
    fn put_many(&self, blobs: Vec<Verified>) {
        let mut transaction = self.0.begin_write().expect("a transaction begins");
        transaction
            .set_durability(Durability::None)
            .expect("the durability is one");
        {
            let mut table = transaction.open_table(BLOBS).expect("the table opens");
            for blob in &blobs {
                table
                    .insert(key(&blob.digest()).as_slice(), content(blob))
                    .expect("the blob is stored");
            }
        }
        transaction.commit().expect("the transaction ends");
    }

    fn get_each(&self, digests: &[Digest]) -> u64 {
        let table = self
            .0
            .begin_read()
            .expect("a read begins")
            .open_table(BLOBS)
            .expect("the table opens");
        let read = |digest: &Digest| {
            let found = table
                .get(key(digest).as_slice())
                .expect("the table answers")
                .expect("the blob is there");
            std::hint::black_box(found.value().to_vec()).len() as u64
        };
        digests.iter().map(read).sum()
    }

    fn find_missing(&self, digests: &[Digest]) -> usize {
        let table = self
            .0
            .begin_read()
            .expect("a read begins")
            .open_table(BLOBS)
            .expect("the table opens");
        let is_missing = |digest: &&Digest| table.get(key(digest).as_slice()).expect("the table answers").is_none();
        digests.iter().filter(is_missing).count()
    }

    fn close(self: Box<Self>) {
        // What was committed without syncing is lost unless something is committed with it.
        self.0
            .begin_write()
            .expect("a transaction begins")
            .commit()
            .expect("the transaction ends");
    }
}
