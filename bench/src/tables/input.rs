//! What is produced: events of 1 KiB as JSON, as services write them. Names repeat, ids and numbers
//! do not.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::Result;
use frazil_core::batch::{BatchBuilder, Codec};

use crate::load::frames::{self, Link};

pub(super) const PARTITIONS: i32 = 4;
const VALUE: usize = 1024;
/// Records of a batch.
pub(super) const BATCH: usize = 256;

/// Numbers that are the same in every run.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn json(&mut self) -> String {
        const KINDS: [&str; 6] = ["view", "click", "add", "buy", "search", "login"];
        const WORDS: [&str; 16] = [
            "delta", "harbour", "copper", "lantern", "meadow", "violet", "granite", "ember",
            "willow", "summit", "anchor", "thistle", "marble", "saffron", "juniper", "cobalt",
        ];
        let mut text = format!(
            r#"{{"id":"{:016x}{:016x}","user":{},"kind":"{}","amount":{}.{:02},"from":"10.{}.{}.{}""#,
            self.next(),
            self.next(),
            self.below(1_000_000),
            KINDS[self.below(6) as usize],
            self.below(1000),
            self.below(100),
            self.below(256),
            self.below(256),
            self.below(256),
        );
        let mut field = 0;
        while text.len() < VALUE - 2 {
            let word = WORDS[self.below(16) as usize];
            let other = WORDS[self.below(16) as usize];
            text += &format!(
                r#","{word}_{field}":{{"label":"{other}","rank":{}}}"#,
                self.below(10_000)
            );
            field += 1;
        }
        text.truncate(VALUE - 2);
        text + "\"}"
    }
}

/// What was produced.
#[derive(Clone, Copy, Default)]
pub(super) struct Produced {
    pub(super) records: u64,
    /// Of keys and values.
    pub(super) bytes: u64,
}

/// Produces the same batches, compressed with lz4, to several topics, until there are so many
/// megabytes in each.
pub(super) fn produce(broker: SocketAddr, topics: &[&str], megabytes: u64) -> Result<Produced> {
    const IN_FLIGHT: usize = 4;
    let mut link = Link::to(broker)?;
    let mut numbers = Numbers(0x5DEE_CE66_D1CE_4E5B);
    let mut produced = Produced::default();
    let mut under_way = VecDeque::new();
    let mut correlation = 0;
    while produced.bytes < megabytes * 1_000_000 {
        let mut batches = Vec::new();
        for partition in 0..PARTITIONS {
            let mut batch = BatchBuilder::new().codec(Codec::Lz4);
            for _ in 0..BATCH {
                let key = format!("user-{}", numbers.below(1_000_000));
                let value = numbers.json();
                let time = 1_790_000_000_000 + produced.records as i64;
                batch.push(time, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
                produced.records += 1;
                produced.bytes += (key.len() + value.len()) as u64;
            }
            batches.push((partition, batch.build()));
        }
        let batches: Vec<_> = batches.iter().map(|(p, batch)| (*p, &batch[..])).collect();
        for topic in topics {
            correlation += 1;
            link.send(&mut frames::produce(topic, -1, &batches), correlation)?;
            under_way.push_back(correlation);
            if under_way.len() >= IN_FLIGHT
                && let Some(oldest) = under_way.pop_front()
            {
                frames::produced(link.receive(oldest)?, |_| ())?;
            }
        }
    }
    for correlation in under_way {
        frames::produced(link.receive(correlation)?, |_| ())?;
    }
    Ok(produced)
}
