//! The byte budget that holds producers back.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// What a batch takes of the memory beyond its bytes, in bytes. Whoever reserves room counts it
/// for each batch, so that many tiny ones are bounded too.
pub const BATCH_OVERHEAD: usize = 768;

/// Bytes of batches that may be held at once.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    permits: Arc<Semaphore>,
    capacity: usize,
}

/// Room for batches, returned when it is dropped. The cache keeps it until the batch is settled.
#[derive(Debug)]
pub struct Reservation {
    permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(capacity)),
            capacity,
        }
    }

    /// Waits for room. What exceeds the whole budget counts as the whole budget, so that it waits
    /// for everything else to leave and then goes alone.
    ///
    /// # Cancel safety
    /// Dropping the future loses the place in the queue, nothing else.
    pub(crate) async fn reserve(&self, bytes: usize) -> Result<Reservation, Error> {
        let charge = bytes.min(self.capacity) as u32;
        let permit = Arc::clone(&self.permits)
            .acquire_many_owned(charge)
            .await
            .map_err(|_| Error::Closed)?;
        Ok(Reservation {
            permit: Some(permit),
        })
    }

    /// Adds room for `bytes` bytes to a reservation, as far as one reservation can have it; `false`:
    /// there is none now. Does not wait: whoever holds room and waits for more could wait for
    /// somebody who does the same.
    pub(crate) fn grow(&self, reservation: &mut Reservation, bytes: usize) -> bool {
        let held = reservation.permit.as_ref();
        let held = held.map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.min(self.capacity.saturating_sub(held)) as u32;
        let Ok(more) = Arc::clone(&self.permits).try_acquire_many_owned(more) else {
            return false;
        };
        match &mut reservation.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        true
    }

    /// Refuses everyone from now on, also those who wait.
    pub(crate) fn close(&self) {
        self.permits.close();
    }

    #[cfg(test)]
    fn available(&self) -> usize {
        self.permits.available_permits()
    }
}

impl Reservation {
    /// A part of this reservation of up to `bytes` bytes, for one of the batches it was made for;
    /// the rest stays here.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let permit = self
            .permit
            .as_mut()
            .and_then(|permit| permit.split(bytes.min(permit.num_permits())));
        Self { permit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_returned_by_every_part() {
        let budget = Budget::new(10_000);
        let mut whole = budget.reserve(1_000).await.unwrap();
        let part = whole.split(400);
        assert_eq!(budget.available(), 9_000);
        drop(whole);
        assert_eq!(budget.available(), 9_600);
        drop(part);
        assert_eq!(budget.available(), 10_000);
    }

    #[tokio::test]
    async fn a_reservation_grows_only_at_once() {
        let budget = Budget::new(1_000);
        let mut first = budget.reserve(600).await.unwrap();
        let mut second = budget.reserve(300).await.unwrap();
        assert!(!budget.grow(&mut second, 200));
        assert!(budget.grow(&mut second, 100));
        assert_eq!(budget.available(), 0);
        drop(second);
        assert!(budget.grow(&mut first, 1 << 30), "it has all of it");
        assert_eq!(budget.available(), 0);
        drop(first);
        assert_eq!(budget.available(), 1_000);
    }

    #[tokio::test]
    async fn an_oversized_batch_goes_alone() {
        let budget = Budget::new(1_000);
        let small = budget.reserve(10).await.unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(1 << 30).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(small);
        assert!(waiting.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn closing_wakes_those_who_wait() {
        let budget = Budget::new(1_000);
        let _all = budget.reserve(1_000).await.unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(1).await }
        });
        tokio::task::yield_now().await;
        budget.close();
        assert!(matches!(waiting.await.unwrap(), Err(Error::Closed)));
    }
}
