//! Writes data files: rows in, in the order of (partition, offset), bytes out as they are ready.
//!
//! ```text
//! begin(partition, base) ─► push(record)* ─► end(end) ─► begin(next partition) … ─► finish
//!                              └─► take_parts(): bytes of the file, in order
//! ```
//!
//! Between `begin` and `end` the writer cuts row groups by itself; each covers the offsets from its
//! first record to the next group's, so that the groups of a partition tile what was begun and
//! ended, gaps included.
//!
//! # Memory
//! One row group compressed, one page uncompressed, what was not taken yet, and some bytes for each
//! page of the file. A value larger than a page is a page; it is copied once and compressed as a
//! stream. Nothing else grows with the topic. A batch with a value of 47 MiB, which no codec makes
//! smaller, takes 207 MiB besides itself; the worst there can be, one of 32 million headers, twice
//! that, since every header takes eight bytes of pages instead of two.
//!
//! # A crash
//! leaves an unfinished upload. Nothing refers to a file before it is finished.

use bytes::Bytes;
use frazil_core::Offset;
use frazil_core::batch::codec::decompress;
use frazil_core::batch::{
    BatchHeader, Codec, HEADER_LENGTH, RECORDS_MAX, RecordRef, RecordSlices, RecordsError,
    TimestampType,
};

use crate::column::{Column, Compressor};
use crate::index::{GroupIndex, PageRows};
use crate::manifest::GroupRef;
use crate::parquet::footer::{self, GroupFacts};
use crate::schema::{
    COLUMNS, HEADER_KEY, HEADER_KEY_RAW, HEADER_VALUE, KEY, OFFSET, PARTITION, TIMESTAMP,
    TIMESTAMP_RAW, TIMESTAMP_TYPE, VALUE, micros,
};
use crate::{BatchReason, Error};
use frazil_core::cold::ObjectId;

/// The version of the files, in each of them under the key `frazil.format`.
pub const FORMAT: &str = "1";
/// The most rows of a page, whatever is configured.
pub(crate) const PAGE_ROWS_MAX: u32 = 1 << 16;
const PAGE_BYTES_MAX: usize = 4 << 20;

/// How files are cut.
#[derive(Clone, Copy, Debug)]
pub struct WriterConfig {
    /// Level of zstd.
    pub zstd_level: i32,
    /// Rows of a page, 1 to 65 536. A page is the least that is read.
    pub page_rows: u32,
    /// Bytes of a page's keys, values and headers before compression, up to 4 MiB.
    pub page_bytes: usize,
    /// Bytes of a row group after compression. A row group is the most that one GET reads.
    pub group_bytes: usize,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            zstd_level: 1,
            page_rows: 1000,
            page_bytes: 256 << 10,
            group_bytes: 8 << 20,
        }
    }
}

/// Gives the records of a batch whose first offset is `base` to `each`, in order, until that fails.
///
/// # Errors
/// [`Error::Batch`] if it cannot be read: its checksum, its codec, a record, or records that are not
/// in order, are outside the batch, or control it; and what `each` fails with.
pub fn records<E: From<Error>>(
    base: Offset,
    batch: &Bytes,
    mut each: impl FnMut(&RecordRef<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |reason| Error::Batch { base, reason };
    let header = BatchHeader::parse(batch).map_err(|error| failed(error.into()))?;
    header
        .check_crc(batch)
        .map_err(|error| failed(error.into()))?;
    if header.is_control() {
        return Err(failed(BatchReason::Control).into());
    }
    let section = batch.slice(HEADER_LENGTH..header.length as usize);
    let codec = header.codec().map_err(|error| failed(error.into()))?;
    let records = decompress(codec, &section, RECORDS_MAX)
        .map_err(|error| failed(RecordsError::from(error).into()))?;
    let end = Offset(base.0.saturating_add(i64::from(header.offsets())));
    let mut next = base;
    for record in RecordSlices::new(&header, base, &records) {
        let record = record.map_err(|error| failed(error.into()))?;
        if record.offset < next || record.offset >= end {
            return Err(failed(BatchReason::Offsets).into());
        }
        next = Offset(record.offset.0 + 1);
        each(&record)?;
    }
    Ok(())
}

/// Of two codecs in one row group, the one to serve all of it with: its readers know both.
fn cheapest(a: Option<Codec>, b: Option<Codec>) -> Option<Codec> {
    let cost = |codec: &Codec| match codec {
        Codec::Lz4 => 0,
        Codec::Snappy => 1,
        Codec::Zstd => 2,
        Codec::Gzip => 3,
        Codec::None => 4,
    };
    a.into_iter().chain(b).min_by_key(cost)
}

/// Writes one data file.
pub struct Writer {
    file: ObjectId,
    config: WriterConfig,
    compressor: Compressor,
    columns: Vec<Column>,
    parts: Vec<Bytes>,
    /// Bytes of the file so far, taken or not.
    position: u64,
    open: Option<Group>,
    page_rows: u32,
    page_bytes: usize,
    /// How the producer compressed the next records.
    produced: Option<Codec>,
    groups: Vec<GroupRef>,
    facts: Vec<GroupFacts>,
}

/// The row group under construction.
struct Group {
    partition: i32,
    base: Offset,
    /// The least offset that the next record can have.
    next: Offset,
    pages: Vec<PageRows>,
    records: u32,
    /// Smallest and largest timestamp.
    timestamps: Option<(i64, i64)>,
    codec: Option<Codec>,
}

impl Group {
    fn new(partition: i32, base: Offset) -> Self {
        Self {
            partition,
            base,
            next: base,
            pages: Vec::new(),
            records: 0,
            timestamps: None,
            codec: None,
        }
    }
}

/// A finished file.
#[derive(Debug)]
pub struct Written {
    /// What has not been taken yet, in order.
    pub parts: Vec<Bytes>,
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes from the first page index to the end: what a table engine reads first.
    pub tail_bytes: u32,
    /// The row groups, in order, ready for the manifests of their partitions.
    pub groups: Vec<GroupRef>,
}

impl Writer {
    /// An empty file named `file`.
    ///
    /// # Errors
    /// [`Error::Compress`] if zstd knows no such level.
    ///
    /// # Panics
    /// If the configuration exceeds what [`WriterConfig`] allows.
    pub fn new(file: ObjectId, config: WriterConfig) -> Result<Self, Error> {
        assert!(
            (1..=PAGE_ROWS_MAX).contains(&config.page_rows) && config.page_bytes <= PAGE_BYTES_MAX,
            "{config:?}"
        );
        Ok(Self {
            file,
            compressor: Compressor::new(config.zstd_level)?,
            config,
            columns: COLUMNS.iter().map(Column::new).collect(),
            parts: vec![Bytes::from_static(footer::MAGIC)],
            position: footer::MAGIC.len() as u64,
            open: None,
            page_rows: 0,
            page_bytes: 0,
            produced: None,
            groups: Vec::new(),
            facts: Vec::new(),
        })
    }

    /// Bytes of the file so far; what is not in a finished row group is not among them.
    pub fn bytes(&self) -> u64 {
        self.position
    }

    /// Row groups so far. Each takes some kilobytes of memory, and of the footer.
    pub fn groups(&self) -> usize {
        self.facts.len()
    }

    /// Takes what is ready, in order.
    pub fn take_parts(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.parts)
    }

    /// Begins the offsets from `base` on of `partition`.
    ///
    /// # Panics
    /// If other offsets have been begun and not ended, or `partition` is below the one before.
    pub fn begin(&mut self, partition: i32, base: Offset) {
        assert!(self.open.is_none(), "ranges are ended before the next");
        let in_order = self.groups.last().is_none_or(|last| {
            last.partition < partition || last.partition == partition && last.end <= base
        });
        assert!(in_order, "partition {partition} from {base} is too late");
        self.open = Some(Group::new(partition, base));
        self.produced = None;
    }

    /// Notes how the producer compressed the records that are pushed from now on, up to the end of
    /// what has been begun; `None`: that is not known.
    pub fn produced(&mut self, codec: Option<Codec>) {
        self.produced = codec;
    }

    /// Adds the records of a batch whose first offset is `base`. Those that lie below what has been
    /// begun are left out.
    ///
    /// # Errors
    /// [`Error::Batch`] if it cannot be read. Then the file cannot be finished.
    pub fn push_batch(&mut self, base: Offset, batch: &Bytes) -> Result<(), Error> {
        self.produced = BatchHeader::parse(batch)
            .and_then(|header| header.codec())
            .ok();
        records(base, batch, |record| {
            let group = self.open.as_ref().expect("a range has been begun");
            if record.offset < group.base && group.records == 0 {
                return Ok(());
            }
            if record.offset < group.next {
                let reason = BatchReason::Offsets;
                return Err(Error::Batch { base, reason });
            }
            self.push(record)
        })
    }

    /// Adds a record.
    ///
    /// # Panics
    /// If its offset is not above the last one, or nothing has been begun.
    pub fn push(&mut self, record: &RecordRef<'_>) -> Result<(), Error> {
        let bytes = record.key.map_or(0, <[u8]>::len)
            + record.value.map_or(0, <[u8]>::len)
            + record.headers.bytes().len();
        if self.page_rows > 0 && self.page_bytes + bytes > 2 * self.config.page_bytes {
            // So that a large record does not make a large page of the small ones before it.
            self.finish_page()?;
        }
        if self.page_rows == 0 && self.group_is_full() {
            let group = self.finish_group(record.offset)?;
            self.open = Some(Group::new(group, record.offset));
        }
        let group = self.open.as_mut().expect("a range has been begun");
        assert!(record.offset >= group.next, "{record:?} is too late");
        group.next = Offset(record.offset.0 + 1);
        group.records += 1;
        if group.codec != self.produced {
            group.codec = cheapest(group.codec, self.produced);
        }
        let (least, largest) = group.timestamps.unwrap_or((i64::MAX, i64::MIN));
        group.timestamps = Some((least.min(record.timestamp), largest.max(record.timestamp)));
        if self.page_rows == 0 {
            group.pages.push(PageRows {
                rows: 0,
                first: record.offset,
            });
        }
        let partition = group.partition;
        self.row(partition, record);
        self.page_rows += 1;
        self.page_bytes += bytes;
        if self.page_rows >= self.config.page_rows || self.page_bytes >= self.config.page_bytes {
            self.finish_page()?;
        }
        Ok(())
    }

    fn row(&mut self, partition: i32, record: &RecordRef<'_>) {
        let columns = &mut self.columns;
        columns[PARTITION].number(i64::from(partition));
        columns[OFFSET].number(record.offset.0);
        match micros(record.timestamp) {
            Some(micros) => {
                columns[TIMESTAMP].number(micros);
                columns[TIMESTAMP_RAW].absent(0, 0);
            }
            None => {
                columns[TIMESTAMP].absent(0, 0);
                columns[TIMESTAMP_RAW].number(record.timestamp);
            }
        }
        columns[TIMESTAMP_TYPE].number(match record.timestamp_type {
            TimestampType::CreateTime => 0,
            TimestampType::LogAppendTime => 1,
        });
        for (column, bytes) in [(KEY, record.key), (VALUE, record.value)] {
            match bytes {
                Some(bytes) => columns[column].value(0, bytes),
                None => columns[column].absent(0, 0),
            }
        }
        let mut repetition = 0;
        for (key, value) in record.headers.iter() {
            match std::str::from_utf8(key) {
                Ok(_) => {
                    columns[HEADER_KEY].value(repetition, key);
                    columns[HEADER_KEY_RAW].absent(repetition, 1);
                }
                Err(_) => {
                    let readable = String::from_utf8_lossy(key);
                    columns[HEADER_KEY].value(repetition, readable.as_bytes());
                    columns[HEADER_KEY_RAW].value(repetition, key);
                }
            }
            match value {
                Some(value) => columns[HEADER_VALUE].value(repetition, value),
                None => columns[HEADER_VALUE].absent(repetition, 1),
            }
            repetition = 1;
        }
        if repetition == 0 {
            for column in [HEADER_KEY, HEADER_VALUE, HEADER_KEY_RAW] {
                columns[column].absent(0, 0);
            }
        }
    }

    /// Ends what was begun: its offsets go up to `end` (exclusive).
    ///
    /// # Panics
    /// If nothing has been begun, or `end` is not behind the last record and the base.
    pub fn end(&mut self, end: Offset) -> Result<(), Error> {
        self.finish_group(end).map(drop)
    }

    /// The file's last bytes.
    ///
    /// # Panics
    /// If a range has been begun and not ended.
    pub fn finish(mut self) -> Written {
        assert!(self.open.is_none(), "a range has not been ended");
        let properties = [("frazil.format", FORMAT), footer::SCHEMA_PROPERTY];
        let tail = footer::tail(&self.facts, self.position, &properties);
        let tail_bytes = tail.len() as u32;
        self.emit(tail.into());
        Written {
            parts: self.parts,
            bytes: self.position,
            tail_bytes,
            groups: self.groups,
        }
    }

    fn emit(&mut self, bytes: Bytes) {
        self.position += bytes.len() as u64;
        if !bytes.is_empty() {
            self.parts.push(bytes);
        }
    }

    fn group_is_full(&self) -> bool {
        let finished: usize = self.columns.iter().map(Column::finished).sum();
        finished >= self.config.group_bytes
    }

    fn finish_page(&mut self) -> Result<(), Error> {
        if self.page_rows > 0 {
            for column in &mut self.columns {
                column.finish_page(&mut self.compressor)?;
            }
            let group = self.open.as_mut().expect("a page is of a group");
            let page = group.pages.last_mut().expect("begun with its first row");
            page.rows = self.page_rows;
            self.page_rows = 0;
            self.page_bytes = 0;
        }
        Ok(())
    }

    /// Closes the open row group, which covers its offsets up to `end`, and answers its partition.
    fn finish_group(&mut self, end: Offset) -> Result<i32, Error> {
        self.finish_page()?;
        let group = self.open.take().expect("a range has been begun");
        assert!(
            group.next <= end && group.base < end,
            "{end} is too early for {} to {}",
            group.base,
            group.next
        );
        let mut written = GroupRef {
            base: group.base,
            end,
            file: self.file,
            partition: group.partition,
            start: self.position,
            length: 0,
            index_length: 0,
            index_crc: 0,
            records: group.records,
            min_timestamp: group.timestamps.map_or(-1, |(least, _)| least),
            max_timestamp: group.timestamps.map_or(-1, |(_, largest)| largest),
            codec: group.codec,
        };
        // Offsets without any record: there is nothing to write, only to remember.
        if group.records > 0 {
            self.write_group(group, &mut written);
        }
        let partition = written.partition;
        self.groups.push(written);
        Ok(partition)
    }

    fn write_group(&mut self, group: Group, written: &mut GroupRef) {
        let rows = group.pages.iter().map(|page| page.rows).collect();
        let mut index = GroupIndex {
            file: self.file,
            partition: group.partition,
            base: written.base,
            end: written.end,
            pages: group.pages,
            columns: Vec::with_capacity(self.columns.len()),
        };
        let mut start = 0;
        let mut pages = Vec::with_capacity(self.columns.len());
        let mut chunks = Vec::with_capacity(self.columns.len());
        for column in &mut self.columns {
            let (bytes, facts, places) = column.finish_group(start);
            start += bytes.iter().map(|piece| piece.len() as u32).sum::<u32>();
            index.columns.push(places);
            chunks.push(facts);
            pages.push(bytes);
        }
        let index = index.encode();
        written.index_length = index.len() as u32;
        written.index_crc = crc32c::crc32c(&index);
        written.length = written.index_length + start;
        self.emit(index.into());
        for (chunk, pieces) in chunks.iter_mut().zip(pages) {
            chunk.start = self.position;
            pieces.into_iter().for_each(|piece| self.emit(piece));
        }
        self.facts.push(GroupFacts {
            rows,
            columns: chunks,
        });
    }
}
