//! Which entries the log has, and where: in memory while they are recent, else in a file.
//!
//! Pure. Indexes from `first` to the last are without a gap. Entries leave memory, oldest first,
//! when there are more bytes of them than the limit; one that has not been written yet stays.

use std::collections::VecDeque;

use openraft::entry::RaftEntry as _;

use super::{Entry, LogId};
use crate::error::Corrupt;

/// Where the frame of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file, by the sequence of its first frame.
    pub(crate) file: u64,
    /// The frame's offset in it.
    pub(crate) offset: u64,
    /// The frame's bytes.
    pub(crate) length: u32,
    /// The frame's sequence.
    pub(crate) sequence: u64,
}

/// Where an entry can be had.
#[derive(Debug)]
pub(crate) enum Found {
    /// Here.
    Memory(Entry),
    /// In a file.
    File(LogId, Place),
}

#[derive(Debug)]
struct Slot {
    id: LogId,
    bytes: u32,
    entry: Option<Entry>,
    place: Option<Place>,
}

/// The index of the log.
#[derive(Debug)]
pub(crate) struct LogIndex {
    purged: Option<LogId>,
    first: u64,
    slots: VecDeque<Slot>,
    /// The slots before this position hold no entry.
    evicted: usize,
    cached_bytes: u64,
    cached_bytes_max: u64,
}

impl LogIndex {
    /// An empty log that keeps up to `cached_bytes_max` bytes of written entries in memory.
    pub(crate) fn new(cached_bytes_max: u64) -> Self {
        Self {
            purged: None,
            first: 0,
            slots: VecDeque::new(),
            evicted: 0,
            cached_bytes: 0,
            cached_bytes_max,
        }
    }

    /// The last purged entry.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The last entry, or the last purged one if there are none.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.id).or(self.purged)
    }

    /// The indexes that are there.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.slots.len() as u64
    }

    /// Appends an entry of `bytes` encoded bytes.
    pub(crate) fn append(
        &mut self,
        entry: Entry,
        bytes: u32,
        place: Option<Place>,
    ) -> Result<(), Corrupt> {
        let id = entry.log_id();
        if self.slots.is_empty() {
            if self.purged.is_some_and(|purged| id.index <= purged.index) {
                return Err(Corrupt::new(format!("entry {id} was purged before")));
            }
            self.first = id.index;
        } else if id.index != self.range().end {
            return Err(Corrupt::new(format!(
                "entry {id} does not follow index {}",
                self.range().end - 1
            )));
        }
        self.slots.push_back(Slot {
            id,
            bytes,
            entry: Some(entry),
            place,
        });
        self.cached_bytes += u64::from(bytes);
        self.evict();
        Ok(())
    }

    /// Drops the entries after this one (`None`: all).
    pub(crate) fn truncate(&mut self, after: Option<&LogId>) {
        let keep_below = after.map_or(0, |id| id.index + 1);
        while self.range().end > keep_below
            && let Some(slot) = self.slots.pop_back()
        {
            self.forget(&slot);
        }
        self.evicted = self.evicted.min(self.slots.len());
    }

    /// Drops the entries up to this one, inclusive.
    pub(crate) fn purge(&mut self, upto: LogId) {
        while self.first <= upto.index
            && let Some(slot) = self.slots.pop_front()
        {
            self.forget(&slot);
            self.first += 1;
            self.evicted = self.evicted.saturating_sub(1);
        }
        self.purged = self.purged.max(Some(upto));
    }

    /// Notes where the frame of an entry is, if the entry is still the one of that id.
    pub(crate) fn placed(&mut self, id: &LogId, place: Place) {
        let first = self.first;
        if let Some(position) = id.index.checked_sub(first)
            && let Some(slot) = self.slots.get_mut(position as usize)
            && slot.id == *id
        {
            slot.place = Some(place);
        }
    }

    /// Lets go of entries that are over the limit and have been written.
    pub(crate) fn evict(&mut self) {
        while self.cached_bytes > self.cached_bytes_max
            && let Some(slot) = self.slots.get_mut(self.evicted)
            && slot.place.is_some()
        {
            slot.entry = None;
            self.cached_bytes -= u64::from(slot.bytes);
            self.evicted += 1;
        }
    }

    /// Where to have the entry at `index`; `None` if it is not in the log.
    pub(crate) fn get(&self, index: u64) -> Option<Found> {
        let slot = self.slots.get(index.checked_sub(self.first)? as usize)?;
        match (&slot.entry, slot.place) {
            (Some(entry), _) => Some(Found::Memory(entry.clone())),
            (None, Some(place)) => Some(Found::File(slot.id, place)),
            (None, None) => unreachable!("entry {} is neither in memory nor in a file", slot.id),
        }
    }

    /// The encoded bytes of the entry at `index`, 0 if it is not there.
    pub(crate) fn bytes(&self, index: u64) -> u32 {
        index
            .checked_sub(self.first)
            .and_then(|position| self.slots.get(position as usize))
            .map_or(0, |slot| slot.bytes)
    }

    fn forget(&mut self, slot: &Slot) {
        if slot.entry.is_some() {
            self.cached_bytes -= u64::from(slot.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::TypeConfig;
    use openraft::testing::{blank_ent, log_id};

    fn entry(index: u64) -> Entry {
        blank_ent::<TypeConfig>(1, 1, index)
    }

    fn id(index: u64) -> LogId {
        log_id::<TypeConfig>(1, 1, index)
    }

    fn place(sequence: u64) -> Place {
        Place {
            file: 0,
            offset: sequence * 10,
            length: 10,
            sequence,
        }
    }

    fn filled(indexes: std::ops::Range<u64>) -> LogIndex {
        let mut log = LogIndex::new(30);
        for index in indexes {
            log.append(entry(index), 10, None).unwrap();
        }
        log
    }

    #[test]
    fn only_written_entries_leave_memory_and_oldest_first() {
        let mut log = filled(5..15);
        assert_eq!(log.cached_bytes, 100);
        for index in 5..14 {
            log.placed(&id(index), place(index));
        }
        log.evict();
        assert_eq!(log.cached_bytes, 30);
        assert!(matches!(log.get(11), Some(Found::File(_, at)) if at == place(11)));
        assert!(matches!(log.get(12), Some(Found::Memory(_))));
        assert!(log.get(4).is_none());
        assert!(log.get(15).is_none());
    }

    #[test]
    fn the_count_of_bytes_survives_truncation_and_purge() {
        let mut log = filled(0..10);
        for index in 0..10 {
            log.placed(&id(index), place(index));
        }
        log.evict();
        log.truncate(Some(&id(7)));
        assert_eq!(log.range(), 0..8);
        assert_eq!(log.cached_bytes, 10);
        log.purge(id(3));
        assert_eq!(log.range(), 4..8);
        for index in 8..12 {
            log.append(entry(index), 10, Some(place(index))).unwrap();
        }
        assert_eq!(log.cached_bytes, 30);
        log.purge(id(20));
        assert_eq!(log.cached_bytes, 0);
        assert_eq!(log.last(), Some(id(20)));
        log.truncate(None);
        log.append(entry(21), 10, None).unwrap();
        assert_eq!(log.range(), 21..22);
    }

    #[test]
    fn gaps_and_repetitions_are_refused() {
        let mut log = filled(3..5);
        assert!(log.append(entry(6), 1, None).is_err());
        assert!(log.append(entry(4), 1, None).is_err());
        log.purge(id(9));
        assert!(log.append(entry(9), 1, None).is_err());
        assert!(log.append(entry(10), 1, None).is_ok());
    }

    #[test]
    fn a_place_is_not_given_to_an_entry_that_has_replaced_another() {
        let mut log = filled(0..3);
        log.truncate(Some(&id(1)));
        log.append(blank_ent::<TypeConfig>(2, 1, 2), 10, None)
            .unwrap();
        log.placed(&id(2), place(2));
        assert!(log.slots[2].place.is_none());
    }
}
