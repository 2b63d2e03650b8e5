//! What stands behind the row groups for table engines: page indexes and the footer.
//!
//! ```text
//! column indexes of all row groups | offset indexes of all row groups
//! | FileMetaData | its length u32 LE | "PAR1"
//! ```

use super::thrift::{Struct, structure};
use crate::schema::{COLUMNS, ICEBERG_SCHEMA, LEAVES, OFFSET, PARTITION, Physical};

pub(crate) const MAGIC: &[u8; 4] = b"PAR1";
const CREATED_BY: &[u8] = b"frazil version 1 (build 1)";

const ENCODING_PLAIN: i32 = 0;
const ENCODING_RLE: i32 = 3;
const ENCODING_DELTA: i32 = 5;
const CODEC_ZSTD: i32 = 6;

/// One page as the indexes describe it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageFacts {
    /// Header and data.
    pub(crate) length: u32,
    pub(crate) nulls: u32,
    /// Smallest and largest number, if the column has numbers and the page has any.
    pub(crate) bounds: Option<(i64, i64)>,
}

/// One column of one row group.
#[derive(Debug, Default)]
pub(crate) struct ChunkFacts {
    /// Byte of the file at which its first page begins.
    pub(crate) start: u64,
    /// Levels, that is values and nulls.
    pub(crate) values: u64,
    /// Bytes before compression, page headers included.
    pub(crate) uncompressed: u64,
    pub(crate) pages: Vec<PageFacts>,
}

impl ChunkFacts {
    fn length(&self) -> u64 {
        self.pages.iter().map(|page| u64::from(page.length)).sum()
    }

    fn bounds(&self) -> Option<(i64, i64)> {
        let all = self.pages.iter().filter_map(|page| page.bounds);
        all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    fn nulls(&self) -> i64 {
        self.pages.iter().map(|page| i64::from(page.nulls)).sum()
    }
}

/// One row group. The pages of all columns hold the same rows.
#[derive(Debug)]
pub(crate) struct GroupFacts {
    /// Rows of each page.
    pub(crate) rows: Vec<u32>,
    pub(crate) columns: Vec<ChunkFacts>,
}

impl GroupFacts {
    fn rows(&self) -> i64 {
        self.rows.iter().map(|rows| i64::from(*rows)).sum()
    }
}

/// The header of a data page.
pub(crate) fn page_header(
    out: &mut Vec<u8>,
    physical: Physical,
    values: usize,
    uncompressed: usize,
    compressed: &[u8],
) {
    structure(out, |header| {
        header.i32(1, 0);
        header.i32(2, uncompressed as i32);
        header.i32(3, compressed.len() as i32);
        header.i32(4, crc32fast::hash(compressed) as i32);
        header.structure(5, |data| {
            data.i32(1, values as i32);
            data.i32(2, encoding(physical));
            data.i32(3, ENCODING_RLE);
            data.i32(4, ENCODING_RLE);
        });
    });
}

fn encoding(physical: Physical) -> i32 {
    match physical {
        Physical::I32 | Physical::I64 => ENCODING_DELTA,
        Physical::Bytes => ENCODING_PLAIN,
    }
}

fn physical_type(physical: Physical) -> i32 {
    match physical {
        Physical::I32 => 1,
        Physical::I64 => 2,
        Physical::Bytes => 6,
    }
}

/// A number as statistics hold it.
fn bound(physical: Physical, value: i64) -> Vec<u8> {
    match physical {
        Physical::I32 => (value as i32).to_le_bytes().to_vec(),
        Physical::I64 => value.to_le_bytes().to_vec(),
        Physical::Bytes => Vec::new(),
    }
}

/// Everything that follows the row groups of a file, whose last byte so far is `position`.
pub(crate) fn tail(groups: &[GroupFacts], position: u64, properties: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut indexes: Vec<[Index; LEAVES]> = Vec::with_capacity(groups.len());
    for group in groups {
        let mut places = [Index::default(); LEAVES];
        for (column, place) in places.iter_mut().enumerate() {
            let start = out.len();
            if COLUMNS[column].physical != Physical::Bytes {
                column_index(&mut out, &group.columns[column], column);
            }
            place.column = (position + start as u64, out.len() - start);
        }
        indexes.push(places);
    }
    for (group, places) in groups.iter().zip(&mut indexes) {
        for (column, place) in places.iter_mut().enumerate() {
            let start = out.len();
            offset_index(&mut out, group, &group.columns[column]);
            place.offset = (position + start as u64, out.len() - start);
        }
    }
    let start = out.len();
    structure(&mut out, |file| {
        file.i32(1, 2);
        schema(file);
        file.i64(3, groups.iter().map(GroupFacts::rows).sum());
        let all: Vec<_> = groups.iter().zip(&indexes).collect();
        file.structures(4, &all, |out, (group, places)| {
            row_group(out, group, places)
        });
        file.structures(5, properties, |out, (key, value)| {
            out.binary(1, key.as_bytes());
            out.binary(2, value.as_bytes());
        });
        file.binary(6, CREATED_BY);
        // Bounds are in the order of the type.
        file.structures(7, &COLUMNS, |out, _| out.structure(1, |_| {}));
    });
    let length = (out.len() - start) as u32;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(MAGIC);
    out
}

/// Where the two indexes of a column of a row group are: first byte, number of bytes.
#[derive(Clone, Copy, Default)]
struct Index {
    column: (u64, usize),
    offset: (u64, usize),
}

fn column_index(out: &mut Vec<u8>, chunk: &ChunkFacts, column: usize) {
    let physical = COLUMNS[column].physical;
    let bounds = |pick: fn((i64, i64)) -> i64| -> Vec<Vec<u8>> {
        let pages = chunk.pages.iter().map(|page| page.bounds.map(pick));
        pages
            .map(|value| value.map_or(Vec::new(), |value| bound(physical, value)))
            .collect()
    };
    let (least, largest) = (bounds(|b| b.0), bounds(|b| b.1));
    structure(out, |index| {
        index.bools(1, chunk.pages.iter().map(|page| page.bounds.is_none()));
        index.binaries(2, least.iter().map(Vec::as_slice));
        index.binaries(3, largest.iter().map(Vec::as_slice));
        // Ascending where the format of the table says so, else not claimed.
        index.i32(4, i32::from(column == PARTITION || column == OFFSET));
        index.i64s(5, chunk.pages.iter().map(|page| i64::from(page.nulls)));
    });
}

fn offset_index(out: &mut Vec<u8>, group: &GroupFacts, chunk: &ChunkFacts) {
    let mut at = (chunk.start as i64, 0i64);
    let mut places = Vec::with_capacity(chunk.pages.len());
    for (page, rows) in chunk.pages.iter().zip(&group.rows) {
        places.push((at.0, page.length as i32, at.1));
        at.0 += i64::from(page.length);
        at.1 += i64::from(*rows);
    }
    structure(out, |index| {
        index.structures(1, &places, |out, (start, length, first_row)| {
            out.i64(1, *start);
            out.i32(2, *length);
            out.i64(3, *first_row);
        });
    });
}

fn row_group(out: &mut Struct<'_>, group: &GroupFacts, places: &[Index; LEAVES]) {
    let columns: Vec<_> = (0..LEAVES).collect();
    out.structures(1, &columns, |out, &column| {
        let chunk = &group.columns[column];
        let place = &places[column];
        out.i64(2, 0);
        out.structure(3, |out| chunk_metadata(out, chunk, column));
        out.i64(4, place.offset.0 as i64);
        out.i32(5, place.offset.1 as i32);
        if place.column.1 > 0 {
            out.i64(6, place.column.0 as i64);
            out.i32(7, place.column.1 as i32);
        }
    });
    let sum = |of: fn(&ChunkFacts) -> u64| group.columns.iter().map(of).sum::<u64>() as i64;
    out.i64(2, sum(|chunk| chunk.uncompressed));
    out.i64(3, group.rows());
    out.structures(4, &[PARTITION, OFFSET], |out, column| {
        out.i32(1, *column as i32);
        out.bool(2, false);
        out.bool(3, false);
    });
    out.i64(5, group.columns[0].start as i64);
    out.i64(6, sum(ChunkFacts::length));
}

fn chunk_metadata(out: &mut Struct<'_>, chunk: &ChunkFacts, column: usize) {
    let leaf = &COLUMNS[column];
    out.i32(1, physical_type(leaf.physical));
    out.i32s(2, &[encoding(leaf.physical), ENCODING_RLE]);
    out.binaries(3, leaf.path.iter().map(|name| name.as_bytes()));
    out.i32(4, CODEC_ZSTD);
    out.i64(5, chunk.values as i64);
    out.i64(6, chunk.uncompressed as i64);
    out.i64(7, chunk.length() as i64);
    out.i64(9, chunk.start as i64);
    out.structure(12, |statistics| {
        statistics.i64(3, chunk.nulls());
        if let Some((least, largest)) = chunk.bounds() {
            statistics.binary(5, &bound(leaf.physical, largest));
            statistics.binary(6, &bound(leaf.physical, least));
        }
    });
}

/// A node of the schema as the footer lists it, depth first.
struct Node {
    name: &'static str,
    physical: Option<Physical>,
    /// 0 required, 1 optional, 2 repeated.
    repetition: Option<i32>,
    children: i32,
    field: Option<u32>,
    annotation: Annotation,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Annotation {
    None,
    Text,
    List,
    Micros,
}

fn schema(file: &mut Struct<'_>) {
    let group = |name, repetition, children, field, annotation| Node {
        name,
        physical: None,
        repetition,
        children,
        field,
        annotation,
    };
    let mut nodes = vec![group("table", None, 8, None, Annotation::None)];
    for leaf in &COLUMNS {
        if leaf.field == 9 {
            nodes.push(group(leaf.path[0], Some(0), 1, Some(7), Annotation::List));
            nodes.push(group(leaf.path[1], Some(2), 1, None, Annotation::None));
            nodes.push(group(leaf.path[2], Some(0), 3, Some(8), Annotation::None));
        }
        nodes.push(Node {
            name: leaf.path[leaf.path.len() - 1],
            physical: Some(leaf.physical),
            repetition: Some(i32::from(leaf.def_max > leaf.rep_max)),
            children: 0,
            field: Some(leaf.field),
            annotation: match leaf.field {
                3 => Annotation::Micros,
                9 => Annotation::Text,
                _ => Annotation::None,
            },
        });
    }
    file.structures(2, &nodes, |out, node| {
        if let Some(physical) = node.physical {
            out.i32(1, physical_type(physical));
        }
        if let Some(repetition) = node.repetition {
            out.i32(3, repetition);
        }
        out.binary(4, node.name.as_bytes());
        if node.children > 0 {
            out.i32(5, node.children);
        }
        // The older annotation, for readers that know no other.
        match node.annotation {
            Annotation::None => {}
            Annotation::Text => out.i32(6, 0),
            Annotation::List => out.i32(6, 3),
            Annotation::Micros => out.i32(6, 10),
        }
        if let Some(field) = node.field {
            out.i32(9, field as i32);
        }
        match node.annotation {
            Annotation::None => {}
            Annotation::Text => out.structure(10, |out| out.structure(1, |_| {})),
            Annotation::List => out.structure(10, |out| out.structure(3, |_| {})),
            Annotation::Micros => out.structure(10, |out| {
                out.structure(8, |out| {
                    out.bool(1, true);
                    out.structure(2, |out| out.structure(2, |_| {}));
                });
            }),
        }
    });
}

/// The properties of every file, besides those of its table.
pub(crate) const SCHEMA_PROPERTY: (&str, &str) = ("iceberg.schema", ICEBERG_SCHEMA);
