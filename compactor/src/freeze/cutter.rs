//! Extents in, data files out: rows in order, and where files end.
//!
//! A file ends when it is large, when the partitions begin anew, and at a change of day (or of what
//! else the topic's files are partitioned by), so that all its rows lie in one partition of the table.
//! Times may be anything, though, and files of one row each are worse than files of several days: so
//! changes of day cost what converted bytes earn, and a file for which nothing is left goes on
//! with rows of any time.
//!
//! Invariant: the row groups of what was put in tile the offsets of each partition, and a batch is
//! converted only if its checksum is right and its extent holds exactly the offsets that it should.
//!
//! # Memory
//! The file under construction, compressed, and what [`Writer`] takes besides.

use std::collections::BTreeMap;

use bytes::Bytes;
use frazil_core::batch::{BatchHeader, Codec, RecordRef};
use frazil_core::cold::ObjectId;
use frazil_core::sabotage::{self, Bug};
use frazil_core::topic_config::PartitionBy;
use frazil_core::{Offset, SegmentId};
use frazil_table::iceberg::Partition;
use frazil_table::{GroupRef, Writer, WriterConfig, writer};

use super::JobError;

/// Changes of day that a job can follow at once.
const CUTS: u64 = 4;
/// Bytes converted that earn another.
const BYTES_PER_CUT: u64 = 16 << 20;

/// One extent with its bytes.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// The partition's index.
    pub(super) partition: i32,
    /// First offset.
    pub(super) base: Offset,
    /// One past the last offset.
    pub(super) end: Offset,
    /// Where the bytes are from; `None`: they are lost.
    pub(super) segment: Option<SegmentId>,
    /// Whole batches.
    pub(super) bytes: Bytes,
}

/// A data file that is ready to be put. Without rows there is nothing to put.
#[derive(Debug)]
pub(super) struct File {
    /// Its name.
    pub(super) id: ObjectId,
    /// Its bytes.
    pub(super) parts: Vec<Bytes>,
    /// How many.
    pub(super) bytes: u64,
    /// Its row groups.
    pub(super) groups: Vec<GroupRef>,
}

impl File {
    /// Rows in it.
    pub(super) fn rows(&self) -> u64 {
        let groups = self.groups.iter();
        groups.map(|group| u64::from(group.records)).sum()
    }
}

/// Converts extents.
pub(super) struct Cutter {
    next: ObjectId,
    by: PartitionBy,
    config: WriterConfig,
    file_bytes: u64,
    cuts: u64,
    converted: u64,
    open: Option<Open>,
    /// How the producer compressed the next rows, if that is known.
    pub(super) produced: Option<Codec>,
    files: Vec<File>,
}

/// The file under construction.
struct Open {
    id: ObjectId,
    writer: Writer,
    range: Option<Range>,
    /// The largest partition so far, and where the last range of it ended.
    partition: i32,
    reached: Offset,
    times: Times,
}

/// The offsets that rows are being added of.
struct Range {
    partition: i32,
    base: Offset,
    /// Where they end so far.
    end: Offset,
    /// Whether the writer knows of them. It must not, as long as they may go into another file.
    begun: bool,
}

/// Where the rows of a file lie.
enum Times {
    /// There are none yet.
    Empty,
    /// All in one partition of the table.
    One(Partition),
    /// Anywhere.
    Any,
}

impl Cutter {
    /// Names files from `next` on and closes them when they have about `file_bytes` bytes.
    pub(super) fn new(
        next: ObjectId,
        by: PartitionBy,
        config: WriterConfig,
        file_bytes: u64,
    ) -> Self {
        Self {
            next,
            by,
            config,
            file_bytes,
            cuts: CUTS,
            converted: 0,
            open: None,
            produced: None,
            files: Vec::new(),
        }
    }

    /// The name that the next object of the claim can have.
    pub(super) fn next(&self) -> ObjectId {
        self.next
    }

    /// Takes the files that are finished.
    pub(super) fn take_files(&mut self) -> Vec<File> {
        std::mem::take(&mut self.files)
    }

    /// Whether there are such.
    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Converts an extent, which follows the last one of its partition.
    ///
    /// # Errors
    /// [`JobError::Segment`] if its bytes are not what they should be. Nothing of this can be used
    /// then.
    pub(super) fn push(&mut self, piece: &Piece) -> Result<(), JobError> {
        if piece.segment.is_none() {
            self.begin(piece.partition, piece.base)?;
            return self.reach(piece.end);
        }
        let mut base = piece.base;
        let mut rest = piece.bytes.clone();
        while !rest.is_empty() {
            let header = BatchHeader::parse(&rest).map_err(|error| piece.damaged(base, &error))?;
            let batch = rest.split_to(header.length as usize);
            let end = base + header.offsets();
            if end > piece.end {
                return Err(piece.damaged(base, &"it holds more offsets than its extent"));
            }
            self.begin(piece.partition, base)?;
            self.produced = header.codec().ok();
            // The last one of several.
            let dropped = rest.is_empty() && base > piece.base;
            if dropped && sabotage::on(Bug::ConversionDropsBatch) {
                self.reach(end)?;
                base = end;
                continue;
            }
            writer::records(base, &batch, |record| self.row(piece.partition, record)).map_err(
                |error: JobError| match error {
                    JobError::Table(error @ frazil_table::Error::Batch { .. }) => {
                        piece.damaged(base, &error)
                    }
                    other => other,
                },
            )?;
            self.reach(end)?;
            self.earn(batch.len() as u64);
            base = end;
        }
        if base != piece.end {
            return Err(piece.damaged(base, &"the extent ends before its last offset"));
        }
        Ok(())
    }

    /// Adds a row of `partition`, whose range has been begun, in a place where it follows the last.
    pub(super) fn row(&mut self, partition: i32, record: &RecordRef<'_>) -> Result<(), JobError> {
        if self.by != PartitionBy::None {
            self.place(partition, record)?;
        }
        let open = self.open.as_mut().expect("a range has been begun");
        open.begin();
        open.writer.produced(self.produced);
        Ok(open.writer.push(record)?)
    }

    /// Begins a range where the last one of the partition has ended, or goes on with that.
    pub(super) fn begin(&mut self, partition: i32, base: Offset) -> Result<(), JobError> {
        if let Some(open) = &mut self.open {
            let goes_on = |range: &Range| range.partition == partition && range.end == base;
            if open.range.as_ref().is_some_and(goes_on) {
                return Ok(());
            }
            open.end()?;
            if (open.partition, open.reached) > (partition, base) {
                // Files are sorted.
                self.close()?;
            }
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let id = self.next;
                self.next.number += 1;
                self.open.insert(Open {
                    id,
                    writer: Writer::new(id, self.config)?,
                    range: None,
                    partition,
                    reached: base,
                    times: Times::Empty,
                })
            }
        };
        (open.partition, open.reached) = (partition, base);
        open.range = Some(Range {
            partition,
            base,
            end: base,
            begun: false,
        });
        Ok(())
    }

    /// The open range reaches up to `end` now. Closes a file that is large.
    pub(super) fn reach(&mut self, end: Offset) -> Result<(), JobError> {
        let open = self.open.as_mut().expect("a range has been begun");
        open.begin();
        if let Some(range) = &mut open.range {
            range.end = end;
        }
        if open.writer.bytes() >= self.file_bytes {
            self.close()?;
        }
        Ok(())
    }

    /// Notes so many bytes as converted.
    pub(super) fn earn(&mut self, bytes: u64) {
        let before = self.converted / BYTES_PER_CUT;
        self.converted += bytes;
        self.cuts += self.converted / BYTES_PER_CUT - before;
    }

    /// Closes the file under construction.
    pub(super) fn close(&mut self) -> Result<(), JobError> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        open.end()?;
        let written = open.writer.finish();
        let mut file = File {
            id: open.id,
            parts: written.parts,
            bytes: written.bytes,
            groups: written.groups,
        };
        if file.rows() == 0 {
            file.parts = Vec::new();
            file.bytes = 0;
        }
        self.files.push(file);
        Ok(())
    }

    /// Closes the file if `record` lies in another partition of the table than its rows.
    fn place(&mut self, partition: i32, record: &RecordRef<'_>) -> Result<(), JobError> {
        let value = Partition::of(self.by, record.timestamp);
        let open = self.open.as_mut().expect("a range has been begun");
        match open.times {
            Times::Any => return Ok(()),
            Times::One(one) if one == value => return Ok(()),
            Times::One(_) if self.cuts == 0 => {
                open.times = Times::Any;
                return Ok(());
            }
            Times::One(_) => {}
            Times::Empty => {
                open.times = Times::One(value);
                return Ok(());
            }
        }
        self.cuts -= 1;
        // What the writer knows nothing of goes into the next file whole.
        let mut base = record.offset;
        match &mut open.range {
            Some(range) if range.begun => range.end = record.offset,
            Some(range) => base = range.base,
            None => {}
        }
        self.close()?;
        self.begin(partition, base)?;
        if let Some(open) = &mut self.open {
            open.times = Times::One(value);
        }
        Ok(())
    }
}

impl Open {
    /// Tells the writer of the range.
    fn begin(&mut self) {
        if let Some(range) = &mut self.range
            && !range.begun
        {
            range.begun = true;
            self.writer.begin(range.partition, range.base);
        }
    }

    /// Ends the range.
    fn end(&mut self) -> Result<(), JobError> {
        match self.range.take() {
            Some(range) if range.begun => {
                self.reached = range.end;
                Ok(self.writer.end(range.end)?)
            }
            _ => Ok(()),
        }
    }
}

impl Piece {
    fn damaged(&self, base: Offset, reason: &dyn std::fmt::Display) -> JobError {
        JobError::Segment {
            segment: self.segment.map_or_else(String::new, |id| id.object_key()),
            partition: self.partition,
            base,
            reason: reason.to_string(),
        }
    }
}

/// The row groups of files by partition.
pub(super) fn by_partition(files: &[(ObjectId, Vec<GroupRef>)]) -> BTreeMap<i32, Vec<GroupRef>> {
    let mut all: BTreeMap<i32, Vec<GroupRef>> = BTreeMap::new();
    for group in files.iter().flat_map(|(_, groups)| groups) {
        all.entry(group.partition).or_default().push(group.clone());
    }
    all
}

#[cfg(test)]
mod tests;
