//! Writes Thrift's compact protocol, as far as Parquet's metadata needs it.
//!
//! Nothing of it is ever read here: readers find their way by the [group index](crate::index).
//! Source: Apache Thrift, `doc/specs/thrift-compact-protocol.md`.

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// One struct under construction. Fields are written in the order of their ids.
pub(crate) struct Struct<'a> {
    out: &'a mut Vec<u8>,
    last: u8,
}

/// Writes a struct whose fields `fields` writes.
pub(crate) fn structure(out: &mut Vec<u8>, fields: impl FnOnce(&mut Struct<'_>)) {
    let mut inner = Struct { out, last: 0 };
    fields(&mut inner);
    inner.out.push(0);
}

pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn list_header(out: &mut Vec<u8>, count: usize, kind: u8) {
    if count < 15 {
        out.push((count as u8) << 4 | kind);
    } else {
        out.push(0xF0 | kind);
        varint(out, count as u64);
    }
}

impl Struct<'_> {
    fn field(&mut self, id: u8, kind: u8) {
        debug_assert!(id > self.last && id - self.last < 15, "fields in order");
        self.out.push((id - self.last) << 4 | kind);
        self.last = id;
    }

    pub(crate) fn i32(&mut self, id: u8, value: i32) {
        self.field(id, I32);
        varint(self.out, zigzag(i64::from(value)));
    }

    pub(crate) fn i64(&mut self, id: u8, value: i64) {
        self.field(id, I64);
        varint(self.out, zigzag(value));
    }

    pub(crate) fn bool(&mut self, id: u8, value: bool) {
        self.field(id, if value { TRUE } else { FALSE });
    }

    pub(crate) fn binary(&mut self, id: u8, value: &[u8]) {
        self.field(id, BINARY);
        varint(self.out, value.len() as u64);
        self.out.extend_from_slice(value);
    }

    pub(crate) fn structure(&mut self, id: u8, fields: impl FnOnce(&mut Struct<'_>)) {
        self.field(id, STRUCT);
        structure(self.out, fields);
    }

    pub(crate) fn structures<T>(
        &mut self,
        id: u8,
        items: &[T],
        mut fields: impl FnMut(&mut Struct<'_>, &T),
    ) {
        self.field(id, LIST);
        list_header(self.out, items.len(), STRUCT);
        for item in items {
            structure(self.out, |inner| fields(inner, item));
        }
    }

    pub(crate) fn i32s(&mut self, id: u8, items: &[i32]) {
        self.field(id, LIST);
        list_header(self.out, items.len(), I32);
        for item in items {
            varint(self.out, zigzag(i64::from(*item)));
        }
    }

    pub(crate) fn i64s(&mut self, id: u8, items: impl ExactSizeIterator<Item = i64>) {
        self.field(id, LIST);
        list_header(self.out, items.len(), I64);
        for item in items {
            varint(self.out, zigzag(item));
        }
    }

    pub(crate) fn bools(&mut self, id: u8, items: impl ExactSizeIterator<Item = bool>) {
        self.field(id, LIST);
        list_header(self.out, items.len(), TRUE);
        self.out
            .extend(items.map(|item| if item { TRUE } else { FALSE }));
    }

    pub(crate) fn binaries<'b>(&mut self, id: u8, items: impl ExactSizeIterator<Item = &'b [u8]>) {
        self.field(id, LIST);
        list_header(self.out, items.len(), BINARY);
        for item in items {
            varint(self.out, item.len() as u64);
            self.out.extend_from_slice(item);
        }
    }
}
