//! How long a consumer group is without partitions when a member comes or goes: from the request of
//! that member until every member has its assignment.
//!
//! Members speak the classic protocol (JoinGroup, SyncGroup, Heartbeat, LeaveGroup), each over a
//! connection of its own, and ask for news every 10 ms: with a client's default of three seconds the
//! client's patience would be all there is to see.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::future::{try_join, try_join_all};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::wire::Connection;

/// Members that stay.
const MEMBERS: usize = 10;
/// How often one comes and goes.
const TIMES: usize = 20;
const HEARTBEAT: Duration = Duration::from_millis(10);
/// No rebalance takes that long.
const PATIENCE: Duration = Duration::from_secs(30);

const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const NOT_COORDINATOR: i16 = 16;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

/// Medians, in milliseconds.
#[derive(Debug)]
pub(crate) struct Rebalances {
    pub join: f64,
    pub leave: f64,
}

/// Fills a group, then lets a member come and go some times.
pub(crate) fn measure(broker: SocketAddr) -> Result<Rebalances> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(rebalances(broker))
}

async fn rebalances(broker: SocketAddr) -> Result<Rebalances> {
    let group = GroupId(StrBytes::from_static_str("rebalanced"));
    let mut members =
        try_join_all((0..MEMBERS).map(|_| Member::new(broker, group.clone()))).await?;
    members[0].wait_for_coordinator().await?;
    try_join_all(members.iter_mut().map(Member::join)).await?;
    // They may have come in two generations.
    settle(&mut members).await?;
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let mut guest = Member::new(broker, group.clone()).await?;
        let start = Instant::now();
        let others = try_join_all(members.iter_mut().map(Member::until_rebalanced));
        try_join(guest.join(), others).await?;
        joins.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        guest.leave().await?;
        try_join_all(members.iter_mut().map(Member::until_rebalanced)).await?;
        leaves.push(start.elapsed().as_secs_f64() * 1e3);
    }
    for member in &mut members {
        member.leave().await?;
    }
    Ok(Rebalances {
        join: median(joins)?,
        leave: median(leaves)?,
    })
}

fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let median = values.get(values.len() / 2).context("nothing measured")?;
    Ok(*median)
}

/// Until all members are in one generation that stays.
async fn settle(members: &mut [Member]) -> Result<()> {
    let start = Instant::now();
    loop {
        let moved = try_join_all(members.iter_mut().map(Member::once)).await?;
        if !moved.contains(&true) {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "the group does not settle");
    }
}

struct Member {
    connection: Connection,
    group: GroupId,
    id: StrBytes,
    generation: i32,
}

impl Member {
    async fn new(broker: SocketAddr, group: GroupId) -> Result<Self> {
        Ok(Self {
            connection: Connection::to(broker).await?,
            group,
            id: StrBytes::default(),
            generation: -1,
        })
    }

    /// Kafka makes the topic of its groups when it is first asked.
    async fn wait_for_coordinator(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let request = FindCoordinatorRequest::default().with_key(self.group.0.clone());
            let answer = self.connection.ask(&request, 3).await?;
            if answer.error_code == 0 {
                return Ok(());
            }
            let code = answer.error_code;
            ensure!(start.elapsed() < PATIENCE, "FindCoordinator: error {code}");
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    /// Joins until it has an assignment.
    async fn join(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.try_join().await? {
            ensure!(start.elapsed() < PATIENCE, "no assignment");
        }
        Ok(())
    }

    async fn try_join(&mut self) -> Result<bool> {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(Bytes::from_static(
                b"\0\0\0\0\0\x01\0\x05bench\xff\xff\xff\xff",
            ));
        let request = JoinGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_member_id(self.id.clone())
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        let joined = self.connection.ask(&request, 5).await?;
        match joined.error_code {
            0 => {}
            MEMBER_ID_REQUIRED => {
                self.id = joined.member_id;
                return Ok(false);
            }
            COORDINATOR_LOAD_IN_PROGRESS
            | COORDINATOR_NOT_AVAILABLE
            | NOT_COORDINATOR
            | REBALANCE_IN_PROGRESS => {
                tokio::time::sleep(HEARTBEAT).await;
                return Ok(false);
            }
            code => bail!("JoinGroup: error {code}"),
        }
        (self.id, self.generation) = (joined.member_id, joined.generation_id);
        // Only the leader is told the members.
        let ids = joined.members.iter().map(|member| member.member_id.clone());
        let assignments = assigned(ids)
            .into_iter()
            .map(|(id, assignment)| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(id)
                    .with_assignment(assignment)
            })
            .collect();
        let request = SyncGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_assignments(assignments);
        let synced = self.connection.ask(&request, 3).await?;
        match synced.error_code {
            0 => {
                ensure!(!synced.assignment.is_empty(), "an empty assignment");
                Ok(true)
            }
            REBALANCE_IN_PROGRESS => Ok(false),
            code => bail!("SyncGroup: error {code}"),
        }
    }

    /// One heartbeat, and what it asks for; whether it asked for anything.
    async fn once(&mut self) -> Result<bool> {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        match self.connection.ask(&request, 3).await?.error_code {
            0 => Ok(false),
            REBALANCE_IN_PROGRESS => {
                self.join().await?;
                Ok(true)
            }
            code => bail!("Heartbeat: error {code}"),
        }
    }

    /// Waits for a rebalance and takes part in it.
    async fn until_rebalanced(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.once().await? {
            ensure!(start.elapsed() < PATIENCE, "no rebalance");
            tokio::time::sleep(HEARTBEAT).await;
        }
        Ok(())
    }

    async fn leave(&mut self) -> Result<()> {
        let request = LeaveGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_members(vec![
                MemberIdentity::default().with_member_id(self.id.clone()),
            ]);
        let code = self.connection.ask(&request, 3).await?.error_code;
        ensure!(code == 0, "LeaveGroup: error {code}");
        Ok(())
    }
}

/// A partition of the topic `bench` for each member, in the consumers' own format.
fn assigned(members: impl Iterator<Item = StrBytes>) -> BTreeMap<StrBytes, Bytes> {
    let assignment = |partition: usize| {
        let mut bytes = b"\0\0\0\0\0\x01\0\x05bench\0\0\0\x01".to_vec();
        bytes.extend_from_slice(&(partition as i32).to_be_bytes());
        bytes.extend_from_slice(&(-1i32).to_be_bytes());
        Bytes::from(bytes)
    };
    members
        .enumerate()
        .map(|(partition, id)| (id, assignment(partition)))
        .collect()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ConsumerProtocolAssignment;
    use kafka_protocol::protocol::Decodable as _;

    use super::*;

    #[test]
    fn another_implementation_reads_the_assignments() {
        let ids = ["a", "b"].map(StrBytes::from_static_str);
        let all = assigned(ids.clone().into_iter());
        for (partition, id) in ids.iter().enumerate() {
            let mut bytes = all[id].clone().split_off(2);
            let read = ConsumerProtocolAssignment::decode(&mut bytes, 0).unwrap();
            assert!(bytes.is_empty());
            assert_eq!(read.assigned_partitions[0].topic.as_str(), "bench");
            assert_eq!(read.assigned_partitions[0].partitions, [partition as i32]);
        }
    }

    #[test]
    fn the_median_is_one_of_the_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).unwrap(), 2.0);
        assert!(median(Vec::new()).is_err());
    }
}
