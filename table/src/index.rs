//! The index of a row group: where each page of each column is, and what its bytes must sum to.
//!
//! ```text
//! "FRZGIDX\x01" | length u32 LE of the CBOR | CBOR | crc u32 LE of everything before
//! ```
//!
//! It stands in the data file, right in front of the row group's first page, where table engines
//! never look. One GET therefore brings it together with the pages, and a reader that has it needs
//! neither the footer nor a page's header.
//!
//! Pages are aligned: page *n* of every column holds the same rows. The rows of a page *cover* the
//! offsets from the first of them to that of the next page; the first page's cover begins at the
//! group's base, the last one's ends at the group's end. So the covers tile the offsets of the
//! group without gaps, whatever records are missing.
//!
//! Invariant: nothing of an index is believed before its checksum, its name and its numbers have
//! been checked; afterwards every place lies inside the row group.

use std::ops::Range;

use frazil_core::Offset;
use minicbor::{Decode, Encode};

use crate::manifest::GroupRef;
use crate::schema::{COLUMNS, LEAVES, VALUE};
use crate::writer::PAGE_ROWS_MAX;
use crate::{Damage, Error};
use frazil_core::cold::ObjectId;

const MAGIC: &[u8; 8] = b"FRZGIDX\x01";
/// The most a page decompresses to. A header of two bytes takes four, a byte of its key that is not
/// UTF-8 three, in a record of the largest batch.
const PAGE_MAX: usize = 4 * frazil_core::batch::RECORDS_MAX;

/// Where the pages of one row group are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupIndex {
    /// The file it stands in.
    #[n(0)]
    pub(crate) file: ObjectId,
    #[n(1)]
    pub(crate) partition: i32,
    #[n(2)]
    pub(crate) base: Offset,
    #[n(3)]
    pub(crate) end: Offset,
    #[n(4)]
    pub(crate) pages: Vec<PageRows>,
    /// By field id. Those that this version does not know are of no use to it.
    #[n(5)]
    pub(crate) columns: Vec<ColumnPages>,
}

/// The rows of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PageRows {
    #[n(0)]
    pub(crate) rows: u32,
    /// Offset of the first.
    #[n(1)]
    pub(crate) first: Offset,
}

/// The pages of one column, back to back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ColumnPages {
    #[n(0)]
    pub(crate) field: u32,
    /// Byte at which the first begins, counted from the end of the index.
    #[n(1)]
    pub(crate) start: u32,
    #[n(2)]
    pub(crate) pages: Vec<PagePlace>,
}

/// One page of one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PagePlace {
    /// Bytes of its Parquet header.
    #[n(0)]
    pub(crate) header: u32,
    /// Bytes behind the header.
    #[n(1)]
    pub(crate) compressed: u32,
    #[n(2)]
    pub(crate) uncompressed: u32,
    /// CRC-32C of header and data.
    #[n(3)]
    pub(crate) crc: u32,
    /// Values and nulls.
    #[n(4)]
    pub(crate) values: u32,
}

impl PagePlace {
    fn length(&self) -> u64 {
        u64::from(self.header) + u64::from(self.compressed)
    }
}

impl GroupIndex {
    pub(crate) fn encode(&self) -> Vec<u8> {
        crate::framed(MAGIC, self)
    }

    /// Reads the index of `group` from the bytes at its place, [`GroupRef::index_range`].
    ///
    /// # Errors
    /// [`Error::Damaged`], whatever is wrong.
    pub fn parse(group: &GroupRef, bytes: &[u8]) -> Result<Self, Error> {
        let damaged = |what| group.damaged(Damage::Index(what));
        if bytes.len() != group.index_length as usize {
            return Err(damaged("its length"));
        }
        if crc32c::crc32c(bytes) != group.index_crc {
            return Err(damaged("its checksum"));
        }
        let index: Self =
            crate::unframed(MAGIC, bytes).map_err(|what| group.damaged(Damage::Index(what)))?;
        index.check(group).map_err(damaged)?;
        Ok(index)
    }

    fn check(&self, group: &GroupRef) -> Result<(), &'static str> {
        if self.file != group.file
            || self.partition != group.partition
            || (self.base, self.end) != (group.base, group.end)
        {
            return Err("it belongs elsewhere");
        }
        let mut from = self.base;
        for page in &self.pages {
            if !(1..=PAGE_ROWS_MAX).contains(&page.rows)
                || page.first < from
                || page.first >= self.end
            {
                return Err("its rows");
            }
            from = Offset(page.first.0 + 1);
        }
        let rows: u64 = self.pages.iter().map(|page| u64::from(page.rows)).sum();
        if rows != u64::from(group.records) {
            return Err("the number of its rows");
        }
        let data = u64::from(group.length - group.index_length);
        for column in &self.columns {
            let length: u64 = column.pages.iter().map(PagePlace::length).sum();
            if u64::from(column.start) + length > data {
                return Err("a column's place");
            }
            let whole = column.pages.len() == self.pages.len()
                && column.pages.iter().all(|page| {
                    page.uncompressed as usize <= PAGE_MAX && page.compressed as usize <= PAGE_MAX
                });
            if !whole {
                return Err("a column's pages");
            }
        }
        if COLUMNS.iter().any(|leaf| self.column(leaf.field).is_none()) {
            return Err("a column is missing");
        }
        Ok(())
    }

    fn column(&self, field: u32) -> Option<&ColumnPages> {
        self.columns.iter().find(|column| column.field == field)
    }

    /// How many pages there are.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// The offsets that page `page` covers.
    pub(crate) fn cover(&self, page: usize) -> Range<Offset> {
        let start = match page {
            0 => self.base,
            _ => self.pages[page].first,
        };
        let end = self.pages.get(page + 1).map_or(self.end, |next| next.first);
        start..end
    }

    /// Rows of page `page`.
    pub(crate) fn rows(&self, page: usize) -> usize {
        self.pages[page].rows as usize
    }

    /// The page whose cover holds `offset`, which lies in the group. A group without records has
    /// none.
    pub(crate) fn page_of(&self, offset: Offset) -> Option<usize> {
        let behind = self.pages.partition_point(|page| page.first <= offset);
        (!self.pages.is_empty()).then(|| behind.saturating_sub(1))
    }

    /// What page `page` holds once it is decompressed: keys, values and headers.
    pub(crate) fn uncompressed(&self, page: usize) -> u64 {
        self.columns
            .iter()
            .map(|column| u64::from(column.pages[page].uncompressed))
            .sum()
    }

    /// What all pages hold once they are decompressed: keys, values and headers.
    pub fn uncompressed_bytes(&self) -> u64 {
        (0..self.pages()).map(|page| self.uncompressed(page)).sum()
    }

    /// The byte of the file at which the values of `group` begin. Everything else of it, this
    /// index included, lies in front of them.
    pub fn values_start(&self, group: &GroupRef) -> u64 {
        self.bytes(group, VALUE, 0..0).start
    }

    /// The place of a page of a column of the schema.
    pub(crate) fn place(&self, column: usize, page: usize) -> PagePlace {
        self.chunk(column).pages[page]
    }

    /// The bytes of the file that hold `pages` of a column of the schema.
    pub(crate) fn bytes(&self, group: &GroupRef, column: usize, pages: Range<usize>) -> Range<u64> {
        let chunk = self.chunk(column);
        let sum = |pages: &[PagePlace]| pages.iter().map(PagePlace::length).sum::<u64>();
        let data = group.start + u64::from(group.index_length);
        let start = data + u64::from(chunk.start) + sum(&chunk.pages[..pages.start]);
        start..start + sum(&chunk.pages[pages])
    }

    fn chunk(&self, column: usize) -> &ColumnPages {
        assert!(column < LEAVES, "column {column}");
        self.column(COLUMNS[column].field)
            .expect("checked when it was read")
    }
}
