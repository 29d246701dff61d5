//! Compaction of 2 GiB with a million keys: in bounded memory, hardly noticed by who reads at the tail of
//! another topic, and right for whoever reads the table from its beginning, whenever that is.

use std::time::{Duration, Instant};

use base::env::sim::SimRandom;
use base::env::{Env, Random};
use client::admin::{ConfigChange, ConfigOperation, ConfigResource, NewTopic};
use client::{
    Client, Consumer, ConsumerConfig, PartitionName, Producer, ProducerConfig, ProducerRecord, Start,
};

use crate::run;
use crate::server::{Home, megabytes};

const TABLE: &str = "table";
const TAIL: &str = "tail";
const KEYS: u32 = 1_000_000;
const VALUE_BYTES: usize = 1_024;
/// Writes before the first pass: 2 GiB.
const WRITES: u32 = 2 * KEYS;
/// Writes before each further pass.
const MORE_WRITES: u32 = 2_000;
/// Most that the process may hold at any time, bytes: what it needs under load, and the keys' memory.
const BYTES_MAX: u64 = 150_000_000 + MAP_BYTES;
const MAP_BYTES: u64 = 64 << 20;
/// How much later than in quiet a reader at the tail may see a record, at the 99th percentile.
const LATER_MAX: f64 = 1.2;
/// The passes beside which the tail is read, in each of so many attempts: other work on the machine may
/// spoil one.
const PASSES: usize = 5;
const ATTEMPTS: usize = 5;
/// How long the quiet tail is read before each pass.
const QUIET_FOR: Duration = Duration::from_secs(2);
const PROBE_PAUSE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(120);

/// What was written last for each key, and the server it was written to.
struct Table<'a> {
    home: &'a Home,
    client: Client,
    producer: Producer,
    latest: Vec<u32>,
    value: Vec<u8>,
    writes: u32,
    choices: SimRandom,
}

impl<'a> Table<'a> {
    async fn new(home: &'a Home) -> Table<'a> {
        let client = home.client().await;
        let config = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        for (name, extra) in
            [(TABLE, config("cleanup.policy", "compact")), (TAIL, config("segment.bytes", "1073741824"))]
        {
            let configs = vec![
                config("vltava.durability", "page-cache"),
                config("min.cleanable.dirty.ratio", "1.0"),
                config("segment.ms", "500"),
                extra,
            ];
            let topic = NewTopic { partitions: Some(1), configs, ..NewTopic::named(name) };
            client.create_topics(&[topic], false).await.expect("an answer").remove(0).expect("a new topic");
        }
        let mut value = vec![0; VALUE_BYTES];
        SimRandom::new(1).fill(&mut value);
        let producer = Producer::new(&client, ProducerConfig::default());
        let latest = vec![u32::MAX; KEYS as usize];
        Table { home, client, producer, latest, value, writes: 0, choices: SimRandom::new(2) }
    }

    async fn write(&mut self, count: u32) {
        for _ in 0..count {
            // Every key once, then again at random.
            let key =
                if self.writes < KEYS { self.writes } else { self.choices.below(u64::from(KEYS)) as u32 };
            self.value[..4].copy_from_slice(&self.writes.to_le_bytes());
            let record =
                ProducerRecord { key: Some(&key.to_be_bytes()), ..ProducerRecord::value(TABLE, &self.value) };
            self.producer.send(record).await.expect("room");
            self.latest[key as usize] = self.writes;
            self.writes += 1;
        }
        self.producer.flush().await.expect("acknowledged");
    }

    /// Reads the table from its beginning and holds it against what was written.
    async fn check(&self) -> u64 {
        let mut consumer = Consumer::new(&self.client, ConsumerConfig::default());
        let partition = PartitionName::new(TABLE, 0);
        consumer.assign([(partition.clone(), Start::Beginning)]);
        let mut found = vec![u32::MAX; KEYS as usize];
        let mut records = 0;
        while !consumer.caught_up_with(&partition) {
            for record in consumer.poll(Duration::from_secs(1)).await.expect("records") {
                let key = record.key.expect("a key");
                let value = record.value.expect("a value");
                let number = |bytes: &[u8]| <[u8; 4]>::try_from(&bytes[..4]).expect("four bytes");
                found[u32::from_be_bytes(number(&key)) as usize] = u32::from_le_bytes(number(&value));
                records += 1;
            }
        }
        let wrong = found.iter().zip(&self.latest).filter(|(found, latest)| found != latest).count();
        assert_eq!(wrong, 0, "so many keys of {KEYS} have another value than was written last");
        records
    }

    async fn allow_passes(&self, allowed: bool) {
        let change = ConfigChange {
            name: "min.cleanable.dirty.ratio".to_owned(),
            operation: ConfigOperation::Set,
            value: if allowed { "0.0" } else { "1.0" }.to_owned(),
        };
        let topic = ConfigResource::Topic(TABLE.to_owned());
        self.client.alter_configs(&topic, &[change], false).await.expect("a change of a config");
    }

    /// Passes that came to their end.
    fn passes(&self) -> usize {
        self.home.log().matches("a log was compacted").count()
    }
}

/// A record at a time goes through a topic whose reader waits for it.
struct Tail {
    producer: Producer,
    consumer: Consumer,
}

impl Tail {
    async fn new(home: &Home) -> Tail {
        let config = ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() };
        let producer = Producer::new(&home.client().await, config);
        let mut consumer = Consumer::new(&home.client().await, ConsumerConfig::default());
        consumer.assign([(PartitionName::new(TAIL, 0), Start::Beginning)]);
        Tail { producer, consumer }
    }

    /// How long one record takes to its reader, ms.
    async fn probe(&mut self) -> f64 {
        let sent = Instant::now();
        let record = ProducerRecord { partition: Some(0), ..ProducerRecord::value(TAIL, &[b't'; 100]) };
        let delivery = self.producer.send(record).await.expect("room");
        while self.consumer.poll(Duration::from_secs(5)).await.expect("records").is_empty() {}
        let took = sent.elapsed();
        delivery.wait().await.expect("acknowledged");
        Env::os().clock.sleep(PROBE_PAUSE).await;
        took.as_secs_f64() * 1e3
    }

    /// Probes until `ended` says so.
    async fn probe_until(&mut self, times_ms: &mut Vec<f64>, mut ended: impl FnMut() -> bool) {
        while !ended() {
            times_ms.push(self.probe().await);
        }
    }
}

fn percentile_99(times_ms: &mut [f64]) -> f64 {
    times_ms.sort_by(f64::total_cmp);
    times_ms[times_ms.len() * 99 / 100]
}

/// Reads the tail in quiet and beside passes, by turns; tells the 99th percentiles of both, ms.
async fn compare(table: &mut Table<'_>, tail: &mut Tail) -> (f64, f64) {
    let (mut quiet, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..PASSES {
        let began = Instant::now();
        tail.probe_until(&mut quiet, || began.elapsed() > QUIET_FOR).await;
        table.write(MORE_WRITES).await;
        let (before, began) = (table.passes(), Instant::now());
        table.allow_passes(true).await;
        // Looking for the end in the log takes time of its own, so it is done now and then.
        let mut looked = Instant::now();
        let ended = || {
            if looked.elapsed() < Duration::from_millis(50) {
                return false;
            }
            looked = Instant::now();
            assert!(began.elapsed() < PATIENCE, "no pass came to its end");
            table.passes() > before
        };
        tail.probe_until(&mut beside, ended).await;
        table.allow_passes(false).await;
    }
    println!("{} records in quiet, {} beside passes", quiet.len(), beside.len());
    (percentile_99(&mut quiet), percentile_99(&mut beside))
}

#[test]
fn compaction_of_two_gib_is_right_bounded_and_hardly_noticed() {
    let map = format!("log.cleaner.dedupe.buffer.size={MAP_BYTES}");
    let home = Home::new("compaction", &["log.cleaner.backoff.ms=100", &map]);
    let server = home.start();
    run(async {
        let mut table = Table::new(&home).await;
        let began = Instant::now();
        table.write(WRITES).await;
        println!("{WRITES} records written in {:.1?}", began.elapsed());

        // Readers that begin before, in the middle of and after the first pass.
        assert_eq!(table.check().await, u64::from(WRITES));
        let began = Instant::now();
        table.allow_passes(true).await;
        let mut readers = 0;
        while table.passes() == 0 {
            assert!(began.elapsed() < PATIENCE, "no pass came to its end");
            table.check().await;
            readers += 1;
        }
        table.allow_passes(false).await;
        let left = table.check().await;
        println!("first pass beside {readers} readers in {:.1?}; {left} records are left", began.elapsed());
        assert!(left < u64::from(WRITES) * 6 / 10, "{left} of {WRITES} records are left");

        let mut tail = Tail::new(&home).await;
        let warm = Instant::now() + QUIET_FOR;
        tail.probe_until(&mut Vec::new(), || Instant::now() > warm).await;
        let (mut seen, mut is_low) = (Vec::new(), false);
        for _ in 0..ATTEMPTS {
            let (quiet_ms, beside_ms) = compare(&mut table, &mut tail).await;
            println!("tail: p99 {quiet_ms:.2} ms in quiet, {beside_ms:.2} ms beside passes");
            seen.push((quiet_ms, beside_ms));
            is_low = beside_ms <= quiet_ms * LATER_MAX;
            if is_low {
                break;
            }
        }
        assert!(is_low, "p99 in quiet and beside passes, ms: {seen:?}");
        table.check().await;
        let memory = server.memory();
        println!("compaction: memory {memory}, at most {:.0} MB", megabytes(BYTES_MAX));
        assert!(memory.peak < BYTES_MAX, "{memory}");
    });
}
