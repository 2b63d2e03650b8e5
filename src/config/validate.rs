//! Rules that a value's type cannot hold: ranges, and keys that depend on each other.

use std::collections::{BTreeMap, BTreeSet};

use frazil_core::ports::TOPIC_PARTITIONS_MAX;
use frazil_core::segment::BATCH_MAX;

use super::{CatalogCredentials, Config, KEYS, Problem, Source};

/// The largest frame that the protocol's 32-bit length can announce.
const FRAME_MAX: u64 = i32::MAX as u64;

/// Ids from here on the quorum does not accept of a gateway.
const NODE_ID_MAX: i32 = 1 << 30;

/// All rules that `config` breaks.
pub(super) fn check(config: &Config, from: &BTreeMap<String, Source>) -> Vec<Problem> {
    let mut rules = Rules {
        config,
        from,
        broken: Vec::new(),
    };
    ranges(&mut rules, config);
    addresses(&mut rules, config);
    cluster(&mut rules, config);
    catalog(&mut rules, config);
    copy(&mut rules, config);
    logging(&mut rules, config);
    rules.broken
}

struct Rules<'a> {
    config: &'a Config,
    from: &'a BTreeMap<String, Source>,
    broken: Vec<Problem>,
}

impl Rules<'_> {
    /// Demands `holds` of the value of `key`.
    fn demand(&mut self, key: &str, holds: bool, expected: impl Into<String>) {
        if holds {
            return;
        }
        let known = KEYS.iter().find(|known| known.name == key);
        let value = known.and_then(|known| (known.text)(self.config));
        self.broken.push(Problem::Value {
            key: key.to_owned(),
            value: value.unwrap_or_else(|| "(unset)".to_owned()),
            from: self.from.get(key).cloned().unwrap_or(Source::Default),
            expected: expected.into(),
        });
    }

    fn range(&mut self, key: &str, value: u64, min: u64, max: u64) {
        let expected = if max == u64::MAX {
            format!("at least {min}")
        } else {
            format!("{min} to {max}")
        };
        self.demand(key, (min..=max).contains(&value), expected);
    }
}

fn ranges(rules: &mut Rules<'_>, c: &Config) {
    rules.demand(
        "node.id",
        c.node_id.is_none_or(|id| (0..NODE_ID_MAX).contains(&id)),
        format!("0 to {}", NODE_ID_MAX - 1),
    );
    let partitions = 1..=TOPIC_PARTITIONS_MAX;
    rules.demand(
        "num.partitions",
        partitions.contains(&c.num_partitions),
        format!("1 to {TOPIC_PARTITIONS_MAX}"),
    );
    rules.demand(
        "default.replication.factor",
        c.default_replication_factor >= 1,
        "1 or more",
    );
    rules.range("max.connections", c.max_connections.into(), 1, u64::MAX);
    rules.range("flush.uploads", c.flush_uploads.into(), 1, 1024);
    rules.range(
        "message.max.bytes",
        c.message_max_bytes,
        1024,
        BATCH_MAX as u64,
    );
    rules.range(
        "socket.request.max.bytes",
        c.socket_request_max_bytes,
        c.message_max_bytes.saturating_add(1024),
        FRAME_MAX,
    );
    rules.range(
        "queued.max.request.bytes",
        c.queued_max_request_bytes,
        c.socket_request_max_bytes,
        u64::MAX,
    );
    rules.range(
        "flush.segment.bytes",
        c.flush_segment_bytes,
        1 << 16,
        16 << 20,
    );
    rules.range(
        "flush.buffer.bytes",
        c.flush_buffer_bytes,
        c.flush_segment_bytes.max(c.message_max_bytes),
        u32::MAX.into(),
    );
    rules.range("fetch.max.bytes", c.fetch_max_bytes, 1024, FRAME_MAX / 2);
    rules.range(
        "fetch.memory.bytes",
        c.fetch_memory_bytes,
        c.fetch_max_bytes,
        u64::MAX,
    );
    rules.range("compactor.jobs", c.compactor_jobs.into(), 1, 64);
    rules.range(
        "compactor.memory.bytes",
        c.compactor_memory_bytes,
        32 << 20,
        u32::MAX.into(),
    );
    rules.range("group.max.size", c.group_max_size.into(), 1, 1 << 20);
    rules.demand(
        "group.max.session.timeout.ms",
        c.group_max_session_timeout >= c.group_min_session_timeout,
        "at least group.min.session.timeout.ms",
    );
    rules.range(
        "wal.bytes",
        c.wal_bytes,
        c.socket_request_max_bytes.saturating_add(1 << 20),
        u64::MAX,
    );
    for (key, time) in [
        ("offsets.retention.minutes", c.offsets_retention),
        ("producer.id.expiration.ms", c.producer_id_expiration),
        (
            "log.retention.check.interval.ms",
            c.retention_check_interval,
        ),
        ("gateway.seal.after.ms", c.gateway_seal_after),
        ("shutdown.deadline.ms", c.shutdown_deadline),
        ("connections.max.idle.ms", c.connections_max_idle),
    ] {
        rules.demand(key, !time.is_zero(), "more than 0");
    }
}

fn catalog(rules: &mut Rules<'_>, c: &Config) {
    if c.catalog_credentials == CatalogCredentials::None {
        return;
    }
    let s3 = c.store_url().starts_with("s3");
    rules.demand(
        "catalog.credentials",
        s3,
        "none, because only stores of the kind s3: have such credentials",
    );
    rules.demand(
        "catalog.access.key.id",
        c.catalog_access_key_id.is_some(),
        "a key id, because catalog.credentials = static",
    );
    rules.demand(
        "catalog.secret.access.key",
        c.catalog_secret_access_key.is_some(),
        "a secret, because catalog.credentials = static",
    );
}

fn copy(rules: &mut Rules<'_>, c: &Config) {
    let url = |text: &String| text.starts_with("http://") || text.starts_with("https://");
    for (key, value) in [
        ("table.copy.catalog.uri", &c.copy_uri),
        ("table.copy.catalog.oauth.uri", &c.copy_oauth_uri),
    ] {
        rules.demand(
            key,
            value.as_ref().is_none_or(url),
            "an http: or https: URL",
        );
    }
    rules.demand(
        "table.copy.catalog.namespace",
        c.copy_namespace.split('.').all(|part| !part.is_empty()),
        "names separated by dots",
    );
    let credential = c.copy_credential.as_ref();
    rules.demand(
        "table.copy.catalog.credential",
        credential.is_none_or(|secret| secret.reveal().contains(':')),
        "ID:SECRET",
    );
    rules.demand(
        "table.copy.catalog.credential",
        credential.is_none() || c.copy_token.is_none(),
        "either this or table.copy.catalog.token",
    );
    rules.demand(
        "table.copy.interval.ms",
        !c.copy_interval.is_zero(),
        "more than 0",
    );
}

fn logging(rules: &mut Rules<'_>, c: &Config) {
    if let Err(reason) = crate::telemetry::filter(&c.log_level) {
        rules.demand(
            "log.level",
            false,
            format!("error, warn, info, debug or trace, also by module ({reason})"),
        );
    }
}

fn addresses(rules: &mut Rules<'_>, c: &Config) {
    let told = c.advertised_listeners.as_ref();
    rules.demand(
        "advertised.listeners",
        !c.roles.gateway || told.is_some() || !c.listeners.is_wildcard(),
        "the address that clients reach this node at, because listeners stands for every address",
    );
    rules.demand(
        "advertised.listeners",
        told.is_none_or(|address| !address.is_wildcard() && address.port != 0),
        "an address and port that clients can connect to",
    );
    let bound = [
        ("listeners", &c.listeners),
        ("http.listen", &c.http_listen),
        ("peer.listen", &c.peer_listen),
    ];
    for (i, (key, address)) in bound.iter().enumerate() {
        let taken = bound[..i].iter().find(|(_, a)| a == address);
        let taken = taken.filter(|_| address.port != 0).map(|(key, _)| *key);
        rules.demand(
            key,
            taken.is_none(),
            format!("another address than that of {}", taken.unwrap_or_default()),
        );
    }
}

fn cluster(rules: &mut Rules<'_>, c: &Config) {
    let ids: BTreeSet<i32> = c.voters.iter().map(|voter| voter.id).collect();
    rules.demand(
        "controller.quorum.voters",
        ids.len() == c.voters.len(),
        "every id once",
    );
    rules.demand(
        "controller.quorum.voters",
        c.voters
            .iter()
            .all(|v| v.id >= 0 && v.address.port != 0 && !v.address.is_wildcard()),
        "ids from 0 and addresses that other nodes can connect to",
    );
    if c.voters.is_empty() {
        rules.demand(
            "controller.quorum.voters",
            c.roles.metadata,
            "the quorum's nodes, because this node does not have the metadata role",
        );
    } else {
        rules.demand(
            "controller.quorum.voters",
            c.roles.metadata == c.own_voter().is_some(),
            if c.roles.metadata {
                format!(
                    "an entry {}@…, because this node has the metadata role",
                    c.voter_id()
                )
            } else {
                format!(
                    "no entry {}@…, because this node lacks the metadata role",
                    c.voter_id()
                )
            },
        );
    }
    let alone = c.voters.len() <= 1 && c.roles.metadata;
    rules.demand(
        "store.url",
        alone || !c.store_url().starts_with("memory:"),
        "a store that all nodes of the cluster see, which memory: is not",
    );
}
