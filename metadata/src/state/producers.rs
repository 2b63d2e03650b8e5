//! Idempotent producers of one partition: which batch comes next, which was there before.
//!
//! Per producer id: its epoch and its last five batches, with the offsets they got. A batch is
//! judged in this order:
//!
//! 1. The same epoch, and the same first and last sequence as one of the last five: it is a
//!    duplicate, and gets the offset it got then.
//! 2. An older epoch: refused.
//! 3. A newer epoch: accepted if its first sequence is 0.
//! 4. The same epoch: accepted if its first sequence follows the last one; sequences go from
//!    2³¹-1 to 0.
//! 5. An unknown producer: accepted, whatever its sequence (its state may have expired).
//!
//! Source: KIP-98, KIP-360, KAFKA-5494.

use frazil_core::ports::{BatchRefusal, ProducerBatch};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{Offset, ProducerEpoch, ProducerId};
use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// How many batches of a producer are remembered: as many as clients keep in flight.
const REMEMBERED: usize = 5;

/// The verdict on a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Duplicate(Offset),
    Refuse(BatchRefusal),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Batch {
    #[n(0)]
    first: i32,
    #[n(1)]
    last: i32,
    #[n(2)]
    offset: Offset,
}

/// The last batches, oldest first; never empty once stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Recent {
    batches: [Batch; REMEMBERED],
    length: u8,
}

impl Recent {
    fn as_slice(&self) -> &[Batch] {
        &self.batches[..usize::from(self.length)]
    }

    fn push(&mut self, batch: Batch) {
        if usize::from(self.length) == REMEMBERED {
            self.batches.rotate_left(1);
            self.batches[REMEMBERED - 1] = batch;
        } else {
            self.batches[usize::from(self.length)] = batch;
            self.length += 1;
        }
    }
}

impl<C> Encode<C> for Recent {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        self.as_slice().encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Recent {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let mut recent = Self::default();
        for batch in d.array_iter_with(ctx)? {
            if usize::from(recent.length) == REMEMBERED {
                return Err(decode::Error::message(
                    "a producer has at most five batches",
                ));
            }
            recent.push(batch?);
        }
        Ok(recent)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Producer {
    #[n(0)]
    id: ProducerId,
    #[n(1)]
    epoch: ProducerEpoch,
    /// The state's time of its last append.
    #[n(2)]
    last_ms: i64,
    #[n(3)]
    recent: Recent,
}

/// The idempotent producers of one partition, sorted by id. New producers have the largest ids, so
/// a sorted vector is appended to, and takes no more memory than it must.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Producers(#[n(0)] Vec<Producer>);

/// The last sequence of a batch, wrapping from 2³¹-1 to 0.
fn last_sequence(first: i32, records: u32) -> i32 {
    let last = i64::from(first) + i64::from(records) - 1;
    (last & i64::from(i32::MAX)) as i32
}

impl Producers {
    /// Bytes that one producer takes.
    #[cfg(test)]
    pub(super) const UNIT: usize = size_of::<Producer>();

    fn find(&self, id: ProducerId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |producer| producer.id)
    }

    /// Judges a batch of `records` records.
    pub(super) fn judge(&self, batch: &ProducerBatch, records: u32) -> Verdict {
        let Ok(known) = self.find(batch.id).map(|at| &self.0[at]) else {
            return Verdict::Accept;
        };
        if sabotage::on(Bug::RepeatsAreAppended) {
            return Verdict::Accept;
        }
        let first = batch.base_sequence;
        let last = last_sequence(first, records);
        if batch.epoch == known.epoch
            && let Some(same) = known
                .recent
                .as_slice()
                .iter()
                .find(|old| (old.first, old.last) == (first, last))
        {
            return Verdict::Duplicate(same.offset);
        }
        if batch.epoch < known.epoch {
            return Verdict::Refuse(BatchRefusal::InvalidProducerEpoch);
        }
        let expected = if batch.epoch > known.epoch {
            Some(0)
        } else {
            let last = known.recent.as_slice().last();
            last.map(|last| last_sequence(last.last, 2))
        };
        if expected.is_some_and(|expected| expected != first) {
            return Verdict::Refuse(BatchRefusal::OutOfOrderSequence);
        }
        Verdict::Accept
    }

    /// Remembers a batch that was accepted and got `offset`.
    pub(super) fn remember(
        &mut self,
        batch: &ProducerBatch,
        records: u32,
        offset: Offset,
        now_ms: i64,
    ) {
        let at = self.find(batch.id).unwrap_or_else(|at| {
            if self.0.is_empty() {
                // Most partitions have one producer; do not make room for four.
                self.0.reserve_exact(1);
            }
            self.0.insert(
                at,
                Producer {
                    id: batch.id,
                    epoch: batch.epoch,
                    last_ms: now_ms,
                    recent: Recent::default(),
                },
            );
            at
        });
        let producer = &mut self.0[at];
        if producer.epoch != batch.epoch {
            producer.epoch = batch.epoch;
            producer.recent = Recent::default();
        }
        producer.last_ms = now_ms;
        producer.recent.push(Batch {
            first: batch.base_sequence,
            last: last_sequence(batch.base_sequence, records),
            offset,
        });
    }

    /// Forgets producers that have not appended since before `before_ms`.
    pub(super) fn expire(&mut self, before_ms: i64) {
        self.0.retain(|producer| producer.last_ms >= before_ms);
        if self.0.capacity() > 4 * self.0.len() {
            self.0.shrink_to_fit();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn check(&self, high_watermark: Offset) -> Result<(), String> {
        for pair in self.0.windows(2) {
            if pair[0].id >= pair[1].id {
                return Err(format!("producers {} and {}", pair[0].id, pair[1].id));
            }
        }
        for producer in &self.0 {
            let id = producer.id;
            let recent = producer.recent.as_slice();
            if id.0 < 0 || producer.epoch.0 < 0 || recent.is_empty() {
                return Err(format!("producer {id} is not one"));
            }
            for pair in recent.windows(2) {
                if pair[0].offset >= pair[1].offset
                    || last_sequence(pair[0].last, 2) != pair[1].first
                {
                    return Err(format!("the batches of producer {id} are out of order"));
                }
            }
            let in_log = |batch: &Batch| {
                batch.first >= 0
                    && batch.last >= 0
                    && (Offset::ZERO..high_watermark).contains(&batch.offset)
            };
            if !recent.iter().all(in_log) {
                return Err(format!("a batch of producer {id} is not in the log"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One step: epoch, first sequence, records, and what is expected of it. Accepted batches are
    /// remembered at offset 10 × step.
    fn check(steps: &[(i16, i32, u32, Verdict)]) {
        let mut producers = Producers::default();
        for (step, &(epoch, base_sequence, records, expected)) in steps.iter().enumerate() {
            let batch = ProducerBatch {
                id: ProducerId(7),
                epoch: ProducerEpoch(epoch),
                base_sequence,
            };
            let verdict = producers.judge(&batch, records);
            assert_eq!(verdict, expected, "step {step} of {steps:?}");
            if verdict == Verdict::Accept {
                let offset = Offset(10 * step as i64);
                producers.remember(&batch, records, offset, 0);
            }
            producers.check(Offset(1000)).expect("consistent");
        }
    }

    const OUT_OF_ORDER: Verdict = Verdict::Refuse(BatchRefusal::OutOfOrderSequence);
    const OLD_EPOCH: Verdict = Verdict::Refuse(BatchRefusal::InvalidProducerEpoch);
    use Verdict::{Accept, Duplicate};

    #[test]
    fn sequences_follow_each_other() {
        check(&[
            (0, 0, 3, Accept),
            (0, 3, 1, Accept),
            (0, 5, 1, OUT_OF_ORDER),
            (0, 3, 2, OUT_OF_ORDER),
            (0, 4, 1, Accept),
        ]);
    }

    #[test]
    fn an_unknown_producer_begins_anywhere() {
        check(&[
            (3, 41, 2, Accept),
            (3, 43, 1, Accept),
            (3, 45, 1, OUT_OF_ORDER),
        ]);
    }

    #[test]
    fn the_last_five_batches_are_recognised() {
        check(&[
            (0, 0, 1, Accept),
            (0, 1, 1, Accept),
            (0, 2, 1, Accept),
            (0, 3, 1, Accept),
            (0, 4, 1, Accept),
            (0, 0, 1, Duplicate(Offset(0))),
            (0, 5, 1, Accept),
            (0, 0, 1, OUT_OF_ORDER),
            (0, 1, 1, Duplicate(Offset(10))),
            (0, 5, 1, Duplicate(Offset(60))),
        ]);
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_ends_the_old_one() {
        check(&[
            (0, 0, 5, Accept),
            (1, 5, 1, OUT_OF_ORDER),
            (1, 0, 5, Accept),
            (0, 0, 5, OLD_EPOCH),
            (0, 5, 1, OLD_EPOCH),
            (1, 0, 5, Duplicate(Offset(20))),
        ]);
    }

    #[test]
    fn sequences_wrap() {
        check(&[
            (0, i32::MAX - 1, 2, Accept),
            (0, 0, 1, Accept),
            (0, i32::MAX - 1, 2, Duplicate(Offset(0))),
        ]);
        check(&[(0, i32::MAX, 3, Accept), (0, 2, 1, Accept)]);
        check(&[(0, i32::MAX, 3, Accept), (0, 3, 1, OUT_OF_ORDER)]);
    }
}
