//! What the store was asked, and what it answered.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::Operation;

/// Sums since the start, or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests by operation and status; 0 is no answer: a connection that was broken or a request
    /// that hung.
    pub requests: BTreeMap<Operation, BTreeMap<u16, u64>>,
    /// Bytes of bodies received.
    pub bytes_in: u64,
    /// Bytes of bodies sent.
    pub bytes_out: u64,
    /// Different keys that something was put under.
    pub keys: u64,
    /// Requests that are being served now.
    pub in_flight: u64,
    /// The most that were served at once.
    pub in_flight_peak: u64,
    /// How often each rule struck, by its name.
    pub faults: BTreeMap<String, u64>,
}

impl Counters {
    /// All requests of an operation.
    pub fn of(&self, operation: Operation) -> u64 {
        let statuses = self.requests.get(&operation);
        statuses.map_or(0, |statuses| statuses.values().sum())
    }

    /// Requests of an operation with this status.
    pub fn with_status(&self, operation: Operation, status: u16) -> u64 {
        let statuses = self.requests.get(&operation);
        let count = statuses.and_then(|statuses| statuses.get(&status));
        count.copied().unwrap_or(0)
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        self.requests.values().flat_map(BTreeMap::values).sum()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counting {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sums: Counters,
    /// Hashes of the keys, which are shorter than keys.
    keys: HashSet<u64>,
}

/// A request that is being served; counted when it is dropped, without an answer unless it had one.
#[derive(Debug)]
pub(crate) struct Serving<'a> {
    counting: &'a Counting,
    operation: Operation,
    pub(crate) status: u16,
}

impl Counting {
    pub(crate) fn get(&self) -> Counters {
        let inner = self.inner.lock();
        Counters {
            keys: inner.keys.len() as u64,
            ..inner.sums.clone()
        }
    }

    pub(crate) fn reset(&self) {
        let mut inner = self.inner.lock();
        let in_flight = inner.sums.in_flight;
        *inner = Inner::default();
        (inner.sums.in_flight, inner.sums.in_flight_peak) = (in_flight, in_flight);
    }

    pub(crate) fn begin(&self, operation: Operation) -> Serving<'_> {
        let sums = &mut self.inner.lock().sums;
        sums.in_flight += 1;
        sums.in_flight_peak = sums.in_flight_peak.max(sums.in_flight);
        Serving {
            counting: self,
            operation,
            status: 0,
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.inner.lock().sums.bytes_in += bytes as u64;
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.inner.lock().sums.bytes_out += bytes as u64;
    }

    pub(crate) fn put(&self, bucket: &str, key: &str) {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((bucket, key));
        self.inner.lock().keys.insert(hash);
    }

    pub(crate) fn struck(&self, rule: &str) {
        let sums = &mut self.inner.lock().sums;
        *sums.faults.entry(rule.to_owned()).or_default() += 1;
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let sums = &mut self.counting.inner.lock().sums;
        sums.in_flight = sums.in_flight.saturating_sub(1);
        let statuses = sums.requests.entry(self.operation).or_default();
        *statuses.entry(self.status).or_default() += 1;
    }
}
