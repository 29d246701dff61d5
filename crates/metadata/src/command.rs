//! What may be asked of the metadata store, and what it answers. Plain values; their stored form is in
//! [`crate::record`].

use std::sync::Arc;

use base::chain::{ChainError, Member, PartitionState, Rewrite, Seal};
use base::error::ErrorCode;
use base::ids::{
    BrokerId, Generation, Incarnation, LeaderEpoch, Offset, PartitionId, SegmentId, StorageId, TopicId,
    TopicPartition, Uuid,
};

/// One change, applied whole or refused item by item.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Names the cluster; only the first one counts.
    Bootstrap {
        /// Random id of the cluster.
        cluster_id: Uuid,
    },
    /// As [`Command::Bootstrap`], with the `metadata.version` that the cluster begins at.
    FormatCluster {
        /// Random id of the cluster.
        cluster_id: Uuid,
        /// What the metadata may hold from now on.
        metadata_version: i16,
    },
    /// Raises what the metadata may hold; never lowers it. Whoever proposes it makes sure that every node can read it: who
    /// cannot stops here and says so. Answered with [`CommandResult::Items`], one item.
    SetMetadataVersion(i16),
    /// A broker began a life. Answered with [`CommandResult::Registered`], or with one refused item.
    RegisterBroker(Registration),
    /// New topics, each accepted or refused alone; one that exists with the same id and name is accepted.
    /// Answered with [`CommandResult::Items`].
    CreateTopics(Vec<NewTopic>),
    /// Topics to delete, by id. Answered with [`CommandResult::Items`].
    DeleteTopics(Vec<TopicId>),
    /// More partitions for a topic, which then has `placements` more. Answered with
    /// [`CommandResult::Items`], one item.
    CreatePartitions {
        /// The topic.
        topic_id: TopicId,
        /// Partitions it has now; another number means that somebody else came first.
        present: i32,
        /// One for each new partition.
        placements: Vec<Placement>,
    },
    /// Sets (`Some`) and deletes (`None`) values of one resource. Answered with
    /// [`CommandResult::Items`], one item.
    AlterConfigs {
        /// Whose.
        resource: Resource,
        /// Key and value.
        changes: Vec<(String, Option<String>)>,
    },
    /// Makes `leader` the leader, in a new epoch, of every partition that it leads, or that is placed on it alone and of
    /// whose open segment it is a member.
    /// Answered with [`CommandResult::Count`].
    ElectAll {
        /// The broker.
        leader: BrokerId,
    },
    /// Edits of chains; one that was made already is answered as made. Answered with
    /// [`CommandResult::Chains`].
    Edit(Vec<ChainEdit>),
    /// Fences a life of a broker, or ends that: a fenced one leads nothing new and is in no new ensemble. Answered with
    /// [`CommandResult::Items`], one item.
    SetFenced {
        /// The broker.
        broker: BrokerId,
        /// The life that is meant; one that is over is refused.
        incarnation: Incarnation,
        /// Whether it is fenced from now on.
        fenced: bool,
    },
    /// A life of a broker comes to its end in order: from now on others lead what it can give away, and it is in no new
    /// ensemble of theirs. Its next life begins without. Answered with [`CommandResult::Items`], one item.
    Drain {
        /// The broker.
        broker: BrokerId,
        /// The life that is meant; one that is over is refused.
        incarnation: Incarnation,
    },
    /// Takes a broker off the list for good: one that is fenced, holds no copy and is to hold none. Answered with
    /// [`CommandResult::Items`], one item.
    UnregisterBroker {
        /// The broker.
        broker: BrokerId,
    },
    /// Says what a log directory of a broker is good for. Answered with [`CommandResult::Items`], one item.
    SetStorageHealth {
        /// The broker.
        broker: BrokerId,
        /// The log directory, one that the broker has or had.
        storage: StorageId,
        /// Its state from now on.
        state: StorageHealth,
    },
    /// Reserves a number for a new node: the next one above all that were reserved or registered, and above this one.
    /// Answered with [`CommandResult::FirstId`], or with one refused item.
    AllocateBrokerId {
        /// The largest number of a node that may be registered nowhere, such as that of a controller.
        above: BrokerId,
    },
    /// Reserves ids for idempotent producers. Answered with [`CommandResult::FirstId`], or with one refused
    /// item.
    AllocateProducerIds {
        /// How many, 1 to [`crate::PRODUCER_IDS_PER_COMMAND_MAX`].
        count: i64,
    },
}

/// A broker at the beginning of a life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The broker.
    pub broker: BrokerId,
    /// Where clients and peers reach it.
    pub listeners: Vec<Endpoint>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Its log directories.
    pub storages: Vec<StorageId>,
    /// Which `metadata.version` it can serve at.
    pub metadata_versions: MetadataVersions,
    /// `min.insync.replicas` of its own configuration, for what it leads; `None` where it did not say.
    pub min_insync_replicas: Option<i32>,
}

/// Levels of the metadata's content (`metadata.version`): what may be written into it, so that nodes of two releases run
/// side by side while a cluster is upgraded. The active controller raises the level once every node that is registered can
/// read what comes with it. Commands that came with a level are not refused below it yet.
///
/// 1: as it was before levels were noted. 2: commands are told apart by who proposed them, so that one that is given to two
/// leaders is applied once; the number of a node is given to one process at a time; new nodes are given numbers.
/// 3: a rewrite is refused whose copies are in log directories that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataVersions {
    /// The lowest; 1 or more.
    pub min: i16,
    /// The highest.
    pub max: i16,
}

impl MetadataVersions {
    /// What this version of the program can serve at.
    pub const SUPPORTED: MetadataVersions = MetadataVersions { min: 1, max: 3 };
    /// What a node can that does not say.
    pub const UNTOLD: MetadataVersions = MetadataVersions { min: 1, max: 1 };

    /// Whether a level is among them.
    pub fn contains(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

impl std::fmt::Display for MetadataVersions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// What a log directory is good for (replication.md 2.2). The number is part of the metadata format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StorageHealth {
    /// It takes new segments.
    Writable = 1,
    /// It is nearly full: what is there is served, and new segments go elsewhere as long as they can.
    ReadOnly = 2,
    /// It cannot be used, and may come back with what it holds.
    Failed = 3,
    /// What it held is gone for good.
    Lost = 4,
}

impl StorageHealth {
    /// Whether what is there can be read.
    pub fn can_be_read(self) -> bool {
        matches!(self, StorageHealth::Writable | StorageHealth::ReadOnly)
    }

    /// The state for a stored number; `None` for a state this version does not know.
    pub(crate) fn from_number(number: u32) -> Option<StorageHealth> {
        use StorageHealth::*;
        [Writable, ReadOnly, Failed, Lost].into_iter().find(|state| *state as u32 == number)
    }
}

/// Where a listener is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the listener.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTopic {
    /// Random id, drawn by who asks.
    pub id: TopicId,
    /// Name.
    pub name: String,
    /// Whether only brokers may write to it.
    pub internal: bool,
    /// One for each partition, in order.
    pub placements: Vec<Placement>,
    /// Its own config values.
    pub configs: Vec<(String, String)>,
}

/// Where a partition begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Brokers that shall hold copies; the first leads.
    pub brokers: Vec<BrokerId>,
    /// Members of the first segment.
    pub ensemble: Vec<Member>,
}

/// What has config values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// A topic, by name; its values go with it.
    Topic(String),
    /// One broker.
    Broker(BrokerId),
    /// Every broker.
    AllBrokers,
    /// A consumer group.
    Group(String),
    /// A subscription to client metrics.
    ClientMetrics(String),
}

/// One edit of one chain.
#[derive(Clone, Debug, PartialEq)]
pub enum ChainEdit {
    /// Ends the open segment, opens the next.
    SealAndOpen {
        /// Whose chain.
        partition: TopicPartition,
        /// What is ended, and where.
        seal: Seal,
        /// Members of the next segment.
        ensemble: Vec<Member>,
    },
    /// Raises the log start.
    Trim {
        /// Whose chain.
        partition: TopicPartition,
        /// First offset kept.
        start: Offset,
    },
    /// Puts a rewrite in the place of a run of sealed segments.
    Replace {
        /// Whose chain.
        partition: TopicPartition,
        /// What takes whose place.
        rewrite: Rewrite,
    },
    /// Makes a broker the leader.
    Elect {
        /// Of which partition.
        partition: TopicPartition,
        /// The broker.
        leader: BrokerId,
        /// The epoch in which it leads: the next one.
        epoch: LeaderEpoch,
    },
    /// Makes a broker the leader although it may lack records that were committed; it may end the chain where the best
    /// copy that is left does.
    ElectUnclean {
        /// Of which partition.
        partition: TopicPartition,
        /// The broker.
        leader: BrokerId,
        /// The epoch in which it leads: the next one.
        epoch: LeaderEpoch,
    },
    /// Notes that members of the open segment may have lost records of it.
    Doubt {
        /// Whose chain.
        partition: TopicPartition,
        /// The open segment.
        segment: SegmentId,
        /// The members' storages.
        storages: Vec<StorageId>,
    },
    /// Notes a whole copy of a sealed segment.
    AddReplica {
        /// Whose chain.
        partition: TopicPartition,
        /// Of which segment.
        segment: (SegmentId, Generation),
        /// Where the copy is.
        storage: StorageId,
        /// CRC32C over it.
        crc: u32,
    },
    /// Forgets a copy of a sealed segment, whose file may go then.
    DropReplica {
        /// Whose chain.
        partition: TopicPartition,
        /// Of which segment.
        segment: (SegmentId, Generation),
        /// Where the copy is.
        storage: StorageId,
    },
    /// Says where copies are wanted.
    SetPlacement {
        /// Of which partition.
        partition: TopicPartition,
        /// Brokers that shall hold copies, in the order in which they are preferred as leaders.
        brokers: Vec<BrokerId>,
        /// Other brokers that keep the copies of sealed segments which they have.
        keepers: Vec<BrokerId>,
    },
}

impl ChainEdit {
    /// Whose chain it edits.
    pub fn partition(&self) -> TopicPartition {
        match self {
            ChainEdit::SealAndOpen { partition, .. }
            | ChainEdit::Trim { partition, .. }
            | ChainEdit::Replace { partition, .. }
            | ChainEdit::Elect { partition, .. }
            | ChainEdit::ElectUnclean { partition, .. }
            | ChainEdit::Doubt { partition, .. }
            | ChainEdit::AddReplica { partition, .. }
            | ChainEdit::DropReplica { partition, .. }
            | ChainEdit::SetPlacement { partition, .. } => *partition,
        }
    }
}

/// The answer to a [`Command`].
#[derive(Clone, Debug, PartialEq)]
pub enum CommandResult {
    /// Done, nothing to tell.
    Done,
    /// The number of this life.
    Registered(Incarnation),
    /// One result for each item of the command, in order.
    Items(Vec<Result<(), Refusal>>),
    /// How many were changed.
    Count(usize),
    /// One result for each edit, in order: the partition after it.
    Chains(Vec<Result<Arc<PartitionState>, EditError>>),
    /// First of the ids reserved.
    FirstId(i64),
}

/// Why an item was refused; both parts are fit for clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Kafka's code.
    pub code: ErrorCode,
    /// What is wrong with the item.
    pub message: String,
}

impl Refusal {
    /// A refusal with this code and message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }
}

/// Why a chain was not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The edit does not fit.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The partition does not exist.
    #[error("the partition does not exist")]
    UnknownPartition,
}

/// Number of a partition as an index; `None` for a negative one.
pub(crate) fn index(partition: PartitionId) -> Option<usize> {
    usize::try_from(partition.0).ok()
}
