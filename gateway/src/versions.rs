//! The APIs that this gateway serves, and in which versions. ApiVersions answers from this table,
//! dispatch refuses what is not in it.
//!
//! Minimums are those of Kafka 4: librdkafka before 2.12 tests exact old versions to find out
//! what a broker can do. Produce is advertised from 0 for the same reason (KAFKA-18659) although
//! versions below [`PRODUCE_MIN`] cannot be parsed any more; no living client sends them.

use kafka_protocol::messages::ApiKey;

/// The oldest Produce version that is really served.
pub const PRODUCE_MIN: i16 = 3;

/// An API with the range of its versions, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supported {
    /// The API.
    pub key: ApiKey,
    /// The oldest version advertised.
    pub min: i16,
    /// The newest version advertised.
    pub max: i16,
}

const fn api(key: ApiKey, min: i16, max: i16) -> Supported {
    Supported { key, min, max }
}

/// Everything that is advertised, by API key.
pub const SUPPORTED: &[Supported] = &[
    api(ApiKey::Produce, 0, 13),
    api(ApiKey::Fetch, 4, 18),
    api(ApiKey::ListOffsets, 1, 10),
    api(ApiKey::Metadata, 0, 13),
    api(ApiKey::OffsetCommit, 2, 9),
    api(ApiKey::OffsetFetch, 1, 9),
    api(ApiKey::FindCoordinator, 0, 6),
    api(ApiKey::JoinGroup, 0, 9),
    api(ApiKey::Heartbeat, 0, 4),
    api(ApiKey::LeaveGroup, 0, 5),
    api(ApiKey::SyncGroup, 0, 5),
    api(ApiKey::DescribeGroups, 0, 6),
    api(ApiKey::ListGroups, 0, 5),
    api(ApiKey::ApiVersions, 0, 4),
    api(ApiKey::CreateTopics, 2, 7),
    api(ApiKey::DeleteTopics, 1, 6),
    api(ApiKey::DeleteRecords, 0, 2),
    api(ApiKey::InitProducerId, 0, 5),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4),
    api(ApiKey::DescribeConfigs, 1, 4),
    api(ApiKey::AlterConfigs, 0, 2),
    api(ApiKey::DescribeLogDirs, 1, 4),
    api(ApiKey::CreatePartitions, 0, 3),
    api(ApiKey::DeleteGroups, 0, 2),
    api(ApiKey::ElectLeaders, 0, 2),
    api(ApiKey::IncrementalAlterConfigs, 0, 1),
    api(ApiKey::ListPartitionReassignments, 0, 0),
    api(ApiKey::OffsetDelete, 0, 0),
    api(ApiKey::DescribeCluster, 0, 2),
];

/// The advertised range of an API.
pub fn advertised(key: ApiKey) -> Option<Supported> {
    SUPPORTED.iter().copied().find(|api| api.key == key)
}

/// Whether a request of this API and version is served.
pub fn is_served(key: ApiKey, version: i16) -> bool {
    let parsed_min = if key == ApiKey::Produce {
        PRODUCE_MIN
    } else {
        0
    };
    advertised(key)
        .is_some_and(|api| version >= parsed_min && (api.min..=api.max).contains(&version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_by_key_and_within_what_the_codec_can_do() {
        let keys: Vec<i16> = SUPPORTED.iter().map(|api| api.key as i16).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        for api in SUPPORTED {
            let range = api.key.valid_versions();
            let parsed_min = if api.key == ApiKey::Produce {
                PRODUCE_MIN
            } else {
                api.min
            };
            assert!(range.min <= parsed_min && api.max <= range.max, "{api:?}");
        }
    }
}
