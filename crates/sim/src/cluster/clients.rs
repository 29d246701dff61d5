//! What clients of a simulated cluster share: how they ask, whom, and where they tell what they saw.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::env::Env;
use base::env::sim::SimRandom;
use parking_lot::Mutex;
use wire::message::metadata_request::MetadataRequestTopic;
use wire::message::{MetadataRequest, MetadataResponse};

use super::history::{History, Place};
use super::node::address;
use crate::connection::{Connection, decode};
use crate::trace::Trace;

/// How long a client waits for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(8);
const METADATA_VERSION: i16 = 12;

/// See the module's head.
pub(crate) struct Clients {
    pub(crate) env: Env,
    pub(crate) nodes: usize,
    pub(crate) trace: Trace,
    pub(crate) history: Mutex<History>,
    /// The first word that the cluster broke.
    broken: Mutex<Option<String>>,
    /// No new work is begun.
    ending: AtomicBool,
    /// A broker may not know what others do.
    isolated: AtomicBool,
    /// Nodes with a damaged disk: what they show may be damaged, too, if that can be told.
    damaged: Mutex<BTreeSet<i32>>,
}

/// Why a conversation ended early.
#[derive(Debug)]
pub(crate) enum Broken {
    /// There was no answer, or one that says to go elsewhere.
    Connection,
    /// The cluster broke its word.
    Word(String),
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Broken {
        Broken::Connection
    }
}

impl From<String> for Broken {
    fn from(word: String) -> Broken {
        Broken::Word(word)
    }
}

impl Clients {
    pub(crate) fn new(env: Env, nodes: usize, trace: Trace) -> Arc<Clients> {
        Arc::new(Clients {
            env,
            nodes,
            trace,
            history: Mutex::default(),
            broken: Mutex::default(),
            ending: AtomicBool::new(false),
            isolated: AtomicBool::new(false),
            damaged: Mutex::default(),
        })
    }

    /// Notes that the cluster broke its word; the first time counts.
    pub(crate) fn accuse(&self, word: String) {
        self.trace.note(format!("BROKEN: {word}"));
        self.broken.lock().get_or_insert(word);
    }

    /// The first word that was broken.
    pub(crate) fn accusation(&self) -> Option<String> {
        self.broken.lock().clone()
    }

    /// Clients work, from now on.
    pub(crate) fn begin(&self) {
        self.ending.store(false, Ordering::Relaxed);
    }

    /// From now on clients finish what they began.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether clients are to finish.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed) || self.broken.lock().is_some()
    }

    pub(crate) fn set_isolated(&self, isolated: bool) {
        self.isolated.store(isolated, Ordering::Relaxed);
    }

    /// Whether a broker may be cut off, so that its answers may be old.
    pub(crate) fn is_isolated(&self) -> bool {
        self.isolated.load(Ordering::Relaxed)
    }

    /// A disk is damaged, or no longer.
    pub(crate) fn set_damaged(&self, node: i32, is_damaged: bool) {
        let mut damaged = self.damaged.lock();
        match is_damaged {
            true => damaged.insert(node),
            false => damaged.remove(&node),
        };
    }

    /// Whether the disk of a node is damaged.
    pub(crate) fn is_damaged(&self, node: i32) -> bool {
        self.damaged.lock().contains(&node)
    }

    pub(crate) async fn sleep_ms(&self, ms: u64) {
        self.env.clock.sleep(Duration::from_millis(ms)).await;
    }

    /// Waits for an answer, but not for ever.
    pub(crate) async fn within<T>(&self, answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.env.clock.sleep(PATIENCE) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    pub(crate) async fn dial(&self, node: i32) -> io::Result<Connection> {
        self.within(Connection::dial(&self.env, &address(node))).await
    }

    /// Any node.
    pub(crate) fn somebody(&self, random: &SimRandom) -> i32 {
        1 + random.below(self.nodes as u64) as i32
    }

    /// Who leads a partition and in which epoch, as some node says it; of epochs before `least` nothing is believed.
    pub(crate) async fn leader(&self, random: &SimRandom, place: &Place, least: i32) -> Option<(i32, i32)> {
        let asked = self.somebody(random);
        let found = self.leader_says(asked, place).await.ok().flatten();
        self.trace.mix(format_args!("{asked} says {place:?} is led by {found:?}"));
        found.filter(|(node, epoch)| *node > 0 && *epoch >= least)
    }

    async fn leader_says(&self, node: i32, (topic, partition): &Place) -> io::Result<Option<(i32, i32)>> {
        let mut connection = self.dial(node).await?;
        let topic = MetadataRequestTopic { name: Some(topic.into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let body = self.within(connection.ask(METADATA_VERSION, &request)).await?;
        let response: MetadataResponse<'_> = decode(&body, METADATA_VERSION)?;
        let rows = response.topics.iter().flat_map(|topic| &topic.partitions);
        let row = rows.into_iter().find(|row| row.partition_index == *partition);
        Ok(row.map(|row| (row.leader_id, row.leader_epoch)))
    }

    /// Whether a node knows a topic; `None` without an answer.
    pub(crate) async fn knows(&self, node: i32, topic: &str) -> Option<bool> {
        let known = async {
            let mut connection = self.dial(node).await?;
            let topic = MetadataRequestTopic { name: Some(topic.into()), ..Default::default() };
            let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
            let body = self.within(connection.ask(METADATA_VERSION, &request)).await?;
            let response: MetadataResponse<'_> = decode(&body, METADATA_VERSION)?;
            io::Result::Ok(response.topics.first().map_or(3, |topic| topic.error_code))
        };
        match known.await.ok()? {
            0 => Some(true),
            // UNKNOWN_TOPIC_OR_PARTITION
            3 => Some(false),
            _ => None,
        }
    }
}
