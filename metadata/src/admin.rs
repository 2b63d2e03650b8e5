//! What an operator asks of the quorum from outside: who its voters are, and to change them.
//!
//! Any voter can be asked; it hands a change on to the leader.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::peer::{Introduce, Peer};
use crate::wire::{ANY_VOTER, Members, Reply, Request, VoterChange};

/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(10);
/// How long a change may take in all, changes of leadership included.
const CHANGE: Duration = Duration::from_secs(90);
/// After how long it is tried again while there is no leader.
const RETRY: Duration = Duration::from_millis(500);

/// A way to some voter.
pub struct Admin {
    peer: Peer,
}

/// An operator is nobody in particular.
struct Operator;

impl Introduce for Operator {
    fn cluster(&self) -> Option<String> {
        None
    }

    fn voter(&self) -> Option<u64> {
        None
    }
}

impl Admin {
    /// Will ask the voter whose peer listener is at `address`, `host:port`.
    pub fn new(address: &str) -> Self {
        Self {
            peer: Peer::new(ANY_VOTER, address.to_owned(), Arc::new(Operator)),
        }
    }

    /// The members as this voter knows them.
    ///
    /// # Errors
    /// No answer within ten seconds.
    pub async fn members(&self) -> Result<Members, Error> {
        match self
            .peer
            .call(&Request::Members, Instant::now() + QUESTION)
            .await
        {
            Ok(Reply::Members(members)) => Ok(members),
            Ok(_) => Err(Error::Unavailable("an answer of another kind".to_owned())),
            Err(error) => Err(Error::Unavailable(error.to_string())),
        }
    }

    /// Makes the node at `address`, which waits for it, a voter; one that is already stays it.
    ///
    /// # Errors
    /// Why it is refused, or that it is not done after a minute and a half; it may then be asked
    /// again.
    ///
    /// # Cancel safety
    /// What has begun goes on.
    pub async fn add_voter(&self, id: u64, address: String) -> Result<Members, Error> {
        self.change(VoterChange::Add { id, address }).await
    }

    /// Makes a voter none.
    ///
    /// # Errors
    /// As [`Self::add_voter`].
    ///
    /// # Cancel safety
    /// As [`Self::add_voter`].
    pub async fn remove_voter(&self, id: u64) -> Result<Members, Error> {
        self.change(VoterChange::Remove { id }).await
    }

    async fn change(&self, change: VoterChange) -> Result<Members, Error> {
        let deadline = Instant::now() + CHANGE;
        let request = Request::ChangeVoters {
            change,
            relayed: false,
        };
        loop {
            let problem = match self.peer.call(&request, deadline).await {
                Ok(Reply::Members(members)) => return Ok(members),
                Ok(Reply::Refused(why)) => return Err(Error::Refused(why)),
                Ok(Reply::NotLeader { .. }) => "the quorum has no leader".to_owned(),
                Ok(Reply::Unknown(why)) => why,
                Ok(_) => "an answer of another kind".to_owned(),
                Err(error) => return Err(Error::Unavailable(error.to_string())),
            };
            if Instant::now() + RETRY >= deadline {
                return Err(Error::Unavailable(problem));
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
