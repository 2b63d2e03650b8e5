//! The guard against the codec. Bodies are built at random from the layouts; the codec must read
//! them to the last byte, and what the codec writes must be read so by the guard.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind};
use proptest::prelude::*;

use super::super::layout::{self, Field, Kind};
use super::*;

/// Every API that has a layout with the versions that are parsed, whether advertised or not.
pub(crate) fn all_versions() -> Vec<(ApiKey, i16)> {
    let mut all = Vec::new();
    for key in (0..=100).filter_map(|key| ApiKey::try_from(key).ok()) {
        if layout::of(key).is_some() {
            let range = key.valid_versions();
            // The codec knows of versions 10 and 6 but cannot decode them.
            let max = match key {
                ApiKey::OffsetCommit | ApiKey::OffsetFetch => 9,
                ApiKey::InitProducerId => 5,
                _ => range.max,
            };
            all.extend((range.min..=max).map(|version| (key, version)));
        }
    }
    all
}

/// Builds bodies by layout; deterministic in its seed.
pub(crate) struct Builder {
    seed: u64,
    version: i16,
    flexible: bool,
    /// Whether to add tagged fields that nobody knows.
    unknown_tags: bool,
    /// Every array has so many elements, innermost ones fewer, and every string is empty: much to
    /// allocate for few bytes.
    elements: Option<usize>,
    /// Where counts and lengths stand.
    pub(crate) lengths: Vec<usize>,
}

impl Builder {
    pub(crate) fn body(key: ApiKey, version: i16, seed: u64, unknown_tags: bool) -> (Self, Bytes) {
        Self::build(key, version, seed, unknown_tags, None)
    }

    fn wide(key: ApiKey, version: i16, elements: usize, unknown_tags: bool) -> (Self, Bytes) {
        Self::build(key, version, 1, unknown_tags, Some(elements))
    }

    fn build(
        key: ApiKey,
        version: i16,
        seed: u64,
        unknown_tags: bool,
        elements: Option<usize>,
    ) -> (Self, Bytes) {
        let layout = layout::of(key).unwrap();
        let mut builder = Self {
            seed,
            version,
            flexible: layout.is_flexible(version),
            unknown_tags,
            elements,
            lengths: Vec::new(),
        };
        let mut out = BytesMut::new();
        builder.fields(layout.fields, &mut out);
        (builder, out.freeze())
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.seed >> 33) % bound
    }

    fn count(&mut self) -> usize {
        match self.elements {
            None => self.below(4) as usize,
            Some(elements) => elements,
        }
    }

    fn varint(out: &mut BytesMut, mut value: u32) {
        while value >= 0x80 {
            out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        out.put_u8(value as u8);
    }

    fn length(&mut self, out: &mut BytesMut, length: Option<usize>, classic_bytes: usize) {
        self.lengths.push(out.len());
        let classic = length.map_or(-1, |length| length as i64);
        match (self.flexible, classic_bytes) {
            (true, _) => Self::varint(out, length.map_or(0, |length| length as u32 + 1)),
            (false, 2) => out.put_i16(classic as i16),
            (false, _) => out.put_i32(classic as i32),
        }
    }

    fn fields(&mut self, fields: &'static [Field], out: &mut BytesMut) {
        let version = self.version;
        for field in fields
            .iter()
            .filter(|f| f.tag.is_none() && f.is_in(version))
        {
            self.value(field, out);
        }
        if !self.flexible {
            return;
        }
        let mut tagged: Vec<(u32, BytesMut)> = Vec::new();
        for field in fields
            .iter()
            .filter(|f| f.tag.is_some() && f.is_in(version))
        {
            if self.below(2) == 0 {
                let mut value = BytesMut::new();
                let before = self.lengths.len();
                self.value(field, &mut value);
                self.lengths.truncate(before);
                tagged.push((field.tag.unwrap(), value));
            }
        }
        if self.unknown_tags && (self.elements.is_some() || self.below(3) == 0) {
            tagged.push((1000 + self.below(9) as u32, BytesMut::from(&b"xyz"[..])));
        }
        Self::varint(out, tagged.len() as u32);
        for (tag, value) in tagged {
            Self::varint(out, tag);
            self.lengths.push(out.len());
            Self::varint(out, value.len() as u32);
            out.put_slice(&value);
        }
    }

    fn string(&mut self, out: &mut BytesMut) {
        let length = match self.elements {
            None => self.below(5) as usize * 40,
            Some(_) => 0,
        };
        self.length(out, Some(length), 2);
        out.put_bytes(b'a', length);
    }

    fn value(&mut self, field: &'static Field, out: &mut BytesMut) {
        if field.nullable && self.elements.is_none() && self.below(4) == 0 {
            let classic_bytes = if matches!(field.kind, Kind::Str) {
                2
            } else {
                4
            };
            self.length(out, None, classic_bytes);
            return;
        }
        match field.kind {
            Kind::Fixed(1) => out.put_u8(self.below(2) as u8),
            Kind::Fixed(bytes) => {
                for _ in 0..bytes {
                    out.put_u8(self.below(256) as u8);
                }
            }
            Kind::Str => self.string(out),
            Kind::Bytes => {
                let length = self.below(4) as usize * 70;
                self.length(out, Some(length), 4);
                out.put_bytes(0xfe, length);
            }
            Kind::FixedArray(bytes) => {
                let count = self.count();
                self.length(out, Some(count), 4);
                out.put_bytes(1, count * bytes);
            }
            Kind::StrArray => {
                let count = self.count();
                self.length(out, Some(count), 4);
                (0..count).for_each(|_| self.string(out));
            }
            Kind::StructArray(fields) => {
                let count = self.count();
                self.length(out, Some(count), 4);
                let outer = self.elements;
                self.elements = outer.map(|elements| elements / 50 + 1);
                (0..count).for_each(|_| self.fields(fields, out));
                self.elements = outer;
            }
            Kind::Struct(fields) => self.fields(fields, out),
        }
    }
}

#[test]
fn every_version_that_is_served_is_tested_here() {
    let tested = all_versions();
    for api in versions::SUPPORTED {
        for version in (api.min..=api.max).filter(|v| versions::is_served(api.key, *v)) {
            assert!(tested.contains(&(api.key, version)), "{api:?} {version}");
        }
    }
}

#[test]
fn guard_and_codec_read_the_same_requests_in_every_version() {
    for (key, version) in all_versions() {
        for seed in 0..60 {
            let (_, body) = Builder::body(key, version, seed * 7919, seed % 2 == 0);
            let what = format!("{key:?} v{version} seed {seed}");
            assert_eq!(check_any(key, version, &body), Ok(body.len()), "{what}");

            let mut rest = body.clone();
            let decoded = RequestKind::decode(key, &mut rest, version)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(rest.is_empty(), "{what}: {} bytes left", rest.len());

            let mut written = BytesMut::new();
            decoded.encode(&mut written, version).unwrap();
            assert_eq!(
                check_any(key, version, &written),
                Ok(written.len()),
                "{what}, as the codec writes it"
            );
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for (key, version) in all_versions() {
        for seed in 0..4 {
            let (_, body) = Builder::body(key, version, seed * 104_729, true);
            for length in 0..body.len() {
                let cut = check_any(key, version, &body[..length]);
                assert!(cut.is_err(), "{key:?} v{version} cut at {length}: {cut:?}");
            }
        }
    }
}

#[test]
fn every_claimed_length_is_checked() {
    for (key, version) in all_versions() {
        let (builder, body) = Builder::body(key, version, 12_345, false);
        for &at in &builder.lengths {
            for claim in [0x7fff_ffffu32, 0x8000_0000, 0xffff_fff0, 0x00ff_ffff] {
                let mut lie = BytesMut::from(&body[..at]);
                if builder.flexible {
                    Builder::varint(&mut lie, claim);
                    let mut old = Reader::new(&body[at..]);
                    old.varint().unwrap();
                    lie.extend_from_slice(&body[at + old.position()..]);
                } else if matches!(claim, 0x00ff_ffff | 0xffff_fff0) {
                    // In two bytes these are 255 and null.
                    continue;
                } else {
                    // A string's length has two bytes, others four: the claim's first two bytes
                    // are wrong for either.
                    let bytes = claim.to_be_bytes();
                    let overwritten = 4.min(body.len() - at);
                    lie.extend_from_slice(&bytes[..overwritten]);
                    lie.extend_from_slice(&body[at + overwritten..]);
                }
                let verdict = check_any(key, version, &lie);
                assert!(
                    verdict.is_err(),
                    "{key:?} v{version}: {claim:x} at {at}: {verdict:?}"
                );
            }
        }
    }
}

#[test]
fn many_tiny_elements_are_refused_once_decoding_them_would_cost_too_much() {
    // Metadata v9 with empty names: 2 bytes each on the wire, 72 once decoded.
    let body = |count: usize| {
        let mut body = BytesMut::new();
        Builder::varint(&mut body, count as u32 + 1);
        body.put_bytes(0, 0);
        for _ in 0..count {
            body.put_slice(&[1, 0]);
        }
        body.put_slice(&[0, 0, 0, 0]);
        body
    };
    let small = body(1000);
    assert_eq!(check_any(ApiKey::Metadata, 9, &small), Ok(small.len()));
    assert_eq!(
        check_any(ApiKey::Metadata, 9, &body(200_000)),
        Err(Malformed::Budget)
    );
}

#[test]
fn floods_of_unknown_tags_are_refused() {
    let mut body = BytesMut::from(&[1u8, 0, 0, 0][..]);
    Builder::varint(&mut body, 50_000);
    for tag in 0..50_000 {
        Builder::varint(&mut body, tag);
        body.put_u8(0);
    }
    assert_eq!(
        check_any(ApiKey::Metadata, 9, &body),
        Err(Malformed::Budget)
    );
}

#[test]
fn only_produce_may_be_large() {
    let body = vec![0; OTHER_REQUEST_BYTES_MAX + 1];
    let refused = check(ApiKey::Metadata, 1, &body).map_err(|refused| refused.why);
    assert_eq!(refused, Err(Malformed::TooLarge));
    let large = check(ApiKey::Produce, 3, &body).map_err(|refused| refused.why);
    assert_ne!(large, Err(Malformed::TooLarge));
}

proptest! {
    /// Whatever the guard lets pass, the codec decodes or refuses; it does not panic.
    #[test]
    fn mutated_requests_never_break_the_codec(
        which in any::<prop::sample::Index>(),
        seed in any::<u64>(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let all = all_versions();
        let (key, version) = all[which.index(all.len())];
        let (_, body) = Builder::body(key, version, seed, true);
        let mut body = body.to_vec();
        for (at, value) in mutations {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = value;
            }
        }
        if check_any(key, version, &body).is_ok() {
            let _ = RequestKind::decode(key, &mut Bytes::from(body), version);
        }
    }
}

/// [`check`] without its precondition that the version is advertised: layouts are tested before
/// and beyond that.
fn check_any(key: ApiKey, version: i16, body: &[u8]) -> Result<usize, Malformed> {
    walk(layout::of(key).unwrap(), version, body)
        .map(|cost| cost.bytes)
        .map_err(|refused| refused.why)
}

#[test]
fn decoding_allocates_no_more_than_the_guard_reckons() {
    let mut largest_factor = 0;
    for (key, version) in all_versions() {
        // What is not flexible has no tags, and Produce is decoded by hand.
        for (elements, unknown_tags) in [(1, false), (1, true), (20, true), (400, false)] {
            let (_, body) = Builder::wide(key, version, elements, unknown_tags);
            let Ok(cost) = walk(layout::of(key).unwrap(), version, &body) else {
                continue;
            };
            let mut rest = body.clone();
            let before = counting::allocated();
            let decoded = RequestKind::decode(key, &mut rest, version);
            let allocated = counting::allocated() - before;
            let what = format!("{key:?} v{version}, {elements} elements");
            assert!(decoded.is_ok(), "{what}");
            assert!(
                allocated <= cost.allocated,
                "{what}: {allocated} bytes were allocated, {} reckoned",
                cost.allocated
            );
            largest_factor = largest_factor.max(allocated / body.len().max(1));
        }
    }
    assert!(
        largest_factor > 4,
        "the test does not try hard: {largest_factor}"
    );
}

/// An allocator that counts what each thread asks for.
mod counting {
    #![expect(
        unsafe_code,
        reason = "the trait of allocators is unsafe to implement; this one only adds up"
    )]

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static ALLOCATED: Cell<usize> = const { Cell::new(0) };
    }

    struct Counting;

    // SAFETY: every call is passed on to the system's allocator as it came.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // A thread that ends has no counter any more.
            let _ = ALLOCATED.try_with(|bytes| bytes.set(bytes.get() + layout.size()));
            // SAFETY: as the caller promises.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: as the caller promises.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    #[global_allocator]
    static COUNTING: Counting = Counting;

    /// Bytes that this thread has asked for so far.
    pub(super) fn allocated() -> usize {
        ALLOCATED.with(Cell::get)
    }
}
