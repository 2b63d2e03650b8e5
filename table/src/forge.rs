//! Row groups whose checksums are right and whose content is anything: what stands behind the
//! checksums must bear it. For tests and fuzzing; not in the library that is shipped.
//!
//! ```text
//! input   rows u16 LE | headers u16 LE | for each column: length u16 LE, its page before compression
//! ```

use bytes::Bytes;
use frazil_core::Offset;
use frazil_core::batch::Codec;

use crate::index::{ColumnPages, GroupIndex, PagePlace, PageRows};
use crate::manifest::GroupRef;
use crate::parquet::take;
use crate::schema::{COLUMNS, HEADER_KEY};
use crate::{Error, Fetched, Read};
use frazil_core::cold::ObjectId;

const FILE: ObjectId = ObjectId::new(1, 1);
const END: Offset = Offset(1 << 40);

/// Reads the pages of `input` in every way there is. Answers the batches if they can be read.
///
/// # Panics
/// If reading does, or if what was read is not a record batch.
pub fn read_pages(input: &[u8]) -> Option<Result<Vec<Bytes>, Error>> {
    let (group, index, bytes) = forge(input)?;
    let mut fetched = Fetched::default();
    fetched.add(0, bytes);
    let parsed = fetched.get(group.index_range()).expect("it is there");
    let parsed = match GroupIndex::parse(&group, parsed) {
        Ok(parsed) => parsed,
        Err(error) => return Some(Err(error)),
    };
    assert_eq!(parsed, index);
    let read = Read::all(&group, &index);
    let mut rows = 0;
    let by_row = read.rows(&fetched, |record| {
        assert!(record.offset < END);
        rows += 1;
        Ok::<(), Error>(())
    });
    let time = read.find_time(&fetched, Offset(5), 17);
    let batches = read.batches(&fetched, Codec::None);
    assert_eq!(by_row.is_ok(), batches.is_ok());
    if let Ok(batches) = &batches {
        assert!(time.is_ok());
        let mut counted = 0;
        for batch in batches {
            let header = frazil_core::batch::BatchHeader::parse(batch).expect("a batch");
            header.check_crc(batch).expect("a sound one");
            let records = frazil_core::batch::Records::of(&header, batch).expect("readable");
            for record in records {
                record.expect("a record");
                counted += 1;
            }
        }
        assert_eq!(counted, rows);
    }
    Some(batches)
}

/// Reads `cbor` as an index whose checksum is right.
pub fn read_index(cbor: &[u8]) {
    let Ok(index) = minicbor::decode::<GroupIndex>(cbor) else {
        return;
    };
    let bytes = index.encode();
    let group = GroupRef {
        length: bytes.len() as u32 + 1000,
        records: index
            .pages
            .iter()
            .fold(0, |sum, page| page.rows.wrapping_add(sum)),
        ..group_of(&index, &bytes)
    };
    if GroupIndex::parse(&group, &bytes).is_ok() {
        let mut fetched = Fetched::default();
        fetched.add(0, vec![0; group.length as usize].into());
        let read = Read::from(&group, &index, index.base, 1000);
        assert!(read.offsets().contains(&index.base));
        for range in read.ranges() {
            assert!(range.start >= group.index_range().end && range.end <= group.range().end);
        }
        drop(read.batches(&fetched, Codec::None));
    }
}

fn group_of(index: &GroupIndex, bytes: &[u8]) -> GroupRef {
    GroupRef {
        base: index.base,
        end: index.end,
        file: index.file,
        partition: index.partition,
        start: 0,
        length: bytes.len() as u32,
        index_length: bytes.len() as u32,
        index_crc: crc32c::crc32c(bytes),
        records: 0,
        min_timestamp: 0,
        max_timestamp: 0,
        codec: None,
    }
}

fn forge(mut input: &[u8]) -> Option<(GroupRef, GroupIndex, Bytes)> {
    let number = |input: &mut &[u8]| {
        let bytes = take(input, 2)?;
        Some(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    };
    let (rows, headers) = (number(&mut input)?, number(&mut input)?);
    let mut data = Vec::new();
    let mut columns = Vec::new();
    let mut first = Offset(0);
    for (column, leaf) in COLUMNS.iter().enumerate() {
        let length = number(&mut input)?;
        let page = take(&mut input, length as usize)?;
        if column == crate::schema::OFFSET {
            // The index knows the first offset; else nearly nothing would get past that check.
            let values = crate::parquet::delta::decode(page, rows as usize).unwrap_or_default();
            first = Offset(values.first().copied().unwrap_or(0).clamp(0, END.0 - 1));
        }
        let compressed = zstd::bulk::compress(page, 1).expect("in memory");
        let place = PagePlace {
            header: 0,
            compressed: compressed.len() as u32,
            uncompressed: length,
            crc: crc32c::crc32c(&compressed),
            values: if leaf.rep_max > 0 { headers } else { rows },
        };
        columns.push(ColumnPages {
            field: leaf.field,
            start: data.len() as u32,
            pages: vec![place],
        });
        data.extend_from_slice(&compressed);
    }
    let index = GroupIndex {
        file: FILE,
        partition: 0,
        base: Offset(0),
        end: END,
        pages: vec![PageRows { rows, first }],
        columns,
    };
    let mut bytes = index.encode();
    let group = GroupRef {
        length: (bytes.len() + data.len()) as u32,
        records: rows,
        ..group_of(&index, &bytes)
    };
    bytes.extend_from_slice(&data);
    Some((group, index, bytes.into()))
}

/// The input that stands for the first page of a row group.
pub fn unpick(group: &GroupRef, index: &GroupIndex, file: &[u8]) -> Vec<u8> {
    let mut input = Vec::new();
    input.extend_from_slice(&(index.rows(0) as u16).to_le_bytes());
    let headers = index.place(HEADER_KEY, 0).values as u16;
    input.extend_from_slice(&headers.to_le_bytes());
    for column in 0..COLUMNS.len() {
        let place = index.place(column, 0);
        let range = index.bytes(group, column, 0..1);
        let page = &file[range.start as usize + place.header as usize..range.end as usize];
        let page = zstd::bulk::decompress(page, place.uncompressed as usize).expect("sound");
        input.extend_from_slice(&(page.len() as u16).to_le_bytes());
        input.extend_from_slice(&page);
    }
    input
}
