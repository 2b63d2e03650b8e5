//! A member of a consumer group that records what it is given, reads and commits.
//!
//! It speaks the classic protocol itself, so that generations are known: joins, assigns if it
//! leads, begins where the group has committed, and commits under its generation. Now and then it
//! joins again without need, so that generations change while others commit.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use frazil_history::kafka::group_id;
use frazil_history::workload::Step;
use frazil_history::{Answer, Gateway, Group, Isolation, List, Op, Outcome, Rng, TopicPartition};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as Assigned;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::harness::Caller;

const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

const SHORT: Duration = Duration::from_millis(2);
const RETRY: Duration = Duration::from_millis(30);

/// What a member was given.
struct Assignment {
    generation: i32,
    partitions: Vec<TopicPartition>,
    /// Where it reads next.
    positions: BTreeMap<TopicPartition, i64>,
    /// What it has read and not committed.
    uncommitted: BTreeMap<TopicPartition, i64>,
}

/// One member.
pub(crate) struct Member {
    caller: Caller,
    group: Group,
    topics: &'static [&'static str],
    /// What the group reads.
    all: Vec<TopicPartition>,
    rng: Rng,
    id: StrBytes,
    /// Which gateway is taken for the coordinator.
    coordinator: usize,
    assignment: Option<Assignment>,
}

impl Member {
    /// A member that has not joined.
    pub(crate) fn new(
        caller: Caller,
        group: Group,
        topics: &'static [&'static str],
        all: &[TopicPartition],
        seed: u64,
    ) -> Self {
        let rng = Rng::new(seed ^ u64::from(caller.client.0));
        Self {
            caller,
            group,
            topics,
            all: all.to_vec(),
            rng,
            id: StrBytes::default(),
            coordinator: 0,
            assignment: None,
        }
    }

    /// Does one thing; answers how long to wait before the next.
    pub(crate) fn step(&mut self) -> Duration {
        if self.assignment.is_none() {
            return match self.join() {
                Some(()) => SHORT,
                None => RETRY,
            };
        }
        match self.rng.below(100) {
            // Without need.
            0 => self.assignment = None,
            1..20 => self.heartbeat(),
            20..35 => self.commit(),
            _ => self.poll(),
        }
        SHORT
    }

    /// Learns from an error code of the coordinator whether the member still belongs.
    fn heed(&mut self, code: i16) {
        match code {
            0 => {}
            UNKNOWN_MEMBER_ID => {
                self.id = StrBytes::default();
                self.assignment = None;
            }
            ILLEGAL_GENERATION | REBALANCE_IN_PROGRESS => self.assignment = None,
            // Not the coordinator, or not able to be.
            _ => self.coordinator = (self.coordinator + 1) % self.caller.connections.len(),
        }
    }

    /// An operation failed with this code, or with 0 for no answer.
    fn refused(&mut self, code: i16) {
        const NETWORK_EXCEPTION: i16 = 13;
        self.heed(if code == 0 { NETWORK_EXCEPTION } else { code });
    }

    fn join(&mut self) -> Option<()> {
        let began = self.caller.recorder.now();
        let subscription = ConsumerProtocolSubscription::default().with_topics(
            self.topics
                .iter()
                .map(|name| StrBytes::from_static_str(name))
                .collect(),
        );
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(versioned(&subscription));
        let request = JoinGroupRequest::default()
            .with_group_id(group_id(self.group))
            .with_session_timeout_ms(6_000)
            .with_rebalance_timeout_ms(3_000)
            .with_member_id(self.id.clone())
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        let joined = self.ask(|connection| connection.ask(&request, 5).ok())?;
        if joined.error_code == MEMBER_ID_REQUIRED {
            self.id = joined.member_id;
            return None;
        }
        if joined.error_code != 0 {
            self.heed(joined.error_code);
            return None;
        }
        self.id = joined.member_id.clone();
        let request = SyncGroupRequest::default()
            .with_group_id(group_id(self.group))
            .with_generation_id(joined.generation_id)
            .with_member_id(self.id.clone())
            .with_assignments(self.assign(&joined));
        let synced = self.ask(|connection| connection.ask(&request, 3).ok())?;
        if synced.error_code != 0 {
            self.heed(synced.error_code);
            return None;
        }
        let partitions = self.read_assignment(synced.assignment);
        for connection in &mut self.caller.connections {
            self.id.as_str().clone_into(&mut connection.member);
        }
        let op = Op::Join { group: self.group };
        let pending = self.caller.recorder.begin(self.caller.client, op);
        pending.since(began).ok(Answer::Assignment {
            generation: Some(joined.generation_id),
            partitions: partitions.clone(),
        });
        self.assignment = Some(Assignment {
            generation: joined.generation_id,
            partitions,
            positions: BTreeMap::new(),
            uncommitted: BTreeMap::new(),
        });
        Some(())
    }

    /// Asks the coordinator; another one is tried next if it does not answer.
    fn ask<T>(
        &mut self,
        request: impl FnOnce(&mut crate::client::Client) -> Option<T>,
    ) -> Option<T> {
        let answer = request(&mut self.caller.connections[self.coordinator]);
        if answer.is_none() {
            self.coordinator = (self.coordinator + 1) % self.caller.connections.len();
        }
        answer
    }

    /// As the leader: deals the partitions out. Another member assigns nothing.
    fn assign(&self, joined: &JoinGroupResponse) -> Vec<SyncGroupRequestAssignment> {
        if joined.leader != joined.member_id {
            return Vec::new();
        }
        let members = joined.members.len();
        let of_member = |number: usize| {
            let mine = self.all.iter().skip(number).step_by(members);
            let assigned = mine.map(|at| {
                let name = StrBytes::from_static_str(self.topics[at.topic.0 as usize]);
                Assigned::default()
                    .with_topic(TopicName(name))
                    .with_partitions(vec![at.partition])
            });
            ConsumerProtocolAssignment::default().with_assigned_partitions(assigned.collect())
        };
        let members = joined.members.iter().enumerate();
        members
            .map(|(number, member)| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(member.member_id.clone())
                    .with_assignment(versioned(&of_member(number)))
            })
            .collect()
    }

    fn read_assignment(&self, mut bytes: Bytes) -> Vec<TopicPartition> {
        if bytes.is_empty() {
            return Vec::new();
        }
        let _version = bytes.split_to(2);
        let assignment = ConsumerProtocolAssignment::decode(&mut bytes, 0).unwrap();
        let assigned = assignment.assigned_partitions.iter();
        let of_topic = |assigned: &Assigned| {
            let named = |at: &&TopicPartition| {
                self.topics[at.topic.0 as usize] == assigned.topic.0.as_str()
                    && assigned.partitions.contains(&at.partition)
            };
            let found: Vec<_> = self.all.iter().filter(named).copied().collect();
            found
        };
        assigned.flat_map(of_topic).collect()
    }

    fn heartbeat(&mut self) {
        let Some(assignment) = &self.assignment else {
            return;
        };
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(self.group))
            .with_generation_id(assignment.generation)
            .with_member_id(self.id.clone());
        if let Some(response) = self.ask(|connection| connection.ask(&request, 3).ok()) {
            self.heed(response.error_code);
        }
    }

    fn commit(&mut self) {
        let Some(assignment) = &mut self.assignment else {
            return;
        };
        let Some((at, offset)) = assignment.uncommitted.pop_first() else {
            return;
        };
        // Now and then as one that has missed its own joining would: to be refused.
        let stale = self.rng.chance(10);
        let op = Op::OffsetCommit {
            group: self.group,
            generation: Some(assignment.generation - i32::from(stale)),
            at,
            offset,
        };
        let gateway = Gateway(self.coordinator as u32);
        match self.caller.call(&Step { gateway, op }) {
            Outcome::Ok(_) => {}
            Outcome::Fail(_) | Outcome::Info(_) if stale => {}
            Outcome::Fail(code) | Outcome::Info(code) => self.refused(code),
        }
    }

    fn poll(&mut self) {
        let Some(assignment) = &self.assignment else {
            return;
        };
        let Some(at) = self.rng.pick(&assignment.partitions).copied() else {
            return;
        };
        let Some(from) = assignment.positions.get(&at).copied() else {
            return self.begin(at);
        };
        let gateway = Gateway(self.rng.below(self.caller.connections.len() as u64) as u32);
        let op = Op::Fetch {
            at,
            from,
            isolation: Isolation::ReadCommitted,
            gateway,
        };
        match self.caller.call(&Step { gateway, op }).answer() {
            Some(Answer::Records { records, .. }) => {
                let Some(last) = records.last() else {
                    return;
                };
                self.went_to(at, last.offset + 1);
                let poll = Op::Poll {
                    group: self.group,
                    at,
                };
                let pending = self.caller.recorder.begin(self.caller.client, poll);
                pending.ok(Answer::Polled(records.clone()));
            }
            Some(Answer::OutOfRange) => self.reset(at),
            _ => {}
        }
    }

    fn went_to(&mut self, at: TopicPartition, offset: i64) {
        if let Some(assignment) = &mut self.assignment {
            assignment.positions.insert(at, offset);
            assignment.uncommitted.insert(at, offset);
        }
    }

    /// Begins to read where the group has committed, or at the log start.
    fn begin(&mut self, at: TopicPartition) {
        let gateway = Gateway(self.coordinator as u32);
        let op = Op::OffsetFetch {
            group: self.group,
            at,
            gateway,
        };
        match self.caller.call(&Step { gateway, op }) {
            Outcome::Ok(Answer::Position(Some(offset))) => {
                if let Some(assignment) = &mut self.assignment {
                    assignment.positions.insert(at, offset);
                }
            }
            Outcome::Ok(_) => self.reset(at),
            Outcome::Fail(code) | Outcome::Info(code) => self.refused(code),
        }
    }

    fn reset(&mut self, at: TopicPartition) {
        let gateway = Gateway(self.coordinator as u32);
        let op = Op::ListOffsets {
            at,
            list: List::Earliest,
            gateway,
        };
        let outcome = self.caller.call(&Step { gateway, op });
        if let (Some(Answer::Position(Some(offset))), Some(assignment)) =
            (outcome.answer(), &mut self.assignment)
        {
            assignment.positions.insert(at, *offset);
        }
    }
}

/// A blob of the consumer protocol: its version, 0, and its content.
fn versioned(content: &impl Encodable) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    content.encode(&mut bytes, 0).unwrap();
    bytes.freeze()
}
