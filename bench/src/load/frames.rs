//! The two requests that matter, written and read by hand: Produce 7 and Fetch 11, the newest
//! versions that name topics and have fixed lengths. Every broker since Kafka 2.3 speaks them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const PRODUCE: (i16, i16) = (0, 7);
const FETCH: (i16, i16) = (1, 11);
/// Where a request has its correlation id, behind its length.
const CORRELATION: usize = 8;
const CLIENT: &str = "frazil-bench";
/// No answer is that large.
const ANSWER_MAX: usize = 256 << 20;
/// No answer takes that long.
const PATIENCE: Duration = Duration::from_secs(120);

fn string(into: &mut Vec<u8>, text: &str) {
    into.extend_from_slice(&(text.len() as i16).to_be_bytes());
    into.extend_from_slice(text.as_bytes());
}

fn begin((key, version): (i16, i16)) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.extend_from_slice(&key.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    string(&mut frame, CLIENT);
    frame
}

fn finish(mut frame: Vec<u8>) -> Vec<u8> {
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// One batch for each of some partitions of a topic.
pub(crate) fn produce(topic: &str, acks: i16, batches: &[(i32, &[u8])]) -> Vec<u8> {
    let mut frame = begin(PRODUCE);
    frame.extend_from_slice(&(-1i16).to_be_bytes());
    frame.extend_from_slice(&acks.to_be_bytes());
    frame.extend_from_slice(&(PATIENCE.as_millis() as i32).to_be_bytes());
    frame.extend_from_slice(&1i32.to_be_bytes());
    string(&mut frame, topic);
    frame.extend_from_slice(&(batches.len() as i32).to_be_bytes());
    for (partition, batch) in batches {
        frame.extend_from_slice(&partition.to_be_bytes());
        frame.extend_from_slice(&(batch.len() as i32).to_be_bytes());
        frame.extend_from_slice(batch);
    }
    finish(frame)
}

/// From these offsets of a topic's partitions, with the limits of Kafka's own consumer. `wait` is in
/// milliseconds.
pub(crate) fn fetch(topic: &str, offsets: &[(i32, i64)], wait: i32) -> Vec<u8> {
    let mut frame = begin(FETCH);
    frame.extend_from_slice(&(-1i32).to_be_bytes());
    frame.extend_from_slice(&wait.to_be_bytes());
    frame.extend_from_slice(&1i32.to_be_bytes());
    frame.extend_from_slice(&(50i32 << 20).to_be_bytes());
    frame.push(0);
    frame.extend_from_slice(&0i32.to_be_bytes());
    frame.extend_from_slice(&(-1i32).to_be_bytes());
    frame.extend_from_slice(&1i32.to_be_bytes());
    string(&mut frame, topic);
    frame.extend_from_slice(&(offsets.len() as i32).to_be_bytes());
    for (partition, offset) in offsets {
        frame.extend_from_slice(&partition.to_be_bytes());
        frame.extend_from_slice(&(-1i32).to_be_bytes());
        frame.extend_from_slice(&offset.to_be_bytes());
        frame.extend_from_slice(&(-1i64).to_be_bytes());
        frame.extend_from_slice(&(1i32 << 20).to_be_bytes());
    }
    frame.extend_from_slice(&0i32.to_be_bytes());
    string(&mut frame, "");
    finish(frame)
}

/// A cursor over an answer.
struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        ensure!(self.0.len() >= length, "an answer that ends too early");
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }

    fn string(&mut self) -> Result<()> {
        let length = self.i16()?;
        self.take(length.max(0) as usize)?;
        Ok(())
    }
}

/// What was assigned to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub partition: i32,
    pub base: i64,
}

/// Reads the answer to [`produce`]; any error of a partition is an error.
pub(crate) fn produced(answer: &[u8], mut each: impl FnMut(Stored)) -> Result<()> {
    let mut answer = Answer(answer);
    for _ in 0..answer.i32()? {
        answer.string()?;
        for _ in 0..answer.i32()? {
            let partition = answer.i32()?;
            let error = answer.i16()?;
            if error != 0 {
                bail!("produce to partition {partition} was answered with error {error}");
            }
            let base = answer.i64()?;
            answer.take(16)?;
            each(Stored { partition, base });
        }
    }
    Ok(())
}

/// Some whole batches that came for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub partition: i32,
    /// Records in them.
    pub records: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// The first offset in them.
    pub first: i64,
    /// Where to go on.
    pub next: i64,
}

/// Reads the answer to [`fetch`]; any error of a partition is an error.
pub(crate) fn fetched(answer: &[u8], mut each: impl FnMut(Fetched)) -> Result<()> {
    let mut answer = Answer(answer);
    answer.i32()?;
    let error = answer.i16()?;
    ensure!(error == 0, "fetch was answered with error {error}");
    answer.i32()?;
    for _ in 0..answer.i32()? {
        answer.string()?;
        for _ in 0..answer.i32()? {
            let partition = answer.i32()?;
            let error = answer.i16()?;
            if error != 0 {
                bail!("fetch of partition {partition} was answered with error {error}");
            }
            answer.take(24)?;
            let aborted = answer.i32()?.max(0) as usize;
            answer.take(aborted * 16)?;
            answer.i32()?;
            let length = answer.i32()?.max(0) as usize;
            if let Some(fetched) = batches(partition, answer.take(length)?) {
                each(fetched);
            }
        }
    }
    Ok(())
}

/// Walks from header to header. The last batch may be cut off; it does not count.
fn batches(partition: i32, mut bytes: &[u8]) -> Option<Fetched> {
    let mut all: Option<Fetched> = None;
    while bytes.len() >= 61 {
        let base = i64::from_be_bytes(bytes[..8].try_into().ok()?);
        let length = 12 + i32::from_be_bytes(bytes[8..12].try_into().ok()?).max(0) as usize;
        if bytes.len() < length {
            break;
        }
        let last = i32::from_be_bytes(bytes[23..27].try_into().ok()?);
        let count = i32::from_be_bytes(bytes[57..61].try_into().ok()?);
        let all = all.get_or_insert(Fetched {
            partition,
            records: 0,
            bytes: 0,
            first: base,
            next: base,
        });
        all.records += count.max(0) as u64;
        all.bytes += length as u64;
        all.next = base + i64::from(last) + 1;
        bytes = &bytes[length..];
    }
    all
}

/// One blocking connection. A thread of its own writes or reads it: that costs one system call for
/// a message and no poll.
pub(crate) struct Link {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Link {
    pub(crate) fn to(broker: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(broker).with_context(|| format!("cannot connect to {broker}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// The same connection for another thread.
    pub(crate) fn share(&self) -> Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
            buffer: Vec::new(),
        })
    }

    /// Sends a frame under this correlation id.
    pub(crate) fn send(&mut self, frame: &mut [u8], correlation: i32) -> Result<()> {
        frame[CORRELATION..CORRELATION + 4].copy_from_slice(&correlation.to_be_bytes());
        self.stream.write_all(frame).context("sending a request")
    }

    /// Waits for the answer with this correlation id; what follows the id.
    pub(crate) fn receive(&mut self, correlation: i32) -> Result<&[u8]> {
        let mut head = [0; 8];
        self.stream
            .read_exact(&mut head)
            .context("waiting for an answer")?;
        let length = i32::from_be_bytes(head[..4].try_into()?) as usize;
        ensure!((4..ANSWER_MAX).contains(&length), "an answer of {length}");
        let answered = i32::from_be_bytes(head[4..].try_into()?);
        ensure!(answered == correlation, "an answer to another request");
        if self.buffer.len() < length - 4 {
            self.buffer.resize(length - 4, 0);
        }
        let answer = &mut self.buffer[..length - 4];
        self.stream.read_exact(answer).context("an answer")?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::{FetchRequest, ProduceRequest, RequestHeader};
    use kafka_protocol::protocol::Decodable as _;

    use super::*;
    use crate::load::batch::{Codec, batch};

    #[test]
    fn another_implementation_reads_the_requests() {
        let batch = batch(3, 10, Codec::None).unwrap();
        let mut frame = Bytes::from(produce("topic", -1, &[(4, &batch), (5, &batch)])).split_off(4);
        let header = RequestHeader::decode(&mut frame, 1).unwrap();
        assert_eq!(
            (header.request_api_key, header.request_api_version),
            PRODUCE
        );
        let request = ProduceRequest::decode(&mut frame, PRODUCE.1).unwrap();
        assert!(frame.is_empty());
        assert_eq!(request.acks, -1);
        let partitions = &request.topic_data[0].partition_data;
        assert_eq!(partitions[1].index, 5);
        assert_eq!(partitions[1].records.as_deref(), Some(&batch[..]));

        let mut frame = Bytes::from(fetch("topic", &[(4, 17)], 500)).split_off(4);
        let header = RequestHeader::decode(&mut frame, 1).unwrap();
        assert_eq!((header.request_api_key, header.request_api_version), FETCH);
        let request = FetchRequest::decode(&mut frame, FETCH.1).unwrap();
        assert!(frame.is_empty());
        assert_eq!(request.topics[0].partitions[0].fetch_offset, 17);
    }

    #[test]
    fn batches_are_counted_and_one_that_is_cut_off_is_not() {
        let mut two = batch(3, 10, Codec::None).unwrap();
        let mut second = two.clone();
        second[..8].copy_from_slice(&3i64.to_be_bytes());
        two.extend_from_slice(&second);
        let seen = batches(1, &two).unwrap();
        assert_eq!((seen.records, seen.first, seen.next), (6, 0, 6));
        let seen = batches(1, &two[..two.len() - 1]).unwrap();
        assert_eq!((seen.records, seen.next), (3, 3));
        assert_eq!(batches(1, &two[..60]), None);
    }
}
