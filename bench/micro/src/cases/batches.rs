//! What a produced batch is checked for: twelve batches of 16 KiB, as one request of a producer with
//! default settings has.

use std::hint::black_box;

use bytes::Bytes;
use frazil_core::batch::{Codec, Limits, validate};

use super::{NOW_MS, Numbers, batch};
use crate::{Case, Work};

const BATCHES: usize = 12;
const BATCH: usize = 16 << 10;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, prepare| Case {
        name,
        bytes: Some((BATCHES * BATCH) as u64),
        prepare,
    };
    vec![
        case("validate/1 KiB", || checked(Codec::None, 1000)),
        case("validate/100 B", || checked(Codec::None, 80)),
        case("validate/lz4", || checked(Codec::Lz4, 1000)),
        case("validate/zstd", || checked(Codec::Zstd, 1000)),
    ]
}

fn checked(codec: Codec, record: usize) -> Work {
    let mut numbers = Numbers::new();
    let batches: Vec<Bytes> = (0..BATCHES)
        .map(|_| batch(&mut numbers, codec, record, BATCH))
        .collect();
    let limits = Limits {
        now_ms: NOW_MS,
        ..Limits::default()
    };
    Box::new(move || {
        for batch in &batches {
            black_box(validate(black_box(batch), &limits).expect("a sound batch"));
        }
    })
}
