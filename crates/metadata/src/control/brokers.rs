//! Brokers and the numbers they are given.

use std::sync::Arc;

use base::ids::Incarnation;

use crate::command::Registration;
use crate::image::{Broker, Image};

/// Begins a new life of a broker.
pub(super) fn register(image: &mut Image, registration: Registration) -> Incarnation {
    image.next_incarnation += 1;
    let incarnation = Incarnation(image.next_incarnation);
    image.brokers.insert(registration.broker, Arc::new(Broker { registration, incarnation }));
    incarnation
}

/// Reserves producer ids; the first of them.
pub(super) fn allocate_producer_ids(image: &mut Image, count: i64) -> i64 {
    let first = image.next_producer_id;
    image.next_producer_id += count.max(0);
    first
}
