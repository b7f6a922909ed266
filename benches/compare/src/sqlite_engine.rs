//! SQLite in WAL mode, a row for each blob. It has no checksums of its own.

use std::path::Path;
use std::sync::Mutex;

use rootcellar_bench::{Candidate, CandidateKind};
use rootcellar_digest::Digest;
use rootcellar_store::Verified;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::key::{content, key};

#[derive(Debug)]
pub(crate) struct Kind;

struct Open(Mutex<Connection>);

impl CandidateKind for Kind {
    fn name(&self) -> String {
        "sqlite".to_owned()
    }

    fn open(&self, dir: &Path) -> Box<dyn Candidate> {
        let connection = Connection::open(dir.join("blobs.sqlite")).expect("the database opens");
        let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -65536;
            CREATE TABLE IF NOT EXISTS blobs (key BLOB PRIMARY KEY, content BLOB) WITHOUT ROWID;";
        connection.execute_batch(settings).expect("the settings are taken");
        Box::new(Open(Mutex::new(connection)))
    }
}

impl Candidate for Open {
    fn put_many(&self, blobs: Vec<Verified>) {
        let mut connection = self.0.lock().expect("nobody panicked");
        let transaction = connection.transaction().expect("a transaction begins");
        {
            let insert = "INSERT OR IGNORE INTO blobs VALUES (?, ?)";
            let mut insert = transaction.prepare_cached(insert).expect("the statement is one");
            for blob in &blobs {
                insert
                    .execute(params![key(&blob.digest()), content(blob)])
                    .expect("the blob is stored");
            }
        }
        transaction.commit().expect("the transaction ends");
    }

    fn get_each(&self, digests: &[Digest]) -> u64 {
        let connection = self.0.lock().expect("nobody panicked");
        let mut select = connection
            .prepare_cached("SELECT content FROM blobs WHERE key = ?")
            .expect("the statement is one");
        let mut read = |digest: &Digest| {
            let content: Vec<u8> = select
                .query_row(params![key(digest)], |row| row.get(0))
                .expect("the blob is there");
            std::hint::black_box(content).len() as u64
        };
        digests.iter().map(&mut read).sum()
    }

    fn find_missing(&self, digests: &[Digest]) -> usize {
        let connection = self.0.lock().expect("nobody panicked");
        let mut select = connection
            .prepare_cached("SELECT 1 FROM blobs WHERE key = ?")
            .expect("the statement is one");
        let mut is_missing = |digest: &&Digest| {
            let found: Option<i64> = select
                .query_row(params![key(digest)], |row| row.get(0))
                .optional()
                .expect("it answers");
            found.is_none()
        };
        digests.iter().filter(|digest| is_missing(digest)).count()
    }

    fn close(self: Box<Self>) {
        let connection = self.0.into_inner().expect("nobody panicked");
        connection.close().expect("the database closes");
    }
}
