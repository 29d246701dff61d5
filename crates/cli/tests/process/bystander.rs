//! A client with nothing to do with what a server suffers: how long its records take, alone and beside it.

use std::time::{Duration, Instant};

use client::admin::NewTopic;
use client::{Client, Producer, ProducerConfig, ProducerRecord};

use crate::server::Home;

/// Records whose way is measured.
const MEASURED: usize = 500;
/// What the median may grow to, and by so much in any case: a scheduler's turn.
const SLOWDOWN_MAX: u32 = 2;
const SLOWDOWN_FREE: Duration = Duration::from_millis(1);
const TOPIC: &str = "beside";

/// The client, and what its records took while it was alone.
pub(crate) struct Bystander {
    client: Client,
    alone: Latencies,
}

/// How long records took, shortest first.
pub(crate) struct Latencies(Vec<Duration>);

impl Bystander {
    /// Makes a topic and measures. What an acknowledgement costs on the disk would hide what it costs beside
    /// others, so the topic is of the class page-cache.
    pub(crate) async fn new(home: &Home) -> Bystander {
        let client = home.client().await;
        let configs = vec![("vltava.durability".to_owned(), "page-cache".to_owned())];
        let topic = NewTopic { configs, ..NewTopic::named(TOPIC) };
        client.create_topics(&[topic], false).await.expect("an answer").remove(0).expect("a new topic");
        // The first time warms everything up.
        latencies(&client).await;
        let alone = latencies(&client).await;
        Bystander { client, alone }
    }

    /// How long records take now.
    pub(crate) async fn latencies(&self) -> Latencies {
        latencies(&self.client).await
    }

    /// Fails when they take much longer than alone.
    pub(crate) fn assert_unharmed(&self, beside: &Latencies) {
        println!("produce alone {}, beside others {beside}", self.alone);
        assert!(beside.median() <= self.alone.median() * SLOWDOWN_MAX + SLOWDOWN_FREE);
    }
}

/// Each is sent when the one before is acknowledged.
async fn latencies(client: &Client) -> Latencies {
    let config = ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() };
    let producer = Producer::new(client, config);
    let mut times = Vec::with_capacity(MEASURED);
    for _ in 0..MEASURED {
        let began = Instant::now();
        let sent = producer.send(ProducerRecord::value(TOPIC, &[b'v'; 100])).await.expect("room");
        sent.wait().await.expect("acknowledged");
        times.push(began.elapsed());
    }
    times.sort();
    Latencies(times)
}

impl Latencies {
    fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let p99 = self.0[self.0.len() * 99 / 100];
        write!(f, "{:.2?} (p99 {p99:.2?})", self.median())
    }
}
