//! What Amazon asks for requests and for bytes between zones, and what Kafka sends between them.
//!
//! List prices of us-east-1 in 2026, without discounts, taxes and free allowances:
//! <https://aws.amazon.com/s3/pricing/> (S3 Standard) and
//! <https://aws.amazon.com/ec2/pricing/on-demand/> (data transfer). Bytes between S3 and EC2 of one
//! region cost nothing.

/// Dollars for a PUT.
const PUT: f64 = 0.005 / 1000.0;
/// Dollars for a GET.
const GET: f64 = 0.0004 / 1000.0;
/// Dollars for a GB from one zone to another: each side pays half of it.
const BETWEEN_ZONES: f64 = 2.0 * 0.01;

const GIB: f64 = (1u64 << 30) as f64;
const GIB_OF_TIB: f64 = 1024.0;

/// What was counted for each GiB of records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerGib {
    pub puts: f64,
    pub gets: f64,
    /// From one zone to another.
    pub bytes: f64,
}

/// Dollars for each TiB of records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bill {
    pub puts: f64,
    pub gets: f64,
    pub zones: f64,
}

impl PerGib {
    pub(crate) fn bill(self) -> Bill {
        Bill {
            puts: self.puts * GIB_OF_TIB * PUT,
            gets: self.gets * GIB_OF_TIB * GET,
            zones: self.bytes * GIB_OF_TIB / 1e9 * BETWEEN_ZONES,
        }
    }

    /// Kafka with three replicas in three zones: of three producers one is in the zone of the
    /// leader, which sends every byte to both others. Consumers read from the replica of their zone
    /// (KIP-392).
    pub(crate) fn kafka() -> Self {
        Self {
            puts: 0.0,
            gets: 0.0,
            bytes: GIB * (2.0 / 3.0 + 2.0),
        }
    }
}

impl Bill {
    pub(crate) fn total(self) -> f64 {
        self.puts + self.gets + self.zones
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-3
    }

    #[test]
    fn a_tib_is_a_thousand_and_twenty_four_gib() {
        let bill = PerGib {
            puts: 140.0,
            gets: 1000.0,
            bytes: 1e9 / 1024.0,
        }
        .bill();
        assert!(close(bill.puts, 0.7168), "{bill:?}");
        assert!(close(bill.gets, 0.4096), "{bill:?}");
        assert!(close(bill.zones, 0.02), "{bill:?}");
        assert!(close(bill.total(), 1.1464), "{bill:?}");
    }

    #[test]
    fn kafka_pays_for_two_zones_and_two_thirds() {
        let bill = PerGib::kafka().bill();
        assert!(close(bill.zones, 58.6406), "{bill:?}");
        assert_eq!(bill.total(), bill.zones);
    }
}
