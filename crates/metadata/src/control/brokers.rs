//! Brokers and the numbers they are given.

use std::sync::Arc;

use base::error::ErrorCode;
use base::ids::{BrokerId, Incarnation, StorageId};

use crate::command::{Refusal, Registration, Resource, StorageHealth};
use crate::image::{Broker, Image};
use crate::residence::{LEAVING_BROKERS, Residence};

/// From this `metadata.version` on a number is not taken over from a process that lives.
const ONE_PROCESS_PER_NUMBER: i16 = 2;

/// Most producer ids that one command may reserve: what a mistaken count can waste.
pub const PRODUCER_IDS_PER_COMMAND_MAX: i64 = 1_000_000;

/// Begins a new life of a broker. A repeated command begins another one, which is harmless: the broker
/// takes the number it is told last.
pub(super) fn register(image: &mut Image, registration: Registration) -> Result<Incarnation, Refusal> {
    if registration.broker.0 < 0 {
        let message = format!("A broker id is 0 or more, not {}.", registration.broker);
        return Err(Refusal::new(ErrorCode::InvalidRegistration, message));
    }
    let version = image.metadata_version();
    if version >= ONE_PROCESS_PER_NUMBER {
        check_metadata_version(&registration, version)?;
        check_is_free(image, &registration)?;
    }
    image.next_incarnation += 1;
    let incarnation = Incarnation(image.next_incarnation);
    let mut storages =
        image.broker(registration.broker).map(|known| known.storages.clone()).unwrap_or_default();
    // One that it does not bring along may come back, unless it is known to be gone.
    storages.values_mut().filter(|state| **state != StorageHealth::Lost).for_each(|state| {
        *state = StorageHealth::Failed;
    });
    storages.extend(registration.storages.iter().map(|storage| (*storage, StorageHealth::Writable)));
    let broker = Broker { registration, incarnation, fenced: false, draining: false, storages };
    image.brokers.insert(broker.registration.broker, Arc::new(broker));
    Ok(incarnation)
}

/// Refuses a broker that cannot read what the metadata may hold.
fn check_metadata_version(registration: &Registration, version: i16) -> Result<(), Refusal> {
    let supported = registration.metadata_versions;
    if supported.contains(version) {
        return Ok(());
    }
    let message = format!(
        "The cluster is at metadata.version {version}, and broker {} serves at {supported}: start a version that serves at \
         {version}.",
        registration.broker
    );
    Err(Refusal::new(ErrorCode::UnsupportedVersion, message))
}

/// Refuses a broker whose number another process has, as long as that one is not fenced. Who brings a log directory of
/// the last life is the same node: a directory is open in one process at a time.
fn check_is_free(image: &Image, registration: &Registration) -> Result<(), Refusal> {
    let Some(known) = image.broker(registration.broker).filter(|known| !known.fenced) else { return Ok(()) };
    let before = &known.registration.storages;
    if before.iter().any(|storage| registration.storages.contains(storage)) {
        return Ok(());
    }
    let at = known.registration.listeners.first().map(|at| format!(" at {}:{}", at.host, at.port));
    let message = format!(
        "Broker {} is another process{}, with other log directories, which is not known to have ended.",
        registration.broker,
        at.unwrap_or_default()
    );
    Err(Refusal::new(ErrorCode::DuplicateBrokerRegistration, message))
}

/// Reserves a number for a new broker.
pub(super) fn allocate_id(image: &mut Image, above: BrokerId) -> Result<BrokerId, Refusal> {
    let last = image.brokers().map(|broker| broker.registration.broker).max();
    let next = [Some(above), last].into_iter().flatten().map(|id| i64::from(id.0) + 1).max();
    let next = next.unwrap_or(0).max(i64::from(image.next_broker_id)).max(0);
    let id = i32::try_from(next).ok().filter(|id| *id < i32::MAX).ok_or_else(|| {
        Refusal::new(ErrorCode::InvalidRequest, "No broker ids are left: the largest is in use.")
    })?;
    image.next_broker_id = id + 1;
    Ok(BrokerId(id))
}

/// Fences a life of a broker or ends that.
pub(super) fn set_fenced(
    image: &mut Image,
    id: BrokerId,
    incarnation: Incarnation,
    fenced: bool,
) -> Result<(), Refusal> {
    life(image, id, incarnation)?.fenced = fenced;
    Ok(())
}

/// Notes that a life of a broker comes to its end.
pub(super) fn drain(image: &mut Image, id: BrokerId, incarnation: Incarnation) -> Result<(), Refusal> {
    life(image, id, incarnation)?.draining = true;
    Ok(())
}

/// A broker in this life.
fn life(image: &mut Image, id: BrokerId, incarnation: Incarnation) -> Result<&mut Broker, Refusal> {
    let broker = image.brokers.get_mut(&id).ok_or_else(|| unknown(id))?;
    if broker.incarnation != incarnation {
        let message = format!("Broker {id} lives its life {} and not {incarnation}.", broker.incarnation);
        return Err(Refusal::new(ErrorCode::StaleBrokerEpoch, message));
    }
    Ok(Arc::make_mut(broker))
}

/// Notes what a storage is good for.
pub(super) fn set_storage_health(
    image: &mut Image,
    id: BrokerId,
    storage: StorageId,
    state: StorageHealth,
) -> Result<(), Refusal> {
    let broker = image.brokers.get_mut(&id).ok_or_else(|| unknown(id))?;
    if !broker.storages.contains_key(&storage) {
        let message = format!("Broker {id} has no log directory {storage}.");
        return Err(Refusal::new(ErrorCode::LogDirNotFound, message));
    }
    Arc::make_mut(broker).storages.insert(storage, state);
    Ok(())
}

/// Takes a broker off the list. What was set for it goes with it, so that another one with its number begins anew.
pub(super) fn unregister(image: &mut Image, id: BrokerId) -> Result<(), Refusal> {
    let broker = image.broker(id).ok_or_else(|| unknown(id))?;
    let fenced = broker.fenced;
    let left = Residence::of(image, id);
    if !left.is_empty() {
        let message = format!("Broker {id} cannot go yet: {left}.");
        return Err(Refusal::new(ErrorCode::ReassignmentInProgress, message));
    }
    if !fenced {
        let message = format!("Broker {id} holds nothing any more, but it runs: stop it first.");
        return Err(Refusal::new(ErrorCode::DuplicateBrokerRegistration, message));
    }
    image.brokers.remove(&id);
    image.configs.remove(&Resource::Broker(id));
    let leaving: Vec<String> =
        image.leaving().into_iter().filter(|other| *other != id).map(|other| other.to_string()).collect();
    let value = (!leaving.is_empty()).then(|| leaving.join(","));
    super::configs::alter(image, Resource::AllBrokers, vec![(LEAVING_BROKERS.to_owned(), value)])
}

fn unknown(id: BrokerId) -> Refusal {
    Refusal::new(ErrorCode::BrokerIdNotRegistered, format!("Broker {id} is not registered."))
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
