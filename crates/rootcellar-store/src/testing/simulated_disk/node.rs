//! A file on a simulated disk: what programs read, and what would be left of it.

use std::sync::Arc;

use super::Loss;
use crate::testing::Seeded;

const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// What programs read.
    pub(super) content: Arc<Vec<u8>>,
    /// What is on the disk for sure.
    pub(super) durable: Arc<Vec<u8>>,
    /// What was written since, oldest first.
    pub(super) pending: Vec<Pending>,
    /// Up to where writes need no more space.
    pub(super) reserved: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Pending {
    Write { at: usize, bytes: Arc<[u8]> },
    Size(usize),
}

impl Node {
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        write_at(Arc::make_mut(&mut self.content), at, bytes);
        self.pending.push(Pending::Write {
            at,
            bytes: bytes.into(),
        });
    }

    pub(super) fn set_size(&mut self, size: usize) {
        Arc::make_mut(&mut self.content).resize(size, 0);
        self.pending.push(Pending::Size(size));
    }

    pub(super) fn sync(&mut self) {
        let is_clean = self.pending.is_empty();
        for pending in std::mem::take(&mut self.pending) {
            let durable = Arc::make_mut(&mut self.durable);
            match pending {
                Pending::Size(size) => durable.resize(size, 0),
                Pending::Write { at, bytes } => write_at(durable, at, &bytes),
            }
        }
        if !is_clean && *self.durable == *self.content {
            // They share their memory.
            self.durable = self.content.clone();
        }
    }

    pub(super) fn fail_to_sync(&mut self, chance: &mut Seeded) {
        self.durable = self.after_cut(Loss::Some, chance);
        self.pending.clear();
    }

    /// What is on the disk when the power has gone.
    pub(super) fn after_cut(&self, loss: Loss, chance: &mut Seeded) -> Arc<Vec<u8>> {
        match loss {
            Loss::Everything => return self.durable.clone(),
            Loss::Nothing => return self.content.clone(),
            Loss::Some => {}
        }
        let mut content = self.durable.to_vec();
        for pending in &self.pending {
            match pending {
                Pending::Size(size) if chance.below(2) == 0 => content.resize(*size, 0),
                Pending::Size(_) => {}
                Pending::Write { at, bytes } => write_some(&mut content, *at, bytes, chance),
            }
        }
        Arc::new(content)
    }
}

fn write_at(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

/// Writes some of the sectors that a write touches.
fn write_some(content: &mut Vec<u8>, at: usize, bytes: &[u8], chance: &mut Seeded) {
    // Whole writes are kept or lost as often as they are torn.
    let keeps = match chance.below(4) {
        0 => return,
        1 => 1,
        _ => 2,
    };
    let mut done = 0;
    while done < bytes.len() {
        let in_sector = SECTOR_BYTES - (at + done) % SECTOR_BYTES;
        let len = in_sector.min(bytes.len() - done);
        if chance.below(keeps) == 0 {
            write_at(content, at + done, &bytes[done..done + len]);
        }
        done += len;
    }
}
