//! Random histories of clients that come, go, forget and are slow, and of coordinators that die.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{LIMITS, join, sync};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Client `n` joins as it should, with this metadata.
    Join(usize, u8),
    /// Client `n` asks for its assignment, and gives everybody theirs.
    Sync(usize),
    Heartbeat(usize),
    Leave(usize),
    /// Client `n` forgets who it is.
    Restart(usize),
    /// Time goes on.
    Wait(u64),
    /// The coordinator dies and another takes over.
    Move,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..5usize;
    let step = prop_oneof![
        8 => (client.clone(), 0..2u8).prop_map(|(n, meta)| Step::Join(n, meta)),
        8 => client.clone().prop_map(Step::Sync),
        4 => client.clone().prop_map(Step::Heartbeat),
        1 => client.clone().prop_map(Step::Leave),
        1 => client.prop_map(Step::Restart),
        4 => (0..8_000u64).prop_map(Step::Wait),
        1 => Just(Step::Move),
    ];
    proptest::collection::vec(step, 1..150)
}

/// What members that do not lead would assign.
const ROGUE: &[u8] = b"rogue";

/// A client as it sees itself. Even ones are static.
#[derive(Clone, Debug, Default)]
struct Client {
    id: String,
    generation: i32,
    leads: bool,
    members: Vec<String>,
}

/// What the clients of a history know, and what must hold between them.
struct History {
    machine: Machine,
    stored: Group,
    now: Millis,
    clients: Vec<Client>,
    /// Unanswered requests, and whose they are, if anybody still listens.
    open: BTreeMap<Token, Option<usize>>,
    tokens: Token,
    /// Leader and protocol told in each generation.
    told: BTreeMap<i32, (String, String)>,
    /// Who has which partition in a generation: the leader's assignment numbers its members.
    owners: BTreeMap<(i32, Vec<u8>), String>,
}

impl History {
    fn new() -> Self {
        let limits = Limits {
            members: 4,
            ..LIMITS
        };
        Self {
            machine: Machine::load(limits, &Group::default(), 0),
            stored: Group::default(),
            now: 0,
            clients: vec![Client::default(); 5],
            open: BTreeMap::new(),
            tokens: 0,
            told: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    fn instance(n: usize) -> Option<String> {
        n.is_multiple_of(2).then(|| format!("instance-{n}"))
    }

    fn token(&mut self, n: usize) -> Token {
        self.tokens += 1;
        self.open.insert(self.tokens, Some(n));
        self.tokens
    }

    fn feed(&mut self, event: Event) {
        let effects = self.machine.on(event, self.now);
        for effect in effects {
            match effect {
                Effect::Persist(group) => {
                    assert!(group.generation >= self.stored.generation);
                    self.stored = group;
                }
                Effect::Joined(token, result) => self.joined(token, result),
                Effect::Synced(token, result) => self.synced(token, result),
                Effect::Heartbeat(token, _) | Effect::Left(token, _) => {
                    self.open.remove(&token).expect("answered once");
                }
            }
        }
        self.check();
    }

    fn joined(&mut self, token: Token, result: Result<Joined, GroupError>) {
        let Some(n) = self.open.remove(&token).expect("answered once") else {
            return;
        };
        let client = &mut self.clients[n];
        match result {
            Ok(joined) => {
                client.id = joined.member_id.clone();
                client.generation = joined.generation;
                client.leads = joined.leader == joined.member_id && !joined.skip_assignment;
                client.members = joined.members.iter().map(|m| m.member_id.clone()).collect();
                if client.leads {
                    assert!(client.members.contains(&client.id));
                    // A leader that came back has another id.
                    let told = (joined.leader, joined.protocol);
                    let first = self.told.entry(joined.generation).or_insert(told.clone());
                    assert_eq!(*first, told, "one leader, one protocol per generation");
                } else if !joined.skip_assignment {
                    assert!(joined.members.is_empty());
                }
            }
            Err(GroupError::MemberIdRequired(id)) => client.id = id,
            Err(GroupError::UnknownMember | GroupError::FencedInstance) => client.id.clear(),
            Err(GroupError::RebalanceInProgress | GroupError::GroupFull) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn synced(&mut self, token: Token, result: Result<Synced, GroupError>) {
        let Some(n) = self.open.remove(&token).expect("answered once") else {
            return;
        };
        let Ok(synced) = result else { return };
        let client = &self.clients[n];
        // Told only what is stored (I27): a partition has one owner per generation.
        let stored = &self.stored.members[&client.id];
        assert_eq!(stored.assignment.as_slice(), &synced.assignment[..]);
        assert_eq!(self.stored.generation, client.generation);
        assert_ne!(&synced.assignment[..], ROGUE);
        if !synced.assignment.is_empty() {
            let owner = Self::instance(n).unwrap_or_else(|| client.id.clone());
            let key = (client.generation, synced.assignment.to_vec());
            let first = self.owners.entry(key).or_insert(owner.clone());
            assert_eq!(*first, owner, "two owners");
        }
    }

    /// Holds between any two events.
    fn check(&self) {
        let m = &self.machine;
        let parked = m
            .members
            .values()
            .flat_map(|m| m.joining.iter().chain(&m.syncing));
        let mut parked: Vec<_> = parked.copied().collect();
        parked.sort_unstable();
        let open: Vec<_> = self.open.keys().copied().collect();
        assert_eq!(parked, open, "a request was forgotten or answered twice");
        assert_eq!(
            m.members.is_empty() && m.state() != State::PreparingRebalance,
            m.state() == State::Empty
        );
        // While a group rebalances, as many as it may have can join beside those who were in it.
        let joining = m.members.values().filter(|m| m.joining.is_some()).count();
        assert!(joining <= m.limits.members, "{joining}");
        assert!(m.members.len() <= 2 * m.limits.members);
        if m.state() == State::Stable {
            assert_eq!(m.image(), self.stored, "what is stable is stored");
        }
        for (instance, id) in &m.instances {
            assert_eq!(m.members[id].instance_id.as_ref(), Some(instance));
        }
        let exact = {
            let mut copy = m.clone();
            copy.find_wake();
            copy.wake
        };
        assert!(
            m.wake <= exact || exact.is_none(),
            "{:?} sleeps past {exact:?}",
            m.wake
        );
        assert!(exact.is_none() || m.wake.is_some());
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Join(n, meta) => {
                if self.open.values().any(|open| *open == Some(n)) {
                    return;
                }
                let token = self.token(n);
                let request = Join {
                    instance_id: Self::instance(n),
                    protocols: vec![
                        ("range".into(), Bytes::copy_from_slice(&[meta])),
                        ("sticky".into(), Bytes::new()),
                    ],
                    id_required: n == 1,
                    rebalance_timeout_ms: [0, 20_000][usize::from(meta)],
                    fresh: token.to_string(),
                    ..join(&self.clients[n].id)
                };
                self.feed(Event::Join(token, request));
            }
            Step::Sync(n) => {
                let client = self.clients[n].clone();
                if client.id.is_empty() || self.open.values().any(|open| *open == Some(n)) {
                    return;
                }
                let token = self.token(n);
                let assign =
                    |(i, id): (usize, &String)| (id.clone(), Bytes::from(vec![i as u8 + 1]));
                // Who does not lead is not listened to.
                let assignments = if client.leads {
                    client.members.iter().enumerate().map(assign).collect()
                } else {
                    let members = self.machine.members.keys().cloned();
                    members.map(|id| (id, Bytes::from_static(ROGUE))).collect()
                };
                let request = Sync {
                    instance_id: Self::instance(n),
                    assignments,
                    ..sync(&client.id, client.generation, &[])
                };
                self.feed(Event::Sync(token, request));
            }
            Step::Heartbeat(n) => {
                let token = self.token(n);
                let client = self.clients[n].clone();
                self.feed(Event::Heartbeat {
                    token,
                    member_id: client.id,
                    instance_id: Self::instance(n),
                    generation: client.generation,
                });
            }
            Step::Leave(n) => {
                let id = self.clients[n].id.clone();
                self.step(&Step::Restart(n));
                let token = self.token(n);
                self.feed(Event::Leave(token, vec![(id, Self::instance(n))]));
            }
            Step::Restart(n) => {
                self.clients[n] = Client::default();
                let own = self.open.values_mut().filter(|open| **open == Some(n));
                own.for_each(|open| *open = None);
            }
            Step::Wait(ms) => {
                self.now += ms;
                self.feed(Event::Tick);
                let wake = self.machine.wake_at();
                assert!(wake.is_none_or(|wake| wake > self.now), "ticks for ever");
            }
            Step::Move => {
                // The task fails who waits. A generation that was not stored is forgotten, and
                // its number used again: nobody has been given an assignment under it.
                self.open.clear();
                let stored = self.stored.generation;
                self.told.retain(|generation, _| *generation <= stored);
                assert!(
                    self.owners
                        .keys()
                        .all(|(generation, _)| *generation <= stored)
                );
                self.machine = Machine::load(self.machine.limits, &self.stored, self.now);
                self.check();
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_everybody_is_answered_and_partitions_have_one_owner(steps in steps()) {
        let mut history = History::new();
        for step in &steps {
            history.step(step);
        }
        // Then silence: all parked requests are answered, all members go, the group is empty.
        for _ in 0..2_000 {
            let Some(wake) = history.machine.wake_at() else { break };
            history.now = history.now.max(wake);
            history.feed(Event::Tick);
        }
        prop_assert_eq!(history.machine.state(), State::Empty);
        prop_assert!(history.machine.is_idle());
        prop_assert!(history.open.is_empty());
    }
}
