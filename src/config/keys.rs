//! The table of keys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use frazil_core::BrokerId;
use serde_json::Value as Json;

use super::codec::{
    Address, Bytes, BytesOrNone, CatalogCredentials, Codec, Durability, LogFormat, Minutes, Ms,
    MsOrNone, OptInt, OptListener, OptSecret, OptText, PathText, PutBudget, Roles, Secret,
    TableMode, Text, Voter, Voters,
};

/// One key: what can be said and done about it without knowing its type.
pub struct Key {
    /// Its name, in dots.
    pub name: &'static str,
    /// The heading under which it is listed.
    pub section: &'static str,
    /// What it means, in one line.
    pub meaning: &'static str,
    /// Its default, as text; empty: none.
    pub default: &'static str,
    /// What it takes, in words.
    pub expected: &'static str,
    /// Sets it from text; `false`: the text does not fit.
    pub(super) set: fn(&mut Config, &str) -> bool,
    /// Its value as text; `None`: unset.
    pub(super) text: fn(&Config) -> Option<String>,
    /// Its value for programs.
    pub(super) json: fn(&Config) -> Json,
}

impl Key {
    /// The name of its flag, without the dashes in front.
    pub fn flag(&self) -> String {
        self.name.replace('.', "-")
    }

    /// The name of its environment variable.
    pub fn variable(&self) -> String {
        format!("FRAZIL_{}", self.name.replace('.', "_").to_uppercase())
    }
}

macro_rules! keys {
    ($($section:literal {
        $($field:ident: $ty:ty as $codec:ty = $name:literal, $default:literal, $meaning:literal;)*
    })*) => {
        /// The settings of a node. Plain data, checked by [`super::load`].
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($(#[doc = concat!("`", $name, "`: ", $meaning)] pub $field: $ty,)*)*
            /// `store.options`: options of the object store's client, by its own names.
            pub store_options: StoreOptions,
        }

        /// All keys, in the order in which they are printed. `store.options` is a table and not
        /// among them.
        pub static KEYS: &[Key] = &[$($(Key {
            name: $name,
            section: $section,
            meaning: $meaning,
            default: $default,
            expected: <$codec as Codec>::EXPECTED,
            set: |config, text| match <$codec as Codec>::parse(text) {
                Some(value) => {
                    config.$field = value;
                    true
                }
                None => false,
            },
            text: |config| <$codec as Codec>::text(&config.$field),
            json: |config| <$codec as Codec>::json(&config.$field),
        },)*)*];

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $($($field: <$codec as Codec>::parse($default)
                        .expect(concat!("the default of ", $name, " fits its type")),)*)*
                    store_options: StoreOptions::default(),
                }
            }
        }
    };
}

keys! {
    "This node" {
        node_id: Option<i32> as OptInt = "node.id", "",
            "The id of this node: the voter's in the quorum, by default 1, and the broker's towards Kafka clients, by default the voter's or, without the metadata role, one that the quorum gives and the data directory keeps.";
        roles: Roles as Roles = "roles", "gateway,metadata,compactor",
            "What this node does: any of gateway (serves Kafka clients), metadata (votes in the quorum), compactor (retention, tables and collection).";
        data_dir: PathBuf as PathText = "data.dir", "./frazil-data",
            "Directory for the write-ahead log, the quorum's log and the disk cache; created if missing.";
        rack: Option<String> as OptText = "broker.rack", "",
            "The zone this node is in: its gateways share what they fetch, and clients that say theirs (client.rack of consumers, or zone=ZONE in any client.id) are led to them.";
        shutdown_deadline: Duration as Ms = "shutdown.deadline.ms", "10000",
            "How long a node that was asked to stop may take to send its clients elsewhere and finish what it has begun.";
        drain_notice_file: Option<String> as OptText = "drain.notice.file", "",
            "A node stops, as if it were asked to, when this file appears: for notices that the machine will be taken away.";
    }
    "Addresses" {
        listeners: Address as super::codec::Listener = "listeners", "PLAINTEXT://127.0.0.1:9092",
            "The address that Kafka clients connect to.";
        advertised_listeners: Option<Address> as OptListener = "advertised.listeners", "",
            "The address that clients are told to connect to; by default that of listeners.";
        http_listen: Address as Address = "http.listen", "127.0.0.1:8080",
            "The address of /livez, /readyz, /metrics and the table catalog, /iceberg. Whoever can connect to it may ask; there is no password.";
        peer_listen: Address as Address = "peer.listen", "127.0.0.1:9093",
            "The address that other nodes of the cluster connect to.";
        voters: Vec<Voter> as Voters = "controller.quorum.voters", "",
            "The nodes with the metadata role as id@host:port of their peer.listen; empty: this node alone.";
        archive_interval: Duration as Ms = "metadata.archive.interval.ms", "5000",
            "How often the quorum's leader copies new metadata to the object store, for frazil recover; 0: never.";
    }
    "Object store" {
        store_url: Option<String> as OptText = "store.url", "",
            "Where records are kept: file:/DIRECTORY, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or memory: (lost on exit); by default the directory store below data.dir.";
    }
    "Topics" {
        num_partitions: i32 as i32 = "num.partitions", "1",
            "How many partitions a topic gets whose creator did not say.";
        auto_create_topics: bool as bool = "auto.create.topics.enable", "true",
            "Whether asking for a topic that does not exist creates it.";
        default_replication_factor: i16 as i16 = "default.replication.factor", "1",
            "The replication factor reported for topics whose creator did not say; the object store replicates.";
        durability: Durability as Durability = "frazil.durability", "object",
            "When acks=all is answered for topics that do not say: object (in the object store) or local (synced to this node's disk).";
        retention: Option<Duration> as MsOrNone = "log.retention.ms", "604800000",
            "How long records are kept; -1: for ever.";
        retention_bytes: Option<u64> as BytesOrNone = "log.retention.bytes", "-1",
            "How many bytes of a partition are kept; -1: all.";
        retention_check_interval: Duration as Ms = "log.retention.check.interval.ms", "300000",
            "How often retention is applied and objects are collected.";
        collector_grace: Duration as Ms = "collector.grace.ms", "900000",
            "How long an object that nothing refers to any more stays, for readers that are under way.";
        gateway_seal_after: Duration as Ms = "gateway.seal.after.ms", "86400000",
            "A gateway that has not been heard of for this long is declared dead; what it uploaded in vain is then collected.";
    }
    "Requests" {
        message_max_bytes: u64 as Bytes = "message.max.bytes", "1048588",
            "The largest record batch, as it is sent, that topics accept by default.";
        socket_request_max_bytes: u64 as Bytes = "socket.request.max.bytes", "100MiB",
            "The largest request.";
        queued_max_request_bytes: u64 as Bytes = "queued.max.request.bytes", "128MiB",
            "Memory for requests that have been received and not answered; reading waits beyond it.";
        max_connections: u32 as u32 = "max.connections", "10000",
            "How many clients may be connected.";
        connections_max_idle: Duration as Ms = "connections.max.idle.ms", "600000",
            "How long a client may be silent before it is disconnected.";
        fetch_max_bytes: u64 as Bytes = "fetch.max.bytes", "55MiB",
            "The most records in one response, in bytes; one batch may exceed it.";
        fetch_memory_bytes: u64 as Bytes = "fetch.memory.bytes", "128MiB",
            "Memory for records that are on their way to clients; fetching waits beyond it.";
    }
    "Groups and producers" {
        group_initial_rebalance_delay: Duration as Ms = "group.initial.rebalance.delay.ms", "3000",
            "How long the first member of an empty consumer group waits for others.";
        group_min_session_timeout: Duration as Ms = "group.min.session.timeout.ms", "6000",
            "The shortest session timeout that a member of a group may ask for.";
        group_max_session_timeout: Duration as Ms = "group.max.session.timeout.ms", "1800000",
            "The longest session timeout that a member of a group may ask for.";
        group_max_size: u32 as u32 = "group.max.size", "2000",
            "How many members a group may have.";
        offsets_retention: Duration as Minutes = "offsets.retention.minutes", "10080",
            "How long the offsets of a consumer group without members are kept.";
        producer_id_expiration: Duration as Ms = "producer.id.expiration.ms", "86400000",
            "How long an idle idempotent producer is remembered.";
    }
    "Write path" {
        wal_bytes: u64 as Bytes = "wal.bytes", "256MiB",
            "Disk and memory for acknowledged records before their upload; beyond it, producers must wait.";
        wal_accept_loss: bool as bool = "wal.accept.loss", "false",
            "Whether to start although acknowledged records are missing in the write-ahead log, and give them up for good; set it for one start.";
        flush_buffer_bytes: u64 as Bytes = "flush.buffer.bytes", "64MiB",
            "Memory for records that wait for their acknowledgement; receiving waits beyond it.";
        flush_segment_bytes: u64 as Bytes = "flush.segment.bytes", "8MiB",
            "A segment that has gathered this much is uploaded; what comes with the last of it goes with it, up to twice as much.";
        flush_put_budget: PutBudget as PutBudget = "flush.put.budget", "auto",
            "Uploads per second that gathering aims at, beside those which half of flush.segment.bytes or more have earned: a number, unlimited, or auto (6 for a cloud store; 20 for file:, after a reserve of 10 000; unlimited for memory:).";
        flush_uploads: u32 as u32 = "flush.uploads", "6",
            "How many segments are uploaded at the same time.";
    }
    "Read path" {
        cache_tail_bytes: u64 as Bytes = "cache.tail.bytes", "64MiB",
            "Memory for the newest records, from which consumers that keep up are served; an eighth of it is used while there are none.";
        cache_memory_bytes: u64 as Bytes = "cache.memory.bytes", "64MiB",
            "Memory for blocks read from the object store.";
        cache_disk_bytes: u64 as Bytes = "cache.disk.bytes", "0",
            "Disk for blocks read from the object store; 0: none.";
    }
    "Table catalog" {
        catalog_enable: bool as bool = "catalog.enable", "true",
            "Whether http.listen serves the topics' tables under /iceberg, as an Iceberg REST catalog for reading.";
        catalog_cache_bytes: u64 as Bytes = "catalog.cache.bytes", "16MiB",
            "Memory for the metadata of tables that were asked for lately.";
        catalog_credentials: CatalogCredentials as CatalogCredentials = "catalog.credentials", "none",
            "What clients of the catalog are given to read the object store with: none (they have their own), or static (the two keys below, to whoever asks for delegated access; only for s3:).";
        catalog_access_key_id: Option<String> as OptText = "catalog.access.key.id", "",
            "The key id that clients are given; it should allow nothing but reading below store.url.";
        catalog_secret_access_key: Option<Secret> as OptSecret = "catalog.secret.access.key", "",
            "The secret that goes with it.";
        catalog_store_endpoint: Option<String> as OptText = "catalog.store.endpoint", "",
            "Where clients reach the object store; by default where this node does (aws_endpoint).";
        catalog_store_region: Option<String> as OptText = "catalog.store.region", "",
            "The region that clients are told; by default this node's (aws_region).";
        catalog_store_path_style: bool as bool = "catalog.store.path.style", "true",
            "Whether clients put the bucket into the path of requests to an endpoint of its own, or into the name of the host.";
    }
    "Tables" {
        table_mode: TableMode as TableMode = "frazil.table.mode", "shared",
            "What becomes of cold records of topics that do not say: shared (they move into the files of a table, which consumers and table engines both read), copy (the same, and the table is published in another catalog) or off (they stay in segments).";
        compactor_jobs: u32 as u32 = "compactor.jobs", "1",
            "How many topics the compactor works on at the same time.";
        compactor_memory_bytes: u64 as Bytes = "compactor.memory.bytes", "256MiB",
            "Memory for each of these jobs; a single record larger than a fifth of it may exceed it.";
    }
    "Tables in another catalog" {
        copy_uri: Option<String> as OptText = "table.copy.catalog.uri", "",
            "The Iceberg REST catalog in which tables of topics with frazil.table.mode = copy are published: its URL in front of /v1; nodes with the role compactor do it. Unset: none.";
        copy_warehouse: Option<String> as OptText = "table.copy.catalog.warehouse", "",
            "The warehouse to ask that catalog for.";
        copy_namespace: String as Text = "table.copy.catalog.namespace", "frazil",
            "The namespace of the tables there, parts separated by dots; created if missing.";
        copy_token: Option<Secret> as OptSecret = "table.copy.catalog.token", "",
            "The bearer token that lets this node in.";
        copy_credential: Option<Secret> as OptSecret = "table.copy.catalog.credential", "",
            "A client's id and secret, as ID:SECRET, to get tokens for (OAuth 2, client credentials); instead of a token.";
        copy_oauth_uri: Option<String> as OptText = "table.copy.catalog.oauth.uri", "",
            "Where such tokens are got; by default from that catalog, at /v1/oauth/tokens.";
        copy_scope: String as Text = "table.copy.catalog.scope", "catalog",
            "What such tokens are asked for.";
        copy_interval: Duration as Ms = "table.copy.interval.ms", "2000",
            "How often this node looks for tables that have changed.";
    }
    "Log" {
        log_format: LogFormat as LogFormat = "log.format", "text",
            "How this program writes its own log to standard error: text or json.";
        log_level: String as Text = "log.level", "info",
            "What it writes: error, warn, info, debug or trace, also by module: info,frazil_cache=debug.";
    }
}

impl Config {
    /// Where records are kept, with the default filled in.
    pub fn store_url(&self) -> String {
        self.store_url
            .clone()
            .unwrap_or_else(|| format!("file:{}", self.data_dir.join("store").display()))
    }

    /// The address that clients are told to connect to, given the port that was really bound.
    pub fn advertised(&self, bound_port: u16) -> Address {
        self.advertised_listeners
            .clone()
            .unwrap_or_else(|| Address {
                host: self.listeners.host.clone(),
                port: bound_port,
            })
    }

    /// Every setting that has a value, as Kafka writes it: sizes in bytes, times in the unit of
    /// the name. What brokers report of themselves, and what topics fall back to.
    pub fn broker_settings(&self) -> BTreeMap<String, String> {
        let plain = |value: &Json| match value {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        let text = |key: &Key| {
            let text = match (key.json)(self) {
                Json::Null => return None,
                Json::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
                other => plain(&other),
            };
            Some((key.name.to_owned(), text))
        };
        KEYS.iter().filter_map(text).collect()
    }

    /// The node's id as a voter of the quorum.
    pub fn voter_id(&self) -> i32 {
        self.node_id.unwrap_or(1)
    }

    /// The node's id, if the settings decide it: the one that is set, or that of its voter. Else
    /// the quorum gives one to the gateway.
    pub fn id(&self) -> Option<BrokerId> {
        let voter = self.roles.metadata.then(|| self.voter_id());
        self.node_id.or(voter).map(BrokerId)
    }

    /// The node's own entry among the voters, if it has one.
    pub fn own_voter(&self) -> Option<&Voter> {
        let id = self.id()?.0;
        self.voters.iter().find(|voter| voter.id == id)
    }
}

/// What is shown in the place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// Options of the object store's client. Values that may be secret are neither printed nor logged.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoreOptions(pub BTreeMap<String, String>);

impl StoreOptions {
    /// The options with secrets replaced.
    pub fn shown(&self) -> BTreeMap<&str, &str> {
        let shown = self.0.iter().map(|(name, value)| {
            let secret = [
                "key",
                "secret",
                "token",
                "password",
                "sas",
                "account",
                "credential",
            ]
            .iter()
            .any(|word| name.to_ascii_lowercase().contains(word));
            (name.as_str(), if secret { HIDDEN } else { value })
        });
        shown.collect()
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown().fmt(f)
    }
}
