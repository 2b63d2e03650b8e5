//! The cases, and what their inputs are made of.

mod batches;
mod log;
pub(crate) mod quorum;
mod requests;
mod tables;

use bytes::Bytes;
use frazil_core::batch::{BatchBuilder, Codec};
use frazil_core::{TopicId, TopicPartition};
use uuid::Uuid;

use crate::Case;

/// All of them.
pub fn all() -> Vec<Case> {
    [
        batches::cases(),
        requests::cases(),
        log::cases(),
        quorum::cases(),
        tables::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The time that records are of, milliseconds since the epoch.
const NOW_MS: i64 = 1_700_000_000_000;

/// Numbers that are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn new() -> Self {
        Self(0x5DEE_CE66_D1CE_4E5B)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// `length` bytes of text as events are: words that repeat, numbers that do not.
fn event(numbers: &mut Numbers, length: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = [
        "copper", "lantern", "meadow", "granite", "willow", "anchor", "marble", "juniper",
    ];
    let mut text = format!(r#"{{"user":{}"#, numbers.below(1_000_000));
    while text.len() < length {
        let word = WORDS[numbers.below(8) as usize];
        text += &format!(r#","{word}":{}"#, numbers.below(1_000_000_000));
    }
    text.truncate(length);
    text.into_bytes()
}

/// A batch as a producer sends it, of at least `bytes` bytes before compression.
fn batch(numbers: &mut Numbers, codec: Codec, record: usize, bytes: usize) -> Bytes {
    let mut batch = BatchBuilder::new().codec(codec).producer(7, 0, 0);
    while batch.bytes() < bytes {
        let key = format!("user-{}", numbers.below(1_000_000));
        let value = event(numbers, record);
        let at = NOW_MS + i64::from(batch.records());
        batch.push(at, Some(key.as_bytes()), Some(&value), &[]);
    }
    batch.build()
}

fn topic(number: u32) -> TopicId {
    TopicId::new(Uuid::from_u128(1 + u128::from(number)))
}

fn partition(number: u32, partition: i32) -> TopicPartition {
    TopicPartition::new(topic(number), partition)
}
