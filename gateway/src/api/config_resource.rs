//! What the config APIs name: a topic, a broker, or all brokers.

use std::collections::BTreeMap;
use std::sync::Arc;

use frazil_core::ports::{CatalogRefusal, ConfigTarget};
use frazil_core::topic_config::{self, ConfigType};
use frazil_core::{BrokerId, Topic, TopicName};

use crate::configs::{self, Brokers};
use crate::context::Ctx;
use crate::error::{self, Code, Explained};

/// `resource_type` of topics.
const TOPIC: i8 = 2;
/// `resource_type` of brokers.
const BROKER: i8 = 4;
/// `resource_type` of client metrics subscriptions.
const CLIENT_METRICS: i8 = 16;
/// `resource_type` of groups.
const GROUP: i8 = 32;

/// Something that has settings.
#[derive(Clone, Debug)]
pub(crate) enum Resource {
    Topic(Arc<Topic>),
    Broker(BrokerId),
    /// A broker without a name: what all have in common.
    AllBrokers,
    /// A kind that has settings in Kafka, and none here.
    Bare,
}

impl Resource {
    /// Finds a resource in the image.
    pub(crate) fn find(ctx: &Ctx, kind: i8, name: &str) -> Result<Self, Explained> {
        match kind {
            TOPIC => {
                TopicName::new(name).map_err(|error| {
                    Explained::new(error::topic_name(&error), error.to_string())
                })?;
                let topic = ctx.catalog.topic(name);
                Ok(Self::Topic(topic.ok_or(CatalogRefusal::UnknownTopic)?))
            }
            BROKER if name.is_empty() => Ok(Self::AllBrokers),
            BROKER => match name.parse() {
                Ok(id) => Ok(Self::Broker(BrokerId(id))),
                Err(_) => Err(Explained::new(
                    Code::InvalidRequest,
                    "a broker's name is its id",
                )),
            },
            CLIENT_METRICS | GROUP => Ok(Self::Bare),
            _ => {
                let why = format!("there are no resources of type {kind} here");
                Err(Explained::new(Code::InvalidRequest, why))
            }
        }
    }

    /// Whose settings they are, as the quorum knows it; `None`: nobody's.
    fn target(&self) -> Option<ConfigTarget> {
        match self {
            Self::Topic(topic) => Some(ConfigTarget::Topic(topic.id)),
            Self::Broker(id) => Some(ConfigTarget::Broker(Some(*id))),
            Self::AllBrokers => Some(ConfigTarget::Broker(None)),
            Self::Bare => None,
        }
    }

    /// What is set on it.
    pub(crate) fn current(&self, ctx: &Ctx) -> BTreeMap<String, String> {
        match self {
            Self::Topic(topic) => topic.config.clone(),
            Self::Broker(id) => ctx.catalog.broker_config(Some(*id)),
            Self::AllBrokers => ctx.catalog.broker_config(None),
            Self::Bare => BTreeMap::new(),
        }
    }

    /// The value of a setting that is a list, set or not, without its empty items.
    ///
    /// # Errors
    /// If it is no list.
    pub(crate) fn list(&self, ctx: &Ctx, name: &str) -> Result<Vec<String>, Explained> {
        let brokers = Brokers::of(ctx);
        let (kind, value) = match self {
            Self::Topic(topic) => {
                let entries = configs::of_topic(&topic.config, &brokers).into_iter();
                let entry = entries.into_iter().find(|entry| entry.name == name);
                entry.map(|entry| (entry.kind, entry.value))
            }
            Self::Broker(_) | Self::AllBrokers => {
                let set = self.current(ctx).remove(name).or_else(|| {
                    let shared = brokers.shared().get(name).cloned();
                    shared.or_else(|| {
                        topic_config::broker_config(name)?
                            .default
                            .map(str::to_owned)
                    })
                });
                topic_config::broker_config(name).map(|key| (key.config_type(), set))
            }
            Self::Bare => None,
        }
        .ok_or_else(|| unknown(name))?;
        if kind != ConfigType::List {
            let why = format!("{name} is not a list: nothing can be appended or subtracted");
            return Err(Explained::new(Code::InvalidConfig, why));
        }
        let items = value.unwrap_or_default();
        let items = items
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        Ok(items.map(str::to_owned).collect())
    }

    /// Checks what shall be set on it from now on; `changes` says what of it is new.
    fn check(
        &self,
        ctx: &Ctx,
        after: &BTreeMap<String, String>,
        changes: &[(String, Option<String>)],
    ) -> Result<(), Explained> {
        match self {
            Self::Topic(_) => return Ok(topic_config::validate_all(after)?),
            Self::Broker(id) => {
                let live = || ctx.catalog.brokers().iter().any(|broker| broker.id == *id);
                if *id != ctx.broker && !live() {
                    let why = format!("there is no broker {id}");
                    return Err(Explained::new(Code::InvalidRequest, why));
                }
            }
            Self::AllBrokers => {}
            Self::Bare => return Err(Explained::new(Code::InvalidRequest, "it has no settings")),
        }
        for (name, value) in changes {
            let Some(value) = value else { continue };
            let key = topic_config::broker_config(name).filter(|key| key.dynamic);
            let key = key.ok_or_else(|| {
                let name = unknown(name).message;
                let why = format!("{name}, or none that can be changed while brokers run");
                Explained::new(Code::InvalidRequest, why)
            })?;
            key.kind.check(value).map_err(|why| {
                Explained::new(
                    Code::InvalidConfig,
                    format!("invalid value for {name}: {why}"),
                )
            })?;
        }
        Ok(())
    }

    /// Checks changes and, unless they shall only be checked, makes them.
    pub(crate) async fn alter(
        &self,
        ctx: &Ctx,
        changes: Vec<(String, Option<String>)>,
        validate_only: bool,
    ) -> Result<(), Explained> {
        let mut after = self.current(ctx);
        for (name, value) in &changes {
            match value {
                Some(value) => after.insert(name.clone(), value.clone()),
                None => after.remove(name),
            };
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.check(ctx, &after, &changes)?;
        if let Some(target) = self.target().filter(|_| !validate_only) {
            ctx.catalog.alter_config(target, changes).await??;
        }
        Ok(())
    }
}

fn unknown(name: &str) -> Explained {
    let name: String = name.chars().take(100).collect();
    Explained::new(Code::InvalidConfig, format!("unknown setting {name:?}"))
}
