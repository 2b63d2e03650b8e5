//! One column of the row group under construction: its open page and its finished ones.

use bytes::Bytes;

use crate::Error;
use crate::index::{ColumnPages, PagePlace};
use crate::parquet::footer::{ChunkFacts, PageFacts, page_header};
use crate::parquet::levels::Levels;
use crate::parquet::{delta, take_u32};
use crate::schema::{Leaf, Physical};

/// Pages beyond this are compressed as a stream, so that no second copy of a huge value is made.
const STREAMED: usize = 1 << 20;

/// Compresses pages.
pub(crate) struct Compressor {
    level: i32,
    bulk: zstd::bulk::Compressor<'static>,
    page: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new(level: i32) -> Result<Self, Error> {
        Ok(Self {
            level,
            bulk: zstd::bulk::Compressor::new(level)?,
            page: Vec::new(),
        })
    }

    /// The page made of `parts`, and its length before.
    fn compress(&mut self, parts: [&[u8]; 3]) -> Result<(Vec<u8>, usize), Error> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > STREAMED {
            // As much as it can become is set aside; what is not written is no memory.
            let out = Vec::with_capacity(zstd::zstd_safe::compress_bound(length));
            let mut encoder = zstd::stream::write::Encoder::new(out, self.level)?;
            encoder.set_pledged_src_size(Some(length as u64))?;
            for part in parts {
                std::io::Write::write_all(&mut encoder, part)?;
            }
            return Ok((encoder.finish()?, length));
        }
        self.page.clear();
        for part in parts {
            self.page.extend_from_slice(part);
        }
        Ok((self.bulk.compress(&self.page)?, length))
    }
}

pub(crate) struct Column {
    leaf: &'static Leaf,
    repetition: Levels,
    definition: Levels,
    numbers: Vec<i64>,
    /// PLAIN: each value behind its length.
    bytes: Vec<u8>,
    /// Finished pages, with their headers: pieces, and the small ones behind them.
    pieces: Vec<Bytes>,
    finished: Vec<u8>,
    facts: ChunkFacts,
    places: Vec<PagePlace>,
}

impl Column {
    pub(crate) fn new(leaf: &'static Leaf) -> Self {
        Self {
            leaf,
            repetition: Levels::new(leaf.rep_max),
            definition: Levels::new(leaf.def_max),
            numbers: Vec::new(),
            bytes: Vec::new(),
            pieces: Vec::new(),
            finished: Vec::new(),
            facts: ChunkFacts::default(),
            places: Vec::new(),
        }
    }

    pub(crate) fn number(&mut self, value: i64) {
        self.numbers.push(value);
        self.levels(0, self.leaf.def_max);
    }

    pub(crate) fn value(&mut self, repetition: u8, value: &[u8]) {
        self.bytes
            .extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(value);
        self.levels(repetition, self.leaf.def_max);
    }

    /// Nothing, since what `definition` stands for is absent.
    pub(crate) fn absent(&mut self, repetition: u8, definition: u8) {
        self.levels(repetition, definition);
    }

    fn levels(&mut self, repetition: u8, definition: u8) {
        if self.leaf.rep_max > 0 {
            self.repetition.push(repetition);
        }
        if self.leaf.def_max > 0 {
            self.definition.push(definition);
        }
    }

    /// Bytes of the finished pages.
    pub(crate) fn finished(&self) -> usize {
        let pieces = self.pieces.iter().map(Bytes::len);
        pieces.sum::<usize>() + self.finished.len()
    }

    pub(crate) fn finish_page(&mut self, compressor: &mut Compressor) -> Result<(), Error> {
        let mut levels = Vec::new();
        let present = match self.leaf.physical {
            Physical::Bytes => 0,
            Physical::I32 | Physical::I64 => self.numbers.len(),
        };
        let values = if self.leaf.def_max > 0 {
            self.definition.count()
        } else {
            present
        };
        let nulls = self.definition.below(self.leaf.def_max);
        if self.leaf.rep_max > 0 {
            self.repetition.finish(&mut levels);
        }
        if self.leaf.def_max > 0 {
            self.definition.finish(&mut levels);
        }
        let mut numbers = Vec::new();
        if self.leaf.physical != Physical::Bytes {
            delta::encode(&mut numbers, &self.numbers);
        }
        let (compressed, uncompressed) = compressor.compress([&levels, &numbers, &self.bytes])?;
        let start = self.finished.len();
        page_header(
            &mut self.finished,
            self.leaf.physical,
            values,
            uncompressed,
            &compressed,
        );
        let header = (self.finished.len() - start) as u32;
        let length = compressed.len() as u32;
        let crc = crc32c::crc32c(&self.finished[start..]);
        let crc = crc32c::crc32c_append(crc, &compressed);
        if compressed.len() > STREAMED {
            self.pieces.push(std::mem::take(&mut self.finished).into());
            self.pieces.push(compressed.into());
        } else {
            self.finished.extend_from_slice(&compressed);
        }
        let least = self.numbers.iter().copied().min();
        self.facts.pages.push(PageFacts {
            length: header + length,
            nulls: nulls as u32,
            bounds: least.zip(self.numbers.iter().copied().max()),
        });
        self.facts.values += values as u64;
        self.facts.uncompressed += u64::from(header) + uncompressed as u64;
        self.places.push(PagePlace {
            header,
            compressed: length,
            uncompressed: uncompressed as u32,
            crc,
            values: values as u32,
        });
        self.numbers.clear();
        // What one huge value took is not kept for the small ones after it.
        if self.bytes.capacity() > STREAMED {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        Ok(())
    }

    /// The finished pages, and the column as the two kinds of index describe it. `start` counts
    /// from the end of the row group's index; the footer's start is set once that is known.
    pub(crate) fn finish_group(&mut self, start: u32) -> (Vec<Bytes>, ChunkFacts, ColumnPages) {
        let facts = std::mem::take(&mut self.facts);
        let pages = ColumnPages {
            field: self.leaf.field,
            start,
            pages: std::mem::take(&mut self.places),
        };
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.push(std::mem::take(&mut self.finished).into());
        (pieces, facts, pages)
    }
}

/// Takes one PLAIN value off the front of `bytes`.
pub(crate) fn take_plain<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_u32(bytes)? as usize;
    crate::parquet::take(bytes, length)
}
