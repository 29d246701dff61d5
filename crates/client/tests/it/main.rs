//! The client against our own broker, on a simulated machine and in simulated time.

mod admin;
mod groups;

use std::future::Future;
use std::time::Duration;

use client::{Client, ClientConfig, PartitionName, Producer, ProducerConfig, ProducerRecord};
use sim::{Life, World};

const ADDRESS: &str = "127.0.0.1:9092";
const SECOND: Duration = Duration::from_secs(1);

/// Runs a test on a machine with a broker.
fn with_broker<F: Future<Output = ()>>(test: impl FnOnce(Machine) -> F) {
    sim::run(async {
        let world =
            World::new(1, 1, &["listeners=PLAINTEXT://127.0.0.1:9092", "group.initial.rebalance.delay.ms=0"]);
        let life = world.start().await.expect("an empty disk");
        let client = Client::connect(&world.sim.env, ClientConfig::new([ADDRESS])).await.expect("it listens");
        test(Machine { world, life, client }).await;
    });
}

/// A machine, the broker's life on it, and a client.
struct Machine {
    world: World,
    life: Life,
    client: Client,
}

impl Machine {
    /// A topic with that many partitions, and in each of them the numbers below `records`.
    async fn topic(&self, name: &str, partitions: i32, records: usize) -> Vec<PartitionName> {
        let topic =
            client::admin::NewTopic { partitions: Some(partitions), ..client::admin::NewTopic::named(name) };
        let created = self.client.create_topics(&[topic], false).await.expect("an answer");
        for result in created {
            result.expect("a new topic");
        }
        self.fill(name, partitions, records).await;
        (0..partitions).map(|partition| PartitionName::new(name, partition)).collect()
    }

    async fn fill(&self, name: &str, partitions: i32, records: usize) {
        let producer = Producer::new(&self.client, ProducerConfig::default());
        for number in 0..records {
            let value = number.to_string();
            for partition in 0..partitions {
                let record = ProducerRecord {
                    partition: Some(partition),
                    ..ProducerRecord::value(name, value.as_bytes())
                };
                producer.send(record).await.expect("room");
            }
        }
        producer.flush().await.expect("acknowledged");
    }
}
