//! The numbers of a session's requests, and below which of them all are done.

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// A session's requests.
#[derive(Default)]
pub(super) struct Requests {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    under_way: BTreeSet<u64>,
}

/// A request that is under way; done when dropped.
pub(super) struct Ticket<'a> {
    requests: &'a Requests,
    pub(super) number: u64,
    /// Every request below is done. At most `number`.
    pub(super) done_below: u64,
}

impl Requests {
    /// Begins the next request.
    pub(super) fn begin(&self) -> Ticket<'_> {
        let mut inner = self.inner.lock();
        let number = inner.next;
        inner.next += 1;
        inner.under_way.insert(number);
        let done_below = inner.under_way.first().copied().unwrap_or(number);
        Ticket {
            requests: self,
            number,
            done_below,
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.requests.inner.lock().under_way.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_stops_at_the_oldest_request_under_way() {
        let requests = Requests::default();
        let first = requests.begin();
        let second = requests.begin();
        assert_eq!((first.number, second.number), (0, 1));
        assert_eq!(second.done_below, 0);
        drop(second);
        assert_eq!(requests.begin().done_below, 0);
        drop(first);
        let fourth = requests.begin();
        assert_eq!((fourth.number, fourth.done_below), (3, 3));
    }
}
