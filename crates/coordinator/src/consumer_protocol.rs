//! What the coordinator may read of a consumer's metadata: the topics it subscribes to.
//!
//! Every version of the subscription begins as version 0 does, so that much is read whatever the version.

use wire::Reader;
use wire::message::ConsumerProtocolSubscription;

/// The topics a subscription names; `None` if it is malformed or names more than `max_topics`.
pub(crate) fn subscribed_topics(metadata: &[u8], max_topics: usize) -> Option<Vec<String>> {
    let mut reader = Reader::new(metadata).with_elements_max(max_topics);
    let version = reader.i16().ok()?;
    if version < 0 {
        return None;
    }
    let subscription = ConsumerProtocolSubscription::decode(&mut reader, 0).ok()?;
    Some(subscription.topics.into_iter().map(|topic| topic.into_owned()).collect())
}
