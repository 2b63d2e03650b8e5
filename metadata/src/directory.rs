//! Where the voters are: what the configuration says, and what the quorum itself says since.
//!
//! The quorum's members change while nodes run with an old configuration. A voter reads them from
//! its own log; other nodes ask any voter that they know of, now and then and whenever there are
//! signs of a change. An address that is configured wins over one that was learned, so
//! that a voter can move; one that is configured and no longer a member stays as a last resort.
//!
//! Invariant: what was learned is only replaced by what a later entry of the quorum's log says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::peer::{Introduce, Peer};
use crate::wire::{Members, Reply, Request};

/// How often the members are asked for.
const LOOK: Duration = Duration::from_secs(10);
/// How long to wait before the next attempt after nobody answered, or after a leader turned up
/// that is not known.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long one voter may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// The other voters, as far as they are known.
pub(crate) type Peers = BTreeMap<u64, Arc<Peer>>;

/// The voters and where they are.
pub(crate) struct Directory {
    us: Arc<dyn Introduce>,
    configured: BTreeMap<u64, String>,
    known: RwLock<Known>,
    changed: Notify,
    /// Who is to be followed next.
    preferred: Mutex<Option<u64>>,
    preferring: Notify,
}

struct Known {
    /// Term and index of the log entry that the members were learned from.
    set_by: Option<(u64, u64)>,
    /// Everyone but this node.
    peers: Arc<Peers>,
}

impl Directory {
    /// Knows what is configured.
    pub(crate) fn new(us: Arc<dyn Introduce>, configured: BTreeMap<u64, String>) -> Self {
        let directory = Self {
            us,
            configured,
            known: RwLock::new(Known {
                set_by: None,
                peers: Arc::default(),
            }),
            changed: Notify::new(),
            preferred: Mutex::new(None),
            preferring: Notify::new(),
        };
        directory.replace(None, &BTreeMap::new());
        directory
    }

    /// The other voters.
    pub(crate) fn peers(&self) -> Arc<Peers> {
        Arc::clone(&self.known.read().peers)
    }

    /// Where a member is, given what the log says.
    pub(crate) fn address<'a>(&'a self, id: u64, logged: &'a str) -> &'a str {
        self.configured.get(&id).map_or(logged, String::as_str)
    }

    /// Learns the members from the log entry `set_by`, unless later ones are known.
    pub(crate) fn adopt(&self, set_by: (u64, u64), members: &BTreeMap<u64, String>) {
        if self.known.read().set_by < Some(set_by) {
            self.replace(Some(set_by), members);
        }
    }

    fn replace(&self, set_by: Option<(u64, u64)>, members: &BTreeMap<u64, String>) {
        let mut known = self.known.write();
        let mut peers = Peers::new();
        for (&id, address) in members.iter().chain(&self.configured) {
            if self.us.voter() == Some(id) {
                continue;
            }
            let same = known
                .peers
                .get(&id)
                .filter(|peer| peer.address() == address);
            let peer = same
                .cloned()
                .unwrap_or_else(|| Arc::new(Peer::new(id, address.clone(), Arc::clone(&self.us))));
            // The configured addresses come last and win.
            peers.insert(id, peer);
        }
        *known = Known {
            set_by,
            peers: Arc::new(peers),
        };
    }

    /// Notes that somebody unknown is said to be a voter.
    pub(crate) fn heard_of(&self, id: u64) {
        if self.us.voter() != Some(id) && !self.peers().contains_key(&id) {
            self.look_again();
        }
    }

    /// Has the members asked for soon.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Notes that a voter has what whom this node follows does not tell.
    pub(crate) fn prefer(&self, voter: u64) {
        *self.preferred.lock() = Some(voter);
        self.preferring.notify_one();
    }

    /// The voter to follow next, if there is a reason. It is one once.
    pub(crate) fn preferred(&self) -> Option<u64> {
        self.preferred.lock().take()
    }

    /// Waits until another voter than this one is to be followed.
    pub(crate) async fn another_is_preferred(&self, than: u64) {
        loop {
            self.preferring.notified().await;
            let mut preferred = self.preferred.lock();
            *preferred = preferred.filter(|voter| *voter != than);
            if preferred.is_some() {
                return;
            }
        }
    }

    /// Asks one voter after the other for the members, for ever.
    pub(crate) async fn learn_for_ever(self: Arc<Self>) {
        loop {
            let learned = self.learn().await;
            tokio::time::sleep(LOOK_AGAIN).await;
            if learned {
                // Both ways on are the same: asking again.
                let _ = tokio::time::timeout(LOOK, self.changed.notified()).await;
            }
        }
    }

    /// Whether some voter told its members.
    async fn learn(&self) -> bool {
        for peer in self.peers().values() {
            let reply = peer.call(&Request::Members, Instant::now() + ANSWER).await;
            if let Ok(Reply::Members(members)) = reply
                && let Some(set_by) = members.set_by
            {
                self.adopt(set_by, &members.voters);
                return true;
            }
        }
        false
    }
}

/// What a voter tells of the quorum's members.
impl Members {
    /// Whether the id belongs to a voter, or once did.
    pub(crate) fn remembers(&self, id: u64) -> bool {
        self.seen.contains(&id) || self.acknowledged.contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Introduce for Nobody {
        fn cluster(&self) -> Option<String> {
            None
        }
        fn voter(&self) -> Option<u64> {
            Some(1)
        }
        fn knows(&self) -> u8 {
            1
        }
        fn level(&self) -> u8 {
            1
        }
    }

    fn addresses(pairs: &[(u64, &str)]) -> BTreeMap<u64, String> {
        pairs.iter().map(|(id, a)| (*id, (*a).to_owned())).collect()
    }

    fn known(directory: &Directory) -> BTreeMap<u64, String> {
        let peers = directory.peers();
        let named = peers.iter().map(|(id, p)| (*id, p.address().to_owned()));
        named.collect()
    }

    #[test]
    fn later_members_replace_earlier_ones_and_the_configuration_wins() {
        let configured = addresses(&[(1, "own:1"), (2, "two:1")]);
        let directory = Directory::new(Arc::new(Nobody), configured);
        assert_eq!(known(&directory), addresses(&[(2, "two:1")]));
        let kept = Arc::clone(&directory.peers()[&2]);

        directory.adopt(
            (3, 40),
            &addresses(&[(1, "old:1"), (2, "old:2"), (3, "three:1")]),
        );
        let expected = addresses(&[(2, "two:1"), (3, "three:1")]);
        assert_eq!(known(&directory), expected);
        assert!(
            Arc::ptr_eq(&kept, &directory.peers()[&2]),
            "still connected"
        );

        directory.adopt((3, 39), &addresses(&[(9, "nine:1")]));
        assert_eq!(
            known(&directory),
            expected,
            "an earlier entry says nothing new"
        );
        directory.adopt((4, 50), &addresses(&[(3, "three:1"), (4, "four:1")]));
        let expected = addresses(&[(2, "two:1"), (3, "three:1"), (4, "four:1")]);
        assert_eq!(known(&directory), expected, "the configured one stays");
    }
}
