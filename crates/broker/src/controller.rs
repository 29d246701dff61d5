//! What the active controller does by itself: fences brokers that fall silent, ends that for those that come back, has
//! another broker lead what a fenced one led and what one that ends leads, moves leaders back to where they are
//! preferred, and places copies elsewhere when brokers come or leave for good ([`crate::moving`]).
//!
//! [`Watch`] plans, from the metadata and from what was heard; the task around it proposes what is planned. Every
//! controller runs the task, and only the active one hears ([`MetadataStore::sessions`]). A plan that was carried out
//! gives no other, and an edit that came too late is refused by the metadata machine, so that two controllers which
//! both think themselves active do no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::config::{BrokerConfig, keys};
use base::env::Env;
use base::ids::{BrokerId, Incarnation, TopicPartition};
use metadata::{ChainEdit, Command, Image, MetadataStore, MetadataVersions, QuorumState, Sessions};

use crate::elections::{Electorate, election, may_lose, partitions_of, unclean_election};
use crate::moving::{Moving, SETTLED_AFTER};

/// How often it is looked at who was heard.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often where there are not two brokers.
const LONE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A look that comes so late says nothing of others: this process did not run, and heard nobody.
const STOOD_STILL_AFTER: Duration = Duration::from_secs(1);

/// A broker whose connection ended and that does not come back within this time is taken for dead. A live one that lost
/// its connection comes back at once.
const HUNG_UP_PATIENCE: Duration = Duration::from_millis(200);

/// How long an unclean election waits for brokers that may surely have all: they may be about to start.
const UNCLEAN_PATIENCE: Duration = Duration::from_secs(10);

/// Edits in one command: what one entry of the metadata log may hold.
const EDITS_AT_ONCE: usize = 5_000;

/// Leaders that are moved back in one go; the next go follows when that is done.
const MOVED_BACK_AT_ONCE: usize = 1_000;

/// Kafka's default of `leader.imbalance.check.interval.seconds`.
const BALANCE_INTERVAL: Duration = Duration::from_secs(300);

/// What a controller goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerSpec {
    /// `broker.session.timeout.ms`.
    pub session_timeout: Duration,
    /// How often leaders are moved back to where they are preferred (`leader.imbalance.check.interval.seconds`); never
    /// without (`auto.leader.rebalance.enable=false`).
    pub balance_interval: Option<Duration>,
    /// Whether a broker that has nothing gets its share of copies (`vltava.auto.spread.enable`).
    pub spreads: bool,
    /// Whether records may be lost for the sake of a leader, where neither the topic nor all brokers say
    /// (`unclean.leader.election.enable`).
    pub unclean_elections: bool,
}

impl ControllerSpec {
    /// With what Kafka does for everything else.
    pub fn new(session_timeout: Duration) -> ControllerSpec {
        ControllerSpec {
            session_timeout,
            balance_interval: Some(BALANCE_INTERVAL),
            spreads: false,
            unclean_elections: false,
        }
    }

    /// As a node is configured.
    pub fn from_config(config: &BrokerConfig) -> ControllerSpec {
        let interval_s =
            u64::try_from(config.get(keys::LEADER_IMBALANCE_CHECK_INTERVAL_SECONDS)).unwrap_or(1);
        let balances = config.get(keys::AUTO_LEADER_REBALANCE_ENABLE);
        ControllerSpec {
            session_timeout: config.broker_session_timeout(),
            balance_interval: balances.then(|| Duration::from_secs(interval_s)),
            spreads: config.get(keys::AUTO_SPREAD_ENABLE),
            unclean_elections: config.get(keys::UNCLEAN_LEADER_ELECTION_ENABLE),
        }
    }
}

/// Starts the task of a controller; it ends when nobody holds the store any more.
pub fn spawn_controller(env: Env, store: &Arc<dyn MetadataStore>, spec: ControllerSpec) {
    let watch = Watch::new(spec, env.clock.now());
    tokio::spawn(control(env, Arc::downgrade(store), watch));
}

async fn control(env: Env, store: Weak<dyn MetadataStore>, mut watch: Watch) {
    loop {
        let interval = {
            let Some(store) = store.upgrade() else { return };
            // Where one broker is all there is, nobody could take its place.
            if store.image().brokers().nth(1).is_some() { LOOK_INTERVAL } else { LONE_LOOK_INTERVAL }
        };
        let asleep_at = env.clock.now();
        env.clock.sleep(interval).await;
        if env.clock.now().saturating_sub(asleep_at) > interval + STOOD_STILL_AFTER {
            watch.count_anew();
        }
        let Some(store) = store.upgrade() else { return };
        let Some(sessions) = store.sessions() else { continue };
        let raise = raise(&store.image(), || store.quorum());
        for command in raise.into_iter().chain(watch.plan(&store.image(), &sessions, env.clock.now())) {
            tell(&command);
            // What was not done is planned again.
            if let Err(error) = store.propose(command).await {
                tracing::warn!(%error, "the controller cannot change the metadata");
                break;
            }
        }
    }
}

/// Raises what the metadata may hold, once every node is known to serve at it: each controller and each broker, whether it
/// runs now or not, has begun a life with a version that can. Until then an upgraded node serves beside the others at what
/// all of them can.
fn raise(image: &Image, quorum: impl FnOnce() -> QuorumState) -> Option<Command> {
    let newest = MetadataVersions::SUPPORTED.max;
    if image.metadata_version() >= newest {
        return None;
    }
    let can = |broker: &metadata::Broker| broker.registration.metadata_versions.contains(newest);
    let voters = quorum().voters;
    let all = image.brokers().all(|broker| can(broker))
        && voters.iter().all(|voter| image.broker(voter.id).is_some_and(|broker| can(broker)));
    (all && !voters.is_empty()).then_some(Command::SetMetadataVersion(newest))
}

fn tell(command: &Command) {
    match command {
        Command::SetMetadataVersion(version) => {
            tracing::info!(
                version,
                "every node can serve at a later metadata.version: the cluster is raised to it"
            );
        }
        Command::SetFenced { broker, fenced: true, .. } => {
            tracing::warn!(%broker, "the broker does not answer: it is fenced");
        }
        Command::SetFenced { broker, .. } => tracing::info!(%broker, "the broker answers again"),
        Command::Edit(edits) => {
            let elected = edits.iter().filter(|edit| matches!(edit, ChainEdit::Elect { .. })).count();
            let placed = edits.iter().filter(|edit| matches!(edit, ChainEdit::SetPlacement { .. })).count();
            if elected > 0 {
                tracing::info!(partitions = elected, "leaders are elected");
            }
            if placed > 0 {
                tracing::info!(partitions = placed, "copies are wanted elsewhere");
            }
        }
        _ => {}
    }
}

/// A broker's life, as it is waited for.
struct Life {
    incarnation: Incarnation,
    /// When it was first seen in the metadata: it needs a moment to show itself.
    since: Duration,
    /// When it was first seen that its connection had ended.
    hung_up_at: Option<Duration>,
}

/// Who is waited for since when. Times are those of the clock's `now`.
struct Watch {
    spec: ControllerSpec,
    /// The life of each broker.
    lives: BTreeMap<BrokerId, Life>,
    /// The metadata in which no leader had to be replaced.
    settled: Option<u64>,
    /// When it was looked last for leaders to move back.
    balanced_at: Duration,
    moving: Moving,
    /// Partitions that only an unclean election gives a leader, and when that was first seen.
    lost: BTreeMap<TopicPartition, Duration>,
}

impl Watch {
    fn new(spec: ControllerSpec, now: Duration) -> Watch {
        Watch {
            spec,
            lives: BTreeMap::new(),
            settled: None,
            balanced_at: now,
            moving: Moving::default(),
            lost: BTreeMap::new(),
        }
    }

    /// This process stood still, and may have missed signs of life: every broker has its time once more.
    fn count_anew(&mut self) {
        self.lives.clear();
    }

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
        let moves = match commands.is_empty() {
            true => self.moves(image, now),
            // Who lives has changed: planned upon what comes of it.
            false => Vec::new(),
        };
        commands.extend(moves.chunks(EDITS_AT_ONCE).map(|edits| Command::Edit(edits.to_vec())));
        let is_balanced = !self.is_balancing_due(sessions, now);
        if is_balanced && commands.is_empty() && self.settled == Some(image.version) {
            return commands;
        }
        let Elections { needed, wished, lost } =
            elections(image, &fenced, !is_balanced, self.spec.unclean_elections);
        let unclean = self.unclean_elections(lost, now);
        if !is_balanced && wished.len() < MOVED_BACK_AT_ONCE {
            self.balanced_at = now;
        }
        let is_settled = needed.is_empty() && commands.is_empty() && self.lost.is_empty();
        self.settled = is_settled.then_some(image.version);
        let edits: Vec<ChainEdit> = needed.into_iter().chain(unclean).chain(wished).collect();
        commands.extend(edits.chunks(EDITS_AT_ONCE).map(|edits| Command::Edit(edits.to_vec())));
        commands
    }

    /// Where copies are wanted from now on.
    fn moves(&mut self, image: &Image, now: Duration) -> Vec<ChainEdit> {
        let lives = &self.lives;
        let is_settled = |broker: BrokerId| {
            lives.get(&broker).is_some_and(|life| now.saturating_sub(life.since) >= SETTLED_AFTER)
        };
        let spreads = self.spec.spreads;
        self.moving.plan(image, |broker| spreads && is_settled(broker), now)
    }

    /// Those unclean elections that nobody is waited for any more.
    fn unclean_elections(&mut self, lost: Vec<LostPartition>, now: Duration) -> Vec<ChainEdit> {
        self.lost.retain(|id, _| lost.iter().any(|lost| lost.election.partition() == *id));
        let mut due = Vec::new();
        for LostPartition { election, are_all_back } in lost {
            let since = *self.lost.entry(election.partition()).or_insert(now);
            if are_all_back || now.saturating_sub(since) >= UNCLEAN_PATIENCE {
                due.push(election);
            }
        }
        due
    }

    /// A new controller waits one interval, for brokers that are about to come back.
    fn is_balancing_due(&self, sessions: &Sessions, now: Duration) -> bool {
        self.spec.balance_interval.is_some_and(|interval| {
            sessions.active_for >= interval && now.saturating_sub(self.balanced_at) >= interval
        })
    }

    /// Whether a broker is to be taken for dead; `None` when nobody can say.
    fn is_silent(&mut self, broker: &metadata::Broker, sessions: &Sessions, now: Duration) -> Option<bool> {
        let id = broker.registration.broker;
        let incarnation = broker.incarnation;
        let begin = || Life { incarnation, since: now, hung_up_at: None };
        let life = self.lives.entry(id).or_insert_with(begin);
        if life.incarnation != incarnation {
            *life = begin();
        }
        let heard = sessions.heard.get(&id).filter(|heard| heard.incarnation == incarnation);
        if !heard.is_some_and(|heard| heard.hung_up) {
            life.hung_up_at = None;
        }
        match heard {
            Some(heard) if heard.hung_up => {
                let hung_up_at = *life.hung_up_at.get_or_insert(now);
                (now.saturating_sub(hung_up_at) >= HUNG_UP_PATIENCE).then_some(true)
            }
            // One that took its leave shows signs of life until its process has ended.
            Some(heard) if heard.ago < self.spec.session_timeout => Some(broker.draining && broker.fenced),
            // Its signs of life may have gone to the controller before this one.
            _ => {
                let waited = sessions.active_for.min(now.saturating_sub(life.since));
                (waited >= self.spec.session_timeout).then_some(true)
            }
        }
    }
}

/// What is planned.
#[derive(Default)]
struct Elections {
    /// Because the leader is gone, ends, or is where no copies are wanted any more.
    needed: Vec<ChainEdit>,
    /// Because another leader is preferred; at most [`MOVED_BACK_AT_ONCE`].
    wished: Vec<ChainEdit>,
    /// Partitions that somebody can lead who may lack records, and that may lose them.
    lost: Vec<LostPartition>,
}

struct LostPartition {
    election: ChainEdit,
    /// Whoever may know or have more lives, and does not.
    are_all_back: bool,
}

/// Elections for all partitions that should have another leader, where somebody else can lead.
fn elections(image: &Image, fenced: &BTreeSet<BrokerId>, balance: bool, unclean: bool) -> Elections {
    let is_gone = |leader: BrokerId| fenced.contains(&leader) || image.broker(leader).is_none();
    let mut topic_may_lose = (None, false);
    let electorate = Electorate::of(image, |broker| !fenced.contains(&broker.registration.broker));
    let mut elections = Elections::default();
    let all = image.topics().flat_map(|topic| partitions_of(topic).map(move |it| (&topic.name, it)));
    for (topic, (id, state)) in all {
        let waits = is_gone(state.leader) || electorate.is_in_doubt(state);
        let needed = if waits {
            electorate.successor(state)
        } else if electorate.is_ending(state.leader) {
            electorate.heir(&id, state)
        } else {
            electorate.substitute(state).or_else(|| electorate.homecomer(state))
        };
        if let Some(leader) = needed {
            elections.needed.push(election(id, state, leader));
        } else if waits || electorate.is_stranded(state) {
            if topic_may_lose.0 != Some(id.topic_id) {
                topic_may_lose = (Some(id.topic_id), may_lose(image, topic, unclean));
            }
            if topic_may_lose.1
                && let Some(leader) = electorate.salvager(state)
            {
                let are_all_back = waits && electorate.are_all_back(state);
                elections
                    .lost
                    .push(LostPartition { election: unclean_election(id, state, leader), are_all_back });
            }
        } else if balance
            && elections.wished.len() < MOVED_BACK_AT_ONCE
            && let Some(leader) = electorate.preferred(state)
        {
            elections.wished.push(election(id, state, leader));
        }
    }
    elections
}

#[cfg(test)]
mod tests {
    use base::chain::{Member, Seal};
    use base::ids::{LeaderEpoch, PartitionId, TopicPartition, Uuid};
    use metadata::{CommandResult, Heard, MemoryStore, NewTopic, Placement, Registration, VoterState};

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
            metadata_versions: MetadataVersions::SUPPORTED,
            min_insync_replicas: None,
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
        let spec = ControllerSpec { balance_interval: Some(2 * LONG), ..ControllerSpec::new(TIMEOUT) };
        let mut watch = Watch::new(spec, Duration::ZERO);
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
    async fn the_cluster_is_raised_once_every_node_can_serve_at_the_later_version() {
        let store = MemoryStore::default().at_metadata_version(1);
        let quorum = |ids: &[i32]| {
            let voter = |id: &i32| VoterState { id: BrokerId(*id), address: None, log_end: None };
            QuorumState { voters: ids.iter().map(voter).collect(), ..QuorumState::default() }
        };
        let life = async |broker: i32, metadata_versions| {
            let registration = Registration {
                broker: BrokerId(broker),
                listeners: Vec::new(),
                rack: None,
                storages: vec![Uuid([broker as u8; 16])],
                metadata_versions,
                min_insync_replicas: None,
            };
            store.propose(Command::RegisterBroker(registration)).await.unwrap();
        };
        life(1, MetadataVersions::SUPPORTED).await;
        life(2, MetadataVersions::UNTOLD).await;
        assert_eq!(raise(&store.image(), || quorum(&[1])), None, "the second serves at the first alone");
        life(2, MetadataVersions::SUPPORTED).await;
        assert_eq!(raise(&store.image(), || quorum(&[1, 3])), None, "nobody knows what the third can");
        let raised = raise(&store.image(), || quorum(&[1, 2])).expect("all can");
        assert_eq!(raised, Command::SetMetadataVersion(MetadataVersions::SUPPORTED.max));
        store.propose(raised).await.unwrap();
        assert_eq!(raise(&store.image(), || quorum(&[1, 2])), None);
        assert_eq!(store.image().metadata_version(), MetadataVersions::SUPPORTED.max);
    }

    #[tokio::test]
    async fn who_stood_still_waits_before_it_takes_others_for_dead() {
        let store = store(&[&[1, 2]]).await;
        let mut watch = watch(&store);
        let silent = heard(&[(1, 1, 60_000, false), (2, 2, 60_000, false), (3, 3, 60_000, false)]);
        watch.count_anew();
        assert_eq!(watch.plan(&store.image(), &silent, LONG), []);
        assert_eq!(watch.plan(&store.image(), &silent, LONG + TIMEOUT / 2), []);
        assert_ne!(watch.plan(&store.image(), &silent, LONG + TIMEOUT), []);
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
        let all = heard(&[(1, 1, 900, false), (2, 2, 0, false), (3, 3, 0, false)]);
        let hung_up = heard(&[(1, 1, 900, true), (2, 2, 0, false), (3, 3, 0, false)]);
        let soon = LONG.saturating_sub(HUNG_UP_PATIENCE);
        assert_eq!(watch.plan(&store.image(), &hung_up, soon), [], "it may come back");
        assert_eq!(watch.plan(&store.image(), &all, soon), []);
        assert_eq!(watch.plan(&store.image(), &hung_up, soon), [], "and is waited for anew");
        assert_eq!(carry_out(&mut watch, &store, &hung_up).await, (vec![1], vec![2]));
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

    fn all_heard() -> Sessions {
        heard(&[(1, 1, 0, false), (2, 2, 0, false), (3, 3, 0, false)])
    }

    async fn drain(store: &MemoryStore, broker: i32) {
        let drain = Command::Drain { broker: BrokerId(broker), incarnation: Incarnation(i64::from(broker)) };
        assert_eq!(store.propose(drain).await.unwrap(), CommandResult::Items(vec![Ok(())]));
    }

    #[tokio::test]
    async fn what_a_broker_that_ends_leads_goes_to_those_that_stay() {
        let store = store(&[&[1, 2], &[2, 3], &[1], &[3, 1], &[1, 3, 2]]).await;
        let mut watch = watch(&store);
        drain(&store, 1).await;
        // The partition with one copy stays where it is as long as there is a broker.
        assert_eq!(carry_out(&mut watch, &store, &all_heard()).await, (vec![], vec![2, 2, 1, 3, 3]));
        drain(&store, 3).await;
        assert_eq!(carry_out(&mut watch, &store, &all_heard()).await, (vec![], vec![2, 2, 1, 3, 2]));
        // Nobody stays: all stays as it is. Who dies is replaced by one that ends, which is better than nobody.
        drain(&store, 2).await;
        assert_eq!(carry_out(&mut watch, &store, &all_heard()).await, (vec![], vec![2, 2, 1, 3, 2]));
        let silent = heard(&[(1, 1, 0, false), (2, 2, 3_000, false), (3, 3, 0, false)]);
        assert_eq!(carry_out(&mut watch, &store, &silent).await, (vec![2], vec![1, 3, 1, 3, 1]));
    }

    #[tokio::test]
    async fn who_took_its_leave_is_not_let_in_again() {
        let store = store(&[&[2, 3]]).await;
        let mut watch = watch(&store);
        let fence = |broker| {
            let incarnation = Incarnation(i64::from(broker));
            store.propose(Command::SetFenced { broker: BrokerId(broker), incarnation, fenced: true })
        };
        fence(3).await.unwrap();
        assert_eq!(carry_out(&mut watch, &store, &all_heard()).await, (vec![], vec![2]), "it answers");
        drain(&store, 1).await;
        fence(1).await.unwrap();
        assert_eq!(carry_out(&mut watch, &store, &all_heard()).await, (vec![1], vec![2]));
        register(&store, 1).await;
        assert!(!store.image().broker(BrokerId(1)).unwrap().fenced, "a new life");
    }

    #[tokio::test]
    async fn who_ends_keeps_what_too_few_would_hold_without_it() {
        let store = store(&[&[1, 2, 3]]).await;
        let mut watch = watch(&store);
        let changes = vec![("min.insync.replicas".to_owned(), Some("3".to_owned()))];
        store
            .propose(Command::AlterConfigs { resource: metadata::Resource::AllBrokers, changes })
            .await
            .unwrap();
        drain(&store, 1).await;
        assert_eq!(carry_out(&mut watch, &store, &all_heard()).await, (vec![], vec![1]));
    }

    #[tokio::test]
    async fn leaders_go_back_to_where_they_are_preferred_from_time_to_time() {
        let store = store(&[&[1, 2], &[2, 3], &[1]]).await;
        let mut watch = watch(&store);
        let silent = heard(&[(1, 1, 3_000, false), (2, 2, 0, false), (3, 3, 0, false)]);
        assert_eq!(carry_out(&mut watch, &store, &silent).await, (vec![1], vec![2, 2, 1]));
        assert_eq!(carry_out(&mut watch, &store, &all_heard()).await, (vec![], vec![2, 2, 1]));
        let long = |sessions| Sessions { active_for: 2 * LONG, ..sessions };
        assert_eq!(
            watch.plan(&store.image(), &all_heard(), 2 * LONG),
            [],
            "it is not active for long enough"
        );
        let back = watch.plan(&store.image(), &long(all_heard()), 2 * LONG);
        let partition = TopicPartition { topic_id: Uuid([9; 16]), partition: PartitionId(0) };
        let elect = ChainEdit::Elect { partition, leader: BrokerId(1), epoch: LeaderEpoch(2) };
        assert_eq!(back, [Command::Edit(vec![elect])]);
        assert_eq!(watch.plan(&store.image(), &long(all_heard()), 3 * LONG), [], "the next look is later");
    }

    #[tokio::test]
    async fn who_lacks_something_is_not_moved_to() {
        let store = store(&[&[1, 2]]).await;
        let mut watch = watch(&store);
        let partition = TopicPartition { topic_id: Uuid([9; 16]), partition: PartitionId(0) };
        let elect = ChainEdit::Elect { partition, leader: BrokerId(2), epoch: LeaderEpoch(1) };
        store.propose(Command::Edit(vec![elect])).await.unwrap();
        let state = store.image().partition(&partition).unwrap().clone();
        let seal = Seal {
            segment: state.last().id,
            leader_epoch: LeaderEpoch(1),
            end: 10,
            crc: 1,
            bytes: 100,
            holders: vec![Uuid([2; 16])],
            unclean: false,
        };
        let ensemble = crate::elections::open_members(&state).to_vec();
        store
            .propose(Command::Edit(vec![ChainEdit::SealAndOpen { partition, seal, ensemble }]))
            .await
            .unwrap();
        let sessions = Sessions { active_for: 3 * LONG, ..all_heard() };
        assert_eq!(watch.plan(&store.image(), &sessions, 3 * LONG), []);
        let state = store.image().partition(&partition).unwrap().clone();
        let segment = (state.chain[0].id, state.chain[0].generation);
        let copied = ChainEdit::AddReplica { partition, segment, storage: Uuid([1; 16]), crc: 1 };
        store.propose(Command::Edit(vec![copied])).await.unwrap();
        let elect = ChainEdit::Elect { partition, leader: BrokerId(1), epoch: LeaderEpoch(2) };
        assert_eq!(watch.plan(&store.image(), &sessions, 5 * LONG), [Command::Edit(vec![elect])]);
    }

    #[tokio::test]
    async fn a_leader_that_is_not_wanted_leaves_once_another_can_lead() {
        let store = store(&[&[1, 2]]).await;
        let mut watch = watch(&store);
        let partition = TopicPartition { topic_id: Uuid([9; 16]), partition: PartitionId(0) };
        let place = |brokers: &[i32]| {
            let brokers = brokers.iter().copied().map(BrokerId).collect();
            store.propose(Command::Edit(vec![ChainEdit::SetPlacement {
                partition,
                brokers,
                keepers: Vec::new(),
            }]))
        };
        place(&[3]).await.unwrap();
        assert_eq!(carry_out(&mut watch, &store, &all_heard()).await, (vec![], vec![1]));
        place(&[3, 2]).await.unwrap();
        assert_eq!(carry_out(&mut watch, &store, &all_heard()).await, (vec![], vec![2]));
    }

    /// Partition 0 of the topic, as it is.
    fn state(store: &MemoryStore) -> std::sync::Arc<base::chain::PartitionState> {
        store.image().topic("t").unwrap().partitions[0].clone()
    }

    async fn allow_losses(store: &MemoryStore) {
        let changes = vec![("unclean.leader.election.enable".to_owned(), Some("true".to_owned()))];
        let resource = metadata::Resource::Topic("t".to_owned());
        store.propose(Command::AlterConfigs { resource, changes }).await.unwrap();
    }

    /// Carries out what is planned at a time; whether that is anything.
    async fn act(watch: &mut Watch, store: &MemoryStore, sessions: &Sessions, now: Duration) -> bool {
        let plan = watch.plan(&store.image(), sessions, now);
        for command in &plan {
            store.propose(command.clone()).await.unwrap();
        }
        !plan.is_empty()
    }

    #[tokio::test]
    async fn a_leader_that_loses_records_is_elected_where_that_is_allowed_and_nobody_else_came_back() {
        let store = store(&[&[1, 2]]).await;
        let mut watch = watch(&store);
        let partition = TopicPartition { topic_id: Uuid([9; 16]), partition: PartitionId(0) };
        // Broker 2 is left out of the next segment.
        let first = state(&store);
        let seal = Seal {
            segment: first.last().id,
            leader_epoch: LeaderEpoch(0),
            end: 10,
            crc: 1,
            bytes: 100,
            holders: vec![Uuid([1; 16])],
            unclean: false,
        };
        let ensemble =
            vec![Member { broker: BrokerId(1), storage: Uuid([1; 16]), incarnation: Incarnation(1) }];
        let edit = ChainEdit::SealAndOpen { partition, seal, ensemble };
        store.propose(Command::Edit(vec![edit])).await.unwrap();
        let silent = heard(&[(1, 1, 3_000, false), (2, 2, 0, false), (3, 3, 0, false)]);
        act(&mut watch, &store, &silent, LONG).await;
        assert!(!act(&mut watch, &store, &silent, 2 * LONG).await, "it waits for the first one");
        assert_eq!(state(&store).leader, BrokerId(1));
        allow_losses(&store).await;
        assert!(!act(&mut watch, &store, &silent, 2 * LONG).await, "that may be about to start");
        assert!(!act(&mut watch, &store, &silent, 2 * LONG + UNCLEAN_PATIENCE / 2).await);
        assert!(act(&mut watch, &store, &silent, 2 * LONG + UNCLEAN_PATIENCE).await);
        let elected = state(&store);
        assert_eq!(
            (elected.leader, elected.leader_epoch, elected.unclean),
            (BrokerId(2), LeaderEpoch(1), true)
        );
        assert!(!act(&mut watch, &store, &silent, 3 * LONG).await, "it is elected once");
    }

    #[tokio::test]
    async fn members_that_may_have_lost_records_wait_for_one_that_did_not() {
        let store = store(&[&[1, 2]]).await;
        let mut watch = watch(&store);
        let partition = TopicPartition { topic_id: Uuid([9; 16]), partition: PartitionId(0) };
        let doubt = |number| ChainEdit::Doubt {
            partition,
            segment: state(&store).last().id,
            storages: vec![Uuid([number; 16])],
        };
        store.propose(Command::Edit(vec![doubt(2)])).await.unwrap();
        let silent = heard(&[(1, 1, 3_000, false), (2, 2, 0, false), (3, 3, 0, false)]);
        act(&mut watch, &store, &silent, LONG).await;
        assert_eq!(state(&store).leader, BrokerId(1), "broker 2 could not tell where the segment ends");
        assert_eq!(carry_out(&mut watch, &store, &all_heard()).await, (vec![], vec![1]));
        store.propose(Command::Edit(vec![doubt(1)])).await.unwrap();
        assert_eq!(carry_out(&mut watch, &store, &all_heard()).await, (vec![], vec![1]));
        allow_losses(&store).await;
        // Nobody is left who could know more.
        assert!(act(&mut watch, &store, &all_heard(), LONG).await);
        assert!(state(&store).unclean);
        assert!(!act(&mut watch, &store, &all_heard(), 2 * LONG).await);
    }
}
