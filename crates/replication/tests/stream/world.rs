//! Brokers on simulated disks, each with one storage, and leaders that push what they append.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use base::batch::{BatchBuilder, HEADER_LEN};
use base::config::Durability;
use base::env::sim::{CrashPolicy, Sim, SimRandom};
use base::env::{Env, Stream};
use base::ids::{
    BrokerId, Generation, Incarnation, LeaderEpoch, Offset, PartitionId, SegmentId, StorageId,
    TopicPartition, Uuid,
};
use bytes::Bytes;
use parking_lot::Mutex;
use replication::stream::{
    BrokerLife, Directory, FenceRequest, FenceResult, Leading, Links, LinksSpec, MAGIC, PeerAddress, Push,
    PushSink, PushSource, PushTarget, Refused, Replicas, ReplicasSpec, serve,
};
use storage::{Batch, CreateSegment, Patience, Segment, SegmentName, Storage, StorageError, StorageOptions};
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;

use crate::network::FaultyNetwork;

pub(crate) const CLUSTER: Uuid = Uuid([3; 16]);
/// Long enough for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a world in simulated time.
pub(crate) fn simulate<F: Future>(world: impl FnOnce() -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async { world().await })
}

/// Where the brokers are at the moment.
#[derive(Default)]
pub(crate) struct Addresses(Mutex<BTreeMap<BrokerId, PeerAddress>>);

impl Directory for Addresses {
    fn peer(&self, broker: BrokerId) -> Option<PeerAddress> {
        self.0.lock().get(&broker).cloned()
    }
}

impl Addresses {
    pub(crate) fn set(&self, broker: i32, host_port: &str, incarnation: i64) {
        let address = PeerAddress { host_port: host_port.to_owned(), incarnation: Incarnation(incarnation) };
        self.0.lock().insert(BrokerId(broker), address);
    }
}

/// What the brokers share.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) random: SimRandom,
    pub(crate) env: Env,
    pub(crate) network: Arc<FaultyNetwork>,
    pub(crate) addresses: Arc<Addresses>,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let sim = Sim::new(seed);
        let network = FaultyNetwork::new(sim.env.network.clone(), sim.env.clock.clone(), seed ^ 0x55);
        let env = Env { network: network.clone(), ..sim.env.clone() };
        World { seed, random: SimRandom::new(!seed), env, network, addresses: Arc::default() }
    }

    /// A broker with an empty disk.
    pub(crate) async fn broker(&self, id: i32) -> Broker {
        self.broker_that_leads(id, Arc::new(())).await
    }

    pub(crate) async fn broker_that_leads(&self, id: i32, leading: Arc<dyn Leading>) -> Broker {
        let sim = Sim::new(self.seed * 100 + id as u64);
        let env = Env { clock: self.env.clock.clone(), network: self.env.network.clone(), ..sim.env.clone() };
        let storage = open(&env).unwrap();
        let life = BrokerLife { broker: BrokerId(id), incarnation: Incarnation(1) };
        let mut broker = Broker { sim, env, storage: None, life, leading, member: None };
        self.start(&mut broker, storage, SegmentId(0)).await;
        broker
    }

    async fn start(&self, broker: &mut Broker, storage: Arc<Storage>, newest_segment: SegmentId) {
        let replicas = Replicas::new(ReplicasSpec {
            env: broker.env.clone(),
            cluster: CLUSTER,
            life: broker.life,
            newest_segment,
            storages: Arc::new(vec![storage.clone()]),
            leading: broker.leading.clone(),
        });
        let any = "127.0.0.1:0".parse().unwrap();
        let mut listener = broker.env.network.listen(any).await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        self.addresses.set(broker.life.broker.0, &address, broker.life.incarnation.0);
        let serving = replicas.clone();
        let task = tokio::spawn(async move {
            // Dropped with this task, which ends the connections.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, serving.clone()));
            }
        });
        broker.storage = Some(storage);
        broker.member = Some((replicas, task));
    }

    /// Starts a broker again, in its next life, after its process was killed; with a policy its machine lost power.
    pub(crate) async fn restart(
        &self,
        broker: &mut Broker,
        power: Option<CrashPolicy>,
        newest_segment: SegmentId,
    ) -> Arc<Replicas> {
        broker.stop().await;
        match power {
            Some(policy) => broker.sim.disk.crash(policy),
            None => broker.sim.disk.kill(),
        }
        broker.life.incarnation.0 += 1;
        let storage = open(&broker.env).unwrap();
        self.start(broker, storage, newest_segment).await;
        broker.replicas()
    }

    pub(crate) fn links(&self, broker: &Broker) -> Links {
        Links::new(LinksSpec {
            env: broker.env.clone(),
            cluster: CLUSTER,
            life: broker.life,
            directory: self.addresses.clone(),
        })
    }

    pub(crate) async fn sleep_ms(&self, ms: u64) {
        self.env.clock.sleep(Duration::from_millis(ms)).await;
    }

    /// Waits until it holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..60_000 {
            if holds() {
                return;
            }
            self.sleep_ms(2).await;
        }
        panic!("seed {}: never {what}", self.seed);
    }
}

/// What a port does with a connection.
pub(crate) async fn answer(mut stream: Box<dyn Stream>, replicas: Arc<Replicas>) {
    let mut magic = [0; 8];
    if stream.read_exact(&mut magic).await.is_ok() && magic == MAGIC {
        // How it ended does not matter here.
        let _ = serve(stream, replicas).await;
    }
}

pub(crate) fn open(env: &Env) -> Result<Arc<Storage>, StorageError> {
    let options = StorageOptions { sync_journal_bytes: 0, reserve_bytes: 0, ..StorageOptions::default() };
    Storage::open(env.clone(), PathBuf::from("/data"), options)
}

/// One broker.
pub(crate) struct Broker {
    pub(crate) sim: Sim,
    pub(crate) env: Env,
    pub(crate) storage: Option<Arc<Storage>>,
    pub(crate) life: BrokerLife,
    leading: Arc<dyn Leading>,
    member: Option<(Arc<Replicas>, JoinHandle<()>)>,
}

impl Broker {
    pub(crate) fn storage(&self) -> Arc<Storage> {
        self.storage.clone().unwrap()
    }

    pub(crate) fn replicas(&self) -> Arc<Replicas> {
        self.member.as_ref().unwrap().0.clone()
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((_, task)) = self.member.take() {
            task.abort();
            let _ = task.await;
        }
        self.storage = None;
    }

    pub(crate) fn target(&self, led: &Led) -> PushTarget {
        PushTarget {
            broker: self.life.broker,
            storage: self.storage().id(),
            incarnation: self.life.incarnation,
            name: led.name(),
            epoch: led.epoch,
            epochs: vec![(led.epoch, led.segment.base())],
            durability: led.durability,
            snapshot: Bytes::from_static(b"producers"),
        }
    }

    pub(crate) fn fence(&self, led: &Led, epoch: i32) -> FenceRequest {
        FenceRequest {
            name: led.name(),
            storage: self.storage().id(),
            epochs: vec![(led.epoch, led.segment.base())],
            epoch: LeaderEpoch(epoch),
            durability: led.durability,
        }
    }
}

pub(crate) fn partition(number: i32) -> TopicPartition {
    TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionId(number) }
}

pub(crate) fn batch(base: Offset, records: usize, size: usize, epoch: LeaderEpoch) -> Vec<u8> {
    let mut batch = BatchBuilder::new().base_offset(base).leader_epoch(epoch.0);
    for record in 0..records {
        batch.append(5, None, Some(&vec![(base as usize + record) as u8; size]));
    }
    batch.finish().unwrap()
}

pub(crate) fn content(segment: &Segment) -> Bytes {
    let mut from = segment.base();
    let mut content = Vec::new();
    while from < segment.end() {
        let read = segment.read(from, segment.end(), 1 << 20, true).unwrap();
        content.extend_from_slice(&read.bytes);
        from = read.next_offset;
    }
    content.into()
}

/// An open segment on its leader.
pub(crate) struct Led {
    pub(crate) segment: Arc<Segment>,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) durability: Durability,
    pub(crate) high_watermark: AtomicI64,
    pub(crate) heard: Mutex<Heard>,
    /// Looked at with every acknowledgement.
    pub(crate) copies: Mutex<BTreeMap<StorageId, Arc<Replicas>>>,
    /// So many reads find no file handle.
    pub(crate) handles_wanting: AtomicUsize,
}

/// What a leader heard of its pushes.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) acked: BTreeMap<StorageId, Offset>,
    pub(crate) refused: Vec<(StorageId, Refused)>,
    pub(crate) lost: usize,
}

impl Led {
    /// The segment `id` of a partition, which begins at 100 in `epoch`.
    pub(crate) fn new(broker: &Broker, number: i32, id: u64, epoch: i32, durability: Durability) -> Arc<Led> {
        let name = SegmentName {
            topic: "orders".into(),
            partition: partition(number),
            id: SegmentId(id),
            generation: Generation(0),
            base: 100,
        };
        let epoch = LeaderEpoch(epoch);
        let create = CreateSegment { leader_epoch: epoch, snapshot: Bytes::from_static(b"producers") };
        Led::of(broker.storage().create(name, create).unwrap(), epoch, durability)
    }

    pub(crate) fn of(segment: Arc<Segment>, epoch: LeaderEpoch, durability: Durability) -> Arc<Led> {
        let high_watermark = AtomicI64::new(segment.base());
        Arc::new(Led {
            segment,
            epoch,
            durability,
            high_watermark,
            heard: Mutex::default(),
            copies: Mutex::default(),
            handles_wanting: AtomicUsize::new(0),
        })
    }

    pub(crate) fn name(&self) -> SegmentName {
        self.segment.name().clone()
    }

    pub(crate) fn append(&self, records: usize, size: usize) {
        let batch = batch(self.segment.end(), records, size, self.epoch);
        let whole = Batch { header: batch.first_chunk().unwrap(), rest: &batch[HEADER_LEN..] };
        self.segment.append(&[whole]).unwrap();
    }

    pub(crate) fn push(self: &Arc<Self>, links: &Links, to: &Broker) -> Push {
        self.copies.lock().insert(to.storage().id(), to.replicas());
        links.push(to.target(self), self.clone(), self.clone())
    }

    pub(crate) fn acked(&self, storage: StorageId) -> Offset {
        self.heard.lock().acked.get(&storage).copied().unwrap_or(-1)
    }

    pub(crate) fn is_acked_by(&self, broker: &Broker) -> bool {
        self.acked(broker.storage().id()) == self.segment.end()
    }

    /// The copy on a broker, compared with the own one.
    pub(crate) fn check_prefix(&self, replicas: &Replicas) -> Offset {
        let copy = replicas.copy(self.name().partition, self.name().id).unwrap();
        let (ours, theirs) = (content(&self.segment), content(&copy));
        assert!(ours.starts_with(&theirs), "a copy is no prefix");
        copy.end()
    }
}

impl PushSource for Led {
    fn end(&self) -> Offset {
        self.segment.end()
    }

    fn high_watermark(&self) -> Offset {
        self.high_watermark.load(Ordering::Acquire)
    }

    fn read(&self, from: Offset, max_bytes: usize, patience: Patience) -> Result<Bytes, StorageError> {
        let one_less = |wanting: usize| wanting.checked_sub(1);
        if self.handles_wanting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return Err(StorageError::NoHandles { action: "open", path: PathBuf::new().as_path().into() });
        }
        let read = self.segment.read_with(patience, (from, self.segment.end()), max_bytes, true)?;
        Ok(read.bytes)
    }
}

impl PushSink for Led {
    fn acked(&self, storage: StorageId, end: Offset, _: Option<Duration>) {
        if let Some(replicas) = self.copies.lock().get(&storage)
            && let Some(copy) = replicas.copy(self.name().partition, self.name().id)
        {
            let held = match self.durability {
                Durability::Fsync => copy.durable_end(),
                Durability::PageCache => copy.end(),
            };
            assert!(held >= end, "{end} was acknowledged, {held} is held");
        }
        let mut heard = self.heard.lock();
        let acked = heard.acked.entry(storage).or_insert(end);
        *acked = end.max(*acked);
    }

    fn refused(&self, storage: StorageId, refused: Refused) {
        self.heard.lock().refused.push((storage, refused));
    }

    fn lost(&self, _: StorageId) {
        self.heard.lock().lost += 1;
    }
}

/// The end and whether it is authoritative.
pub(crate) fn promised(result: FenceResult) -> (Offset, bool) {
    match result {
        FenceResult::Promised { answer, .. } => (answer.end, answer.authoritative),
        other => panic!("no promise but {other:?}"),
    }
}
