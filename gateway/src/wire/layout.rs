//! What every request looks like on the wire, version by version, as data.
//!
//! Source: the message schemas of Apache Kafka 4.1. A test holds every layout against the codec:
//! what is built at random from a layout is decoded by the codec to the last byte.
//!
//! A field stands in the versions `min ..= max`. From a layout's first flexible version on,
//! lengths are compact and every struct ends with tagged fields (KIP-482).

use kafka_protocol::messages::ApiKey;

/// What a field is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string.
    Str,
    /// Bytes.
    Bytes,
    /// An array of elements of so many bytes each.
    FixedArray(usize),
    /// An array of strings.
    StrArray,
    /// An array of structs.
    StructArray(&'static [Field]),
    /// A struct.
    Struct(&'static [Field]),
}

/// A field of a request or of a struct in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// As in Kafka's schema; for messages about it.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The first version that has it.
    pub(super) min: i16,
    /// The last version that has it.
    pub(super) max: i16,
    /// Whether it may be null.
    pub(super) nullable: bool,
    /// Its tag, if it is a tagged field.
    pub(super) tag: Option<u32>,
}

/// A request's body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// The first flexible version.
    flexible: i16,
    pub(super) fields: &'static [Field],
}

/// `flexible` of a layout that has no flexible version.
const NEVER: i16 = i16::MAX;

const I8: Kind = Kind::Fixed(1);
const I16: Kind = Kind::Fixed(2);
const I32: Kind = Kind::Fixed(4);
const I64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);
const STR: Kind = Kind::Str;
const BYTES: Kind = Kind::Bytes;
const I32S: Kind = Kind::FixedArray(4);
const STRS: Kind = Kind::StrArray;

const fn array_of(fields: &'static [Field]) -> Kind {
    Kind::StructArray(fields)
}

const fn structure(fields: &'static [Field]) -> Kind {
    Kind::Struct(fields)
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        min: 0,
        max: i16::MAX,
        nullable: false,
        tag: None,
    }
}

impl Field {
    const fn from(mut self, version: i16) -> Self {
        self.min = version;
        self
    }

    const fn until(mut self, version: i16) -> Self {
        self.max = version;
        self
    }

    const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    const fn tagged(mut self, tag: u32) -> Self {
        self.tag = Some(tag);
        self
    }

    /// Whether requests of this version have the field.
    pub(super) fn is_in(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

impl Kind {
    /// At least the bytes that a decoded value takes in place, what it points to not included.
    pub(super) fn decoded_bytes(&self) -> usize {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Str | Self::Bytes => 32,
            Self::FixedArray(_) | Self::StrArray | Self::StructArray(_) => 24,
            Self::Struct(fields) => struct_bytes(fields),
        }
    }
}

/// At least the bytes that a decoded struct takes in place: its fields, aligned, and the map of
/// its unknown tagged fields.
pub(super) fn struct_bytes(fields: &[Field]) -> usize {
    let aligned = |field: &Field| field.kind.decoded_bytes().next_multiple_of(8);
    24 + fields.iter().map(aligned).sum::<usize>()
}

const fn layout(flexible: i16, fields: &'static [Field]) -> Layout {
    Layout { flexible, fields }
}

impl Layout {
    /// Whether a version is flexible.
    pub(super) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }
}

/// The layout of an API's requests; `None` if no version of it is served.
pub(super) fn of(key: ApiKey) -> Option<&'static Layout> {
    Some(match key {
        ApiKey::Produce => &PRODUCE,
        ApiKey::Fetch => &FETCH,
        ApiKey::ListOffsets => &LIST_OFFSETS,
        ApiKey::Metadata => &METADATA,
        ApiKey::OffsetCommit => &OFFSET_COMMIT,
        ApiKey::OffsetFetch => &OFFSET_FETCH,
        ApiKey::FindCoordinator => &FIND_COORDINATOR,
        ApiKey::JoinGroup => &JOIN_GROUP,
        ApiKey::Heartbeat => &HEARTBEAT,
        ApiKey::LeaveGroup => &LEAVE_GROUP,
        ApiKey::SyncGroup => &SYNC_GROUP,
        ApiKey::DescribeGroups => &DESCRIBE_GROUPS,
        ApiKey::ListGroups => &LIST_GROUPS,
        ApiKey::ApiVersions => &API_VERSIONS,
        ApiKey::CreateTopics => &CREATE_TOPICS,
        ApiKey::DeleteTopics => &DELETE_TOPICS,
        ApiKey::DeleteRecords => &DELETE_RECORDS,
        ApiKey::InitProducerId => &INIT_PRODUCER_ID,
        ApiKey::OffsetForLeaderEpoch => &OFFSET_FOR_LEADER_EPOCH,
        ApiKey::DescribeConfigs => &DESCRIBE_CONFIGS,
        ApiKey::AlterConfigs => &ALTER_CONFIGS,
        ApiKey::DescribeLogDirs => &DESCRIBE_LOG_DIRS,
        ApiKey::CreatePartitions => &CREATE_PARTITIONS,
        ApiKey::DeleteGroups => &DELETE_GROUPS,
        ApiKey::ElectLeaders => &ELECT_LEADERS,
        ApiKey::IncrementalAlterConfigs => &INCREMENTAL_ALTER_CONFIGS,
        ApiKey::ListPartitionReassignments => &LIST_PARTITION_REASSIGNMENTS,
        ApiKey::OffsetDelete => &OFFSET_DELETE,
        ApiKey::DescribeCluster => &DESCRIBE_CLUSTER,
        _ => return None,
    })
}

static PRODUCE: Layout = layout(
    9,
    &[
        field("transactional_id", STR).nullable(),
        field("acks", I16),
        field("timeout_ms", I32),
        field(
            "topic_data",
            array_of(&[
                field("name", STR).until(12),
                field("topic_id", UUID).from(13),
                field(
                    "partition_data",
                    array_of(&[field("index", I32), field("records", BYTES).nullable()]),
                ),
            ]),
        ),
    ],
);

static FETCH: Layout = layout(
    12,
    &[
        field("replica_id", I32).until(14),
        field("max_wait_ms", I32),
        field("min_bytes", I32),
        field("max_bytes", I32),
        field("isolation_level", I8),
        field("session_id", I32).from(7),
        field("session_epoch", I32).from(7),
        field(
            "topics",
            array_of(&[
                field("topic", STR).until(12),
                field("topic_id", UUID).from(13),
                field(
                    "partitions",
                    array_of(&[
                        field("partition", I32),
                        field("current_leader_epoch", I32).from(9),
                        field("fetch_offset", I64),
                        field("last_fetched_epoch", I32).from(12),
                        field("log_start_offset", I64).from(5),
                        field("partition_max_bytes", I32),
                        field("replica_directory_id", UUID).from(17).tagged(0),
                        field("high_watermark", I64).from(18).tagged(1),
                    ]),
                ),
            ]),
        ),
        field(
            "forgotten_topics_data",
            array_of(&[
                field("topic", STR).from(7).until(12),
                field("topic_id", UUID).from(13),
                field("partitions", I32S).from(7),
            ]),
        )
        .from(7),
        field("rack_id", STR).from(11),
        field("cluster_id", STR).nullable().tagged(0),
        field(
            "replica_state",
            structure(&[
                field("replica_id", I32).from(15),
                field("replica_epoch", I64).from(15),
            ]),
        )
        .from(15)
        .tagged(1),
    ],
);

static LIST_OFFSETS: Layout = layout(
    6,
    &[
        field("replica_id", I32),
        field("isolation_level", I8).from(2),
        field(
            "topics",
            array_of(&[
                field("name", STR),
                field(
                    "partitions",
                    array_of(&[
                        field("partition_index", I32),
                        field("current_leader_epoch", I32).from(4),
                        field("timestamp", I64),
                    ]),
                ),
            ]),
        ),
        field("timeout_ms", I32).from(10),
    ],
);

static METADATA: Layout = layout(
    9,
    &[
        field(
            "topics",
            array_of(&[
                field("topic_id", UUID).from(10),
                field("name", STR).nullable(),
            ]),
        )
        .nullable(),
        field("allow_auto_topic_creation", I8).from(4),
        field("include_cluster_authorized_operations", I8)
            .from(8)
            .until(10),
        field("include_topic_authorized_operations", I8).from(8),
    ],
);

static OFFSET_COMMIT: Layout = layout(
    8,
    &[
        field("group_id", STR),
        field("generation_id_or_member_epoch", I32),
        field("member_id", STR),
        field("group_instance_id", STR).from(7).nullable(),
        field("retention_time_ms", I64).until(4),
        field(
            "topics",
            array_of(&[
                field("name", STR),
                field("topic_id", UUID).from(10),
                field(
                    "partitions",
                    array_of(&[
                        field("partition_index", I32),
                        field("committed_offset", I64),
                        field("committed_leader_epoch", I32).from(6),
                        field("committed_metadata", STR).nullable(),
                    ]),
                ),
            ]),
        ),
    ],
);

static OFFSET_FETCH: Layout = layout(
    6,
    &[
        field("group_id", STR).until(7),
        field(
            "topics",
            array_of(&[
                field("name", STR).until(7),
                field("partition_indexes", I32S).until(7),
            ]),
        )
        .until(7)
        .nullable(),
        field(
            "groups",
            array_of(&[
                field("group_id", STR).from(8),
                field("member_id", STR).from(9).nullable(),
                field("member_epoch", I32).from(9),
                field(
                    "topics",
                    array_of(&[
                        field("name", STR).from(8),
                        field("topic_id", UUID).from(10),
                        field("partition_indexes", I32S).from(8),
                    ]),
                )
                .from(8)
                .nullable(),
            ]),
        )
        .from(8),
        field("require_stable", I8).from(7),
    ],
);

static FIND_COORDINATOR: Layout = layout(
    3,
    &[
        field("key", STR).until(3),
        field("key_type", I8).from(1),
        field("coordinator_keys", STRS).from(4),
    ],
);

static JOIN_GROUP: Layout = layout(
    6,
    &[
        field("group_id", STR),
        field("session_timeout_ms", I32),
        field("rebalance_timeout_ms", I32).from(1),
        field("member_id", STR),
        field("group_instance_id", STR).from(5).nullable(),
        field("protocol_type", STR),
        field(
            "protocols",
            array_of(&[field("name", STR), field("metadata", BYTES)]),
        ),
        field("reason", STR).from(8).nullable(),
    ],
);

static HEARTBEAT: Layout = layout(
    4,
    &[
        field("group_id", STR),
        field("generation_id", I32),
        field("member_id", STR),
        field("group_instance_id", STR).from(3).nullable(),
    ],
);

static LEAVE_GROUP: Layout = layout(
    4,
    &[
        field("group_id", STR),
        field("member_id", STR).until(2),
        field(
            "members",
            array_of(&[
                field("member_id", STR).from(3),
                field("group_instance_id", STR).from(3).nullable(),
                field("reason", STR).from(5).nullable(),
            ]),
        )
        .from(3),
    ],
);

static SYNC_GROUP: Layout = layout(
    4,
    &[
        field("group_id", STR),
        field("generation_id", I32),
        field("member_id", STR),
        field("group_instance_id", STR).from(3).nullable(),
        field("protocol_type", STR).from(5).nullable(),
        field("protocol_name", STR).from(5).nullable(),
        field(
            "assignments",
            array_of(&[field("member_id", STR), field("assignment", BYTES)]),
        ),
    ],
);

static DESCRIBE_GROUPS: Layout = layout(
    5,
    &[
        field("groups", STRS),
        field("include_authorized_operations", I8).from(3),
    ],
);

static LIST_GROUPS: Layout = layout(
    3,
    &[
        field("states_filter", STRS).from(4),
        field("types_filter", STRS).from(5),
    ],
);

static API_VERSIONS: Layout = layout(
    3,
    &[
        field("client_software_name", STR).from(3),
        field("client_software_version", STR).from(3),
    ],
);

static CREATE_TOPICS: Layout = layout(
    5,
    &[
        field(
            "topics",
            array_of(&[
                field("name", STR),
                field("num_partitions", I32),
                field("replication_factor", I16),
                field(
                    "assignments",
                    array_of(&[field("partition_index", I32), field("broker_ids", I32S)]),
                ),
                field(
                    "configs",
                    array_of(&[field("name", STR), field("value", STR).nullable()]),
                ),
            ]),
        ),
        field("timeout_ms", I32),
        field("validate_only", I8),
    ],
);

static DELETE_TOPICS: Layout = layout(
    4,
    &[
        field(
            "topics",
            array_of(&[
                field("name", STR).from(6).nullable(),
                field("topic_id", UUID).from(6),
            ]),
        )
        .from(6),
        field("topic_names", STRS).until(5),
        field("timeout_ms", I32),
    ],
);

static DELETE_RECORDS: Layout = layout(
    2,
    &[
        field(
            "topics",
            array_of(&[
                field("name", STR),
                field(
                    "partitions",
                    array_of(&[field("partition_index", I32), field("offset", I64)]),
                ),
            ]),
        ),
        field("timeout_ms", I32),
    ],
);

static INIT_PRODUCER_ID: Layout = layout(
    2,
    &[
        field("transactional_id", STR).nullable(),
        field("transaction_timeout_ms", I32),
        field("producer_id", I64).from(3),
        field("producer_epoch", I16).from(3),
    ],
);

static OFFSET_FOR_LEADER_EPOCH: Layout = layout(
    4,
    &[
        field("replica_id", I32).from(3),
        field(
            "topics",
            array_of(&[
                field("topic", STR),
                field(
                    "partitions",
                    array_of(&[
                        field("partition", I32),
                        field("current_leader_epoch", I32),
                        field("leader_epoch", I32),
                    ]),
                ),
            ]),
        ),
    ],
);

static DESCRIBE_CONFIGS: Layout = layout(
    4,
    &[
        field(
            "resources",
            array_of(&[
                field("resource_type", I8),
                field("resource_name", STR),
                field("configuration_keys", STRS).nullable(),
            ]),
        ),
        field("include_synonyms", I8),
        field("include_documentation", I8).from(3),
    ],
);

static ALTER_CONFIGS: Layout = layout(
    2,
    &[
        field(
            "resources",
            array_of(&[
                field("resource_type", I8),
                field("resource_name", STR),
                field(
                    "configs",
                    array_of(&[field("name", STR), field("value", STR).nullable()]),
                ),
            ]),
        ),
        field("validate_only", I8),
    ],
);

static DESCRIBE_LOG_DIRS: Layout = layout(
    2,
    &[field(
        "topics",
        array_of(&[field("topic", STR), field("partitions", I32S)]),
    )
    .nullable()],
);

static CREATE_PARTITIONS: Layout = layout(
    2,
    &[
        field(
            "topics",
            array_of(&[
                field("name", STR),
                field("count", I32),
                field("assignments", array_of(&[field("broker_ids", I32S)])).nullable(),
            ]),
        ),
        field("timeout_ms", I32),
        field("validate_only", I8),
    ],
);

static DELETE_GROUPS: Layout = layout(2, &[field("groups_names", STRS)]);

static ELECT_LEADERS: Layout = layout(
    2,
    &[
        field("election_type", I8).from(1),
        field(
            "topic_partitions",
            array_of(&[field("topic", STR), field("partitions", I32S)]),
        )
        .nullable(),
        field("timeout_ms", I32),
    ],
);

static INCREMENTAL_ALTER_CONFIGS: Layout = layout(
    1,
    &[
        field(
            "resources",
            array_of(&[
                field("resource_type", I8),
                field("resource_name", STR),
                field(
                    "configs",
                    array_of(&[
                        field("name", STR),
                        field("config_operation", I8),
                        field("value", STR).nullable(),
                    ]),
                ),
            ]),
        ),
        field("validate_only", I8),
    ],
);

static LIST_PARTITION_REASSIGNMENTS: Layout = layout(
    0,
    &[
        field("timeout_ms", I32),
        field(
            "topics",
            array_of(&[field("name", STR), field("partition_indexes", I32S)]),
        )
        .nullable(),
    ],
);

static OFFSET_DELETE: Layout = layout(
    NEVER,
    &[
        field("group_id", STR),
        field(
            "topics",
            array_of(&[
                field("name", STR),
                field("partitions", array_of(&[field("partition_index", I32)])),
            ]),
        ),
    ],
);

static DESCRIBE_CLUSTER: Layout = layout(
    0,
    &[
        field("include_cluster_authorized_operations", I8),
        field("endpoint_type", I8).from(1),
        field("include_fenced_brokers", I8).from(2),
    ],
);
