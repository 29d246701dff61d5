//! Changing config values while the broker runs: what may be changed, and how it takes effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::config::{
    BrokerConfig, ConfigKey, ListChange, UpdateMode, broker_key, change_list, check_topic_value,
    check_topic_values, topic_key,
};
use base::error::ErrorCode;
use base::ids::BrokerId;
use metadata::{Command, CommandResult, LEAVING_BROKERS, Refusal, Resource};

use crate::broker::Broker;
use crate::topics::unknown_topic;

/// Values by key.
pub(crate) type Values = BTreeMap<String, String>;

/// One change of one value (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Takes this value.
    Set(String),
    /// Has no value of its own any more.
    Delete,
    /// The list gains items.
    Append(String),
    /// The list loses items.
    Subtract(String),
}

/// What shall become of a resource's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// These and no others.
    Replace(Values),
    /// These operations, in order; what they do not name stays.
    Edit(Vec<(String, Operation)>),
}

impl Broker {
    /// Takes over the values set while brokers run. To be called at the start and after every change.
    pub(crate) fn reload_config(&self) {
        loop {
            let image = self.image();
            let (for_all, for_this) =
                (image.configs(&Resource::AllBrokers), image.configs(&Resource::Broker(self.id)));
            let (config, errors) = self.config().with_changes(&for_all, &for_this);
            for error in errors {
                tracing::warn!(%error, "a value set while brokers run does not count");
            }
            self.set_config(Arc::new(config));
            // Whoever changed them meanwhile may have been overtaken by this one: look again.
            let now = self.image();
            if now.configs(&Resource::AllBrokers) == for_all
                && now.configs(&Resource::Broker(self.id)) == for_this
            {
                return;
            }
        }
    }

    /// Changes the values of a resource and lets them take effect.
    pub(crate) async fn alter_configs(
        &self,
        resource: Resource,
        change: Change,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let before = Values::clone(&self.image().configs(&resource));
        let after = self.changed(&resource, &before, change)?;
        self.check(&resource, &before, &after)?;
        if validate_only {
            return Ok(());
        }
        let changes = differences(&before, after);
        if changes.is_empty() {
            return Ok(());
        }
        let command = Command::AlterConfigs { resource: resource.clone(), changes };
        match self.metadata.propose(command).await {
            Ok(CommandResult::Items(mut items)) => items.pop().unwrap_or(Ok(()))?,
            other => {
                tracing::error!(?other, "config values cannot be changed");
                let message = "The metadata store did not answer; the change may have been made.";
                return Err(Refusal::new(ErrorCode::RequestTimedOut, message));
            }
        }
        match resource {
            Resource::Topic(name) => {
                let image = self.image();
                if let Some(topic) = image.topic(&name) {
                    self.partitions.sync_topic(&image, &self.config(), topic.id).await;
                }
            }
            _ => self.reload_config(),
        }
        Ok(())
    }

    /// The values after a change.
    fn changed(&self, resource: &Resource, before: &Values, change: Change) -> Result<Values, Refusal> {
        let edits = match change {
            Change::Replace(values) => return Ok(values),
            Change::Edit(edits) => edits,
        };
        let mut values = before.clone();
        for (name, operation) in edits {
            let (change, items) = match operation {
                Operation::Set(value) => {
                    values.insert(name, value);
                    continue;
                }
                Operation::Delete => {
                    values.remove(&name);
                    continue;
                }
                Operation::Append(items) => (ListChange::Append, items),
                Operation::Subtract(items) => (ListChange::Subtract, items),
            };
            let key = self.key(resource, &name)?;
            if matches!(change, ListChange::Append) && items.split(',').any(|item| item.trim().is_empty()) {
                let message = format!("`{items}` has an empty item, which `{name}` cannot have.");
                return Err(Refusal::new(ErrorCode::InvalidConfig, message));
            }
            let current = values.get(&name).cloned().or_else(|| self.value_behind(resource, key));
            let list = change_list(key, current.as_deref(), change, &items).map_err(invalid)?;
            values.insert(name, list);
        }
        Ok(values)
    }

    fn key(&self, resource: &Resource, name: &str) -> Result<&'static ConfigKey, Refusal> {
        let key = match resource {
            Resource::Topic(_) => topic_key(name),
            _ => broker_key(name),
        };
        key.ok_or_else(|| Refusal::new(ErrorCode::InvalidConfig, format!("There is no key `{name}`.")))
    }

    /// What counts when the resource sets nothing itself.
    fn value_behind(&self, resource: &Resource, key: &ConfigKey) -> Option<String> {
        let config = self.config();
        match resource {
            Resource::Topic(_) => config.describe_topic_value(&Values::new(), key.name)?.value,
            _ => config.value_by_name(key.name)?.to_text(),
        }
    }

    fn check(&self, resource: &Resource, before: &Values, after: &Values) -> Result<(), Refusal> {
        match resource {
            Resource::Topic(name) => {
                if self.image().topic(name).is_none() {
                    return Err(unknown_topic(name));
                }
                for (name, value) in after.iter().filter(|(name, value)| before.get(*name) != Some(*value)) {
                    check_topic_value(name, value).map_err(invalid)?;
                }
                check_topic_values(&self.config(), after).map_err(invalid)
            }
            Resource::AllBrokers => {
                check_update_modes(before, after, UpdateMode::ClusterWide)?;
                self.check_leaving(before, after)?;
                let this = self.image().configs(&Resource::Broker(self.id));
                check_broker_values(&self.config(), (before, &this), (after, &this))
            }
            Resource::Broker(_) => {
                check_update_modes(before, after, UpdateMode::PerBroker)?;
                if before.get(LEAVING_BROKERS) != after.get(LEAVING_BROKERS) {
                    let message = format!("`{LEAVING_BROKERS}` is set for all brokers, not for one.");
                    return Err(Refusal::new(ErrorCode::InvalidRequest, message));
                }
                let all = self.image().configs(&Resource::AllBrokers);
                check_broker_values(&self.config(), (&all, before), (&all, after))
            }
            Resource::Group(_) | Resource::ClientMetrics(_) => {
                Err(Refusal::new(ErrorCode::InvalidRequest, "Resources of this type have no values here."))
            }
        }
    }
}

impl Broker {
    /// Who begins to leave the cluster is a broker, and not the last one.
    fn check_leaving(&self, before: &Values, after: &Values) -> Result<(), Refusal> {
        let Some(list) = after.get(LEAVING_BROKERS).filter(|list| before.get(LEAVING_BROKERS) != Some(*list))
        else {
            return Ok(());
        };
        let image = self.image();
        let items = || list.split(',').map(str::trim).filter(|item| !item.is_empty());
        let is_broker = |item: &&str| item.parse().is_ok_and(|id| image.broker(BrokerId(id)).is_some());
        if let Some(item) = items().find(|item| !is_broker(item)) {
            let message = format!("`{LEAVING_BROKERS}` names `{item}`, which is no broker's number.");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        let leaves = |id: BrokerId| items().any(|item| item.parse() == Ok(id.0));
        if image.brokers().all(|broker| leaves(broker.registration.broker)) {
            let message = "All brokers would leave, and nobody would be left to take what they have.";
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        Ok(())
    }
}

/// The broker a resource of Kafka's type BROKER stands for; the empty name is every broker.
pub(crate) fn broker_resource(own: BrokerId, name: &str) -> Result<Resource, Refusal> {
    if name.is_empty() {
        return Ok(Resource::AllBrokers);
    }
    let refused = |message: String| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    match name.parse::<i32>() {
        Ok(id) if id == own.0 => Ok(Resource::Broker(own)),
        Ok(id) => refused(format!("This is broker {own}, not {id}.")),
        Err(_) => refused(format!("`{name}` is no number of a broker.")),
    }
}

/// The broker whose loggers are meant; log levels belong to one broker, never to all.
pub(crate) fn loggers_of(own: BrokerId, name: &str) -> Result<(), Refusal> {
    match broker_resource(own, name)? {
        Resource::AllBrokers => Err(Refusal::new(ErrorCode::InvalidRequest, "Loggers belong to one broker.")),
        _ => Ok(()),
    }
}

/// Keys that need a restart, or that only count for one broker at a time, are not set for (all) brokers.
fn check_update_modes(before: &Values, after: &Values, wanted: UpdateMode) -> Result<(), Refusal> {
    let changed = |name: &&String| before.get(*name) != after.get(*name);
    let fits = |key: &ConfigKey| match key.update {
        UpdateMode::ReadOnly => false,
        UpdateMode::PerBroker => wanted == UpdateMode::PerBroker,
        UpdateMode::ClusterWide => true,
    };
    for name in after.keys().filter(changed) {
        let key = broker_key(name);
        let key = key.ok_or_else(|| {
            Refusal::new(ErrorCode::InvalidConfig, format!("There is no broker key `{name}`."))
        })?;
        if !fits(key) {
            let message = format!("`{name}` is {}: it cannot be changed this way.", key.update.name());
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    }
    Ok(())
}

/// A change must not add to what is wrong with the values.
fn check_broker_values(
    config: &BrokerConfig,
    before: (&Values, &Values),
    after: (&Values, &Values),
) -> Result<(), Refusal> {
    let (_, known) = config.with_changes(before.0, before.1);
    let (_, errors) = config.with_changes(after.0, after.1);
    match errors.into_iter().find(|error| !known.contains(error)) {
        // Of a topic Kafka says that the config is invalid, of a broker that the request is (KAFKA-13609).
        Some(error) => Err(Refusal::new(ErrorCode::InvalidRequest, error.to_string())),
        None => Ok(()),
    }
}

fn invalid(error: base::config::ConfigError) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, error.to_string())
}

/// What turns `before` into `after`.
fn differences(before: &Values, after: Values) -> Vec<(String, Option<String>)> {
    let gone: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).cloned().collect();
    let mut changes: Vec<_> = gone.into_iter().map(|name| (name, None)).collect();
    let new = after.into_iter().filter(|(name, value)| before.get(name) != Some(value));
    changes.extend(new.map(|(name, value)| (name, Some(value))));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn differences_lead_from_one_to_the_other() {
        let (before, after) =
            (values(&[("a", "1"), ("b", "2"), ("c", "3")]), values(&[("b", "2"), ("c", "4")]));
        let changes = differences(&before, after);
        assert_eq!(changes, [("a".to_owned(), None), ("c".to_owned(), Some("4".to_owned()))]);
    }

    #[test]
    fn only_keys_of_the_right_kind_are_changed() {
        let check = |name: &str, wanted| {
            let after = values(&[(name, "1")]);
            check_update_modes(&Values::new(), &after, wanted).map_err(|refused| refused.code)
        };
        assert_eq!(check("node.id", UpdateMode::PerBroker), Err(ErrorCode::InvalidRequest));
        assert_eq!(check("listeners", UpdateMode::ClusterWide), Err(ErrorCode::InvalidRequest));
        assert_eq!(check("listeners", UpdateMode::PerBroker), Ok(()));
        assert_eq!(check("max.connections", UpdateMode::ClusterWide), Ok(()));
        assert_eq!(check("no.such", UpdateMode::PerBroker), Err(ErrorCode::InvalidConfig));
        let same = values(&[("node.id", "1")]);
        assert!(check_update_modes(&same, &same, UpdateMode::PerBroker).is_ok(), "what stays is not judged");
    }

    #[test]
    fn broker_resources_are_this_broker_or_all() {
        let own = BrokerId(3);
        assert_eq!(broker_resource(own, "").unwrap(), Resource::AllBrokers);
        assert_eq!(broker_resource(own, "3").unwrap(), Resource::Broker(own));
        for bad in ["4", "x", " 3", "3.0"] {
            assert_eq!(broker_resource(own, bad).unwrap_err().code, ErrorCode::InvalidRequest, "{bad}");
        }
        assert!(loggers_of(own, "3").is_ok());
        assert_eq!(loggers_of(own, "").unwrap_err().code, ErrorCode::InvalidRequest);
    }
}
