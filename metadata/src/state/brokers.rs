//! Gateways: who is registered under which epoch, and who is live.
//!
//! A registration's epoch is the index of the command that made it, so no two are equal. It is
//! *sealed* once and for ever when another registration of the same id supersedes it, when its
//! gateway leaves, or by `SealEpoch`. A lease that ran out only takes a gateway out of the live
//! set: nothing is decided by time that could lose data.
//!
//! Each epoch has a *bound*: segment numbers below it that are not in the state never will be.
//! Epochs are remembered for ever (some 40 bytes each), since the collector deletes objects on the
//! ground that an epoch is known to be sealed, never on the ground that it is unknown.

use std::collections::{BTreeMap, BTreeSet};

use frazil_core::ports::Broker;
use frazil_core::{BrokerEpoch, BrokerId};
use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::{Changes, Context};
use crate::command::{Command, GatewayRefusal, Outcome};

/// A gateway's newest registration.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Registration {
    /// The gateway as clients see it.
    #[n(0)]
    pub broker: Broker,
    /// Which start of the process registered.
    #[cbor(n(1), with = "crate::codec::uuid")]
    pub incarnation: Uuid,
    /// `host:port` where other nodes reach it.
    #[n(2)]
    pub peer: String,
    /// Live until the state's time reaches this. From feature level 2 on without end (`i64::MAX`),
    /// until the leader ends it.
    #[n(3)]
    pub lease_until_ms: i64,
    /// Whether it has asked to be left out of the live set.
    #[n(4)]
    pub draining: bool,
    /// The highest feature level that its program knows; `None`: 1.
    #[n(5)]
    pub knows: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Epoch {
    #[n(0)]
    broker: BrokerId,
    #[n(1)]
    sealed: bool,
    #[n(2)]
    sealed_below: u64,
}

/// From which number on an epoch's segments may still be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// From this number on.
    From(u64),
    /// None at all.
    Sealed,
    /// The epoch is not known.
    Unknown,
}

impl Bound {
    /// Whether a segment of this number that is not in the state never will be.
    pub(super) fn excludes(self, number: u64) -> bool {
        match self {
            Self::From(bound) => number < bound,
            Self::Sealed => true,
            Self::Unknown => false,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Brokers {
    #[n(0)]
    registrations: BTreeMap<BrokerId, Registration>,
    #[n(1)]
    epochs: BTreeMap<BrokerEpoch, Epoch>,
    /// One more than the largest id ever used, or reserved.
    #[n(2)]
    next_id: i32,
    /// When the next lease ends that has not ended yet. Derived.
    #[cbor(skip)]
    next_lapse_ms: Option<i64>,
}

/// The id of the first gateway.
const FIRST_ID: i32 = 1;
/// Ids that a disk remembers are believed below this, so that fresh ones never run out.
const REMEMBERED_ID_MAX: i32 = 1 << 30;
/// At most this many ids are reserved, for the same reason.
const RESERVED_MAX: i32 = 1 << 16;

/// When a lease ends that is given now. From level 2 on, when the leader says so
/// ([`Command::Lapse`]).
fn lease_end(at: Context, lease_ms: u32) -> i64 {
    match at.level {
        0 | 1 => at.now_ms.saturating_add(i64::from(lease_ms)),
        _ => i64::MAX,
    }
}

impl Brokers {
    pub(super) fn apply(
        &mut self,
        command: &Command,
        at: Context,
        changes: &mut Changes,
    ) -> Outcome {
        match command {
            Command::RegisterBroker {
                id,
                incarnation,
                host,
                port,
                rack,
                peer,
                lease_ms,
                knows,
            } => {
                changes.catalog = true;
                let (id, epoch) = match self.same_incarnation(*id, *incarnation) {
                    Some(known) => known,
                    None => (self.free_id(*id), BrokerEpoch(at.index)),
                };
                self.register(
                    Registration {
                        broker: Broker {
                            id,
                            epoch,
                            host: host.clone(),
                            port: *port,
                            rack: rack.clone(),
                        },
                        incarnation: *incarnation,
                        peer: peer.clone(),
                        lease_until_ms: lease_end(at, *lease_ms),
                        draining: false,
                        knows: *knows,
                    },
                    at,
                );
                Outcome::Registered { id, epoch }
            }
            Command::Heartbeat {
                broker,
                epoch,
                lease_ms,
            } => self.with_current(*broker, *epoch, |brokers| {
                let was_live = brokers.is_live(*broker, at.now_ms);
                if let Some(registration) = brokers.registrations.get_mut(broker) {
                    let until = lease_end(at, *lease_ms);
                    registration.lease_until_ms = registration.lease_until_ms.max(until);
                }
                brokers.rebuild(at.now_ms);
                changes.catalog |= was_live != brokers.is_live(*broker, at.now_ms);
            }),
            Command::Lapse { broker, epoch } => self.with_current(*broker, *epoch, |brokers| {
                changes.catalog |= brokers.is_live(*broker, at.now_ms);
                if let Some(registration) = brokers.registrations.get_mut(broker) {
                    let until = registration.lease_until_ms.min(at.now_ms);
                    registration.lease_until_ms = until;
                }
                brokers.rebuild(at.now_ms);
            }),
            Command::Drain { broker, epoch } => self.with_current(*broker, *epoch, |brokers| {
                changes.catalog = true;
                if let Some(registration) = brokers.registrations.get_mut(broker) {
                    registration.draining = true;
                }
            }),
            Command::Leave { broker, epoch } => self.with_current(*broker, *epoch, |brokers| {
                changes.catalog = true;
                brokers.seal(*epoch, at);
            }),
            Command::SealEpoch { epoch } => {
                changes.catalog = true;
                self.seal(*epoch, at);
                Outcome::Done
            }
            Command::ReserveBrokerIds { below } => {
                self.next_id = self.next_id.max((*below).min(RESERVED_MAX));
                Outcome::Done
            }
            _ => Outcome::Invalid("not a command about brokers".to_owned()),
        }
    }

    /// Seals a gateway's newest registration, unless its lease has not ended.
    pub(super) fn forget(
        &mut self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        at: Context,
    ) -> Result<(), GatewayRefusal> {
        let known = self.registrations.get(&broker);
        let known = known.ok_or(GatewayRefusal::Unknown)?;
        if known.broker.epoch != epoch {
            return Err(GatewayRefusal::Superseded);
        }
        // A draining one lives too.
        if known.lease_until_ms > at.now_ms && !self.is_sealed(epoch) {
            return Err(GatewayRefusal::Live);
        }
        self.seal(epoch, at);
        Ok(())
    }

    fn with_current(
        &mut self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        act: impl FnOnce(&mut Self),
    ) -> Outcome {
        if !self.is_current(broker, epoch) {
            return Outcome::Fenced;
        }
        act(self);
        Outcome::Done
    }

    /// The unsealed registration that the same start of the same process made before.
    fn same_incarnation(
        &self,
        id: Option<BrokerId>,
        incarnation: Uuid,
    ) -> Option<(BrokerId, BrokerEpoch)> {
        self.registrations
            .values()
            .find(|registration| {
                registration.incarnation == incarnation
                    && id.is_none_or(|id| id == registration.broker.id)
                    && !self.is_sealed(registration.broker.epoch)
            })
            .map(|registration| (registration.broker.id, registration.broker.epoch))
    }

    /// The id asked for, if it is one, or else one that nobody has or had.
    fn free_id(&mut self, wanted: Option<BrokerId>) -> BrokerId {
        let fresh = self.next_id.max(FIRST_ID);
        let id = match wanted {
            Some(id) if (0..REMEMBERED_ID_MAX).contains(&id.0) => id,
            _ => BrokerId(fresh),
        };
        self.next_id = fresh.max(id.0.saturating_add(1));
        id
    }

    fn register(&mut self, registration: Registration, at: Context) {
        let Broker { id, epoch, .. } = registration.broker;
        if let Some(old) = self.registrations.get(&id).map(|old| old.broker.epoch)
            && old != epoch
        {
            self.seal(old, at);
        }
        self.epochs.entry(epoch).or_insert(Epoch {
            broker: id,
            sealed: false,
            sealed_below: 0,
        });
        self.registrations.insert(id, registration);
        self.rebuild(at.now_ms);
    }

    fn seal(&mut self, epoch: BrokerEpoch, at: Context) {
        let Some(known) = self.epochs.get_mut(&epoch) else {
            return;
        };
        known.sealed = true;
        // A lease without end would keep the registration for ever.
        if at.level >= 2
            && let Some(registration) = self.registrations.get_mut(&known.broker)
            && registration.broker.epoch == epoch
        {
            registration.lease_until_ms = registration.lease_until_ms.min(at.now_ms);
            self.rebuild(at.now_ms);
        }
    }

    /// Leases that have not ended have no end any more: level 2 begins.
    pub(super) fn unbind_leases(&mut self, now_ms: i64) {
        for known in self.registrations.values_mut() {
            let sealed = self
                .epochs
                .get(&known.broker.epoch)
                .is_none_or(|e| e.sealed);
            if known.lease_until_ms > now_ms && !sealed {
                known.lease_until_ms = i64::MAX;
            }
        }
        self.rebuild(now_ms);
    }

    fn is_sealed(&self, epoch: BrokerEpoch) -> bool {
        self.epochs.get(&epoch).is_some_and(|known| known.sealed)
    }

    /// Whether this is the gateway's newest registration, and unsealed.
    pub(super) fn is_current(&self, broker: BrokerId, epoch: BrokerEpoch) -> bool {
        self.registrations
            .get(&broker)
            .is_some_and(|known| known.broker.epoch == epoch)
            && !self.is_sealed(epoch)
    }

    fn is_live(&self, broker: BrokerId, now_ms: i64) -> bool {
        self.registrations.get(&broker).is_some_and(|known| {
            !known.draining && known.lease_until_ms > now_ms && !self.is_sealed(known.broker.epoch)
        })
    }

    pub(super) fn bound(&self, epoch: BrokerEpoch) -> Bound {
        match self.epochs.get(&epoch) {
            Some(known) if known.sealed => Bound::Sealed,
            Some(known) => Bound::From(known.sealed_below),
            None => Bound::Unknown,
        }
    }

    pub(super) fn raise_bound(&mut self, epoch: BrokerEpoch, to: u64) {
        if let Some(known) = self.epochs.get_mut(&epoch) {
            known.sealed_below = known.sealed_below.max(to);
        }
    }

    /// Whether the passing of time to `now_ms` took anyone out of the live set.
    pub(super) fn lapse(&mut self, now_ms: i64) -> bool {
        let Some(from) = self.next_lapse_ms.filter(|&first| first <= now_ms) else {
            return false;
        };
        let lapsed = self.registrations.values().any(|known| {
            (from..=now_ms).contains(&known.lease_until_ms)
                && !known.draining
                && !self.is_sealed(known.broker.epoch)
        });
        self.rebuild(now_ms);
        lapsed
    }

    /// Computes what is derived.
    pub(super) fn rebuild(&mut self, now_ms: i64) {
        self.next_lapse_ms = self
            .registrations
            .values()
            .map(|known| known.lease_until_ms)
            .filter(|&until| until > now_ms)
            .min();
    }

    /// Forgets registrations that are sealed, whose lease ended before `before_ms`, and whose
    /// write-ahead log nothing refers to. Their ids and epochs stay used.
    pub(super) fn expire(&mut self, before_ms: i64, wal_holders: &BTreeSet<BrokerId>, now_ms: i64) {
        let epochs = &self.epochs;
        self.registrations.retain(|id, known| {
            known.lease_until_ms >= before_ms
                || wal_holders.contains(id)
                || !epochs
                    .get(&known.broker.epoch)
                    .is_some_and(|epoch| epoch.sealed)
        });
        self.rebuild(now_ms);
    }

    pub(super) fn live(&self, now_ms: i64) -> impl Iterator<Item = &Broker> {
        self.registrations
            .values()
            .filter(move |known| self.is_live(known.broker.id, now_ms))
            .map(|known| &known.broker)
    }

    /// Ids from here on are free.
    pub(super) fn next_id(&self) -> i32 {
        self.next_id
    }

    pub(super) fn registrations(&self) -> &BTreeMap<BrokerId, Registration> {
        &self.registrations
    }

    pub(super) fn check(&self, applied: u64) -> Result<(), String> {
        for (id, known) in &self.registrations {
            let Some(epoch) = self.epochs.get(&known.broker.epoch) else {
                return Err(format!("the epoch of broker {id} is unknown"));
            };
            if known.broker.id != *id || epoch.broker != *id {
                return Err(format!("broker {id} is registered under another id"));
            }
        }
        for (id, epoch) in &self.epochs {
            if id.0 > applied {
                return Err(format!("epoch {id} lies in the future"));
            }
            if epoch.broker.0 < 0 || epoch.broker.0 >= self.next_id {
                return Err(format!("broker id {} is counted as unused", epoch.broker));
            }
            let newest = self
                .registrations
                .get(&epoch.broker)
                .is_some_and(|known| known.broker.epoch == *id);
            if !epoch.sealed && !newest {
                return Err(format!("epoch {id} is superseded and not sealed"));
            }
        }
        Ok(())
    }
}
