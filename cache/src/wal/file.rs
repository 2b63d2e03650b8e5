//! Names and frames of the log's files.

use std::collections::HashMap;

use bytes::BytesMut;
use frazil_core::frame::{FRAME_HEADER_LENGTH, FrameMeta, PAYLOAD_MAX, Salt, encode_frame};
use frazil_core::{BrokerEpoch, TopicPartition};

use crate::flush::upload::Batches;

/// The kind of the log's files.
pub(crate) const FILE_KIND: u8 = b'W';
/// The kind of a frame with batches of one partition.
pub(crate) const BATCHES: u8 = 1;
/// Bytes of a payload before its batches.
pub(crate) const PAYLOAD_HEADER: usize = 20;

/// A batch of the greatest length has room in a payload of its own.
const _: () = assert!(PAYLOAD_HEADER + frazil_core::segment::BATCH_MAX <= PAYLOAD_MAX);

/// The name of a file.
pub(crate) fn name(epoch: BrokerEpoch, position: u64) -> String {
    format!("wal-{:016x}-{position:016x}.log", epoch.0)
}

/// What a file's name says; `None`: it is no file of the log.
pub(crate) fn parse_name(name: &str) -> Option<(BrokerEpoch, u64)> {
    let numbers = name.strip_prefix("wal-")?.strip_suffix(".log")?;
    let (epoch, position) = numbers.split_once('-')?;
    let number = |text: &str| {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
    };
    Some((BrokerEpoch(number(epoch)?), number(position)?))
}

/// Batches as frames.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) frames: BytesMut,
    /// How many frames.
    pub(crate) count: u64,
    /// Where each batch begins, from the beginning of the frames.
    pub(crate) starts: Vec<u64>,
}

/// Encodes batches, a frame for each partition in the order of its first batch; a second one where
/// the payload would become too long.
pub(crate) fn encode(batches: &Batches, salt: &Salt, first: u64, synced_below: u64) -> Encoded {
    let mut frames: Vec<(TopicPartition, usize, Vec<usize>)> = Vec::new();
    let mut frame_of: HashMap<TopicPartition, usize> = HashMap::new();
    for (index, (partition, bytes, _)) in batches.iter().enumerate() {
        let frame = frame_of.get(partition).copied();
        let frame = frame.filter(|&at| frames[at].1 + bytes.len() <= PAYLOAD_MAX);
        let at = frame.unwrap_or_else(|| {
            frames.push((*partition, PAYLOAD_HEADER, Vec::new()));
            frame_of.insert(*partition, frames.len() - 1);
            frames.len() - 1
        });
        frames[at].1 += bytes.len();
        frames[at].2.push(index);
    }
    let length: usize = frames
        .iter()
        .map(|(_, payload, _)| FRAME_HEADER_LENGTH + payload)
        .sum();
    let mut encoded = Encoded {
        frames: BytesMut::with_capacity(length),
        count: frames.len() as u64,
        starts: vec![0; batches.len()],
    };
    for (sequence, (partition, _, members)) in (first..).zip(&frames) {
        let header = payload_header(partition);
        let mut at = (encoded.frames.len() + FRAME_HEADER_LENGTH + PAYLOAD_HEADER) as u64;
        let mut parts: Vec<&[u8]> = vec![&header];
        for &member in members {
            let bytes = &batches[member].1;
            encoded.starts[member] = at;
            at += bytes.len() as u64;
            parts.push(bytes);
        }
        let meta = FrameMeta {
            kind: BATCHES,
            sequence,
            synced_below,
        };
        encode_frame(&mut encoded.frames, salt, meta, &parts);
    }
    debug_assert_eq!(encoded.frames.len(), length);
    encoded
}

/// How a payload with batches of this partition begins.
pub(crate) fn payload_header(partition: &TopicPartition) -> [u8; PAYLOAD_HEADER] {
    let mut header = [0; PAYLOAD_HEADER];
    header[..16].copy_from_slice(partition.topic.uuid().as_bytes());
    header[16..].copy_from_slice(&partition.partition.to_be_bytes());
    header
}
