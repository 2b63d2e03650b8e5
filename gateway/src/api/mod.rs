//! One file per API. Each has `handle(ctx, connection, header, request, version) -> response`;
//! what a handler cannot do it says inside the response.

use frazil_core::LEADER_EPOCH;
use kafka_protocol::messages::ApiKey;

use crate::Ctx;
use crate::error::{self, Code};
use crate::group::GroupError;

pub(crate) mod alter_configs;
pub(crate) mod api_versions;
pub(crate) mod config_resource;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod describe_groups;
pub(crate) mod describe_log_dirs;
pub(crate) mod elect_leaders;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
pub(crate) mod incremental_alter_configs;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod list_partition_reassignments;
pub(crate) mod metadata;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod sync_group;

/// Commands to the quorum that one request may have under way.
pub(crate) const COMMANDS_AT_ONCE: usize = 16;

/// The code for what a group's coordinator refuses; counts it.
pub(crate) fn group_error(ctx: &Ctx, key: ApiKey, error: &GroupError) -> i16 {
    let code = error::group(error);
    ctx.metrics.error(key, code);
    code.code()
}

/// Checks the leader epoch that a client believes to be current; -1 says nothing (KIP-320).
pub(crate) fn check_leader_epoch(current: i32) -> Result<(), Code> {
    if current == -1 || current == LEADER_EPOCH {
        Ok(())
    } else if current > LEADER_EPOCH {
        Err(Code::UnknownLeaderEpoch)
    } else {
        Err(Code::FencedLeaderEpoch)
    }
}

#[cfg(test)]
mod admin_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod sweep_tests;
