//! The codecs of record batches, with a limit on what they may inflate to.
//!
//! Decompression is streamed: what it allocates is bounded by the codec's window (zstd 8 MiB, lz4
//! 4 MiB blocks, the others less) and the bytes it has produced, never by a size that the input
//! claims. Source: KIP-110 (zstd), KIP-57 (lz4 framing), the xerial snappy framing.

use std::io::{self, BufRead, BufReader, Read, Write};

use bytes::Bytes;

use super::Codec;

/// The largest zstd window accepted, as a power of two (8 MiB): that of level 19 and below.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Decompressed bytes held at a time while walking.
const CHUNK: usize = 32 << 10;
/// `0x82 S N A P P Y 0`, then a version and the lowest compatible version, both i32.
const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const XERIAL_HEADER: usize = 16;
/// What the Java client cuts its input into.
const XERIAL_BLOCK: usize = 32 << 10;
/// Snappy's densest element makes 64 bytes of 3.
const SNAPPY_RATIO_MAX: usize = 22;
const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();

/// Why records cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// There is more than allowed.
    #[error("the records decompress to more than {cap} bytes")]
    TooLarge {
        /// The limit.
        cap: usize,
    },
    /// The compressed bytes are wrong.
    #[error("the records cannot be decompressed: {0}")]
    Malformed(#[source] io::Error),
}

/// Travels inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("more than {0} bytes")]
struct CapExceeded(usize);

impl CodecError {
    pub(super) fn from_io(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(CapExceeded(cap)) => Self::TooLarge { cap: *cap },
            None => Self::Malformed(error),
        }
    }
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Decompresses `bytes` into at most `cap` bytes. Without a codec nothing is copied.
pub fn decompress(codec: Codec, bytes: &Bytes, cap: usize) -> Result<Bytes, CodecError> {
    if codec == Codec::None {
        return if bytes.len() <= cap {
            Ok(bytes.clone())
        } else {
            Err(CodecError::TooLarge { cap })
        };
    }
    let mut out = Vec::new();
    reader(codec, bytes, cap)
        .and_then(|mut reader| reader.read_to_end(&mut out))
        .map_err(CodecError::from_io)?;
    Ok(out.into())
}

/// Compresses `bytes` as the Java client would at its default levels.
///
/// # Errors
/// None is expected: the codecs write to memory.
pub fn compress(codec: Codec, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Codec::Snappy => {
            let mut out = XERIAL_MAGIC.to_vec();
            out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
            for block in bytes.chunks(XERIAL_BLOCK) {
                let block = snap::raw::Encoder::new().compress_vec(block)?;
                out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                out.extend_from_slice(&block);
            }
            Ok(out)
        }
        Codec::Lz4 => {
            // Independent blocks: the Java client reads no others.
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes)?;
            Ok(encoder.finish()?)
        }
        Codec::Zstd => zstd::stream::encode_all(bytes, zstd::DEFAULT_COMPRESSION_LEVEL),
    }
}

/// A reader of what `bytes` decompress to. It fails with an error that [`CodecError::from_io`]
/// knows as soon as there are more than `cap` bytes.
pub(super) fn reader<'a>(
    codec: Codec,
    bytes: &'a [u8],
    cap: usize,
) -> io::Result<Box<dyn BufRead + 'a>> {
    Ok(match codec {
        Codec::None => capped(bytes, cap),
        Codec::Gzip => capped(flate2::bufread::MultiGzDecoder::new(bytes), cap),
        Codec::Snappy => capped(Snappy::new(bytes, cap)?, cap),
        Codec::Lz4 => capped(Lz4::new(bytes)?, cap),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            capped(decoder, cap)
        }
    })
}

fn capped<'a>(reader: impl Read + 'a, cap: usize) -> Box<dyn BufRead + 'a> {
    let capped = Capped {
        reader,
        cap,
        left: cap,
    };
    Box::new(BufReader::with_capacity(CHUNK, capped))
}

struct Capped<R> {
    reader: R,
    cap: usize,
    left: usize,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buf)?;
        match self.left.checked_sub(read) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(CapExceeded(self.cap))),
        }
        Ok(read)
    }
}

/// One lz4 frame and nothing behind it, as Kafka's clients read it.
struct Lz4<'a> {
    decoder: lz4_flex::frame::FrameDecoder<&'a [u8]>,
}

impl<'a> Lz4<'a> {
    fn new(bytes: &'a [u8]) -> io::Result<Self> {
        // The decoder knows legacy and skippable frames too; Kafka's clients do not.
        if !bytes.starts_with(&LZ4_MAGIC) {
            return Err(malformed("not an lz4 frame"));
        }
        Ok(Self {
            decoder: lz4_flex::frame::FrameDecoder::new(bytes),
        })
    }
}

impl Read for Lz4<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buf)?;
        if read == 0 && !buf.is_empty() && !self.decoder.get_ref().is_empty() {
            return Err(malformed("bytes behind the lz4 frame"));
        }
        Ok(read)
    }
}

/// Snappy blocks in xerial framing, or one without.
struct Snappy<'a> {
    input: &'a [u8],
    framed: bool,
    cap: usize,
    block: Vec<u8>,
    read: usize,
}

impl<'a> Snappy<'a> {
    fn new(bytes: &'a [u8], cap: usize) -> io::Result<Self> {
        let framed = bytes.starts_with(&XERIAL_MAGIC);
        let input = if framed {
            bytes
                .get(XERIAL_HEADER..)
                .ok_or_else(|| malformed("the snappy framing is cut off"))?
        } else {
            bytes
        };
        Ok(Self {
            input,
            framed,
            cap,
            block: Vec::new(),
            read: 0,
        })
    }

    fn next_block(&mut self) -> io::Result<()> {
        let block = if self.framed {
            let Some((length, rest)) = self.input.split_first_chunk() else {
                return Err(malformed("a snappy block is cut off"));
            };
            let length = u32::from_be_bytes(*length) as usize;
            let Some((block, rest)) = rest.split_at_checked(length) else {
                return Err(malformed("a snappy block is cut off"));
            };
            self.input = rest;
            block
        } else {
            std::mem::take(&mut self.input)
        };
        let claimed = snap::raw::decompress_len(block)?;
        if claimed > self.cap {
            return Err(io::Error::other(CapExceeded(self.cap)));
        }
        if claimed > block.len() * SNAPPY_RATIO_MAX {
            return Err(malformed("a snappy block claims more than it can hold"));
        }
        self.block.resize(claimed, 0);
        let length = snap::raw::Decoder::new().decompress(block, &mut self.block)?;
        self.block.truncate(length);
        self.read = 0;
        Ok(())
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.read == self.block.len() && !self.input.is_empty() {
            self.next_block()?;
        }
        let count = buf.len().min(self.block.len() - self.read);
        buf[..count].copy_from_slice(&self.block[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
