//! The same over real sockets, files and threads, where nothing runs in the order of a seed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::config::Durability;
use base::env::Env;
use base::ids::{BrokerId, Generation, Incarnation, LeaderEpoch, SegmentId};
use bytes::Bytes;
use replication::stream::{
    BrokerLife, FenceRequest, Links, LinksSpec, Push, PushTarget, Replicas, ReplicasSpec,
};
use storage::{CreateSegment, SegmentName, Storage, StorageOptions};

use crate::world::{Addresses, CLUSTER, Led, PATIENCE, answer, partition, promised};

const PARTITIONS: i32 = 200;
const APPENDS: usize = 5;

struct TempDir(Env, PathBuf);

impl TempDir {
    fn new() -> TempDir {
        let env = Env::os();
        let path = std::env::temp_dir().join(format!("vltava-stream-{}", env.random_uuid()));
        TempDir(env, path)
    }

    fn storage(&self, name: &str) -> Arc<Storage> {
        let options = StorageOptions { reserve_bytes: 0, sync_journal_bytes: 4 << 20, ..Default::default() };
        Storage::open(self.0.clone(), self.1.join(name), options).unwrap()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = self.0.disk.remove_dir_all(&self.1);
    }
}

fn life(broker: i32) -> BrokerLife {
    BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(1) }
}

/// A member that answers on a port.
async fn member(env: &Env, storage: &Arc<Storage>, addresses: &Addresses) -> Arc<Replicas> {
    let replicas = Replicas::new(ReplicasSpec {
        env: env.clone(),
        cluster: CLUSTER,
        life: life(2),
        newest_segment: SegmentId(0),
        storages: Arc::new(vec![storage.clone()]),
        leading: Arc::new(()),
    });
    let mut listener = env.network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    addresses.set(2, &listener.local_address().unwrap().to_string(), 1);
    let serving = replicas.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, serving.clone()));
        }
    });
    replicas
}

fn led(storage: &Arc<Storage>, number: i32, class: Durability) -> Arc<Led> {
    let name = SegmentName {
        topic: "orders".into(),
        partition: partition(number),
        id: SegmentId(10 + number as u64),
        generation: Generation(0),
        base: 100,
    };
    let epoch = LeaderEpoch(5);
    let create = CreateSegment { leader_epoch: epoch, snapshot: Bytes::new() };
    Led::of(storage.create(name, create).unwrap(), epoch, class)
}

#[test]
fn many_partitions_are_pushed_and_fenced() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = TempDir::new();
        let env = dir.0.clone();
        let addresses = Arc::new(Addresses::default());
        let (own, other) = (dir.storage("leader"), dir.storage("member"));
        let replicas = member(&env, &other, &addresses).await;
        let directory = addresses.clone();
        let links = Links::new(LinksSpec { env: env.clone(), cluster: CLUSTER, life: life(1), directory });
        let class = |number| if number % 2 == 0 { Durability::Fsync } else { Durability::PageCache };
        let led: Vec<_> = (0..PARTITIONS).map(|number| led(&own, number, class(number))).collect();
        let target = |led: &Led| PushTarget {
            broker: BrokerId(2),
            storage: other.id(),
            incarnation: Incarnation(1),
            name: led.name(),
            epoch: led.epoch,
            epochs: vec![(led.epoch, 100)],
            durability: led.durability,
            snapshot: Bytes::new(),
        };
        let pushes: Vec<Push> = led
            .iter()
            .map(|led| {
                led.copies.lock().insert(other.id(), replicas.clone());
                links.push(target(led), led.clone(), led.clone())
            })
            .collect();
        for round in 0..APPENDS {
            for (led, push) in led.iter().zip(&pushes) {
                led.append(2, 100 << (round * 2));
                led.high_watermark.store(led.acked(other.id()), Ordering::Release);
                push.wake();
            }
        }
        let deadline = env.clock.now() + Duration::from_secs(60);
        while !led.iter().all(|led| led.acked(other.id()) == led.segment.end()) {
            assert!(env.clock.now() < deadline, "not all was acknowledged");
            env.clock.sleep(Duration::from_millis(5)).await;
        }
        let fences = led.iter().map(|led| {
            let fence = FenceRequest {
                name: led.name(),
                storage: other.id(),
                epochs: vec![(led.epoch, 100)],
                epoch: LeaderEpoch(6),
                durability: led.durability,
            };
            links.fence(BrokerId(2), fence, PATIENCE)
        });
        let answers = futures::future::join_all(fences).await;
        for (led, answer) in led.iter().zip(answers) {
            assert_eq!(promised(answer.unwrap()), (led.segment.end(), true));
            assert_eq!(led.check_prefix(&replicas), led.segment.end());
            assert!(led.heard.lock().refused.is_empty());
        }
        drop((pushes, links));
    });
}
