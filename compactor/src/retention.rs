//! Which offsets may go: pure planning, and the round that applies it.
//!
//! A log loses its oldest extents while they are older than `retention.ms` (by their largest
//! timestamp) or while what would remain still holds `retention.bytes`. Extents go whole, and only
//! from the front, as Kafka's segments do.

use frazil_core::ports::Ledger;
use frazil_core::sabotage::{self, Bug};
use frazil_core::{Extent, Offset, TopicPartition};

use tracing::error;

use crate::freeze::{Ctx, expire};
use crate::{Error, Metrics};

/// How many extents are looked at in one go; a log with more to expire takes another.
const PAGE: usize = 1024;
/// How many partitions one command moves.
const PARTITIONS_PER_COMMAND: usize = 1000;

/// The limits of one log. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Milliseconds after an extent's largest timestamp.
    pub age_ms: Option<i64>,
    /// Bytes that remain at least.
    pub bytes: Option<u64>,
}

/// How many of the oldest extents of a log of `log_bytes` bytes may go at `now_ms`.
///
/// `oldest` are its first extents, in order; there may be more behind them.
pub fn expired(oldest: &[Extent], log_bytes: u64, limits: Limits, now_ms: i64) -> usize {
    let mut remaining = log_bytes;
    oldest
        .iter()
        .take_while(|extent| {
            let too_old = limits
                .age_ms
                .is_some_and(|age| extent.max_timestamp < now_ms.saturating_sub(age));
            remaining = remaining.saturating_sub(u64::from(extent.location.length()));
            let too_much = limits.bytes.is_some_and(|keep| remaining >= keep);
            too_old || too_much
        })
        .count()
}

/// One round over all partitions. `limits` says what applies to a topic. With `tables`, cold offsets
/// are looked at too. Answers how many extents and row groups went.
pub(crate) async fn round(
    ledger: &dyn Ledger,
    limits: impl Fn(&frazil_core::Topic) -> Limits + Send,
    tables: Option<&Ctx>,
    metrics: &Metrics,
) -> Result<u64, Error> {
    let now_ms = ledger.now_ms();
    let mut raised: Vec<(TopicPartition, Offset)> = Vec::new();
    let mut total = 0;
    for log in ledger.partitions() {
        let limits = limits(&log.topic);
        if limits == Limits::default() || log.bounds.log_start == log.bounds.high_watermark {
            continue;
        }
        let cold = ledger.cold(&log.partition);
        let cold = cold.filter(|root| log.bounds.log_start < root.end);
        let mut bytes = log.bytes;
        let mut to = None;
        if let Some(root) = cold {
            // They are older than any extent; without tables nobody here knows what is among them.
            let Some(ctx) = tables else { continue };
            let start = log.bounds.log_start;
            let found = expire::expired(ctx, &log.partition, root, start, bytes, limits).await;
            let cold = match found {
                Ok(cold) => cold,
                Err(error) => {
                    metrics.failures.inc();
                    error!(partition = %log.partition, %error, "retention leaves the log alone");
                    continue;
                }
            };
            if cold.to > start {
                to = Some(cold.to);
                total += cold.count;
            }
            if !cold.all {
                raised.extend(to.map(|to| (log.partition, to)));
                continue;
            }
            bytes = cold.remaining;
        }
        let oldest = ledger.oldest_extents(&log.partition, PAGE);
        let mut count = expired(&oldest, bytes, limits, now_ms);
        if sabotage::on(Bug::RetentionTakesMore) {
            count = (count + 1).min(oldest.len());
        }
        total += count as u64;
        let last = count.checked_sub(1).map(|last| oldest[last].end);
        let Some(to) = last.or(to) else { continue };
        raised.push((log.partition, to));
        if raised.len() >= PARTITIONS_PER_COMMAND {
            ledger.raise_log_starts(std::mem::take(&mut raised)).await?;
        }
    }
    if !raised.is_empty() {
        ledger.raise_log_starts(raised).await?;
    }
    metrics.expired_extents.inc_by(total);
    Ok(total)
}

#[cfg(test)]
mod tests {
    use frazil_core::{BrokerEpoch, Location, SegmentId};

    use super::*;

    /// Extents of ten offsets and `length` bytes, with these timestamps.
    fn extents(length: u32, timestamps: &[i64]) -> Vec<Extent> {
        let mut base = Offset::ZERO;
        timestamps
            .iter()
            .map(|&max_timestamp| {
                let id = SegmentId::new(BrokerEpoch(1), base.0 as u64);
                let extent = Extent {
                    base,
                    end: base + 10,
                    max_timestamp,
                    location: Location::Segment {
                        id,
                        start: 0,
                        length,
                    },
                };
                base = extent.end;
                extent
            })
            .collect()
    }

    #[test]
    fn age_takes_from_the_front_only() {
        let log = extents(100, &[10, 20, 500, 30]);
        let age = |ms| Limits {
            age_ms: Some(ms),
            bytes: None,
        };
        assert_eq!(expired(&log, 400, age(100), 1000), 4);
        assert_eq!(expired(&log, 400, age(900), 1000), 2);
        assert_eq!(
            expired(&log, 400, age(980), 1000),
            1,
            "exactly at the limit stays"
        );
        assert_eq!(expired(&log, 400, age(2000), 1000), 0);
    }

    #[test]
    fn size_leaves_at_least_what_is_to_be_kept() {
        let log = extents(100, &[1, 2, 3, 4]);
        let keep = |bytes| Limits {
            age_ms: None,
            bytes: Some(bytes),
        };
        assert_eq!(expired(&log, 400, keep(0), 0), 4);
        assert_eq!(expired(&log, 400, keep(100), 0), 3);
        assert_eq!(expired(&log, 400, keep(150), 0), 2);
        assert_eq!(expired(&log, 400, keep(400), 0), 0);
        assert_eq!(expired(&log, 400, keep(10_000), 0), 0);
    }

    #[test]
    fn no_limits_keep_everything() {
        assert_eq!(
            expired(&extents(1, &[i64::MIN, 0]), 2, Limits::default(), i64::MAX),
            0
        );
    }

    #[test]
    fn extreme_timestamps_do_not_overflow() {
        let log = extents(1, &[i64::MIN, i64::MAX]);
        let limits = Limits {
            age_ms: Some(i64::MAX),
            bytes: None,
        };
        assert_eq!(expired(&log, 2, limits, i64::MIN), 0);
    }
}
