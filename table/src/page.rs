//! One page of every column, decoded: some rows, one after the other.

use std::io::Read as _;

use frazil_core::Offset;
use frazil_core::batch::{HeadersBuf, RecordRef, TimestampType};

use crate::column::take_plain;
use crate::index::{GroupIndex, PagePlace};
use crate::manifest::GroupRef;
use crate::parquet::{delta, levels};
use crate::schema::{
    COLUMNS, HEADER_KEY, HEADER_KEY_RAW, HEADER_VALUE, KEY, OFFSET, Physical, TIMESTAMP,
    TIMESTAMP_RAW, TIMESTAMP_TYPE, VALUE,
};
use crate::{Damage, Error};

/// What is allocated at once for a page. More only as it turns out to be there.
const AT_ONCE: usize = 1 << 20;

/// What is wrong with a page.
type What = &'static str;

/// Decompresses pages.
pub(crate) struct Decompressor(zstd::bulk::Decompressor<'static>);

impl Decompressor {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self(zstd::bulk::Decompressor::new()?))
    }

    /// What is behind the header of the page in `bytes`.
    fn page(&mut self, place: &PagePlace, bytes: &[u8]) -> Result<Vec<u8>, What> {
        let Some((_, data)) = bytes.split_at_checked(place.header as usize) else {
            return Err("its length");
        };
        if data.len() != place.compressed as usize {
            return Err("its length");
        }
        if crc32c::crc32c(bytes) != place.crc {
            return Err("its checksum");
        }
        let length = place.uncompressed as usize;
        let mut page = Vec::new();
        if length <= AT_ONCE {
            page.reserve_exact(length);
            self.0
                .decompress_to_buffer(data, &mut page)
                .map_err(|_| "its compression")?;
        } else {
            let decoder = zstd::stream::read::Decoder::with_buffer(data);
            let mut decoder = decoder.map_err(|_| "its compression")?.single_frame();
            decoder
                .by_ref()
                .take(length as u64 + 1)
                .read_to_end(&mut page)
                .map_err(|_| "its compression")?;
        }
        if page.len() == length {
            Ok(page)
        } else {
            Err("its length after decompression")
        }
    }
}

/// The values of a column, and for each row (or header) whether there is one.
struct Values {
    definition: Vec<u8>,
    repetition: Vec<u8>,
    page: Vec<u8>,
    /// Where the values begin in `page`.
    start: usize,
}

impl Values {
    /// `count` levels of each kind, then the values.
    fn decode(column: usize, page: Vec<u8>, count: usize) -> Result<Self, What> {
        let leaf = &COLUMNS[column];
        let mut rest = &page[..];
        let mut levels = |max| match max {
            0 => Ok(Vec::new()),
            max => levels::decode(&mut rest, count, max).ok_or("its levels"),
        };
        let repetition = levels(leaf.rep_max)?;
        let definition = levels(leaf.def_max)?;
        Ok(Self {
            definition,
            repetition,
            start: page.len() - rest.len(),
            page,
        })
    }

    fn numbers(column: usize, page: Vec<u8>, count: usize) -> Result<(Vec<u8>, Vec<i64>), What> {
        let values = Self::decode(column, page, count)?;
        let there = match COLUMNS[column].def_max {
            0 => count,
            max => values
                .definition
                .iter()
                .filter(|level| **level == max)
                .count(),
        };
        let numbers = delta::decode(&values.page[values.start..], there);
        Ok((values.definition, numbers.ok_or("its numbers")?))
    }
}

/// The offsets and timestamps of a page.
pub(crate) struct Times {
    pub(crate) offsets: Vec<i64>,
    pub(crate) timestamps: Vec<i64>,
}

/// The rows of a page.
pub(crate) struct Page {
    times: Times,
    types: Vec<i64>,
    key: Values,
    value: Values,
    header_key: Values,
    header_value: Values,
    header_key_raw: Values,
}

/// Gives the bytes of a page of a column, header and data.
pub(crate) trait Pages {
    fn page(&self, column: usize, page: usize) -> Option<&[u8]>;
}

/// Decodes pages of one row group.
pub(crate) struct Decoder<'a, P> {
    pub(crate) group: &'a GroupRef,
    pub(crate) index: &'a GroupIndex,
    pub(crate) pages: &'a P,
}

impl<P: Pages> Decoder<'_, P> {
    fn damaged(&self, column: usize, page: usize, what: What) -> Error {
        let leaf = &COLUMNS[column];
        self.group.damaged(Damage::Page {
            column: leaf.path[leaf.path.len() - 1],
            page,
            what,
        })
    }

    fn bytes(&self, with: &mut Decompressor, column: usize, page: usize) -> Result<Vec<u8>, Error> {
        let place = self.index.place(column, page);
        let bytes = self.pages.page(column, page).ok_or("absence");
        bytes
            .and_then(|bytes| with.page(&place, bytes))
            .map_err(|what| self.damaged(column, page, what))
    }

    fn numbers(
        &self,
        with: &mut Decompressor,
        column: usize,
        page: usize,
    ) -> Result<(Vec<u8>, Vec<i64>), Error> {
        debug_assert_ne!(COLUMNS[column].physical, Physical::Bytes);
        let bytes = self.bytes(with, column, page)?;
        Values::numbers(column, bytes, self.index.rows(page))
            .map_err(|what| self.damaged(column, page, what))
    }

    pub(crate) fn times(&self, with: &mut Decompressor, page: usize) -> Result<Times, Error> {
        let (_, offsets) = self.numbers(with, OFFSET, page)?;
        let cover = self.index.cover(page);
        let in_order = offsets.first() == Some(&self.index.pages[page].first.0)
            && offsets.is_sorted_by(|a, b| a < b)
            && offsets.last().is_some_and(|last| *last < cover.end.0);
        if !in_order {
            return Err(self.damaged(OFFSET, page, "its offsets"));
        }
        let (there, micros) = self.numbers(with, TIMESTAMP, page)?;
        let (raw_there, raw) = self.numbers(with, TIMESTAMP_RAW, page)?;
        let (mut micros, mut raw) = (micros.into_iter(), raw.into_iter());
        let mut timestamps = Vec::with_capacity(offsets.len());
        for (there, raw_there) in there.into_iter().zip(raw_there) {
            timestamps.push(match (there, raw_there) {
                (1, 0) => micros.next().map(|micros| micros.div_euclid(1000)),
                (0, 1) => raw.next(),
                _ => None,
            });
        }
        let timestamps: Option<Vec<i64>> = timestamps.into_iter().collect();
        let timestamps = timestamps.ok_or_else(|| {
            self.damaged(
                TIMESTAMP_RAW,
                page,
                "that not one of two timestamps is there",
            )
        })?;
        Ok(Times {
            offsets,
            timestamps,
        })
    }

    pub(crate) fn page(&self, with: &mut Decompressor, page: usize) -> Result<Page, Error> {
        let rows = self.index.rows(page);
        let times = self.times(with, page)?;
        let (_, types) = self.numbers(with, TIMESTAMP_TYPE, page)?;
        let mut values = |column, count| {
            let bytes = self.bytes(with, column, page)?;
            Values::decode(column, bytes, count).map_err(|what| self.damaged(column, page, what))
        };
        let key = values(KEY, rows)?;
        let value = values(VALUE, rows)?;
        // Every header has a key of four bytes at least, so its page, once it has turned out to be
        // as long as it claims, bounds their number.
        let headers = self.index.place(HEADER_KEY, page);
        if u64::from(headers.values) > rows as u64 + u64::from(headers.uncompressed) / 4 {
            return Err(self.damaged(HEADER_KEY, page, "its number of values"));
        }
        let count = headers.values as usize;
        Ok(Page {
            times,
            types,
            key,
            value,
            header_key: values(HEADER_KEY, count)?,
            header_value: values(HEADER_VALUE, count)?,
            header_key_raw: values(HEADER_KEY_RAW, count)?,
        })
    }

    /// Gives the rows of `page` to `each`, in order.
    pub(crate) fn rows<E: From<Error>>(
        &self,
        page_number: usize,
        page: &Page,
        mut each: impl FnMut(&RecordRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let damaged = |column, what| E::from(self.damaged(column, page_number, what));
        let mut keys = Cursor::new(&page.key);
        let mut values = Cursor::new(&page.value);
        let mut rows = HeaderRows {
            keys: Cursor::new(&page.header_key),
            values: Cursor::new(&page.header_value),
            raw: Cursor::new(&page.header_key_raw),
            headers: HeadersBuf::default(),
        };
        for row in 0..page.times.offsets.len() {
            rows.next().map_err(|what| damaged(HEADER_KEY, what))?;
            let record = RecordRef {
                offset: Offset(page.times.offsets[row]),
                timestamp: page.times.timestamps[row],
                timestamp_type: match page.types[row] {
                    0 => TimestampType::CreateTime,
                    1 => TimestampType::LogAppendTime,
                    _ => return Err(damaged(TIMESTAMP_TYPE, "a value")),
                },
                key: keys.next(1).map_err(|what| damaged(KEY, what))?,
                value: values.next(1).map_err(|what| damaged(VALUE, what))?,
                headers: rows.headers.headers(),
            };
            each(&record)?;
        }
        for (column, cursor) in [
            (KEY, &keys),
            (VALUE, &values),
            (HEADER_KEY, &rows.keys),
            (HEADER_VALUE, &rows.values),
            (HEADER_KEY_RAW, &rows.raw),
        ] {
            if !cursor.is_at_end() {
                return Err(damaged(column, "its end"));
            }
        }
        Ok(())
    }
}

/// Walks the values of a column.
struct Cursor<'a> {
    definition: std::slice::Iter<'a, u8>,
    repetition: std::slice::Iter<'a, u8>,
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn new(values: &'a Values) -> Self {
        Self {
            definition: values.definition.iter(),
            repetition: values.repetition.iter(),
            bytes: &values.page[values.start..],
        }
    }

    /// The next value, if the next level says that it is there: it is `whole`.
    fn next(&mut self, whole: u8) -> Result<Option<&'a [u8]>, What> {
        let level = *self.definition.next().ok_or("its number of values")?;
        self.value(level == whole)
    }

    fn value(&mut self, there: bool) -> Result<Option<&'a [u8]>, What> {
        if !there {
            return Ok(None);
        }
        take_plain(&mut self.bytes).map(Some).ok_or("a value")
    }

    fn is_at_end(&self) -> bool {
        self.definition.as_slice().is_empty()
            && self.repetition.as_slice().is_empty()
            && self.bytes.is_empty()
    }
}

/// Walks the headers of row after row.
struct HeaderRows<'a> {
    keys: Cursor<'a>,
    values: Cursor<'a>,
    raw: Cursor<'a>,
    headers: HeadersBuf,
}

impl HeaderRows<'_> {
    /// Collects the headers of the next row.
    fn next(&mut self) -> Result<(), What> {
        const UNEQUAL: What = "that the columns of headers differ";
        self.headers.clear();
        let mut first = true;
        loop {
            // A row ends where the next one begins.
            match self.keys.repetition.as_slice().first() {
                None if first => return Err("its number of rows"),
                None => return Ok(()),
                Some(0) if !first => return Ok(()),
                Some(1) if first => return Err("its levels"),
                Some(_) => {}
            }
            let mut levels = [0; 3];
            let cursors = [&mut self.keys, &mut self.values, &mut self.raw];
            for (level, cursor) in levels.iter_mut().zip(cursors) {
                let repetition = cursor.repetition.next().ok_or(UNEQUAL)?;
                if *repetition != u8::from(!first) {
                    return Err(UNEQUAL);
                }
                *level = *cursor.definition.next().ok_or(UNEQUAL)?;
            }
            match levels {
                [0, 0, 0] if first => {}
                [1, value @ (1 | 2), raw @ (1 | 2)] => {
                    let readable = self.keys.value(true)?.ok_or("a value")?;
                    let value = self.values.value(value == 2)?;
                    let raw = self.raw.value(raw == 2)?;
                    self.headers.push(raw.unwrap_or(readable), value);
                }
                _ => return Err(UNEQUAL),
            }
            if levels[0] == 0 {
                return Ok(());
            }
            first = false;
        }
    }
}
