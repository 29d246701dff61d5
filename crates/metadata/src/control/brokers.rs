//! Brokers and the numbers they are given.

use std::sync::Arc;

use base::error::ErrorCode;
use base::ids::Incarnation;

use crate::command::{Refusal, Registration};
use crate::image::{Broker, Image};

/// Most producer ids that one command may reserve: what a mistaken count can waste.
pub const PRODUCER_IDS_PER_COMMAND_MAX: i64 = 1_000_000;

/// Begins a new life of a broker. A repeated command begins another one, which is harmless: the broker
/// takes the number it is told last.
pub(super) fn register(image: &mut Image, registration: Registration) -> Result<Incarnation, Refusal> {
    if registration.broker.0 < 0 {
        let message = format!("A broker id is 0 or more, not {}.", registration.broker);
        return Err(Refusal::new(ErrorCode::InvalidRegistration, message));
    }
    image.next_incarnation += 1;
    let incarnation = Incarnation(image.next_incarnation);
    image.brokers.insert(registration.broker, Arc::new(Broker { registration, incarnation }));
    Ok(incarnation)
}

/// Reserves producer ids; the first of them.
pub(super) fn allocate_producer_ids(image: &mut Image, count: i64) -> Result<i64, Refusal> {
    if !(1..=PRODUCER_IDS_PER_COMMAND_MAX).contains(&count) {
        let message =
            format!("1 to {PRODUCER_IDS_PER_COMMAND_MAX} producer ids are reserved at once, not {count}.");
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    let first = image.next_producer_id;
    image.next_producer_id = first
        .checked_add(count)
        .ok_or_else(|| Refusal::new(ErrorCode::InvalidRequest, "No producer ids are left."))?;
    Ok(first)
}
