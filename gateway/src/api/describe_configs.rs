//! DescribeConfigs (key 32): all settings of topics and brokers with their values and sources.
//! Sources: KIP-133, KIP-226 (sources and synonyms), KIP-569 (types and documentation).
//!
//! A broker answers for itself and for what all brokers share: only it knows what it was started
//! with.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{ApiKey, DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::config_resource::Resource;
use crate::configs::{self, Brokers, Entry};
use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code, Explained};

/// Describes settings.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: DescribeConfigsRequest,
    _version: i16,
) -> DescribeConfigsResponse {
    let fresh = ctx.log.barrier().await;
    let brokers = Brokers::of(ctx);
    let results = request.resources.into_iter().map(|resource| {
        let described = match &fresh {
            Ok(()) => describe(ctx, &brokers, &resource),
            Err(error) => Err(Explained::from(error)),
        };
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
        match described {
            Ok(entries) => {
                let entries = entries.into_iter();
                let entries = entries.map(|entry| {
                    setting(
                        entry,
                        request.include_synonyms,
                        request.include_documentation,
                    )
                });
                result
                    .with_error_code(error::NONE)
                    .with_error_message(None)
                    .with_configs(entries.collect())
            }
            Err(error) => {
                ctx.metrics.error(ApiKey::DescribeConfigs, error.code);
                result
                    .with_error_code(error.code.code())
                    .with_error_message(Some(StrBytes::from_string(error.message)))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(
    ctx: &Ctx,
    brokers: &Brokers,
    asked: &DescribeConfigsResource,
) -> Result<Vec<Entry>, Explained> {
    let mut entries = match Resource::find(ctx, asked.resource_type, &asked.resource_name)? {
        Resource::Topic(topic) => configs::of_topic(&topic.config, brokers),
        Resource::AllBrokers => configs::of_all_brokers(brokers),
        Resource::Bare => Vec::new(),
        Resource::Broker(id) if id == ctx.broker => configs::of_broker(brokers),
        Resource::Broker(_) => {
            let why = format!(
                "broker {} can be asked for its own settings only",
                ctx.broker
            );
            return Err(Explained::new(Code::InvalidRequest, why));
        }
    };
    if let Some(wanted) = asked
        .configuration_keys
        .as_ref()
        .filter(|keys| !keys.is_empty())
    {
        entries.retain(|entry| wanted.iter().any(|name| name.as_str() == entry.name));
    }
    Ok(entries)
}

fn setting(entry: Entry, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let synonyms = entry
        .synonyms
        .into_iter()
        .filter(|_| synonyms)
        .map(|synonym| {
            DescribeConfigsSynonym::default()
                .with_name(StrBytes::from_static_str(synonym.name))
                .with_value(synonym.value.map(StrBytes::from_string))
                .with_source(synonym.source)
        });
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(entry.name))
        .with_value(entry.value.map(StrBytes::from_string))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source)
        .with_is_sensitive(false)
        .with_synonyms(synonyms.collect())
        .with_config_type(entry.kind as i8)
        .with_documentation(documentation.then(|| StrBytes::from_static_str(entry.doc)))
}
