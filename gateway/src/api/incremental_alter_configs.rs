//! IncrementalAlterConfigs (key 44): sets, resets, extends and shortens single settings of topics
//! and brokers. Source: KIP-339.
//!
//! Appending and subtracting read the list and then set it: of two that are made through two
//! gateways in the same moment, one may be lost.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{
    ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::config_resource::Resource;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code, Explained};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Alters settings.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: IncrementalAlterConfigsRequest,
    _version: i16,
) -> IncrementalAlterConfigsResponse {
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
            Ok(()) => alter(ctx, &resource, request.validate_only).await,
        };
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
        responses.push(match altered {
            Ok(()) => response
                .with_error_code(error::NONE)
                .with_error_message(None),
            Err(error) => {
                ctx.metrics
                    .error(ApiKey::IncrementalAlterConfigs, error.code);
                response
                    .with_error_code(error.code.code())
                    .with_error_message(Some(StrBytes::from_string(error.message)))
            }
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    ctx: &Ctx,
    asked: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Explained> {
    let resource = Resource::find(ctx, asked.resource_type, &asked.resource_name)?;
    let mut changes = BTreeMap::new();
    for setting in &asked.configs {
        let value = change(ctx, &resource, setting)?;
        if changes.insert(setting.name.to_string(), value).is_some() {
            let why = format!("{} stands there more than once", setting.name.as_str());
            return Err(Explained::new(Code::InvalidRequest, why));
        }
    }
    resource
        .alter(ctx, changes.into_iter().collect(), validate_only)
        .await
}

/// The value that a setting shall have; `None`: its default.
fn change(
    ctx: &Ctx,
    resource: &Resource,
    asked: &AlterableConfig,
) -> Result<Option<String>, Explained> {
    let name = asked.name.as_str();
    let value = || {
        let why = format!("{name} has no value");
        let none = || Explained::new(Code::InvalidRequest, why);
        asked.value.as_deref().ok_or_else(none)
    };
    let items = |text: &str| -> Vec<String> {
        let items = text.split(',').map(str::trim);
        items
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect()
    };
    match asked.config_operation {
        SET => Ok(Some(value()?.to_owned())),
        DELETE => Ok(None),
        APPEND => {
            let mut list = resource.list(ctx, name)?;
            for item in items(value()?) {
                if !list.contains(&item) {
                    list.push(item);
                }
            }
            Ok(Some(list.join(",")))
        }
        SUBTRACT => {
            let mut list = resource.list(ctx, name)?;
            let gone = items(value()?);
            list.retain(|item| !gone.contains(item));
            Ok(Some(list.join(",")))
        }
        other => {
            let why = format!("there is no config operation {other}");
            Err(Explained::new(Code::InvalidRequest, why))
        }
    }
}
