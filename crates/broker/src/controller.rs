//! What the active controller does by itself: fences brokers that fall silent, ends that for those that come back, and
//! has another broker lead what a fenced one led.
//!
//! [`Watch`] plans, from the metadata and from what was heard; the task around it proposes what is planned. Every
//! controller runs the task, and only the active one hears ([`MetadataStore::sessions`]). A plan that was carried out
//! gives no other, and an edit that came too late is refused by the metadata machine, so that two controllers which
//! both think themselves active do no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::chain::{PartitionState, SegmentEntry, SegmentState};
use base::env::Env;
use base::ids::{BrokerId, Incarnation, LeaderEpoch, PartitionId, TopicPartition};
use metadata::{ChainEdit, Command, Image, MetadataStore, Sessions};
use replication::placement::{Candidate, next_leader};

use crate::peers::candidates;

/// How often it is looked at who was heard.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A broker whose connection ended and that does not come back within this time is taken for dead. A live one that lost
/// its connection comes back at once.
const HUNG_UP_PATIENCE: Duration = Duration::from_millis(200);

/// Elections in one command: what one entry of the metadata log may hold.
const ELECTIONS_AT_ONCE: usize = 5_000;

/// Starts the task of a controller; it ends when nobody holds the store any more. `session_timeout` is
/// `broker.session.timeout.ms`.
pub fn spawn_controller(env: Env, store: &Arc<dyn MetadataStore>, session_timeout: Duration) {
    tokio::spawn(control(env, Arc::downgrade(store), session_timeout));
}

async fn control(env: Env, store: Weak<dyn MetadataStore>, session_timeout: Duration) {
    let mut watch = Watch { session_timeout, lives: BTreeMap::new() };
    loop {
        env.clock.sleep(LOOK_INTERVAL).await;
        let Some(store) = store.upgrade() else { return };
        let Some(sessions) = store.sessions() else { continue };
        for command in watch.plan(&store.image(), &sessions, env.clock.now()) {
            tell(&command);
            // What was not done is planned again.
            if let Err(error) = store.propose(command).await {
                tracing::warn!(%error, "the controller cannot change the metadata");
                break;
            }
        }
    }
}

fn tell(command: &Command) {
    match command {
        Command::SetFenced { broker, fenced: true, .. } => {
            tracing::warn!(%broker, "the broker does not answer: it is fenced");
        }
        Command::SetFenced { broker, .. } => tracing::info!(%broker, "the broker answers again"),
        Command::Edit(edits) => tracing::info!(partitions = edits.len(), "leaders are elected"),
        _ => {}
    }
}

/// Who is waited for since when. Times are those of the clock's `now`.
struct Watch {
    session_timeout: Duration,
    /// The life of each broker, and when it was first seen in the metadata: it needs a moment to show itself.
    lives: BTreeMap<BrokerId, (Incarnation, Duration)>,
}

impl Watch {
    /// What is to be changed, in order.
    fn plan(&mut self, image: &Image, sessions: &Sessions, now: Duration) -> Vec<Command> {
        let mut fenced = BTreeSet::new();
        let mut commands = Vec::new();
        for broker in image.brokers() {
            let id = broker.registration.broker;
            let should = self.is_silent(broker, sessions, now).unwrap_or(broker.fenced);
            if should {
                fenced.insert(id);
            }
            if should != broker.fenced {
                let incarnation = broker.incarnation;
                commands.push(Command::SetFenced { broker: id, incarnation, fenced: should });
            }
        }
        if !fenced.is_empty() {
            commands.extend(elections(image, &fenced));
        }
        commands
    }

    /// Whether a broker is to be taken for dead; `None` when nobody can say.
    fn is_silent(&mut self, broker: &metadata::Broker, sessions: &Sessions, now: Duration) -> Option<bool> {
        let id = broker.registration.broker;
        let life = self.lives.entry(id).or_insert((broker.incarnation, now));
        if life.0 != broker.incarnation {
            *life = (broker.incarnation, now);
        }
        let heard = sessions.heard.get(&id).filter(|heard| heard.incarnation == broker.incarnation);
        match heard {
            Some(heard) if heard.hung_up => (heard.ago >= HUNG_UP_PATIENCE).then_some(true),
            Some(heard) if heard.ago < self.session_timeout => Some(false),
            // Its signs of life may have gone to the controller before this one.
            _ => {
                let waited = sessions.active_for.min(now.saturating_sub(life.1));
                (waited >= self.session_timeout).then_some(true)
            }
        }
    }
}

/// Elections for all partitions whose leaders are fenced, where somebody else can lead.
fn elections(image: &Image, fenced: &BTreeSet<BrokerId>) -> Vec<Command> {
    let is_gone = |leader: BrokerId| fenced.contains(&leader) || image.broker(leader).is_none();
    let mut edits = Vec::new();
    let mut alive = None;
    for topic in image.topics() {
        for (number, state) in topic.partitions.iter().enumerate() {
            if !is_gone(state.leader) {
                continue;
            }
            let alive = alive.get_or_insert_with(|| {
                candidates(image, |broker| !fenced.contains(&broker.registration.broker))
            });
            let Some(leader) = next_leader(state, &members(image, state, alive), &[]) else { continue };
            let partition = PartitionId(i32::try_from(number).unwrap_or(i32::MAX));
            edits.push(ChainEdit::Elect {
                partition: TopicPartition { topic_id: topic.id, partition },
                leader,
                epoch: LeaderEpoch(state.leader_epoch.0 + 1),
            });
        }
    }
    edits.chunks(ELECTIONS_AT_ONCE).map(|edits| Command::Edit(edits.to_vec())).collect()
}

/// Those of them that are members of the open segment and lack least of the sealed ones: who has nothing of the open one
/// cannot lead without a copy of it, and who lacks others must fetch them first.
fn members(image: &Image, state: &PartitionState, alive: &[Candidate]) -> Vec<Candidate> {
    let SegmentState::Open { ensemble } = &state.last().state else { return Vec::new() };
    let is_member = |candidate: &&Candidate| ensemble.iter().any(|member| member.broker == candidate.broker);
    let lacks = |candidate: &Candidate| {
        let Some(broker) = image.broker(candidate.broker) else { return usize::MAX };
        let has = |entry: &&SegmentEntry| broker.storages.keys().any(|storage| entry.is_on(*storage));
        state.chain.iter().filter(|entry| !entry.is_open() && !has(entry)).count()
    };
    let mut members: Vec<(usize, Candidate)> =
        alive.iter().filter(is_member).map(|candidate| (lacks(candidate), candidate.clone())).collect();
    let least = members.iter().map(|(lacks, _)| *lacks).min();
    members.retain(|(lacks, _)| Some(*lacks) == least);
    members.into_iter().map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use base::chain::Member;
    use base::ids::Uuid;
    use metadata::{CommandResult, Heard, MemoryStore, NewTopic, Placement, Registration};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(3);
    const LONG: Duration = Duration::from_secs(60);

    /// Brokers 1 to 3, and a topic of one partition for each list of brokers.
    async fn store(partitions: &[&[i32]]) -> MemoryStore {
        let store = MemoryStore::default();
        for broker in 1..=3 {
            register(&store, broker).await;
        }
        let member = |broker: &i32| Member {
            broker: BrokerId(*broker),
            storage: Uuid([*broker as u8; 16]),
            incarnation: Incarnation(i64::from(*broker)),
        };
        let placement = |brokers: &&[i32]| Placement {
            brokers: brokers.iter().copied().map(BrokerId).collect(),
            ensemble: brokers.iter().map(member).collect(),
        };
        let topic = NewTopic {
            id: Uuid([9; 16]),
            name: "t".into(),
            placements: partitions.iter().map(placement).collect(),
            configs: Vec::new(),
            internal: false,
        };
        let created = store.propose(Command::CreateTopics(vec![topic])).await.unwrap();
        assert_eq!(created, CommandResult::Items(vec![Ok(())]));
        store
    }

    async fn register(store: &MemoryStore, broker: i32) {
        let registration = Registration {
            broker: BrokerId(broker),
            listeners: Vec::new(),
            rack: None,
            storages: vec![Uuid([broker as u8; 16])],
        };
        store.propose(Command::RegisterBroker(registration)).await.unwrap();
    }

    fn heard(rows: &[(i32, i64, u64, bool)]) -> Sessions {
        let row = |(broker, incarnation, ago_ms, hung_up): &(i32, i64, u64, bool)| {
            let ago = Duration::from_millis(*ago_ms);
            (BrokerId(*broker), Heard { incarnation: Incarnation(*incarnation), ago, hung_up: *hung_up })
        };
        Sessions { active_for: LONG, heard: rows.iter().map(row).collect() }
    }

    /// One that has seen all lives of now long ago.
    fn watch(store: &MemoryStore) -> Watch {
        let mut watch = Watch { session_timeout: TIMEOUT, lives: BTreeMap::new() };
        watch.plan(&store.image(), &heard(&[]), Duration::ZERO);
        watch
    }

    /// Carries the plan out and returns who is fenced and who leads then.
    async fn carry_out(watch: &mut Watch, store: &MemoryStore, sessions: &Sessions) -> (Vec<i32>, Vec<i32>) {
        for command in watch.plan(&store.image(), sessions, LONG) {
            store.propose(command).await.unwrap();
        }
        let image = store.image();
        assert_eq!(watch.plan(&image, sessions, LONG), [], "nothing is left to do");
        let fenced = image.brokers().filter(|broker| broker.fenced);
        let topic = image.topic("t").unwrap();
        (
            fenced.map(|broker| broker.registration.broker.0).collect(),
            topic.partitions.iter().map(|state| state.leader.0).collect(),
        )
    }

    #[tokio::test]
    async fn what_a_silent_broker_led_another_member_leads() {
        let store = store(&[&[1, 2], &[2, 3], &[1], &[3, 1]]).await;
        let mut watch = watch(&store);
        let all = heard(&[(1, 1, 50, false), (2, 2, 2_999, false), (3, 3, 0, false)]);
        assert_eq!(watch.plan(&store.image(), &all, LONG), []);
        let silent = heard(&[(1, 1, 3_000, false), (2, 2, 0, false), (3, 3, 0, false)]);
        // The partition with one copy has nobody else.
        assert_eq!(carry_out(&mut watch, &store, &silent).await, (vec![1], vec![2, 2, 1, 3]));
        assert_eq!(carry_out(&mut watch, &store, &all).await, (vec![], vec![2, 2, 1, 3]));
    }

    #[tokio::test]
    async fn who_hung_up_is_not_waited_for() {
        let store = store(&[&[1, 2]]).await;
        let mut watch = watch(&store);
        let hung_up = |ago| heard(&[(1, 1, ago, true), (2, 2, 0, false), (3, 3, 0, false)]);
        assert_eq!(watch.plan(&store.image(), &hung_up(100), LONG), []);
        assert_eq!(carry_out(&mut watch, &store, &hung_up(200)).await, (vec![1], vec![2]));
    }

    #[tokio::test]
    async fn a_new_controller_waits_for_signs_of_life() {
        let store = store(&[&[1, 2]]).await;
        let mut watch = watch(&store);
        let young = Sessions { active_for: Duration::from_millis(2_999), ..heard(&[(2, 2, 0, false)]) };
        assert_eq!(watch.plan(&store.image(), &young, LONG), []);
        let sessions = Sessions { active_for: TIMEOUT, ..young };
        assert_eq!(carry_out(&mut watch, &store, &sessions).await, (vec![1, 3], vec![2]));
    }

    #[tokio::test]
    async fn a_new_life_has_time_to_show_itself_and_the_one_before_does_not_count() {
        let store = store(&[&[1, 2]]).await;
        let mut watch = watch(&store);
        register(&store, 1).await;
        let sessions = heard(&[(1, 1, 0, false), (2, 2, 0, false), (3, 3, 0, false)]);
        assert_eq!(watch.plan(&store.image(), &sessions, LONG), []);
        let soon = LONG + Duration::from_millis(2_999);
        assert_eq!(watch.plan(&store.image(), &sessions, soon), []);
        assert_ne!(watch.plan(&store.image(), &sessions, LONG + TIMEOUT), []);
    }
}
