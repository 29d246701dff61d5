//! The end of a broker in order: before it stops serving, others lead what it led.
//!
//! ```text
//!  says that it ends (Drain) ─► the controller elects others ─► they ask this broker, too, where its segments end
//!        ─► they open the next ones without it ─► it is needed no more ─► it stops serving ─► it is fenced by its own word
//! ```
//!
//! As it answers until its successors have opened their segments, they find all that it appended, records among it that no
//! other broker had yet: nothing that a producer was told of is lost, with acks=1 neither (replication.md, pitfall 35).
//! What nobody else can lead stays where it is. Everything is bounded by [`PATIENCE`].

use std::time::Duration;

use base::chain::PartitionState;
use base::ids::TopicPartition;
use metadata::{Command, Image, ProposeError};

use crate::broker::Broker;
use crate::elections::{Electorate, open_members, partitions_of};

/// How long others may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the controllers may take to hear that this broker ends: where too few of them live, nothing can be given away.
const HEARD_PATIENCE: Duration = Duration::from_secs(2);

impl Broker {
    /// Has others lead what this broker leads, as far as they can, and waits until they do. Returns whether the controllers
    /// know that it ends.
    pub(crate) async fn hand_over(&self) -> bool {
        let image = self.image();
        let is_other = |broker: &metadata::Broker| !broker.fenced && broker.registration.broker != self.id;
        if !image.brokers().any(|broker| is_other(broker)) || self.metadata.problem().is_some() {
            return false;
        }
        let clock = &self.env.clock;
        let began = clock.now();
        let drain = Command::Drain { broker: self.id, incarnation: self.incarnation };
        let is_known = self.tell_controllers(drain).await;
        let in_order = is_known
            && tokio::select! {
                biased;
                done = self.is_dispensable() => done,
                () = clock.sleep_until(began + PATIENCE) => false,
            };
        let took_ms = clock.now().saturating_sub(began).as_millis();
        if in_order {
            tracing::info!(took_ms, "others lead what this broker led");
        } else {
            tracing::warn!(took_ms, "this broker ends although others do not lead all that it led yet");
        }
        is_known
    }

    /// Says that nobody need wait for this broker any more: it serves nothing now.
    pub(crate) async fn take_leave(&self) {
        let (broker, incarnation) = (self.id, self.incarnation);
        self.tell_controllers(Command::SetFenced { broker, incarnation, fenced: true }).await;
    }

    /// Returns whether they heard it.
    async fn tell_controllers(&self, command: Command) -> bool {
        let heard = tokio::select! {
            biased;
            heard = self.metadata.propose(command) => heard,
            () = self.env.clock.sleep(HEARD_PATIENCE) => Err(ProposeError::Unavailable("no answer in time".to_owned())),
        };
        if let Err(error) = &heard {
            tracing::warn!(%error, "the controllers do not hear that this broker ends");
        }
        heard.is_ok()
    }

    /// Waits until the broker is not needed any more; `false` if nobody will know.
    async fn is_dispensable(&self) -> bool {
        let mut images = self.metadata.subscribe();
        loop {
            let image = images.borrow_and_update().clone();
            if !self.is_needed(&image) {
                return true;
            }
            if images.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Whether others are about to do something for which this broker must live.
    fn is_needed(&self, image: &Image) -> bool {
        let electorate = Electorate::now(image);
        let needs =
            |(id, state): (TopicPartition, &PartitionState)| self.is_needed_for(&electorate, &id, state);
        image.topics().any(|topic| partitions_of(topic).any(needs))
    }

    fn is_needed_for(
        &self,
        electorate: &Electorate<'_>,
        id: &TopicPartition,
        state: &PartitionState,
    ) -> bool {
        if state.leader == self.id {
            return electorate.heir(id, state).is_some();
        }
        if !open_members(state).iter().any(|member| member.broker == self.id) {
            return false;
        }
        // The next segment of a leader that stays is without this broker: it is opened by a new leader at once, by others
        // as soon as they see that this one ends.
        electorate.does_without(self.id, id, state)
    }
}
