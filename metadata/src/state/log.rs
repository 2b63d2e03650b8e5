//! The log of one partition: its bounds, where its offsets are, its idempotent producers.
//!
//! ```text
//!        log start                                   high watermark
//!            ▼                                              ▼
//!  ┌───────────────┬──────────┬─────────┬─────────┬─────────┐
//!  │ segment a     │ segment b│ segment b│ WAL 3  │ WAL 7   │
//!  └───────────────┴──────────┴─────────┴─────────┴─────────┘
//!  extents tile the offsets; only the first may begin before the log start
//! ```
//!
//! What is older may be cold: see [`cold`].
//!
//! An extent whose bytes are lost for good ([`Location::Lost`]) stays in its place, so that offsets
//! still have no gap; those that follow each other are one.
//!
//! Extents of one segment that follow each other in offsets and in bytes are one extent. Extents in
//! a write-ahead log are joined only within one append: a move names whole appends, and a joined
//! extent could not be cut, since the state does not know where its batches end.

mod cold;

use std::collections::VecDeque;
use std::ops::Range;

use frazil_core::cold::NodeRef;
use frazil_core::ports::{Append, AppendOutcome, BatchOutcome, BatchRefusal, Bounds, Commit, Move};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{BrokerId, Extent, Location, Offset, SegmentId};
use minicbor::{Decode, Encode};

use super::producers::{Producers, Verdict};
use super::segments::Segments;

pub(super) use cold::{Misfit, check_move};

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Log {
    #[n(0)]
    log_start: Offset,
    #[n(1)]
    high_watermark: Offset,
    /// Sorted, without gaps, up to the high watermark.
    #[n(2)]
    extents: VecDeque<Extent>,
    #[n(3)]
    producers: Producers,
    /// The root of the manifest of what is before the extents.
    #[n(4)]
    cold: Option<Box<NodeRef>>,
    /// The sum of the extents' lengths. Derived.
    #[cbor(skip)]
    bytes: u64,
}

/// Whether a commit makes sense in itself.
pub(super) fn check_commit(commit: &Commit) -> Result<(), &'static str> {
    for append in &commit.appends {
        let mut length = 0_u64;
        for batch in &append.batches {
            if batch.length == 0 || batch.records == 0 {
                return Err("a batch without bytes or records");
            }
            if batch.producer.is_some_and(|producer| {
                producer.id.0 < 0 || producer.epoch.0 < 0 || producer.base_sequence < 0
            }) {
                return Err("a negative producer id, epoch or sequence");
            }
            length += u64::from(batch.length);
        }
        if length == 0 || length != u64::from(append.location.length()) {
            return Err("a run whose length is not the sum of its batches");
        }
        if let Location::Wal { broker, epoch, .. } = append.location
            && (broker, epoch) != (commit.broker, commit.epoch)
        {
            return Err("batches in the write-ahead log of another registration");
        }
        if !fits(&append.location) {
            return Err("a location beyond the end of what can be addressed");
        }
    }
    for moved in &commit.moves {
        if moved.base < Offset::ZERO || moved.base >= moved.end {
            return Err("a move of no offsets");
        }
        if segment_of(&moved.to).is_none() || !fits(&moved.to) {
            return Err("a move that does not end in a segment");
        }
    }
    Ok(())
}

/// Whether the end of the location can be expressed.
fn fits(location: &Location) -> bool {
    match *location {
        Location::Segment { start, length, .. } => start.checked_add(length).is_some(),
        Location::Wal { start, length, .. } => start.checked_add(length.into()).is_some(),
        Location::Lost => true,
    }
}

pub(super) fn segment_of(location: &Location) -> Option<SegmentId> {
    match location {
        Location::Segment { id, .. } => Some(*id),
        Location::Wal { .. } | Location::Lost => None,
    }
}

/// `length` bytes of a location, `skip` bytes on.
fn part(location: &Location, skip: u32, length: u32) -> Location {
    match *location {
        Location::Segment { id, start, .. } => Location::Segment {
            id,
            start: start + skip,
            length,
        },
        Location::Wal {
            broker,
            epoch,
            start,
            ..
        } => Location::Wal {
            broker,
            epoch,
            start: start + u64::from(skip),
            length,
        },
        Location::Lost => Location::Lost,
    }
}

/// The two locations as one, if `b` begins where `a` ends.
fn joined(a: &Location, b: &Location) -> Option<Location> {
    let adjacent = match (a, b) {
        (
            Location::Segment { id, start, length },
            Location::Segment {
                id: next,
                start: next_start,
                ..
            },
        ) => id == next && start.checked_add(*length) == Some(*next_start),
        (
            Location::Wal {
                broker,
                epoch,
                start,
                length,
            },
            Location::Wal {
                broker: next,
                epoch: next_epoch,
                start: next_start,
                ..
            },
        ) => {
            (broker, epoch) == (next, next_epoch)
                && start.checked_add(u64::from(*length)) == Some(*next_start)
        }
        _ => false,
    };
    let length = a.length().checked_add(b.length())?;
    adjacent.then(|| part(a, 0, length))
}

/// The outcome for a partition that does not exist.
pub(super) fn refuse_unknown(append: &Append) -> AppendOutcome {
    AppendOutcome {
        log_start: Offset(-1),
        batches: vec![BatchOutcome::Refused(BatchRefusal::UnknownPartition); append.batches.len()],
    }
}

impl Log {
    pub(super) fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub(super) fn bounds(&self) -> Bounds {
        let ahead = u32::from(sabotage::on(Bug::HighWatermarkAhead));
        let bounds = self.bounds_in_state();
        Bounds {
            high_watermark: bounds.high_watermark + ahead,
            ..bounds
        }
    }

    fn bounds_in_state(&self) -> Bounds {
        Bounds {
            log_start: self.log_start,
            last_stable: self.high_watermark,
            high_watermark: self.high_watermark,
        }
    }

    /// Stored bytes, cold ones that can be read included.
    pub(super) fn bytes(&self) -> u64 {
        let cold = self.readable_cold().map_or(0, |root| root.bytes);
        self.bytes.saturating_add(cold)
    }

    pub(super) fn extents(&self) -> &VecDeque<Extent> {
        &self.extents
    }

    pub(super) fn producers(&self) -> &Producers {
        &self.producers
    }

    pub(super) fn producers_mut(&mut self) -> &mut Producers {
        &mut self.producers
    }

    /// Index of the extent that contains `offset`, or else of the first after it.
    pub(super) fn position(&self, offset: Offset) -> usize {
        self.extents.partition_point(|extent| extent.end <= offset)
    }

    /// Appends what can be appended of a run of batches. A batch that is refused or was there
    /// before leaves a hole in the bytes, not in the offsets.
    pub(super) fn append(
        &mut self,
        append: &Append,
        sealed: bool,
        now_ms: i64,
        segments: &mut Segments,
    ) -> AppendOutcome {
        let mut skip = 0;
        let mut in_run = false;
        let batches = append
            .batches
            .iter()
            .map(|batch| {
                let verdict = batch.producer.map_or(Verdict::Accept, |producer| {
                    self.producers.judge(&producer, batch.records)
                });
                let location = part(&append.location, skip, batch.length);
                skip += batch.length;
                let outcome = match verdict {
                    Verdict::Duplicate(_) if sabotage::on(Bug::RepeatsGetNewOffsets) => {
                        BatchOutcome::Duplicate(self.high_watermark)
                    }
                    Verdict::Duplicate(offset) => BatchOutcome::Duplicate(offset),
                    Verdict::Accept if sealed => BatchOutcome::Refused(BatchRefusal::SealedSegment),
                    Verdict::Refuse(refusal) => BatchOutcome::Refused(refusal),
                    Verdict::Accept => {
                        let base = self.high_watermark;
                        if let Some(producer) = &batch.producer {
                            self.producers
                                .remember(producer, batch.records, base, now_ms);
                        }
                        let extent = Extent {
                            base,
                            end: base + batch.records,
                            max_timestamp: batch.max_timestamp,
                            location,
                        };
                        self.push(extent, in_run, segments);
                        BatchOutcome::Appended(base)
                    }
                };
                in_run = matches!(outcome, BatchOutcome::Appended(_));
                outcome
            })
            .collect();
        AppendOutcome {
            log_start: self.log_start,
            batches,
        }
    }

    /// Adds an extent at the high watermark; `in_run`: it continues the append of the one before.
    fn push(&mut self, extent: Extent, in_run: bool, segments: &mut Segments) {
        self.high_watermark = extent.end;
        self.bytes += u64::from(extent.location.length());
        let segment = segment_of(&extent.location);
        if (in_run || segment.is_some())
            && let Some(last) = self.extents.back_mut()
            && let Some(location) = joined(&last.location, &extent.location)
        {
            last.end = extent.end;
            last.max_timestamp = last.max_timestamp.max(extent.max_timestamp);
            last.location = location;
            return;
        }
        if let Some(id) = segment {
            segments.refer(id);
        }
        self.extents.push_back(extent);
    }

    /// Which extents a move concerns; `None` if it has happened, or they are gone.
    ///
    /// # Errors
    /// It covers anything but whole extents of `broker`'s write-ahead log, or its bytes are not
    /// theirs. Bytes at its beginning may be too many: those of extents below the log start.
    pub(super) fn plan_move(
        &self,
        moved: &Move,
        broker: BrokerId,
    ) -> Result<Option<Range<usize>>, &'static str> {
        let first = self.position(moved.base);
        let last = self
            .extents
            .partition_point(|extent| extent.base < moved.end);
        if first >= last {
            return Ok(None);
        }
        let mut count = 0;
        let mut length = 0_u64;
        for extent in self.extents.range(first..last) {
            if matches!(extent.location, Location::Wal { broker: holder, .. } if holder == broker) {
                count += 1;
            }
            length += u64::from(extent.location.length());
        }
        if count == 0 {
            return Ok(None);
        }
        if count != last - first {
            return Err("a move of offsets that are not all in the gateway's write-ahead log");
        }
        let (base, end) = (self.extents[first].base, self.extents[last - 1].end);
        if base < moved.base || end != moved.end {
            return Err("a move that cuts an extent");
        }
        let available = u64::from(moved.to.length());
        if length > available || (length < available && base == moved.base) {
            return Err("a move to a different number of bytes");
        }
        Ok(Some(first..last))
    }

    /// Lets extents point to the segment they have reached. Whether any did.
    pub(super) fn apply_move(
        &mut self,
        moved: &Move,
        broker: BrokerId,
        segments: &mut Segments,
    ) -> bool {
        let (Ok(Some(range)), Some(id)) = (self.plan_move(moved, broker), segment_of(&moved.to))
        else {
            return false;
        };
        // From the back: at the front, bytes of extents that are gone may be left over.
        let mut rest = moved.to.length();
        for extent in self.extents.range_mut(range.clone()).rev() {
            let length = extent.location.length();
            rest -= length;
            extent.location = part(&moved.to, rest, length);
            segments.refer(id);
        }
        self.join(range, segments);
        true
    }

    /// Joins the extents in `range` with each other and with their neighbours.
    fn join(&mut self, range: Range<usize>, segments: &mut Segments) {
        let from = range.start.saturating_sub(1);
        let to = (range.end + 1).min(self.extents.len());
        let mut kept = from;
        for next in from + 1..to {
            let (a, b) = (self.extents[kept], self.extents[next]);
            match (segment_of(&a.location), joined(&a.location, &b.location)) {
                (Some(id), Some(location)) => {
                    self.extents[kept] = Extent {
                        base: a.base,
                        end: b.end,
                        max_timestamp: a.max_timestamp.max(b.max_timestamp),
                        location,
                    };
                    segments.merge(id);
                }
                _ => {
                    kept += 1;
                    self.extents[kept] = b;
                }
            }
        }
        self.extents.drain(kept + 1..to);
        self.shrink();
    }

    /// Raises the log start, at most to the high watermark; lower offsets are ignored. Whether it
    /// changed anything.
    pub(super) fn raise_start(&mut self, to: Offset, segments: &mut Segments, now_ms: i64) -> bool {
        let to = to.min(self.high_watermark);
        if to <= self.log_start {
            return false;
        }
        self.log_start = to;
        while let Some(extent) = self.extents.front().filter(|extent| extent.end <= to) {
            self.bytes -= u64::from(extent.location.length());
            if let Some(id) = segment_of(&extent.location) {
                segments.release(id, now_ms);
            }
            self.extents.pop_front();
        }
        self.shrink();
        true
    }

    /// Lets go of everything, because the partition is deleted.
    pub(super) fn release(&self, segments: &mut Segments, now_ms: i64) {
        for extent in &self.extents {
            if let Some(id) = segment_of(&extent.location) {
                segments.release(id, now_ms);
            }
        }
    }

    /// Gives up the extents within `range` that are in the write-ahead log of `holder`. They become
    /// lost, and those that follow each other one. Whether there were any.
    ///
    /// They keep their largest timestamp: retention lets go of them when it would have let go of
    /// their records.
    pub(super) fn give_up(&mut self, holder: BrokerId, range: Range<Offset>) -> bool {
        let concerns = |extent: &Extent| {
            matches!(extent.location, Location::Wal { broker, .. } if broker == holder)
                && range.start <= extent.base
                && extent.end <= range.end
        };
        if !self.extents.iter().any(concerns) {
            return false;
        }
        let before = std::mem::take(&mut self.extents);
        for mut extent in before {
            if concerns(&extent) {
                self.bytes -= u64::from(extent.location.length());
                extent.location = Location::Lost;
            }
            match self.extents.back_mut() {
                Some(last)
                    if (last.location, extent.location) == (Location::Lost, Location::Lost) =>
                {
                    last.end = extent.end;
                    last.max_timestamp = last.max_timestamp.max(extent.max_timestamp);
                }
                _ => self.extents.push_back(extent),
            }
        }
        self.shrink();
        true
    }

    fn shrink(&mut self) {
        if self.extents.capacity() > 4 * self.extents.len().max(4) {
            self.extents.shrink_to(2 * self.extents.len());
        }
    }

    pub(super) fn rebuild(&mut self) {
        self.bytes = self
            .extents
            .iter()
            .map(|extent| u64::from(extent.location.length()))
            .sum();
    }

    pub(super) fn check(&self) -> Result<(), String> {
        /// Far above what anyone appends, far below where additions overflow.
        const OFFSET_MAX: Offset = Offset(1 << 62);
        if !(Offset::ZERO <= self.log_start
            && self.log_start <= self.high_watermark
            && self.high_watermark <= OFFSET_MAX)
        {
            return Err(format!(
                "bounds {} and {}",
                self.log_start, self.high_watermark
            ));
        }
        let mut expected = None;
        let mut bytes = 0;
        let mut lost = false;
        for extent in &self.extents {
            let was_lost = std::mem::replace(&mut lost, extent.location == Location::Lost);
            if lost && was_lost {
                return Err(format!("lost extents apart at offset {}", extent.base));
            }
            if expected.is_some_and(|expected| expected != extent.base)
                || extent.base >= extent.end
                || extent.base < Offset::ZERO
            {
                return Err(format!("a gap or overlap at offset {}", extent.base));
            }
            if (extent.location.length() == 0 && !lost) || !fits(&extent.location) {
                return Err(format!("no bytes at offset {}", extent.base));
            }
            bytes += u64::from(extent.location.length());
            expected = Some(extent.end);
        }
        if expected.is_some_and(|end| end != self.high_watermark) {
            return Err(format!("no extent ends at {}", self.high_watermark));
        }
        self.check_cold()?;
        if bytes != self.bytes {
            return Err(format!("{bytes} bytes counted as {}", self.bytes));
        }
        self.producers.check(self.high_watermark)
    }
}
