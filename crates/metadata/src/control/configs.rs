//! Config values. Whether a value is valid is checked before it is proposed.

use std::sync::Arc;

use base::error::ErrorCode;

use crate::command::{Refusal, Resource};
use crate::image::Image;

/// Sets and deletes values of one resource.
pub(super) fn alter(
    image: &mut Image,
    resource: Resource,
    changes: Vec<(String, Option<String>)>,
) -> Result<(), Refusal> {
    if let Resource::Topic(name) = &resource
        && image.topic(name).is_none()
    {
        let message = format!("There is no topic `{name}`.");
        return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, message));
    }
    let mut values = image.configs(&resource);
    let changed = Arc::make_mut(&mut values);
    for (key, value) in changes {
        match value {
            Some(value) => changed.insert(key, value),
            None => changed.remove(&key),
        };
    }
    if values.is_empty() {
        image.configs.remove(&resource);
    } else {
        image.configs.insert(resource, values);
    }
    Ok(())
}
