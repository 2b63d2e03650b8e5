//! What of the configuration each part of a node is told.

use std::sync::Arc;
use std::time::Duration;

use frazil_cache::{BlockDisk, WalConfig};
use frazil_core::BrokerId;
use frazil_metadata::Client;
use frazil_objects::Retries;

use crate::catalog;
use crate::config::{CatalogCredentials, Config};
use crate::external::{Access, RestConfig};
use crate::store::{Kind, Store};

/// So many bytes gather only while more comes than the log takes at once; writing them to a segment takes
/// longer than the two syncs that a segment needs more.
const PAST_LOG_BYTES: usize = 1 << 20;

pub(super) fn cache_config(config: &Config, store: &Store) -> frazil_cache::Config {
    let kind = store.kind;
    let cloud = kind == Kind::Cloud;
    let defaults = match cloud {
        true => frazil_cache::Config::remote(),
        false => frazil_cache::Config::local(),
    };
    let put_budget =
        config
            .flush_put_budget
            .of(kind)
            .map(|(per_second, burst)| frazil_cache::PutBudget {
                per_second: f64::from(per_second),
                burst,
            });
    let dir = config.data_dir.join("gateway");
    frazil_cache::Config {
        buffer_bytes: config.flush_buffer_bytes as usize,
        segment_bytes: config.flush_segment_bytes as usize,
        past_log_bytes: store
            .shares_disk_with(&config.data_dir)
            .then_some(PAST_LOG_BYTES),
        put_budget,
        uploads_max: config.flush_uploads as usize,
        wal: Some(WalConfig {
            bytes: config.wal_bytes,
            ..WalConfig::new(dir.join("wal"))
        }),
        tail_bytes: config.cache_tail_bytes as usize,
        block_memory_bytes: config.cache_memory_bytes as usize,
        block_disk: (config.cache_disk_bytes > 0).then(|| BlockDisk {
            dir: dir.join("blocks"),
            bytes: config.cache_disk_bytes as usize,
        }),
        ..defaults
    }
}

pub(super) fn gateway_config(config: &Config, broker: BrokerId) -> frazil_gateway::Config {
    // As clients see it, also if nobody has set it.
    let node_id = ("node.id".to_owned(), broker.to_string());
    let settings = config.broker_settings();
    frazil_gateway::Config {
        request_bytes_max: config.socket_request_max_bytes as usize,
        requests_in_flight_bytes_max: config.queued_max_request_bytes as usize,
        connections_max: config.max_connections as usize,
        idle_timeout: config.connections_max_idle,
        fetch_bytes_max: config.fetch_max_bytes as usize,
        fetches_in_flight_bytes_max: config.fetch_memory_bytes as usize,
        auto_create_topics: config.auto_create_topics,
        num_partitions: config.num_partitions,
        default_replication_factor: config.default_replication_factor,
        groups: frazil_gateway::GroupConfig {
            initial_rebalance_delay: config.group_initial_rebalance_delay,
            session_timeout_min: config.group_min_session_timeout,
            session_timeout_max: config.group_max_session_timeout,
            members_max: config.group_max_size as usize,
            ..frazil_gateway::GroupConfig::default()
        },
        broker_settings: settings.into_iter().chain([node_id]).collect(),
        drain_timeout: config.shutdown_deadline / 4,
        ..frazil_gateway::Config::default()
    }
}

pub(super) fn catalog_parts(
    config: &Config,
    store: &Store,
    retries: &Retries,
    prefix: &object_store::path::Path,
    source: Arc<Client>,
    metrics: catalog::Metrics,
) -> catalog::Parts {
    let (endpoint, region) = store.s3_place();
    let secret = config.catalog_secret_access_key.as_ref();
    let credentials = config.catalog_access_key_id.as_ref().zip(secret);
    let given = config.catalog_credentials == CatalogCredentials::Static;
    catalog::Parts {
        source,
        store: Arc::clone(&store.client),
        retries: retries.clone(),
        prefix: prefix.clone(),
        location: store.location(prefix),
        readers: catalog::Readers {
            endpoint: config.catalog_store_endpoint.clone().or(endpoint),
            region: config.catalog_store_region.clone().or(region),
            path_style: config.catalog_store_path_style,
            credentials: credentials
                .filter(|_| given)
                .map(|(id, secret)| (id.clone(), secret.reveal().to_owned())),
        },
        broker_defaults: config.broker_settings(),
        cache_bytes: config.catalog_cache_bytes as usize,
        metrics,
    }
}

/// Where tables are published; `None`: nowhere.
pub(super) fn copy_config(config: &Config) -> Option<RestConfig> {
    let credential = config.copy_credential.as_ref();
    let credential = credential.and_then(|secret| secret.reveal().split_once(':'));
    let access = match (&config.copy_token, credential) {
        (Some(token), _) => Access::Token(token.reveal().to_owned()),
        (None, Some((id, secret))) => Access::Credential {
            id: id.to_owned(),
            secret: secret.to_owned(),
            server: config.copy_oauth_uri.clone(),
            scope: config.copy_scope.clone(),
        },
        (None, None) => Access::Open,
    };
    Some(RestConfig {
        uri: config.copy_uri.clone()?,
        warehouse: config.copy_warehouse.clone(),
        namespace: config
            .copy_namespace
            .split('.')
            .map(str::to_owned)
            .collect(),
        access,
    })
}

pub(super) fn compactor_config(config: &Config) -> frazil_compactor::Config {
    frazil_compactor::Config {
        retention_interval: config.retention_check_interval,
        reclaim_interval: config.retention_check_interval.min(Duration::from_secs(60)),
        // It lists the store: an hour, by default.
        sweep_interval: config.retention_check_interval * 12,
        grace: config.collector_grace,
        producer_expiration: config.producer_id_expiration,
        offsets_retention: config.offsets_retention,
        broker_defaults: config.broker_settings(),
    }
}

pub(super) fn freeze_config(config: &Config, location: String) -> frazil_compactor::FreezeConfig {
    frazil_compactor::FreezeConfig {
        jobs: config.compactor_jobs as usize,
        memory: config.compactor_memory_bytes as usize,
        ..frazil_compactor::FreezeConfig::new(location)
    }
}
