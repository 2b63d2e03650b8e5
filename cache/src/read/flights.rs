//! What is on its way: whoever wants the same waits for the same.
//!
//! A flight is joined by everybody who wants its key until it lands. It goes on if nobody waits any
//! more; if it is given up, those who wait hear of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::ReadError;

/// Waits for what is on its way.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, Result<T, ReadError>>>;

/// A flight, and how it lands.
pub(crate) fn flight<T: Clone + Send + Sync + 'static>()
-> (oneshot::Sender<Result<T, ReadError>>, Flight<T>) {
    let (landed, flight) = oneshot::channel();
    let given_up = || Err(ReadError::Store("a fetch was given up".into()));
    let flight = flight.map(move |landed| landed.unwrap_or_else(|_| given_up()));
    (landed, flight.boxed().shared())
}

/// Everything of one kind that is on its way.
pub(crate) struct Flights<K, T> {
    under_way: Mutex<HashMap<K, Flight<T>>>,
}

/// The duty to end a flight. Dropped, it gives the flight up.
pub(crate) struct Landing<K: Eq + Hash, T> {
    flights: Arc<Flights<K, T>>,
    key: K,
    landed: Option<oneshot::Sender<Result<T, ReadError>>>,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self {
            under_way: Mutex::new(HashMap::new()),
        }
    }
}

impl<K: Copy + Eq + Hash, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// Joins the flight of a key. If there is none, one begins, and the caller has to land it.
    pub(crate) fn join(self: &Arc<Self>, key: K) -> (Flight<T>, Option<Landing<K, T>>) {
        let mut under_way = self.under_way.lock();
        if let Some(flight) = under_way.get(&key) {
            return (flight.clone(), None);
        }
        let (landed, flight) = flight();
        under_way.insert(key, flight.clone());
        let landing = Landing {
            flights: Arc::clone(self),
            key,
            landed: Some(landed),
        };
        (flight, Some(landing))
    }

    /// The flight of a key, if there is one.
    pub(crate) fn get(&self, key: &K) -> Option<Flight<T>> {
        self.under_way.lock().get(key).cloned()
    }
}

impl<K: Copy + Eq + Hash, T> Landing<K, T> {
    pub(crate) fn key(&self) -> K {
        self.key
    }

    /// Ends the flight. What was fetched is where others look for it by now: whoever finds no
    /// flight finds that.
    pub(crate) fn land(mut self, result: Result<T, ReadError>) {
        self.flights.under_way.lock().remove(&self.key);
        if let Some(landed) = self.landed.take() {
            // Whoever waited may have gone.
            drop(landed.send(result));
        }
    }
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        if self.landed.is_some() {
            self.flights.under_way.lock().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_flight_serves_all_and_the_next_is_another() {
        let flights: Arc<Flights<u32, u32>> = Arc::default();
        let (first, landing) = flights.join(7);
        let (second, none) = flights.join(7);
        assert!(none.is_none());
        landing.expect("the first one flies").land(Ok(70));
        assert_eq!((first.await, second.await), (Ok(70), Ok(70)));
        assert!(flights.get(&7).is_none());
        let (third, landing) = flights.join(7);
        drop(landing);
        assert!(third.await.is_err(), "it was given up");
        assert!(flights.join(7).1.is_some());
    }
}
