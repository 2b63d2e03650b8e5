//! Finds in the log of earlier registrations what the state still expects of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use frazil_core::batch::BatchHeader;
use frazil_core::env::Disk;
use frazil_core::frame::{FILE_HEADER_LENGTH, FRAME_HEADER_LENGTH, Scanner};
use frazil_core::ports::BatchInfo;
use frazil_core::sabotage::{self, Bug};
use frazil_core::{BrokerEpoch, Extent, Location, Offset, TopicPartition};

use super::file::{self, BATCHES, FILE_KIND, PAYLOAD_HEADER};
use crate::Error;
use crate::error::Lost;
use crate::flush::pipeline::Ticket;

/// What a start found.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// What is expected, to be uploaded.
    pub(crate) extents: Vec<RecoveredExtent>,
    /// All files there are. They can go when everything expected stands in the store.
    pub(crate) files: Vec<PathBuf>,
    /// The recovered batches that do not.
    pub(crate) outstanding: HashSet<Ticket>,
    /// Registrations whose logs hold something expected.
    pub(crate) epochs: BTreeSet<BrokerEpoch>,
    /// No file of the present registration reaches behind this position.
    pub(crate) position: u64,
    /// What is expected and not there.
    pub(crate) lost: Vec<Lost>,
}

/// An extent that the state expects in the log.
#[derive(Debug)]
pub(crate) struct RecoveredExtent {
    pub(crate) partition: TopicPartition,
    pub(crate) epoch: BrokerEpoch,
    /// Position of its first byte.
    pub(crate) start: u64,
    pub(crate) bytes: Bytes,
    pub(crate) batches: Vec<(Offset, BatchInfo, Bytes)>,
}

/// An expected extent.
#[derive(Clone, Copy, Debug)]
struct Expected {
    partition: TopicPartition,
    extent: Extent,
    epoch: BrokerEpoch,
    start: u64,
    length: u32,
}

impl Expected {
    fn lost(&self, reason: &dyn std::fmt::Display) -> Lost {
        Lost {
            partition: self.partition,
            base: self.extent.base,
            end: self.extent.end,
            reason: reason.to_string(),
        }
    }
}

/// Reads what `expected` names, in the order of the positions, and says what of it is missing or
/// damaged. Nothing is changed on the disk. Blocks.
///
/// # Errors
/// The disk cannot be listed.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    dir: Option<&Path>,
    epoch: BrokerEpoch,
    expected: &[(TopicPartition, Extent)],
) -> Result<Recovery, Error> {
    let mut wanted: Vec<Expected> = expected
        .iter()
        .filter_map(|(partition, extent)| match extent.location {
            Location::Wal {
                epoch,
                start,
                length,
                ..
            } => Some(Expected {
                partition: *partition,
                extent: *extent,
                epoch,
                start,
                length,
            }),
            Location::Segment { .. } | Location::Lost => None,
        })
        .collect();
    wanted.sort_unstable_by_key(|expected| (expected.epoch, expected.start));
    let Some(dir) = dir else {
        let reason = "no write-ahead log is configured";
        return Ok(Recovery {
            lost: wanted.iter().map(|wanted| wanted.lost(&reason)).collect(),
            ..Recovery::default()
        });
    };
    let files = list(disk, dir).map_err(|source| Error::Wal {
        what: "list its files".into(),
        source,
    })?;
    let mut recovery = Recovery {
        epochs: wanted.iter().map(|expected| expected.epoch).collect(),
        files: files.values().cloned().collect(),
        ..Recovery::default()
    };
    for (&(_, start), path) in files.range((epoch, 0)..=(epoch, u64::MAX)) {
        let length = disk.open(path).and_then(|file| file.len());
        let length = length.map_err(|source| Error::Wal {
            what: format!("open {}", path.display()),
            source,
        })?;
        recovery.position = recovery.position.max(start.saturating_add(length));
    }
    let mut rest = wanted.as_slice();
    while let Some(first) = rest.first() {
        let before = files.range((first.epoch, 0)..=(first.epoch, first.start));
        let file = before.last();
        let next = files
            .range((first.epoch, first.start + 1)..=(first.epoch, u64::MAX))
            .next();
        let end = next.map_or(u64::MAX, |(&(_, next), _)| next);
        let epoch = first.epoch;
        let count = rest.partition_point(|e| (e.epoch, e.start) < (epoch, end));
        let (here, behind) = rest.split_at(count);
        let extents = &mut recovery.extents;
        let found = extents.len();
        let read = match file {
            Some((&(_, start), path)) => read_file(disk, path, start, here, extents),
            None => Err("there is no file that could hold them".to_owned()),
        };
        if let Err(reason) = read
            && !sabotage::on(Bug::LostWalIsSkipped)
        {
            let found = recovery.extents.len() - found;
            let missing = here[found..].iter();
            recovery
                .lost
                .extend(missing.map(|wanted| wanted.lost(&reason)));
        }
        rest = behind;
    }
    Ok(recovery)
}

/// The files of the log, by registration and position.
fn list(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<BTreeMap<(BrokerEpoch, u64), PathBuf>> {
    disk.create_dir_all(dir)?;
    let names = disk.list(dir)?;
    let files = names
        .iter()
        .filter_map(|name| Some((file::parse_name(name)?, dir.join(name))));
    Ok(files.collect())
}

/// Reads what is expected of one file, in order of the positions, until something is not there; then
/// it says why.
fn read_file(
    disk: &Arc<dyn Disk>,
    path: &Path,
    file_start: u64,
    expected: &[Expected],
    out: &mut Vec<RecoveredExtent>,
) -> Result<(), String> {
    let mut expected = expected.iter().peekable();
    let lost = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let file = disk.open(path).map_err(|error| lost(&error))?;
    let mut scanner = Scanner::of_file(&*file).map_err(|error| lost(&error))?;
    if scanner.header().kind != FILE_KIND {
        return Err(lost(&"it is a log of something else"));
    }
    while expected.peek().is_some() {
        let frame = match scanner.next() {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(lost(&error)),
            None => {
                let end = scanner.end().position;
                return Err(lost(&format!("the log ends at byte {end}")));
            }
        };
        let position = file_start + frame.position - FILE_HEADER_LENGTH as u64;
        let first = position + (FRAME_HEADER_LENGTH + PAYLOAD_HEADER) as u64;
        let end = position + (FRAME_HEADER_LENGTH + frame.payload.len()) as u64;
        while let Some(wanted) = expected.next_if(|wanted| wanted.start < end) {
            let header = file::payload_header(&wanted.partition);
            if frame.kind != BATCHES
                || !frame.payload.starts_with(&header)
                || wanted.start < first
                || u64::from(wanted.length) > end - wanted.start
            {
                return Err(lost(&format!("frame {} is another one", frame.sequence)));
            }
            let at = PAYLOAD_HEADER + (wanted.start - first) as usize;
            let bytes = frame.payload.slice(at..at + wanted.length as usize);
            let batches = split(&bytes, &wanted.extent).map_err(|reason| lost(&reason))?;
            out.push(RecoveredExtent {
                partition: wanted.partition,
                epoch: wanted.epoch,
                start: wanted.start,
                bytes,
                batches,
            });
        }
    }
    Ok(())
}

/// The batches of an extent.
fn split(bytes: &Bytes, extent: &Extent) -> Result<Vec<(Offset, BatchInfo, Bytes)>, String> {
    let mut batches = Vec::new();
    let (mut at, mut offset) = (0, extent.base);
    while at < bytes.len() {
        let header = BatchHeader::parse(&bytes[at..]).map_err(|error| error.to_string())?;
        let batch = bytes.slice(at..at + header.length as usize);
        if !sabotage::on(Bug::RecoveryIgnoresCrc) {
            header
                .check_crc(&batch)
                .map_err(|error| error.to_string())?;
        }
        let info = BatchInfo {
            length: header.length,
            records: header.offsets(),
            max_timestamp: header.max_timestamp,
            // It has been judged when it got its offset.
            producer: None,
        };
        batches.push((offset, info, batch));
        at += header.length as usize;
        offset = offset + info.records;
    }
    if offset == extent.end {
        Ok(batches)
    } else {
        Err(format!("the batches there end at offset {offset}"))
    }
}
