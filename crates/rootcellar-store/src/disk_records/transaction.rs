//! One transaction of the writer: what was logged, uses, and what has to go to keep the bound.

use std::collections::{BTreeMap, HashMap};

use redb::{ReadableTable as _, Table, WriteTransaction};

use super::format::{self, ABOUT, BYTES_FIELD, Key, LOG_AT_FIELD, LOG_CHAIN_FIELD, ORDER, RECORDS, USES};
use super::log::Mark;
use super::logged::Late;
use crate::Record;
use crate::records::charge_bytes;

type Result<T> = std::result::Result<T, redb::Error>;

/// What is to be done.
pub(super) struct Transaction<'a> {
    pub(super) changes: &'a BTreeMap<Key, Late>,
    /// Uses of records, by their stamps.
    pub(super) uses: HashMap<Key, u64>,
    pub(super) bytes_max: u64,
    /// Where the log goes on behind these changes.
    pub(super) mark: Mark,
}

impl Transaction<'_> {
    /// Does all of it, durably, or none; the keys of what had to go to keep the bound. Blocks.
    pub(super) fn run(&self, handle: &redb::Database) -> Result<Vec<Vec<u8>>> {
        let mut transaction = handle.begin_write()?;
        // Keeps the start after a crash fast, and commits in two steps, which no content that a client chose can defeat.
        transaction.set_quick_repair(true);
        let mut tables = Tables::open(&transaction)?;
        for (key, late) in self.changes {
            match &late.record {
                Some(record) => tables.put(key, record, late.stamp)?,
                None => tables.remove(key)?,
            }
        }
        for (key, stamp) in &self.uses {
            tables.touch(key, *stamp)?;
        }
        let mut evicted = Vec::new();
        while tables.bytes > self.bytes_max {
            match tables.evict()? {
                Some(key) => evicted.push(key),
                None => break,
            }
        }
        tables.close(self.mark)?;
        transaction.commit()?;
        Ok(evicted)
    }
}

/// The tables of `format.rs`, open for writing. Every record has one use and one place in the order.
struct Tables<'a> {
    about: Table<'a, &'static str, u64>,
    records: Table<'a, &'static [u8], &'static [u8]>,
    uses: Table<'a, &'static [u8], u64>,
    order: Table<'a, u64, &'static [u8]>,
    bytes: u64,
}

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self> {
        let about = transaction.open_table(ABOUT)?;
        let bytes = about.get(BYTES_FIELD)?.map_or(0, |bytes| bytes.value());
        Ok(Self {
            about,
            records: transaction.open_table(RECORDS)?,
            uses: transaction.open_table(USES)?,
            order: transaction.open_table(ORDER)?,
            bytes,
        })
    }

    fn put(&mut self, key: &[u8], record: &Record, stamp: u64) -> Result<()> {
        self.remove(key)?;
        self.records.insert(key, format::encode(key, record).as_slice())?;
        self.uses.insert(key, stamp)?;
        self.order.insert(stamp, key)?;
        self.bytes += charge_bytes(key, record.value.len() as u64);
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        let stamp = self.uses.remove(key)?.map(|stamp| stamp.value());
        if let Some(stamp) = stamp {
            self.order.remove(stamp)?;
        }
        self.remove_record(key)
    }

    fn remove_record(&mut self, key: &[u8]) -> Result<()> {
        if let Some(encoded) = self.records.remove(key)? {
            let charge = charge_bytes(key, format::value_bytes(encoded.value().len()));
            // A file that was changed behind our back must not stop the writer.
            self.bytes = self.bytes.saturating_sub(charge);
        }
        Ok(())
    }

    /// Notes a later use of a record that is still there.
    fn touch(&mut self, key: &[u8], stamp: u64) -> Result<()> {
        let previous = self.uses.get(key)?.map(|previous| previous.value());
        let Some(previous) = previous.filter(|previous| *previous < stamp) else {
            return Ok(());
        };
        self.order.remove(previous)?;
        self.order.insert(stamp, key)?;
        self.uses.insert(key, stamp)?;
        Ok(())
    }

    /// Removes the record used longest ago, and tells its key if there was one.
    fn evict(&mut self) -> Result<Option<Vec<u8>>> {
        let oldest = self.order.pop_first()?.map(|(_, key)| key.value().to_vec());
        let Some(key) = oldest else {
            return Ok(None);
        };
        self.uses.remove(key.as_slice())?;
        self.remove_record(&key)?;
        Ok(Some(key))
    }

    fn close(mut self, mark: Mark) -> Result<()> {
        self.about.insert(BYTES_FIELD, self.bytes)?;
        self.about.insert(LOG_CHAIN_FIELD, mark.chain)?;
        self.about.insert(LOG_AT_FIELD, mark.at)?;
        Ok(())
    }
}
