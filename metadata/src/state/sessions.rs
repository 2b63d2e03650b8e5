//! What was answered to whom, so that a command sent twice happens once.
//!
//! Per client: the bound below which it no longer asks, and the outcomes at or above it. A session
//! ends when it has been idle for an hour of the state's time *and* for [`IDLE_COMMANDS`] commands:
//! the second, so that a clock that leaps forward does not end every session at once, with commands
//! still being retried. A client that lets its bound lie loses its oldest outcomes beyond
//! [`OUTCOMES_MAX`]; the requests they belonged to are then stale, never applied again.

use std::collections::{BTreeMap, BTreeSet};

use frazil_core::sabotage::{self, Bug};
use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::Context;
use crate::command::{Envelope, Outcome};

/// How long a session may be idle, in milliseconds of the state's time.
const IDLE_MS: i64 = 60 * 60 * 1000;
/// How many commands must have been applied since a session's last one before it ends.
const IDLE_COMMANDS: u64 = 1000;
/// How many outcomes are remembered for one client.
const OUTCOMES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
struct ClientId(#[cbor(n(0), with = "crate::codec::uuid")] Uuid);

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
struct Session {
    #[n(0)]
    done_below: u64,
    /// Index of its last command.
    #[n(1)]
    last_index: u64,
    /// The state's time of its last command.
    #[n(2)]
    last_ms: i64,
    #[n(3)]
    outcomes: BTreeMap<u64, Outcome>,
}

impl Session {
    fn raise(&mut self, done_below: u64) {
        if done_below > self.done_below {
            self.done_below = done_below;
            self.outcomes = self.outcomes.split_off(&done_below);
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Sessions {
    #[n(0)]
    clients: BTreeMap<ClientId, Session>,
    /// Clients by the index of their last command. Derived.
    #[cbor(skip)]
    idle: BTreeSet<(u64, ClientId)>,
}

/// What a session says to a request.
#[derive(Debug)]
pub(super) enum Admission {
    /// It was not applied before.
    First,
    /// It was, with this outcome.
    Repeated(Outcome),
    /// The client has declared it done.
    Stale,
}

impl Sessions {
    /// Decides whether a request is to be applied.
    pub(super) fn admit(&mut self, envelope: &Envelope, at: Context) -> Admission {
        self.expire(at);
        if envelope.client.is_nil() || sabotage::on(Bug::SessionsForget) {
            return Admission::First;
        }
        let id = ClientId(envelope.client);
        let session = self.clients.entry(id).or_default();
        self.idle.remove(&(session.last_index, id));
        self.idle.insert((at.index, id));
        session.last_index = at.index;
        session.last_ms = at.now_ms;
        session.raise(envelope.done_below);
        if envelope.request < session.done_below {
            return Admission::Stale;
        }
        match session.outcomes.get(&envelope.request) {
            Some(outcome) => Admission::Repeated(outcome.clone()),
            None => Admission::First,
        }
    }

    /// Remembers the outcome of a request that was admitted.
    pub(super) fn remember(&mut self, envelope: &Envelope, outcome: &Outcome) {
        let Some(session) = self.clients.get_mut(&ClientId(envelope.client)) else {
            return;
        };
        session.outcomes.insert(envelope.request, outcome.clone());
        while session.outcomes.len() > OUTCOMES_MAX
            && let Some((oldest, _)) = session.outcomes.pop_first()
        {
            session.done_below = oldest + 1;
        }
    }

    fn expire(&mut self, at: Context) {
        while let Some(&(_, id)) = self.idle.first() {
            let Some(session) = self.clients.get(&id) else {
                unreachable!("idle session {} is not in the table", id.0);
            };
            if session.last_ms.saturating_add(IDLE_MS) >= at.now_ms
                || session.last_index.saturating_add(IDLE_COMMANDS) >= at.index
            {
                return;
            }
            self.clients.remove(&id);
            self.idle.pop_first();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn rebuild(&mut self) {
        self.idle = self
            .clients
            .iter()
            .map(|(&id, session)| (session.last_index, id))
            .collect();
    }

    pub(super) fn check(&self, applied: u64) -> Result<(), String> {
        for (client, session) in &self.clients {
            let id = client.0;
            let early = session.outcomes.keys().next();
            if early.is_some_and(|request| *request < session.done_below) {
                return Err(format!("session {id} remembers what is done"));
            }
            if session.outcomes.len() > OUTCOMES_MAX || session.last_index > applied {
                return Err(format!("session {id} exceeds its bounds"));
            }
            if !self.idle.contains(&(session.last_index, *client)) {
                return Err(format!("session {id} would never end"));
            }
        }
        if self.idle.len() != self.clients.len() {
            return Err("a session that is not there would end".to_owned());
        }
        Ok(())
    }
}
