//! What the cluster has where, and a plan for it; nothing here changes anything.

use std::collections::{BTreeMap, BTreeSet};

use base::ids::BrokerId;
use client::admin::ConfigResource;
use client::{Client, PartitionName, Topics};
use replication::balance::{self, Aim, Host, Load, Spot};

use crate::failure::Outcome;
use crate::output::{Align, Table, bytes, count};

/// The config of all brokers that lists those that leave.
pub(super) const LEAVING: &str = metadata::LEAVING_BROKERS;

/// All partitions and where they are.
pub(super) struct Layout {
    /// Brokers that live and stay.
    pub(super) hosts: Vec<Host>,
    /// Brokers that live.
    pub(super) alive: BTreeSet<BrokerId>,
    pub(super) leaving: BTreeSet<BrokerId>,
    pub(super) partitions: Vec<PartitionName>,
    /// In the order of the partitions.
    pub(super) spots: Vec<Spot>,
}

/// A partition whose placement is to change.
pub(super) struct Move {
    pub(super) partition: PartitionName,
    pub(super) before: Vec<BrokerId>,
    pub(super) after: Vec<BrokerId>,
    /// What is copied, over all brokers that get a copy; `None` where no broker tells.
    pub(super) bytes: Option<u64>,
}

impl Layout {
    pub(super) async fn of(client: &Client) -> Outcome<Layout> {
        let metadata = client.metadata(Topics::All).await?;
        let leaving = leaving(client).await?;
        let staying = metadata.brokers.iter().filter(|(id, _)| !leaving.contains(id));
        let hosts = staying.map(|(id, broker)| Host { broker: *id, rack: broker.rack.clone() }).collect();
        let (mut partitions, mut spots) = (Vec::new(), Vec::new());
        for (number, (name, topic)) in metadata.topics.iter().enumerate() {
            for (index, partition) in &topic.partitions {
                partitions.push(PartitionName::new(name.as_str(), *index));
                let leader = partition.leader.unwrap_or(BrokerId(-1));
                spots.push(Spot { topic: number, brokers: partition.replicas.clone(), leader });
            }
        }
        let alive = metadata.brokers.into_keys().collect();
        Ok(Layout { hosts, alive, leaving, partitions, spots })
    }

    /// What is to move for an aim, once `leaving` leave.
    pub(super) fn plan(&self, leaving: &BTreeSet<BrokerId>, aim: Aim, sizes: &Sizes) -> Vec<Move> {
        let staying = self.hosts.iter().filter(|host| !leaving.contains(&host.broker));
        let hosts: Vec<Host> = staying.cloned().collect();
        let moved = |change: balance::Change| {
            let (partition, before) = (&self.partitions[change.spot], &self.spots[change.spot].brokers);
            let gained = change.brokers.iter().filter(|broker| !before.contains(broker)).count() as u64;
            let size = if gained == 0 { Some(0) } else { sizes.of(partition) };
            Move {
                partition: partition.clone(),
                before: before.clone(),
                after: change.brokers,
                bytes: size.map(|size| size * gained),
            }
        };
        balance::plan(&hosts, leaving, &self.spots, aim).into_iter().map(moved).collect()
    }

    /// The placements once the moves are made.
    pub(super) fn after(&self, moves: &[Move]) -> Vec<Vec<BrokerId>> {
        let moved: BTreeMap<&PartitionName, &Vec<BrokerId>> =
            moves.iter().map(|it| (&it.partition, &it.after)).collect();
        let placement = |(partition, spot): (&PartitionName, &Spot)| {
            moved.get(partition).map_or_else(|| spot.brokers.clone(), |after| (*after).clone())
        };
        self.partitions.iter().zip(&self.spots).map(placement).collect()
    }

    /// A table of what each broker has before and after the moves.
    pub(super) fn print_loads(&self, moves: &[Move]) -> Outcome {
        let ids: BTreeSet<BrokerId> = self
            .alive
            .iter()
            .copied()
            .chain(self.spots.iter().flat_map(|spot| spot.brokers.clone()))
            .collect();
        let all: Vec<Host> = ids.into_iter().map(|broker| Host { broker, rack: None }).collect();
        let before: Vec<_> = self.spots.iter().map(|spot| spot.brokers.clone()).collect();
        let (before, after) = (balance::loads(&all, &before), balance::loads(&all, &self.after(moves)));
        let columns = [
            ("BROKER", Align::Right),
            ("COPIES", Align::Right),
            ("THEN", Align::Right),
            ("PREFERRED LEADER OF", Align::Right),
            ("THEN", Align::Right),
            ("NOTE", Align::Left),
        ];
        let mut table = Table::new(&columns);
        for (host, (before, after)) in all.iter().zip(before.iter().zip(&after)) {
            let Load { copies, preferred } = before;
            let note = match (self.alive.contains(&host.broker), self.leaving.contains(&host.broker)) {
                (_, true) => "leaves",
                (false, false) => "down",
                (true, false) => "",
            };
            table.row([
                host.broker.to_string(),
                copies.to_string(),
                after.copies.to_string(),
                preferred.to_string(),
                after.preferred.to_string(),
                note.to_owned(),
            ]);
        }
        table.print()
    }
}

impl Move {
    /// Why, for people.
    pub(super) fn reason(&self, leaving: &BTreeSet<BrokerId>) -> &'static str {
        let goes = |broker: &&BrokerId| !self.after.contains(broker);
        match self.before.iter().filter(goes).collect::<Vec<_>>()[..] {
            [] => "preferred leaders are spread",
            [..] if self.before.iter().filter(goes).any(|broker| leaving.contains(broker)) => "broker leaves",
            [..] => "copies are spread",
        }
    }
}

/// Prints moves, a line each.
pub(super) fn print_moves(moves: &[Move], leaving: &BTreeSet<BrokerId>) -> Outcome {
    let columns = [
        ("TOPIC", Align::Left),
        ("PARTITION", Align::Right),
        ("BROKERS", Align::Left),
        ("THEN", Align::Left),
        ("COPIES", Align::Right),
        ("WHY", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for it in moves {
        table.row([
            it.partition.topic.to_string(),
            it.partition.partition.to_string(),
            ids(&it.before),
            ids(&it.after),
            it.bytes.map_or_else(|| "?".to_owned(), bytes),
            it.reason(leaving).to_owned(),
        ]);
    }
    table.print()
}

/// `1,2,3`.
pub(super) fn ids(brokers: &[BrokerId]) -> String {
    brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// All bytes of moves, as far as they are known.
pub(super) fn total(moves: &[Move]) -> u64 {
    moves.iter().filter_map(|it| it.bytes).sum()
}

/// `3 partitions, 1,024 bytes`.
pub(super) fn summary(moves: &[Move]) -> String {
    let plural = if moves.len() == 1 { "" } else { "s" };
    format!("{} partition{plural}, {} to copy", count(moves.len() as i64), bytes(total(moves)))
}

/// Brokers that leave.
pub(super) async fn leaving(client: &Client) -> Outcome<BTreeSet<BrokerId>> {
    let configs = client.describe_configs(&ConfigResource::AllBrokers, false).await?;
    let listed = configs.into_iter().find(|entry| entry.name == LEAVING).and_then(|entry| entry.value);
    let listed = listed.unwrap_or_default();
    Ok(listed.split(',').filter_map(|id| id.trim().parse().ok().map(BrokerId)).collect())
}

/// Sizes of partitions and of what brokers have of them, as far as brokers tell.
#[derive(Default)]
pub(super) struct Sizes(BTreeMap<BrokerId, BTreeMap<PartitionName, u64>>);

impl Sizes {
    /// Asks brokers; one that does not tell is left out.
    pub(super) async fn ask(client: &Client, brokers: impl IntoIterator<Item = BrokerId>) -> Sizes {
        let mut sizes = Sizes::default();
        for broker in brokers {
            let Ok(dirs) = client.log_dirs(broker).await else { continue };
            let of_broker = sizes.0.entry(broker).or_default();
            for (partition, size) in dirs.into_iter().flat_map(|dir| dir.partitions) {
                *of_broker.entry(partition).or_default() += size;
            }
        }
        sizes
    }

    /// Bytes of a partition: the most that any broker has of it.
    fn of(&self, partition: &PartitionName) -> Option<u64> {
        self.0.values().filter_map(|sizes| sizes.get(partition).copied()).max()
    }

    /// Bytes that a broker has, if it tells.
    pub(super) fn on(&self, broker: BrokerId) -> Option<u64> {
        Some(self.0.get(&broker)?.values().sum())
    }
}
