//! AlterConfigs (key 33): replaces all settings of topics and brokers; what a request leaves out
//! returns to its default. Source: KIP-133.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse, ApiKey};
use kafka_protocol::protocol::StrBytes;

use super::config_resource::Resource;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code, Explained};

/// Replaces settings.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: AlterConfigsRequest,
    _version: i16,
) -> AlterConfigsResponse {
    // What a request leaves out can be told only from what is set now.
    let fresh = ctx.log.barrier().await;
    let mut named: HashMap<(i8, StrBytes), usize> = HashMap::new();
    for resource in &request.resources {
        let key = (resource.resource_type, resource.resource_name.clone());
        *named.entry(key).or_default() += 1;
    }
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let key = (resource.resource_type, resource.resource_name.clone());
        let altered = match &fresh {
            Err(error) => Err(Explained::from(error)),
            Ok(()) if named.get(&key).is_some_and(|count| *count > 1) => Err(Explained::new(
                Code::InvalidRequest,
                "the request names the resource more than once",
            )),
            Ok(()) => replace(ctx, &resource, request.validate_only).await,
        };
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
        responses.push(match altered {
            Ok(()) => response
                .with_error_code(error::NONE)
                .with_error_message(None),
            Err(error) => {
                ctx.metrics.error(ApiKey::AlterConfigs, error.code);
                response
                    .with_error_code(error.code.code())
                    .with_error_message(Some(StrBytes::from_string(error.message)))
            }
        });
    }
    AlterConfigsResponse::default().with_responses(responses)
}

async fn replace(
    ctx: &Ctx,
    asked: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Explained> {
    let resource = Resource::find(ctx, asked.resource_type, &asked.resource_name)?;
    let current = resource.current(ctx);
    let mut changes: BTreeMap<String, Option<String>> =
        current.keys().map(|name| (name.clone(), None)).collect();
    for setting in &asked.configs {
        let Some(value) = &setting.value else {
            let why = format!("{} has no value", setting.name.as_str());
            return Err(Explained::new(Code::InvalidRequest, why));
        };
        let before = changes.insert(setting.name.to_string(), Some(value.to_string()));
        if before.flatten().is_some() {
            let why = format!("{} stands there more than once", setting.name.as_str());
            return Err(Explained::new(Code::InvalidRequest, why));
        }
    }
    changes.retain(|name, value| current.get(name) != value.as_ref());
    resource
        .alter(ctx, changes.into_iter().collect(), validate_only)
        .await
}
