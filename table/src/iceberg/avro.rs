//! Avro object container files, as far as Iceberg's manifests need them.
//!
//! ```text
//! "Obj\x01" | metadata: map of bytes | sync, 16 bytes | blocks: count, length, records, sync
//! ```
//!
//! Records are written and read field by field in the order of their schema, which is one of ours:
//! nothing here resolves schemas. Source: Apache Avro 1.12, "Binary encoding", "Object container
//! files".

use crate::parquet::thrift::{varint, zigzag};
use crate::parquet::{take, take_varint};

const MAGIC: &[u8; 4] = b"Obj\x01";

pub(super) fn long(out: &mut Vec<u8>, value: i64) {
    varint(out, zigzag(value));
}

pub(super) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

pub(super) fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    long(out, value.len() as i64);
    out.extend_from_slice(value);
}

/// A value of a union whose first branch is null.
pub(super) fn optional<T>(
    out: &mut Vec<u8>,
    value: Option<T>,
    write: impl FnOnce(&mut Vec<u8>, T),
) {
    long(out, i64::from(value.is_some()));
    if let Some(value) = value {
        write(out, value);
    }
}

pub(super) fn array<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    if !items.is_empty() {
        long(out, items.len() as i64);
        items.iter().for_each(|item| write(out, item));
    }
    out.push(0);
}

/// A file of `count` records. `sync` tells its blocks apart; it should differ between files.
pub(super) fn container(
    metadata: &[(&str, &str)],
    sync: [u8; 16],
    count: usize,
    records: &[u8],
) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    array(&mut out, metadata, |out, (key, value)| {
        bytes(out, key.as_bytes());
        bytes(out, value.as_bytes());
    });
    out.extend_from_slice(&sync);
    if count > 0 {
        long(&mut out, count as i64);
        bytes(&mut out, records);
        out.extend_from_slice(&sync);
    }
    out
}

/// Reads values off the front of bytes. `None`: the bytes are not what they should be.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn long(&mut self) -> Option<i64> {
        let value = take_varint(&mut self.0)?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(super) fn int(&mut self) -> Option<i32> {
        i32::try_from(self.long()?).ok()
    }

    pub(super) fn boolean(&mut self) -> Option<bool> {
        match take(&mut self.0, 1)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.long()?).ok()?;
        take(&mut self.0, length)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    pub(super) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.long()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    /// Every item takes a byte at least, so a count that lies ends with the bytes.
    pub(super) fn array<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut items = Vec::new();
        loop {
            match self.long()? {
                0 => return Some(items),
                count @ 1.. => {
                    for _ in 0..count {
                        let left = self.0.len();
                        items.push(read(self)?);
                        if self.0.len() == left {
                            return None;
                        }
                    }
                }
                // A negative count is followed by the block's size; we never write it.
                _ => return None,
            }
        }
    }

    /// The metadata of a container; after it the container's records are to be read.
    pub(super) fn metadata(&mut self) -> Option<Metadata<'a>> {
        if take(&mut self.0, 4)? != MAGIC {
            return None;
        }
        let pairs = self.array(|reader| Some((reader.bytes()?, reader.bytes()?)))?;
        Some(Metadata(pairs))
    }

    /// The records of a container whose metadata has been read.
    pub(super) fn records<T>(
        mut self,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let sync = take(&mut self.0, 16)?;
        let mut records = Vec::new();
        while !self.0.is_empty() {
            let count = self.long()?;
            let mut block = Reader(self.bytes()?);
            for _ in 0..count {
                let left = block.0.len();
                records.push(read(&mut block)?);
                if block.0.len() == left {
                    return None;
                }
            }
            if !block.0.is_empty() || take(&mut self.0, 16)? != sync {
                return None;
            }
        }
        Some(records)
    }
}

/// The metadata of a container.
pub(super) struct Metadata<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Metadata<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|pair| pair.0 == key.as_bytes())?;
        std::str::from_utf8(found.1).ok()
    }
}
