//! Seeded random commands: mostly ones that fit the image, some that do not.

use base::chain::{Member, PartitionState, Rewrite, Seal, SegmentEntry, SegmentKind, SegmentState};
use base::env::Random;
use base::env::sim::SimRandom;
use base::ids::{
    BrokerId, Generation, Incarnation, LeaderEpoch, PartitionId, SegmentId, StorageId, TopicId,
    TopicPartition, Uuid,
};

use crate::command::{
    ChainEdit, Command, Endpoint, MetadataVersions, NewTopic, Placement, Registration, Resource,
    StorageHealth,
};
use crate::image::Image;

/// Storages of a broker in tests: two, told from its id.
pub(crate) fn storages(broker: i32) -> Vec<StorageId> {
    [1, 2].map(|number| Uuid([number, broker as u8, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7])).to_vec()
}

pub(crate) fn registration(broker: i32) -> Registration {
    Registration {
        broker: BrokerId(broker),
        listeners: vec![Endpoint { name: "PLAINTEXT".into(), host: "localhost".into(), port: 9092 }],
        rack: (broker % 2 == 0).then(|| format!("rack {broker}")),
        storages: storages(broker),
        metadata_versions: MetadataVersions::SUPPORTED,
        min_insync_replicas: (broker % 3 == 0).then_some(2),
    }
}

pub(crate) fn member(broker: i32, incarnation: i64) -> Member {
    Member { broker: BrokerId(broker), storage: storages(broker)[0], incarnation: Incarnation(incarnation) }
}

pub(crate) fn placements(count: usize, member: Member) -> Vec<Placement> {
    vec![Placement { brokers: vec![member.broker], ensemble: vec![member] }; count]
}

pub(crate) fn topic(name: &str, partitions: usize, member: Member) -> NewTopic {
    let mut id = [3; 16];
    let hash = u64::from(crc_fast::crc32_iscsi(name.as_bytes())) << 32 | name.len() as u64;
    id[..8].copy_from_slice(&hash.to_be_bytes());
    let (name, placements) = (name.to_owned(), placements(partitions, member));
    NewTopic { id: Uuid(id), name, internal: false, placements, configs: Vec::new() }
}

/// Draws commands.
pub(crate) struct Draw(pub(crate) SimRandom);

impl Draw {
    fn one_in(&self, count: u64) -> bool {
        self.0.below(count) == 0
    }

    fn text(&self, pool: &[&str]) -> String {
        pool[self.0.below(pool.len() as u64) as usize].to_owned()
    }

    fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.fill(&mut bytes);
        Uuid(bytes)
    }

    fn member(&self, image: &Image, broker: i32) -> Member {
        let current = image.broker(BrokerId(broker)).map_or(Incarnation(0), |broker| broker.incarnation);
        let stale = i64::from(self.one_in(20));
        Member {
            broker: BrokerId(broker),
            storage: storages(broker)[self.0.below(2) as usize],
            incarnation: Incarnation(current.0 - stale),
        }
    }

    fn broker(&self) -> i32 {
        1 + self.0.below(3) as i32
    }

    fn placements(&self, image: &Image) -> Vec<Placement> {
        let place = |_| {
            let broker = self.broker();
            let mut placement =
                Placement { brokers: vec![BrokerId(broker)], ensemble: vec![self.member(image, broker)] };
            if self.one_in(3) {
                let other = broker % 3 + 1;
                placement.brokers.push(BrokerId(other));
                placement.ensemble.push(self.member(image, other));
            }
            placement
        };
        (0..self.0.below(4)).map(place).collect()
    }

    fn new_topic(&self, image: &Image) -> NewTopic {
        let names = ["a", "b.c", "b_c", "d-e", "f.g.h", "f_g_h", "..", "", "bad name", "_x", "long"];
        let present: Vec<TopicId> = image.topics().map(|topic| topic.id).collect();
        let id = match present.first() {
            Some(id) if self.one_in(8) => *id,
            _ => self.uuid(),
        };
        let configs = match self.one_in(2) {
            true => vec![("min.insync.replicas".to_owned(), self.text(&["1", "2", "x"]))],
            false => Vec::new(),
        };
        NewTopic {
            id,
            name: self.text(&names),
            internal: self.one_in(5),
            placements: self.placements(image),
            configs,
        }
    }

    fn topic_id(&self, image: &Image) -> TopicId {
        let ids: Vec<TopicId> = image.topics().map(|topic| topic.id).collect();
        match ids.is_empty() || self.one_in(10) {
            true => self.uuid(),
            false => ids[self.0.below(ids.len() as u64) as usize],
        }
    }

    fn resource(&self) -> Resource {
        match self.0.below(6) {
            0 | 1 => Resource::Topic(self.text(&["a", "b.c", "d-e", "nobody"])),
            2 => Resource::Broker(BrokerId(self.broker())),
            3 => Resource::AllBrokers,
            4 => Resource::Group("group".to_owned()),
            _ => Resource::ClientMetrics("metrics".to_owned()),
        }
    }

    fn edit(&self, image: &Image) -> ChainEdit {
        let topic_id = self.topic_id(image);
        let partition = TopicPartition { topic_id, partition: PartitionId(self.0.below(4) as i32 - 1) };
        let Some(state) = image.partition(&partition) else { return ChainEdit::Trim { partition, start: 5 } };
        let last = state.last();
        let storages: Vec<StorageId> = match &last.state {
            SegmentState::Open { ensemble } => ensemble.iter().map(|member| member.storage).collect(),
            SegmentState::Sealed { replicas, .. } => replicas.clone(),
        };
        let sealed = state.chain.len() - 1;
        match self.0.below(12) {
            0 => ChainEdit::Trim { partition, start: last.base + self.0.below(20) as i64 - 10 },
            1 | 2 if sealed > 0 => {
                let first = self.0.below(sealed as u64) as usize;
                let run = &state.chain[first..sealed.min(first + 2)];
                let (head, tail) = (&run[0], &run[run.len() - 1]);
                let generation = Generation(head.generation.0 + 1 - u32::from(self.one_in(10)));
                let sealed =
                    SegmentState::Sealed { end: tail.end().unwrap(), crc: 4, bytes: 5, replicas: storages };
                let new = SegmentEntry { generation, state: sealed, ..head.clone() };
                let old = run.iter().map(|e| (e.id, e.generation)).collect();
                let compacted_to = self.0.below(last.base as u64 + 2) as i64;
                let said = LeaderEpoch(state.leader_epoch.0 - i32::from(self.one_in(8)));
                let leader_epoch = (!self.one_in(8)).then_some(said);
                ChainEdit::Replace { partition, rewrite: Rewrite { old, new, compacted_to, leader_epoch } }
            }
            8 if self.one_in(3) => ChainEdit::Doubt { partition, segment: last.id, storages },
            8 if self.one_in(3) => ChainEdit::ElectUnclean {
                partition,
                leader: BrokerId(self.broker()),
                epoch: LeaderEpoch(state.leader_epoch.0 + 1 - i32::from(self.one_in(9))),
            },
            8 => ChainEdit::Elect {
                partition,
                leader: BrokerId(self.broker()),
                epoch: LeaderEpoch(state.leader_epoch.0 + 1 - i32::from(self.one_in(9))),
            },
            9 | 10 if sealed > 0 => {
                let entry = &state.chain[self.0.below(sealed as u64) as usize];
                let SegmentState::Sealed { crc, .. } = entry.state else {
                    unreachable!("only the last is open")
                };
                let segment = (entry.id, entry.generation);
                let storage = self::storages(self.broker())[self.0.below(2) as usize];
                match self.one_in(2) {
                    true => ChainEdit::DropReplica { partition, segment, storage },
                    false => {
                        let crc = crc ^ u32::from(self.one_in(9));
                        ChainEdit::AddReplica { partition, segment, storage, crc }
                    }
                }
            }
            11 => {
                let brokers = (0..self.0.below(3)).map(|_| BrokerId(self.broker())).collect();
                let keepers = (0..self.0.below(2)).map(|_| BrokerId(self.broker())).collect();
                ChainEdit::SetPlacement { partition, brokers, keepers }
            }
            _ => self.seal(image, partition, state, storages),
        }
    }

    /// An end of the open segment, or an unclean one of any.
    fn seal(
        &self,
        image: &Image,
        partition: TopicPartition,
        state: &PartitionState,
        holders: Vec<StorageId>,
    ) -> ChainEdit {
        let unclean = self.one_in(8);
        let entry = match unclean {
            true => &state.chain[self.0.below(state.chain.len() as u64) as usize],
            false => state.last(),
        };
        let end = entry.base + self.0.below(10) as i64;
        let seal = Seal {
            segment: SegmentId(entry.id.0 - u64::from(self.one_in(15))),
            leader_epoch: LeaderEpoch(state.leader_epoch.0 - i32::from(self.one_in(15))),
            end,
            crc: self.0.next_u64() as u32,
            bytes: (end - entry.base) as u64 * 100,
            holders,
            unclean,
        };
        let mut ensemble = vec![self.member(image, state.leader.0)];
        if state.placement.len() > 1 {
            ensemble.push(self.member(image, state.placement[1].0));
        }
        ChainEdit::SealAndOpen { partition, seal, ensemble }
    }

    /// Any command.
    pub(crate) fn command(&self, image: &Image) -> Command {
        match self.0.below(20) {
            0 if self.one_in(4) => Command::SetMetadataVersion(1 + self.0.below(2) as i16),
            0 if self.one_in(4) => Command::AllocateBrokerId { above: BrokerId(self.broker()) },
            0 => Command::Bootstrap { cluster_id: self.uuid() },
            1 => Command::RegisterBroker(registration(self.broker() - i32::from(self.one_in(9)) * 9)),
            2..=4 => Command::CreateTopics((0..self.0.below(3)).map(|_| self.new_topic(image)).collect()),
            5 if self.one_in(3) => Command::DeleteTopics(vec![self.topic_id(image)]),
            5 | 6 => {
                let topic_id = self.topic_id(image);
                let present = image.topic_by_id(topic_id).map_or(0, |topic| topic.partitions.len()) as i32;
                let present = present - i32::from(self.one_in(9));
                Command::CreatePartitions { topic_id, present, placements: self.placements(image) }
            }
            7 | 8 => {
                let value = (!self.one_in(3)).then(|| self.text(&["1", "2", "", "text"]));
                let key = self.text(&["min.insync.replicas", "retention.ms"]);
                Command::AlterConfigs { resource: self.resource(), changes: vec![(key, value)] }
            }
            9 => Command::ElectAll { leader: BrokerId(self.broker()) },
            11 => {
                let broker = self.broker();
                let life = image.broker(BrokerId(broker)).map_or(0, |broker| broker.incarnation.0);
                let incarnation = Incarnation(life - i64::from(self.one_in(9)));
                if self.one_in(5) {
                    return Command::UnregisterBroker { broker: BrokerId(broker) };
                }
                match self.one_in(4) {
                    true => Command::Drain { broker: BrokerId(broker), incarnation },
                    false => {
                        Command::SetFenced { broker: BrokerId(broker), incarnation, fenced: self.one_in(3) }
                    }
                }
            }
            12 => {
                let (broker, other) = (self.broker(), self.one_in(9));
                let storage = storages(broker + i32::from(other))[self.0.below(2) as usize];
                let states = [StorageHealth::Writable, StorageHealth::ReadOnly, StorageHealth::Lost];
                let state = states[self.0.below(3) as usize];
                Command::SetStorageHealth { broker: BrokerId(broker), storage, state }
            }
            10 => Command::AllocateProducerIds { count: self.0.below(2_000) as i64 - 3 },
            _ => Command::Edit((0..self.0.below(4)).map(|_| self.edit(image)).collect()),
        }
    }
}

/// An empty segment entry is of no use; this one is for encodings alone.
pub(crate) fn sealed_entry() -> SegmentEntry {
    SegmentEntry {
        id: SegmentId(u64::MAX),
        kind: SegmentKind::Replicated,
        generation: Generation(u32::MAX),
        base: i64::MAX - 1,
        epochs: vec![(LeaderEpoch(-1), i64::MIN), (LeaderEpoch(i32::MAX), 0)],
        ack_quorum: 3,
        state: SegmentState::Sealed { end: i64::MAX, crc: u32::MAX, bytes: u64::MAX, replicas: storages(2) },
        unclean: true,
    }
}
