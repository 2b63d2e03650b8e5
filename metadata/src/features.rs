//! Which feature level is in use, which levels the nodes know, and raising it.
//!
//! ```text
//!  new program on every node, one by one        frazil cluster upgrade
//!  level 1 ──────────────────────────────────►  RaiseLevel ──► level 2, for ever
//!           (a node may go back to the old one)               (who knows 1 only stops, and says so)
//! ```
//!
//! The level is in the state ([`State::level`](crate::state::State::level)), and says what may be
//! written into the log ([`Command::level`]). A new cluster begins with the highest that all of its
//! voters know that answer; later it is raised when an operator asks for it, never by itself:
//! between the new programs and the new level is the time in which the old programs still work.
//!
//! Invariant: the level is raised only when every member of the quorum has answered that it knows
//! it, and every gateway that counts as live has registered as one that does. A node that was away
//! meanwhile and does not know it is refused when it greets, and stops at the first entry or
//! snapshot of that level: it never skips what it does not know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::command::{Command, Envelope, LEVEL};
use crate::node::Node;
use crate::wire::{Features, GatewayFeatures, Reply, Request};

/// How long a voter may take to say what it knows.
const ANSWER: Duration = Duration::from_secs(2);

impl Node {
    /// What is in use and who knows what, as this voter knows it. Asks the other members.
    pub(crate) async fn features(&self) -> Features {
        let members = self.members();
        let mut voters: BTreeMap<u64, Option<u8>> = members
            .voters
            .keys()
            .chain(members.learners.keys())
            .map(|id| (*id, None))
            .collect();
        let deadline = Instant::now() + ANSWER;
        let mut asking = JoinSet::new();
        for (id, address) in members.voters.iter().chain(&members.learners) {
            if *id != self.id {
                let peer = Arc::new(self.peer(*id, address));
                asking.spawn(async move { peer.call(&Request::Members, deadline).await });
            }
        }
        while let Some(answer) = asking.join_next().await {
            if let Ok(Ok(Reply::Members(theirs))) = answer {
                voters.insert(theirs.voter, Some(theirs.knows));
            }
        }
        voters.insert(self.id, Some(members.knows));
        self.image.read(|state| Features {
            level: state.level(),
            voters,
            gateways: state
                .registrations()
                .filter(|known| state.is_current(&known.broker))
                .map(|known| {
                    let features = GatewayFeatures {
                        knows: known.knows.unwrap_or(1),
                        live: known.lease_until_ms > state.now_ms(),
                    };
                    (known.broker.id.0, features)
                })
                .collect(),
        })
    }

    /// Raises the level, as the leader, to `to` or to the highest that everyone knows.
    pub(crate) async fn upgrade(&self, to: Option<u8>) -> Reply {
        let Ok(_alone) = self.changing.try_lock() else {
            return Reply::Refused("the voters are being changed".to_owned());
        };
        match self.read_index().await {
            Reply::ReadIndex(index) => self.image.wait_applied(index).await,
            other => return other,
        }
        let features = self.features().await;
        let level = match features.target(to) {
            Ok(level) => level,
            Err(why) => return Reply::Refused(why),
        };
        if level == features.level {
            return Reply::Features(features);
        }
        let command = Command::RaiseLevel { level };
        match self.propose(Envelope::by_leader(command)).await {
            Reply::Proposed { index, .. } => {
                self.image.wait_applied(index).await;
                tracing::info!(level, "the feature level was raised");
                Reply::Features(self.features().await)
            }
            other => other,
        }
    }

    /// The level that a cluster begins with.
    pub(crate) async fn first_level(&self) -> u8 {
        let voters = self.features().await.voters;
        voters.into_values().flatten().min().unwrap_or(LEVEL)
    }
}

impl Features {
    /// The level that the cluster can be raised to, or why not.
    pub(crate) fn target(&self, to: Option<u8>) -> Result<u8, String> {
        let silent = self.voters.iter().find(|(_, knows)| knows.is_none());
        if let Some((id, _)) = silent {
            return Err(format!(
                "voter {id} does not answer, and nobody knows which levels it knows: start it, or \
                 remove it"
            ));
        }
        let voters = self.voters.iter().map(|(id, knows)| {
            let what = format!("voter {id}");
            (knows.unwrap_or(1), what)
        });
        let live = self.gateways.iter().filter(|(_, gateway)| gateway.live);
        let gateways = live.map(|(id, gateway)| (gateway.knows, format!("gateway {id}")));
        let least = voters.chain(gateways).min();
        let (most, who) = least.unwrap_or((self.level, "nobody".to_owned()));
        match to {
            None => Ok(most.max(self.level)),
            Some(to) if to < self.level => Err(format!(
                "level {} is in use, and there is no way back from it",
                self.level
            )),
            Some(to) if to > most => Err(format!(
                "{who} knows levels up to {most}: install a newer frazil on it first"
            )),
            Some(to) => Ok(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(voters: &[Option<u8>], gateways: &[(u8, bool)]) -> Features {
        Features {
            level: 2,
            voters: (1..).zip(voters.iter().copied()).collect(),
            gateways: (1..)
                .zip(gateways)
                .map(|(id, &(knows, live))| (id, GatewayFeatures { knows, live }))
                .collect(),
        }
    }

    #[test]
    fn the_level_is_what_all_know_who_count() {
        let all = features(&[Some(4), Some(3)], &[(5, true), (1, false)]);
        assert_eq!(all.target(None), Ok(3));
        assert_eq!(all.target(Some(3)), Ok(3));
        assert_eq!(all.target(Some(2)), Ok(2));
        assert!(all.target(Some(4)).unwrap_err().contains("voter 2"));
        assert!(all.target(Some(1)).unwrap_err().contains("no way back"));
        let gateway = features(&[Some(4)], &[(3, true), (4, true)]);
        assert!(gateway.target(Some(4)).unwrap_err().contains("gateway 1"));
        // An old gateway that is there does not lower what is in use.
        assert_eq!(features(&[Some(4)], &[(1, true)]).target(None), Ok(2));
        let silent = features(&[Some(4), None], &[]);
        assert!(silent.target(None).unwrap_err().contains("voter 2"));
    }
}
