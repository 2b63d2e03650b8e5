//! What an operator asks of the quorum from outside: who its voters are, and to change them.
//!
//! Any voter can be asked; it hands a change on to the leader.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::peer::{Introduce, Peer};
use crate::wire::{ANY_VOTER, Features, Members, Reply, Request, VoterChange};

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

    fn knows(&self) -> u8 {
        // It reads no log.
        u8::MAX
    }

    fn level(&self) -> u8 {
        1
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

    /// Which feature level is in use, and who knows which.
    ///
    /// # Errors
    /// No answer within ten seconds.
    pub async fn features(&self) -> Result<Features, Error> {
        let deadline = Instant::now() + QUESTION;
        match self.peer.call(&Request::Features, deadline).await {
            Ok(Reply::Features(features)) => Ok(features),
            Ok(_) => Err(Error::Unavailable("an answer of another kind".to_owned())),
            Err(error) => Err(Error::Unavailable(error.to_string())),
        }
    }

    /// Raises the feature level to `to`, or to the highest that everyone knows. There is no way
    /// back from it.
    ///
    /// # Errors
    /// As [`Self::add_voter`].
    ///
    /// # Cancel safety
    /// It may happen all the same.
    pub async fn upgrade(&self, to: Option<u8>) -> Result<Features, Error> {
        let relayed = false;
        match self.ask(Request::Upgrade { to, relayed }).await? {
            Reply::Features(features) => Ok(features),
            _ => Err(Error::Unavailable("an answer of another kind".to_owned())),
        }
    }

    async fn change(&self, change: VoterChange) -> Result<Members, Error> {
        let relayed = false;
        match self.ask(Request::ChangeVoters { change, relayed }).await? {
            Reply::Members(members) => Ok(members),
            _ => Err(Error::Unavailable("an answer of another kind".to_owned())),
        }
    }

    /// Asks for a change until there is an answer.
    async fn ask(&self, request: Request) -> Result<Reply, Error> {
        let deadline = Instant::now() + CHANGE;
        loop {
            let problem = match self.peer.call(&request, deadline).await {
                Ok(Reply::Refused(why)) => return Err(Error::Refused(why)),
                Ok(Reply::NotLeader { .. }) => "the quorum has no leader".to_owned(),
                Ok(Reply::Unknown(why)) => why,
                Ok(answer) => return Ok(answer),
                Err(error) => return Err(Error::Unavailable(error.to_string())),
            };
            if Instant::now() + RETRY >= deadline {
                return Err(Error::Unavailable(problem));
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
