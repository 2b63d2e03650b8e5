//! Reading a log file from its beginning to the last frame that is whole.

use std::io;

use bytes::Bytes;

use super::{
    FILE_HEADER_LENGTH, FRAME_HEADER_LENGTH, FRAME_MAGIC, FileHeader, FileHeaderError, FrameHeader,
};
use crate::env::DiskFile;
use crate::sabotage::{self, Bug};

/// Bytes read at once; the buffer grows beyond it only for a larger frame.
const CHUNK: usize = 1 << 20;

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// As given by the log's owner.
    pub kind: u8,
    /// Its place in the log.
    pub sequence: u64,
    /// Where in the file its header begins.
    pub position: u64,
    /// A copy of its payload, which lies at `position + FRAME_HEADER_LENGTH` in the file.
    pub payload: Bytes,
}

/// Where and how the whole frames of a file end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// One past the last byte of the last whole frame.
    pub position: u64,
    /// The sequence that the next frame would have.
    pub next_sequence: u64,
    /// Whether something other than zeros follows: the remains of writes that were never synced.
    pub torn: bool,
}

/// Why a file cannot be read as a log.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The disk failed.
    #[error("reading the log file failed")]
    Io(#[from] io::Error),
    /// The file's header.
    #[error(transparent)]
    Header(#[from] FileHeaderError),
    /// A frame that had been durable is missing or damaged. What follows it cannot be trusted to
    /// be the log, and what precedes it is not all of it.
    #[error(
        "the log is corrupt: frame {sequence} at byte {position} is damaged, but frame \
         {later_sequence} at byte {later_position} was written after it had been synced"
    )]
    Corrupt {
        /// Where the frame should be.
        position: u64,
        /// The frame's sequence.
        sequence: u64,
        /// Where the proof is.
        later_position: u64,
        /// The sequence of the frame that proves it.
        later_sequence: u64,
    },
}

/// Reads the frames of one file in order, holding about a mebibyte or the current frame.
///
/// As an iterator it yields frames until the log ends, then `None` for ever, and an error at most
/// once, as its last item. After `None`, [`Self::end`] tells where the log ended.
pub struct Scanner<'a> {
    window: Window<'a>,
    header: FileHeader,
    end: LogEnd,
    done: bool,
}

impl<'a> Scanner<'a> {
    /// Begins to read a file, at its current length.
    pub fn of_file(file: &'a dyn DiskFile) -> Result<Self, ScanError> {
        let length = file.len()?;
        Self::new(Source::File { file, length })
    }

    /// Begins to read bytes that are in memory.
    pub fn of_bytes(bytes: &'a [u8]) -> Result<Self, ScanError> {
        Self::new(Source::Bytes(bytes))
    }

    fn new(source: Source<'a>) -> Result<Self, ScanError> {
        let mut window = Window {
            source,
            start: 0,
            buffer: Vec::new(),
        };
        let header = FileHeader::decode(window.get(0, FILE_HEADER_LENGTH)?)?;
        Ok(Self {
            window,
            header,
            end: LogEnd {
                position: FILE_HEADER_LENGTH as u64,
                next_sequence: header.first_sequence,
                torn: false,
            },
            done: false,
        })
    }

    /// The file's header.
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// Where the frames read so far end; once the iterator is exhausted, where the log ends.
    pub fn end(&self) -> LogEnd {
        self.end
    }

    fn read(&mut self) -> Result<Option<Frame>, ScanError> {
        let position = self.end.position;
        let bytes = self.window.get(position, FRAME_HEADER_LENGTH)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let header = FrameHeader::decode(&self.header.salt, bytes)
            .filter(|header| header.sequence == self.end.next_sequence);
        let Some(header) = header else {
            return self.search_behind();
        };
        let length = header.length as usize;
        let payload = self
            .window
            .get(position + FRAME_HEADER_LENGTH as u64, length)?;
        if payload.len() < length
            || (crc32c::crc32c_append(header.header_crc, payload) != header.frame_crc
                && !sabotage::on(Bug::RecoveryIgnoresCrc))
        {
            return self.search_behind();
        }
        let payload = Bytes::copy_from_slice(payload);
        // A sequence at its maximum cannot be followed; no log gets there.
        let Some(next_sequence) = header.sequence.checked_add(1) else {
            return self.search_behind();
        };
        self.end.position = position + (FRAME_HEADER_LENGTH + length) as u64;
        self.end.next_sequence = next_sequence;
        Ok(Some(Frame {
            kind: header.kind,
            sequence: header.sequence,
            position,
            payload,
        }))
    }

    /// There is no whole next frame at the end of the log so far. Looks through the rest of the
    /// file for proof that there had been one.
    fn search_behind(&mut self) -> Result<Option<Frame>, ScanError> {
        let LogEnd {
            position,
            next_sequence: sequence,
            ..
        } = self.end;
        let mut at = position;
        loop {
            let bytes = self.window.get(at, CHUNK)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            // Headers that this piece holds only in part are looked at in the next, unless there
            // is no next.
            let whole = bytes.len().saturating_sub(FRAME_HEADER_LENGTH - 1).max(1);
            let last = bytes.len() < CHUNK;
            let upto = if last { bytes.len() } else { whole };
            if bytes.iter().all(|b| *b == 0) {
                at += bytes.len() as u64;
                continue;
            }
            self.end.torn = true;
            let mut from = 0;
            while let Some(found) = bytes[from..upto].iter().position(|b| *b == FRAME_MAGIC) {
                let candidate = from + found;
                if let Some(later) = FrameHeader::decode(&self.header.salt, &bytes[candidate..])
                    && later.synced_below > sequence
                {
                    return Err(ScanError::Corrupt {
                        position,
                        sequence,
                        later_position: at + candidate as u64,
                        later_sequence: later.sequence,
                    });
                }
                from = candidate + 1;
            }
            at += upto as u64;
        }
    }
}

impl Iterator for Scanner<'_> {
    type Item = Result<Frame, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.read().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

enum Source<'a> {
    Bytes(&'a [u8]),
    File { file: &'a dyn DiskFile, length: u64 },
}

/// A piece of the source that is in memory.
struct Window<'a> {
    source: Source<'a>,
    /// Where in the file `buffer` begins.
    start: u64,
    buffer: Vec<u8>,
}

impl Window<'_> {
    /// The `count` bytes at `at`, or as many of them as there are.
    fn get(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        match self.source {
            Source::Bytes(bytes) => {
                let start = usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
                let end = start.saturating_add(count).min(bytes.len());
                Ok(&bytes[start..end])
            }
            Source::File { file, length } => {
                let count = length.saturating_sub(at).min(count as u64) as usize;
                let held = self.start..self.start + self.buffer.len() as u64;
                if at < held.start || at + count as u64 > held.end {
                    let wanted = length.saturating_sub(at).min(CHUNK as u64) as usize;
                    self.buffer.resize(wanted.max(count), 0);
                    let read = file.read_at(&mut self.buffer, at)?;
                    self.buffer.truncate(read);
                    self.start = at;
                }
                let from = (at - self.start) as usize;
                let to = (from + count).min(self.buffer.len());
                Ok(&self.buffer[from..to])
            }
        }
    }
}
