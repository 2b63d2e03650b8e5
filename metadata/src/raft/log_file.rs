//! The files of the Raft log: naming, creation, recovery, reading one frame back.
//!
//! A file is framed by [`frazil_core::frame`]; each frame's payload is a [`Record`]. Files are
//! named `raft-<sequence of the first frame, 16 hex digits>.log`: the sequence counts frames, never
//! goes back, and so orders the files and names each only once, which the index of its first entry
//! would not after a truncation. Every file begins with a purge record, so that what was purged is
//! known after the files before it are gone.
//!
//! # On a crash
//!
//! | crash | what recovery finds |
//! |---|---|
//! | while a file is created | a `.tmp` file, which is removed; or the file, whole |
//! | while frames are written | a torn tail in the last file, which is cut off; it was never answered for |
//! | between two files | the older was synced before the newer was created: no gap |
//! | while purged files are removed | some of them, oldest gone first; the purge record is already durable |
//!
//! Recovery syncs what it has read before anyone may rely on it, and always goes on in a new file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use frazil_core::env::{Disk, DiskFile};
use frazil_core::frame::{self, FileHeader, FileHeaderError, FrameMeta, Salt, ScanError, Scanner};

use super::log_index::{LogIndex, Place};
use super::record::{Record, entry};
use super::room::synced;
use crate::error::Corrupt;

/// The kind of the files: a Raft log.
const FILE_KIND: u8 = 2;
/// The only kind of frame: a record.
const FRAME_KIND: u8 = 1;
/// Bytes that are written as zeros at once, ahead of the frames. Reserved space alone is not
/// enough: a file system notes for each block that it has been written, which makes a sync several
/// times as slow.
pub(crate) const ZEROED: u64 = 1 << 20;
const PREFIX: &str = "raft-";
const SUFFIX: &str = ".log";

/// A log file that frames are read from.
pub(crate) struct LogFile {
    /// The sequence of its first frame, which is its name.
    pub(crate) first_sequence: u64,
    pub(crate) salt: Salt,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// The name of the file that begins with frame `sequence`.
pub(crate) fn name(sequence: u64) -> String {
    format!("{PREFIX}{sequence:016x}{SUFFIX}")
}

fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    (digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u64::from_str_radix(digits, 16).ok())?
}

impl LogFile {
    /// Creates the file whose first frame is `first` with sequence `first_sequence`, preallocates
    /// `capacity` bytes and writes the first [`ZEROED`] of them. Blocks; durable on return. Answers
    /// the position behind the first frame.
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &Path,
        first_sequence: u64,
        salt: Salt,
        capacity: u64,
        first: &Record,
    ) -> io::Result<(Self, u64)> {
        let temporary = dir.join(format!("{}.tmp", name(first_sequence)));
        match disk.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let header = FileHeader {
            kind: FILE_KIND,
            salt,
            first_sequence,
        };
        let mut bytes = header.encode().to_vec();
        let mut payload = Vec::new();
        first.encode(&mut payload);
        encode(&mut bytes, &salt, first_sequence, first_sequence, &payload);
        let position = bytes.len() as u64;
        bytes.resize(bytes.len().max(ZEROED.min(capacity) as usize), 0);
        let written = || -> io::Result<Arc<dyn DiskFile>> {
            let file = disk.create(&temporary)?;
            file.preallocate(capacity)?;
            file.write_all_at(&bytes, 0)?;
            synced(file.sync_data())?;
            Ok(file)
        };
        let file = written().inspect_err(|_| {
            // The next attempt would remove it; but what is full should not stay so because of it.
            let _ = disk.remove(&temporary);
        })?;
        disk.rename(&temporary, &dir.join(name(first_sequence)))?;
        synced(disk.sync_dir(dir))?;
        let created = Self {
            first_sequence,
            salt,
            file,
        };
        Ok((created, position))
    }

    /// Reads a frame back and checks it. Blocks.
    pub(crate) fn read(&self, place: Place) -> io::Result<Record> {
        // A scan of a file that has only this frame: the same checks as in recovery.
        let header = FileHeader {
            kind: FILE_KIND,
            salt: self.salt,
            first_sequence: place.sequence,
        };
        let mut bytes = header.encode().to_vec();
        let start = bytes.len();
        bytes.resize(start + place.length as usize, 0);
        let read = self.file.read_at(&mut bytes[start..], place.offset)?;
        bytes.truncate(start + read);
        let frame = Scanner::of_bytes(&bytes)
            .map_err(scan_error)?
            .next()
            .transpose()
            .map_err(scan_error)?
            .ok_or_else(|| Corrupt::new(format!("no whole frame {}", place.sequence)))?;
        Ok(Record::decode(&frame.payload)?)
    }
}

/// Appends a frame with a record's bytes to `out`.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    salt: &Salt,
    sequence: u64,
    synced_below: u64,
    payload: &[u8],
) {
    let meta = FrameMeta {
        kind: FRAME_KIND,
        sequence,
        synced_below,
    };
    frame::encode_frame(out, salt, meta, &[payload]);
}

/// A file that recovery has read.
pub(crate) struct RecoveredFile {
    pub(crate) file: LogFile,
    /// The largest index of an entry in it.
    pub(crate) last_index: Option<u64>,
}

/// What the files of a directory hold.
pub(crate) struct Recovered {
    pub(crate) log: LogIndex,
    /// The files, oldest first.
    pub(crate) files: Vec<RecoveredFile>,
    /// The sequence that the next frame has.
    pub(crate) next_sequence: u64,
}

/// Reads the log in `dir`. Blocks. What it answers is durable.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path, cache_bytes: u64) -> io::Result<Recovered> {
    let mut sequences = Vec::new();
    for file in disk.list(dir)? {
        if let Some(sequence) = sequence_of(&file) {
            sequences.push(sequence);
        } else if file.starts_with(PREFIX) && file.ends_with(".tmp") {
            disk.remove(&dir.join(file))?;
        }
    }
    sequences.sort_unstable();

    let mut recovered = Recovered {
        log: LogIndex::new(cache_bytes),
        files: Vec::new(),
        next_sequence: sequences.first().copied().unwrap_or(0),
    };
    for (position, &sequence) in sequences.iter().enumerate() {
        if sequence != recovered.next_sequence {
            return Err(Corrupt::new(format!(
                "the log ends before frame {}, but {} exists",
                recovered.next_sequence,
                name(sequence)
            ))
            .into());
        }
        let last = position + 1 == sequences.len();
        read_file(disk, dir, sequence, last, &mut recovered)?;
    }
    let first = recovered.log.range().start;
    let expected = recovered.log.purged().map_or(0, |id| id.index + 1);
    if !recovered.log.range().is_empty() && first != expected {
        return Err(Corrupt::new(format!(
            "the log begins at index {first}, but was purged below {expected}"
        ))
        .into());
    }
    Ok(recovered)
}

fn read_file(
    disk: &dyn Disk,
    dir: &Path,
    sequence: u64,
    last: bool,
    recovered: &mut Recovered,
) -> io::Result<()> {
    let file = disk.open(&dir.join(name(sequence)))?;
    let mut scanner = Scanner::of_file(&*file).map_err(scan_error)?;
    let header = *scanner.header();
    if header.kind != FILE_KIND || header.first_sequence != sequence {
        return Err(Corrupt::new(format!("{} is another file", name(sequence))).into());
    }
    let mut last_index = None;
    while let Some(frame) = scanner.next() {
        let frame = frame.map_err(scan_error)?;
        let place = Place {
            file: sequence,
            offset: frame.position,
            length: (scanner.end().position - frame.position) as u32,
            sequence: frame.sequence,
        };
        match Record::decode(&frame.payload)? {
            Record::Entry { id, payload } => {
                let entry = entry(id, payload)?;
                last_index = last_index.max(Some(entry.log_id.index));
                recovered
                    .log
                    .append(entry, frame.payload.len() as u32, Some(place))?;
            }
            Record::Truncate { after } => {
                recovered.log.truncate(after.map(Into::into).as_ref());
            }
            Record::Purge { upto } => {
                if let Some(upto) = upto {
                    recovered.log.purge(upto.into());
                }
            }
        }
    }
    let end = scanner.end();
    if last {
        if end.torn {
            tracing::info!(
                file = name(sequence),
                position = end.position,
                "cutting unsynced writes off the raft log"
            );
        }
        // What was read may be in the page cache only.
        file.set_len(end.position)?;
        file.sync_data()?;
    }
    recovered.next_sequence = end.next_sequence;
    recovered.files.push(RecoveredFile {
        file: LogFile {
            first_sequence: sequence,
            salt: header.salt,
            file,
        },
        last_index,
    });
    Ok(())
}

fn scan_error(error: ScanError) -> io::Error {
    match error {
        ScanError::Io(error) => error,
        other @ (ScanError::Header(
            FileHeaderError::Blank
            | FileHeaderError::Truncated(_)
            | FileHeaderError::Magic
            | FileHeaderError::Version(_)
            | FileHeaderError::Crc,
        )
        | ScanError::Corrupt { .. }) => Corrupt::new(format!("raft log: {other}")).into(),
    }
}
