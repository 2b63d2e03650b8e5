//! Requests of strangers.
//!
//! Input: a request without the length in front. What the header and the guard let pass must be
//! decoded, or refused, without a panic and without allocating more than the guard promises. Of
//! Produce, which is read by hand, the codec must read the same.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use frazil_gateway::versions;
use frazil_gateway::wire::guard::{self, ALLOCATION_FACTOR, ALLOCATION_FREE};
use frazil_gateway::wire::{header, produce};
use kafka_protocol::messages::{ApiKey, ProduceRequest, RequestKind};
use kafka_protocol::protocol::Decodable;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|bytes| bytes.set(bytes.get() + layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// An error of the decoder, with its message and backtrace, is no part of what a request takes.
const ERROR_BYTES: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let frame = Bytes::copy_from_slice(data);
    let Ok((header, body)) = header::parse(&frame) else {
        return;
    };
    if !versions::is_served(header.key, header.version) {
        assert_eq!(header.key, ApiKey::ApiVersions);
        return;
    }
    let before = ALLOCATED.with(Cell::get);
    if header.key == ApiKey::Produce {
        let Ok(ours) = produce::parse(&body, header.version) else {
            return;
        };
        let theirs = ProduceRequest::decode(&mut body.clone(), header.version)
            .expect("the codec is not stricter");
        assert_eq!(ours.acks, theirs.acks);
        assert_eq!(ours.timeout_ms, theirs.timeout_ms);
        assert_eq!(ours.topics.len(), theirs.topic_data.len());
        for (ours, theirs) in ours.topics.iter().zip(&theirs.topic_data) {
            assert_eq!(ours.partitions.len(), theirs.partition_data.len());
            for (ours, theirs) in ours.partitions.iter().zip(&theirs.partition_data) {
                assert_eq!(ours.index, theirs.index);
                assert_eq!(ours.records, theirs.records);
            }
        }
        return;
    }
    let Ok(length) = guard::check(header.key, header.version, &body) else {
        return;
    };
    assert!(length <= body.len());
    let mut rest = body.clone();
    if RequestKind::decode(header.key, &mut rest, header.version).is_ok() {
        assert_eq!(
            rest.len(),
            body.len() - length,
            "guard and codec read the same"
        );
    }
    let allocated = ALLOCATED.with(Cell::get) - before;
    let promised = ALLOCATION_FREE + ALLOCATION_FACTOR * body.len() + ERROR_BYTES;
    assert!(
        allocated <= promised,
        "{allocated} bytes for {}",
        body.len()
    );
});
