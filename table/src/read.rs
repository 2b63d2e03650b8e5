//! Reads row groups: first which bytes, then what they mean.
//!
//! ```text
//! offset ─ manifest ─► GroupRef ─ GET index_range ─► GroupIndex
//!        ─ Read::from ─► ranges() ─ GET ─► Fetched ─► batches() | rows()
//! ```
//!
//! A reader that fetches the whole [`GroupRef::range`] at once has index and pages by one GET; one
//! that keeps the index fetches only the pages it needs.
//!
//! A page becomes one record batch, or several where Kafka's format asks for it: one batch has one
//! type of timestamp, with LogAppendTime one timestamp. A batch takes the offsets up to the next
//! one's, so that whoever follows the batches gets past records that are missing.
//!
//! Everything here is computation, up to milliseconds per MiB: call it off the runtime's threads.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use frazil_core::Offset;
use frazil_core::batch::{BatchWriter, Codec, RecordRef};

use crate::Error;
use crate::index::GroupIndex;
use crate::manifest::GroupRef;
use crate::page::{Decoder, Decompressor, Pages, Times};
use crate::schema::{LEAVES, OFFSET, TIMESTAMP, TIMESTAMP_RAW};

/// Bytes of one data file that have been fetched.
#[derive(Clone, Debug, Default)]
pub struct Fetched(BTreeMap<u64, Bytes>);

impl Fetched {
    /// Adds the bytes from byte `start` of the file on.
    pub fn add(&mut self, start: u64, bytes: Bytes) {
        self.0.insert(start, bytes);
    }

    /// The bytes at `range`, if one piece has them.
    pub fn get(&self, range: Range<u64>) -> Option<&[u8]> {
        let (start, bytes) = self.0.range(..=range.start).next_back()?;
        let from = usize::try_from(range.start - start).ok()?;
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        bytes.get(from..from.checked_add(length)?)
    }
}

/// Joins ranges that are in order and at most `gap` bytes apart.
pub fn coalesce(ranges: &[Range<u64>], gap: u64) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(gap) => {
                last.end = last.end.max(range.end);
            }
            _ => out.push(range.clone()),
        }
    }
    out
}

/// The batches of a group without records: they only say where it ends.
pub fn empty_batches(group: &GroupRef) -> Result<Vec<Bytes>, Error> {
    let mut batches = Vec::new();
    close(
        BatchWriter::new(group.base),
        group.end,
        Codec::None,
        &mut batches,
    )?;
    Ok(batches)
}

/// A read of some pages of one row group.
#[derive(Clone, Debug)]
pub struct Read<'a> {
    group: &'a GroupRef,
    index: &'a GroupIndex,
    pages: Range<usize>,
}

impl<'a> Read<'a> {
    /// The pages from the one that covers `from` on, as many as hold at most `max_bytes` bytes
    /// before compression, but at least one.
    ///
    /// # Panics
    /// If `from` does not lie in the group.
    pub fn from(group: &'a GroupRef, index: &'a GroupIndex, from: Offset, max_bytes: u64) -> Self {
        assert!(
            group.base <= from && from < group.end,
            "{from} is not in {group:?}"
        );
        let start = index.page_of(from).unwrap_or(0);
        let mut end = start;
        let mut bytes = 0;
        while end < index.pages() {
            bytes += index.uncompressed(end);
            if end > start && bytes > max_bytes {
                break;
            }
            end += 1;
        }
        Self {
            group,
            index,
            pages: start..end,
        }
    }

    /// All pages.
    pub fn all(group: &'a GroupRef, index: &'a GroupIndex) -> Self {
        Self {
            group,
            index,
            pages: 0..index.pages(),
        }
    }

    /// Splits it into reads of one page each.
    pub fn split(&self) -> impl Iterator<Item = Self> + use<'a> {
        let (group, index) = (self.group, self.index);
        self.pages.clone().map(move |page| Self {
            group,
            index,
            pages: page..page + 1,
        })
    }

    /// The offsets it covers.
    pub fn offsets(&self) -> Range<Offset> {
        if self.pages.is_empty() {
            return self.group.base..self.group.end;
        }
        self.index.cover(self.pages.start).start..self.index.cover(self.pages.end - 1).end
    }

    /// The bytes of the file that [`Self::batches`] and [`Self::rows`] need, in order. Join those
    /// that are near to each other ([`coalesce`]).
    pub fn ranges(&self) -> Vec<Range<u64>> {
        // The partition is known; that column is for table engines.
        self.ranges_of(OFFSET..LEAVES)
    }

    /// The bytes of the file that [`Self::find_time`] and [`Self::max_time`] need.
    pub fn time_ranges(&self) -> Vec<Range<u64>> {
        self.ranges_of([OFFSET, TIMESTAMP, TIMESTAMP_RAW])
    }

    fn ranges_of(&self, columns: impl IntoIterator<Item = usize>) -> Vec<Range<u64>> {
        let mut ranges: Vec<_> = columns
            .into_iter()
            .map(|column| self.index.bytes(self.group, column, self.pages.clone()))
            .collect();
        ranges.sort_by_key(|range| range.start);
        coalesce(&ranges, 0)
    }

    /// Its records as record batches, compressed with `codec`, in order.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a byte is wrong or missing.
    pub fn batches(&self, fetched: &Fetched, codec: Codec) -> Result<Vec<Bytes>, Error> {
        let mut batches = Vec::new();
        if self.pages.is_empty() {
            return empty_batches(self.group);
        }
        let mut with = Decompressor::new()?;
        let pages = Pieces {
            read: self,
            fetched,
        };
        let decoder = self.decoder(&pages);
        for number in self.pages.clone() {
            let cover = self.index.cover(number);
            let page = decoder.page(&mut with, number)?;
            let mut batch = BatchWriter::new(cover.start);
            decoder.rows(number, &page, |record| {
                if !batch.takes(record) {
                    let next = BatchWriter::new(record.offset);
                    let full = std::mem::replace(&mut batch, next);
                    close(full, record.offset, codec, &mut batches)?;
                }
                batch.push(record);
                Ok::<(), Error>(())
            })?;
            close(batch, cover.end, codec, &mut batches)?;
        }
        Ok(batches)
    }

    /// Gives its records to `each`, in order, until that fails.
    ///
    /// # Errors
    /// As [`Self::batches`], and those of `each`.
    pub fn rows<E: std::convert::From<Error>>(
        &self,
        fetched: &Fetched,
        mut each: impl FnMut(&RecordRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut with = Decompressor::new()?;
        let pages = Pieces {
            read: self,
            fetched,
        };
        let decoder = self.decoder(&pages);
        for number in self.pages.clone() {
            let page = decoder.page(&mut with, number)?;
            decoder.rows(number, &page, &mut each)?;
        }
        Ok(())
    }

    /// The first record at `from` or later whose timestamp is at least `timestamp`: its offset and
    /// timestamp. Only [`Self::time_ranges`] are looked at.
    ///
    /// # Errors
    /// As [`Self::batches`].
    pub fn find_time(
        &self,
        fetched: &Fetched,
        from: Offset,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64)>, Error> {
        let mut with = Decompressor::new()?;
        let pages = Pieces {
            read: self,
            fetched,
        };
        let decoder = self.decoder(&pages);
        for number in self.pages.clone() {
            let Times {
                offsets,
                timestamps,
            } = decoder.times(&mut with, number)?;
            let mut times = offsets.into_iter().map(Offset).zip(timestamps);
            if let Some(found) = times.find(|(offset, at)| *offset >= from && *at >= timestamp) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first of the records at `from` or later with the largest timestamp: its offset and
    /// timestamp. Only [`Self::time_ranges`] are looked at.
    ///
    /// # Errors
    /// As [`Self::batches`].
    pub fn max_time(
        &self,
        fetched: &Fetched,
        from: Offset,
    ) -> Result<Option<(Offset, i64)>, Error> {
        let mut with = Decompressor::new()?;
        let pages = Pieces {
            read: self,
            fetched,
        };
        let decoder = self.decoder(&pages);
        let mut largest: Option<(Offset, i64)> = None;
        for number in self.pages.clone() {
            let times = decoder.times(&mut with, number)?;
            for (offset, at) in times.offsets.into_iter().zip(times.timestamps) {
                if offset >= from.0 && largest.is_none_or(|(_, most)| at > most) {
                    largest = Some((Offset(offset), at));
                }
            }
        }
        Ok(largest)
    }

    fn decoder<'b>(&'b self, pages: &'b Pieces<'b>) -> Decoder<'b, Pieces<'b>> {
        Decoder {
            group: self.group,
            index: self.index,
            pages,
        }
    }
}

/// Pages by their place in the file.
struct Pieces<'a> {
    read: &'a Read<'a>,
    fetched: &'a Fetched,
}

impl Pages for Pieces<'_> {
    fn page(&self, column: usize, page: usize) -> Option<&[u8]> {
        let Read { group, index, .. } = self.read;
        self.fetched.get(index.bytes(group, column, page..page + 1))
    }
}

/// Finishes `batch` so that the next one begins at `end`.
fn close(batch: BatchWriter, end: Offset, codec: Codec, out: &mut Vec<Bytes>) -> Result<(), Error> {
    if end <= batch.end_max() {
        out.push(batch.finish(end, codec)?);
        return Ok(());
    }
    // Further than one batch reaches. Consumers step over a gap between two batches, so it need
    // not be filled, only closed.
    if batch.records() > 0 {
        let next = batch.next();
        out.push(batch.finish(next, codec)?);
    }
    let last = BatchWriter::new(Offset(end.0 - 1));
    out.push(last.finish(end, codec)?);
    Ok(())
}
