//! Connection, producer and consumer against a broker that misbehaves, in simulated time.

use std::future::Future;
use std::time::Duration;

use base::batch::Compression;
use base::env::Env;
use base::env::sim::SimRandom;
use base::error::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::ApiKey;

use crate::admin::OffsetAt;
use crate::fake::{Fake, Fault, TOPIC};
use crate::{
    Acks, Client, ClientConfig, ClientError, Consumer, ConsumerConfig, Isolation, PartitionName, Producer,
    ProducerConfig, ProducerRecord, Start, Topics,
};

const SECOND: Duration = Duration::from_secs(1);

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

async fn connect(env: &Env, address: &str) -> Client {
    Client::connect(env, ClientConfig::new([address])).await.unwrap()
}

fn whole(partition: i32) -> PartitionName {
    PartitionName::new(TOPIC, partition)
}

/// Sends numbered values to partition 0 and returns what each delivery says.
async fn send_numbers(producer: &Producer, count: usize) -> Vec<Result<Option<i64>, ClientError>> {
    let mut deliveries = Vec::new();
    for number in 0..count {
        let value = number.to_string();
        let record = ProducerRecord { partition: Some(0), ..ProducerRecord::value(TOPIC, value.as_bytes()) };
        deliveries.push(producer.send(record).await.unwrap());
    }
    let mut outcomes = Vec::new();
    for delivery in deliveries {
        outcomes.push(delivery.wait().await.map(|placed| placed.offset));
    }
    outcomes
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

// ---------------------------------------------------------------- connection

#[test]
fn versions_are_negotiated_with_a_broker_that_does_not_know_our_question() {
    run(async {
        let env = Env::sim(1);
        let fake = Fake::start(&env, 1).await;
        fake.state.lock().api_versions_max = 2;
        let client = connect(&env, &fake.address).await;
        let asked: Vec<_> = fake.state.lock().requests.clone();
        assert_eq!(asked[..2], [(ApiKey::ApiVersions, 4), (ApiKey::ApiVersions, 2)]);
        assert_eq!(client.any().await.unwrap().version_of(ApiKey::Fetch).unwrap(), 12);
    });
}

#[test]
fn a_silent_broker_costs_the_time_out_and_the_connection() {
    run(async {
        let env = Env::sim(1);
        let fake = Fake::start(&env, 1).await;
        let client = connect(&env, &fake.address).await;
        let connection = client.any().await.unwrap();
        fake.state.lock().silent = true;
        let before = env.clock.now();
        let error = client.metadata(Topics::None).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
        assert_eq!((env.clock.now() - before).as_secs(), 30);
        assert!(connection.is_ended());
        fake.state.lock().silent = false;
        client.metadata(Topics::None).await.unwrap();
    });
}

#[test]
fn a_server_of_another_kind_is_told_apart() {
    run(async {
        let env = Env::sim(1);
        let mut listener = env.network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            // Held open: the client must see by itself that this is wrong.
            std::future::pending::<()>().await;
        });
        let error = Client::connect(&env, ClientConfig::new([address])).await.unwrap_err();
        assert!(error.to_string().contains("not Kafka's protocol"), "{error}");
    });
}

#[test]
fn nobody_there_fails_at_once_and_names_every_address() {
    run(async {
        let env = Env::sim(1);
        let before = env.clock.now();
        let error =
            Client::connect(&env, ClientConfig::new(["127.0.0.1:1", "127.0.0.1:2"])).await.unwrap_err();
        assert!(
            error.to_string().contains("127.0.0.1:1") && error.to_string().contains("127.0.0.1:2"),
            "{error}"
        );
        assert_eq!(env.clock.now(), before);
    });
}

// ---------------------------------------------------------------- producer

/// Small batches, many of them on their way.
fn small_batches() -> ProducerConfig {
    ProducerConfig { batch_bytes: 200, linger: Duration::from_millis(1), ..ProducerConfig::default() }
}

#[test]
fn an_idempotent_producer_writes_each_record_once_and_in_order_whatever_happens() {
    for seed in 0..300 {
        run(async {
            let env = Env::sim(seed);
            let fake = Fake::start(&env, 1).await;
            let random = SimRandom::new(seed);
            let faults = (0..40).map(|_| match random.below(12) {
                0 => Some(Fault::Refuse(ErrorCode::NotLeaderOrFollower)),
                1 => Some(Fault::Refuse(ErrorCode::NotEnoughReplicas)),
                2 => Some(Fault::KeepAndRefuse(ErrorCode::NotEnoughReplicasAfterAppend)),
                3 => Some(Fault::KeepAndRefuse(ErrorCode::RequestTimedOut)),
                4 => Some(Fault::Close),
                5 => Some(Fault::KeepAndClose),
                _ => None,
            });
            fake.state.lock().faults = faults.collect();
            let client = connect(&env, &fake.address).await;
            let compression = Compression::ALL[seed as usize % 5];
            let producer = Producer::new(&client, ProducerConfig { compression, ..small_batches() });
            let outcomes = send_numbers(&producer, 300).await;
            assert!(outcomes.iter().all(Result::is_ok), "seed {seed}: {outcomes:?}");
            assert_eq!(fake.values(0), numbers(300), "seed {seed}");
            for (number, offset) in outcomes.into_iter().enumerate() {
                assert_eq!(offset.unwrap(), Some(number as i64), "seed {seed}");
            }
            producer.flush().await.unwrap();
            assert_eq!(producer.pending_bytes(), 0, "seed {seed}");
        });
    }
}

#[test]
fn batches_of_many_partitions_share_requests_and_each_hears_its_own_answer() {
    const PARTITIONS: usize = 200;
    for seed in 0..50 {
        run(async {
            let env = Env::sim(seed);
            let fake = Fake::start(&env, PARTITIONS).await;
            let random = SimRandom::new(seed);
            let faults = (0..20).map(|_| match random.below(8) {
                0 => Some(Fault::Refuse(ErrorCode::NotLeaderOrFollower)),
                1 => Some(Fault::KeepAndRefuse(ErrorCode::NotEnoughReplicasAfterAppend)),
                2 => Some(Fault::Close),
                3 => Some(Fault::KeepAndClose),
                _ => None,
            });
            fake.state.lock().faults = faults.collect();
            let client = connect(&env, &fake.address).await;
            let producer = Producer::new(&client, small_batches());
            let mut deliveries = Vec::new();
            for round in 0..10 {
                for partition in 0..PARTITIONS {
                    let value = format!("{partition}/{round}");
                    let record = ProducerRecord::value(TOPIC, value.as_bytes());
                    let record = ProducerRecord { partition: Some(partition as i32), ..record };
                    deliveries.push((partition, round, producer.send(record).await.unwrap()));
                }
                env.clock.sleep(Duration::from_millis(2)).await;
            }
            for (partition, round, delivery) in deliveries {
                let placed = delivery.wait().await.unwrap();
                assert_eq!(
                    (placed.partition, placed.offset),
                    (whole(partition as i32), Some(round)),
                    "seed {seed}"
                );
            }
            for partition in 0..PARTITIONS {
                let sent: Vec<_> = (0..10).map(|round| format!("{partition}/{round}")).collect();
                assert_eq!(fake.values(partition), sent, "seed {seed}");
            }
            let requests = &fake.state.lock().requests;
            let produced = requests.iter().filter(|(api, _)| *api == ApiKey::Produce).count();
            assert!(
                produced < PARTITIONS * 5,
                "seed {seed}: {produced} requests for {} batches",
                PARTITIONS * 10
            );
        });
    }
}

#[test]
fn a_batch_refused_for_good_fails_alone() {
    for refused in 0..4 {
        run(async {
            let env = Env::sim(1);
            let fake = Fake::start(&env, 1).await;
            let mut faults = vec![None; refused];
            faults.push(Some(Fault::Refuse(ErrorCode::MessageTooLarge)));
            fake.state.lock().faults = faults.into();
            let client = connect(&env, &fake.address).await;
            let producer = Producer::new(&client, small_batches());
            let outcomes = send_numbers(&producer, 100).await;
            let failed: Vec<usize> = outcomes
                .iter()
                .enumerate()
                .filter(|(_, outcome)| outcome.is_err())
                .map(|(at, _)| at)
                .collect();
            assert!(!failed.is_empty() && failed.len() < 60, "{failed:?}");
            let kept = (0..100).filter(|number| !failed.contains(number)).map(|number| number.to_string());
            assert_eq!(fake.values(0), kept.collect::<Vec<_>>(), "refused {refused}");
            let told = producer.flush().await.unwrap_err();
            assert_eq!(told.code(), Some(ErrorCode::MessageTooLarge));
            assert!(producer.flush().await.is_ok(), "a failure is told once");
        });
    }
}

#[test]
fn a_producer_the_broker_has_forgotten_goes_on_under_another_id() {
    run(async {
        let env = Env::sim(1);
        let fake = Fake::start(&env, 1).await;
        fake.state.lock().faults = [None, Some(Fault::Refuse(ErrorCode::OutOfOrderSequenceNumber))].into();
        let client = connect(&env, &fake.address).await;
        let producer = Producer::new(&client, small_batches());
        let outcomes = send_numbers(&producer, 100).await;
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert!(failed > 0 && failed < 60, "{failed}");
        assert_eq!(fake.values(0).len(), 100 - failed);
        // The next ones are written without trouble.
        assert!(send_numbers(&producer, 10).await.iter().all(Result::is_ok));
        let asked =
            fake.state.lock().requests.iter().filter(|(api, _)| *api == ApiKey::InitProducerId).count();
        assert_eq!(asked, 2);
    });
}

#[test]
fn without_idempotence_order_is_kept_as_well() {
    for seed in 0..50 {
        run(async {
            let env = Env::sim(seed);
            let fake = Fake::start(&env, 1).await;
            let random = SimRandom::new(seed);
            let faults = (0..40).map(|_| match random.below(6) {
                0 => Some(Fault::Refuse(ErrorCode::NotLeaderOrFollower)),
                1 => Some(Fault::KeepAndClose),
                _ => None,
            });
            fake.state.lock().faults = faults.collect();
            let client = connect(&env, &fake.address).await;
            let config = ProducerConfig { acks: Acks::Leader, idempotent: false, ..small_batches() };
            let outcomes = send_numbers(&Producer::new(&client, config), 200).await;
            assert!(outcomes.iter().all(Result::is_ok), "seed {seed}");
            // A batch may be there twice, but at once.
            let mut highest = -1;
            for value in fake.values(0) {
                let number: i64 = value.parse().unwrap();
                assert!(number <= highest + 1, "seed {seed}: {number} after {highest}");
                highest = highest.max(number);
            }
            assert_eq!(highest, 199, "seed {seed}");
        });
    }
}

#[test]
fn a_batch_nobody_takes_is_given_up_when_its_time_is_over() {
    run(async {
        let env = Env::sim(1);
        let fake = Fake::start(&env, 1).await;
        fake.state.lock().faults = vec![Some(Fault::Refuse(ErrorCode::NotEnoughReplicas)); 10_000].into();
        let client = connect(&env, &fake.address).await;
        let delivery_timeout = 20 * SECOND;
        let producer = Producer::new(&client, ProducerConfig { delivery_timeout, ..small_batches() });
        let before = env.clock.now();
        let outcomes = send_numbers(&producer, 50).await;
        assert!(outcomes.iter().all(Result::is_err));
        let took = env.clock.now() - before;
        assert!(took >= delivery_timeout && took < 3 * delivery_timeout, "{took:?}");
        fake.state.lock().faults.clear();
        assert!(send_numbers(&producer, 10).await.iter().all(Result::is_ok));
        assert_eq!(fake.values(0), numbers(10));
    });
}

#[test]
fn acks_none_waits_for_nothing() {
    run(async {
        let env = Env::sim(1);
        let fake = Fake::start(&env, 1).await;
        let client = connect(&env, &fake.address).await;
        let producer = Producer::new(&client, ProducerConfig { acks: Acks::None, ..small_batches() });
        assert!(send_numbers(&producer, 100).await.into_iter().all(|outcome| outcome.unwrap().is_none()));
        producer.flush().await.unwrap();
        assert_eq!(fake.values(0), numbers(100));
    });
}

#[test]
fn memory_is_bounded_and_large_records_are_refused_before_they_are_taken() {
    run(async {
        let env = Env::sim(1);
        let fake = Fake::start(&env, 1).await;
        let client = connect(&env, &fake.address).await;
        fake.state.lock().silent = false;
        let config = ProducerConfig { buffer_bytes: 2_000, record_bytes_max: 1_000, ..small_batches() };
        let producer = Producer::new(&client, config);
        let large = vec![b'x'; 1_001];
        let refused = producer.send(ProducerRecord::value(TOPIC, &large)).await.unwrap_err();
        assert!(matches!(refused, ClientError::RecordTooLarge { limit: 1_000, .. }), "{refused}");
        producer.send(ProducerRecord::value(TOPIC, b"known now")).await.unwrap();
        producer.flush().await.unwrap();
        fake.state.lock().silent = true;
        let value = vec![b'x'; 900];
        producer.send(ProducerRecord::value(TOPIC, &value)).await.unwrap();
        producer.send(ProducerRecord::value(TOPIC, &value)).await.unwrap();
        let third = producer.send(ProducerRecord::value(TOPIC, &value));
        tokio::select! {
            _ = third => panic!("there was room for a third record"),
            () = env.clock.sleep(SECOND) => assert!(producer.pending_bytes() <= 2_000),
        }
    });
}

#[test]
fn records_without_a_key_reach_every_partition_and_keys_stay_together() {
    run(async {
        let env = Env::sim(1);
        let fake = Fake::start(&env, 4).await;
        let client = connect(&env, &fake.address).await;
        let producer = Producer::new(&client, small_batches());
        for number in 0..400 {
            producer.send(ProducerRecord::value(TOPIC, number.to_string().as_bytes())).await.unwrap();
        }
        producer.flush().await.unwrap();
        let counts: Vec<_> = (0..4).map(|partition| fake.values(partition).len()).collect();
        assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 400);
        for key in ["a", "b", "c"] {
            let record = ProducerRecord { key: Some(key.as_bytes()), ..ProducerRecord::value(TOPIC, b"") };
            let mut partitions = Vec::new();
            for _ in 0..10 {
                partitions
                    .push(producer.send(record).await.unwrap().wait().await.unwrap().partition.partition);
            }
            assert!(
                partitions.iter().all(|p| *p == crate::partition_of_key(key.as_bytes(), 4)),
                "{partitions:?}"
            );
        }
        let nowhere = ProducerRecord { partition: Some(4), ..ProducerRecord::value(TOPIC, b"") };
        let error = producer.send(nowhere).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UnknownTopicOrPartition));
    });
}

#[test]
fn a_broker_that_was_away_for_a_while_costs_no_record() {
    run(async {
        let env = Env::sim(1);
        let mut fake = Fake::start(&env, 1).await;
        let client = connect(&env, &fake.address).await;
        let producer = Producer::new(&client, small_batches());
        assert!(send_numbers(&producer, 10).await.iter().all(Result::is_ok));
        fake.stop().await;
        let (outcomes, ()) = tokio::join!(send_numbers(&producer, 50), async {
            env.clock.sleep(10 * SECOND).await;
            fake.start_again(&env).await;
        });
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!(fake.values(0), [numbers(10), numbers(50)].concat());
    });
}

// ---------------------------------------------------------------- consumer

/// A topic of one partition with the numbers from 0 to 99 in batches of about ten, timestamps 1000 + number.
async fn filled(env: &Env, compression: Compression) -> (Fake, Client) {
    let fake = Fake::start(env, 2).await;
    let client = connect(env, &fake.address).await;
    let producer = Producer::new(&client, ProducerConfig { compression, ..small_batches() });
    for number in 0..100 {
        let value = number.to_string();
        let record = ProducerRecord {
            partition: Some(0),
            timestamp: Some(1_000 + number),
            ..ProducerRecord::value(TOPIC, value.as_bytes())
        };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
    (fake, client)
}

async fn read(client: &Client, config: ConsumerConfig, start: Start) -> Result<Vec<String>, ClientError> {
    let mut consumer = Consumer::new(client, config);
    consumer.assign([(whole(0), start), (whole(1), start)]);
    let mut values = Vec::new();
    while !consumer.caught_up() {
        for record in consumer.poll(SECOND).await? {
            assert_eq!(record.timestamp, Some(1_000 + record.offset));
            values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        }
    }
    assert!(consumer.poll(SECOND).await?.is_empty());
    Ok(values)
}

#[test]
fn every_start_is_found_to_the_record() {
    for compression in Compression::ALL {
        run(async {
            let env = Env::sim(1);
            let (_fake, client) = filled(&env, compression).await;
            for (start, first) in [
                (Start::Beginning, 0),
                (Start::BeforeEnd(7), 93),
                (Start::BeforeEnd(1_000), 0),
                (Start::Time(1_042), 42),
                (Start::Time(5_000), 100),
                (Start::End, 100),
            ] {
                let values = read(&client, ConsumerConfig::default(), start).await.unwrap();
                assert_eq!(values, numbers(100)[first..], "{compression} {start:?}");
            }
            let mut consumer = Consumer::new(&client, ConsumerConfig::default());
            consumer.assign([(whole(0), Start::Offset(37))]);
            let records = consumer.poll(SECOND).await.unwrap();
            assert_eq!(records[0].offset, 37, "the middle of a batch");
        });
    }
}

#[test]
fn a_position_that_is_gone_is_an_error_or_begins_anew() {
    run(async {
        let env = Env::sim(1);
        let (fake, client) = filled(&env, Compression::None).await;
        fake.state.lock().logs[0].start = 50;
        fake.state.lock().logs[1].end = 20;
        let error = read(&client, ConsumerConfig::default(), Start::Offset(20)).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
        let config = ConsumerConfig { reset: Some(Start::Offset(95)), ..ConsumerConfig::default() };
        let values = read(&client, config, Start::Offset(20)).await.unwrap();
        assert_eq!(values, numbers(100)[95..]);
    });
}

#[test]
fn reading_goes_on_over_a_lost_connection() {
    run(async {
        let env = Env::sim(1);
        let (fake, client) = filled(&env, Compression::Lz4).await;
        let mut consumer = Consumer::new(&client, ConsumerConfig::default());
        consumer.assign([(whole(0), Start::Beginning)]);
        let mut values = Vec::new();
        for round in 0.. {
            let records = consumer.poll(SECOND).await.unwrap();
            values.extend(records.iter().map(|record| record.offset));
            fake.state.lock().silent = round == 1;
            if values.len() == 100 {
                break;
            }
            if round == 1 {
                // The next fetch is not answered: its connection is given up, another one serves.
                assert!(consumer.poll(30 * SECOND).await.unwrap().is_empty());
                fake.state.lock().silent = false;
            }
        }
        assert_eq!(values, (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn answers_for_partitions_taken_away_are_thrown_away() {
    run(async {
        let env = Env::sim(1);
        let (_fake, client) = filled(&env, Compression::None).await;
        let mut consumer = Consumer::new(&client, ConsumerConfig::default());
        consumer.assign([(whole(0), Start::End)]);
        // A fetch is under way that will find nothing for half a second.
        assert!(consumer.poll(Duration::from_millis(10)).await.unwrap().is_empty());
        consumer.assign([(whole(0), Start::Offset(90))]);
        let mut offsets = Vec::new();
        while offsets.len() < 10 {
            offsets.extend(consumer.poll(SECOND).await.unwrap().iter().map(|record| record.offset));
        }
        assert_eq!(offsets, (90..100).collect::<Vec<_>>());
    });
}

#[test]
fn a_partition_without_leader_holds_up_no_other_and_ends_the_reading_in_time() {
    run(async {
        let env = Env::sim(1);
        let (fake, filling) = filled(&env, Compression::None).await;
        fake.state.lock().leaderless = vec![1];
        drop(filling);
        let config = ClientConfig { retry_for: 3 * SECOND, ..ClientConfig::new([fake.address.as_str()]) };
        let client = Client::connect(&env, config).await.unwrap();
        for start in [Start::Beginning, Start::BeforeEnd(1_000), Start::Time(1_000), Start::Offset(0)] {
            let began = env.clock.now();
            let mut consumer = Consumer::new(&client, ConsumerConfig::default());
            consumer.assign([(whole(0), start), (whole(1), start)]);
            let mut count = 0;
            let error = loop {
                // Shorter than the pauses: they must go on over calls.
                match consumer.poll(Duration::from_millis(50)).await {
                    Ok(records) => count += records.len(),
                    Err(error) => break error,
                }
                if count == 100 && env.clock.now() - began > 2 * SECOND {
                    let trouble = client.trouble().expect("it is being tried again");
                    assert_eq!(trouble.error.code(), Some(ErrorCode::LeaderNotAvailable));
                    assert!(trouble.since - began < SECOND, "{trouble:?}");
                }
            };
            let took = env.clock.now() - began;
            assert_eq!((count, error.code()), (100, Some(ErrorCode::LeaderNotAvailable)), "{start:?}");
            assert!(error.to_string().starts_with("partition 1 of topic `t`"), "{error}");
            assert!(took > SECOND && took < 4 * SECOND, "{start:?}: {took:?}");
        }
        assert!(client.trouble().is_none(), "the consumer is gone");
    });
}

#[test]
fn a_partition_that_gets_a_leader_is_read_and_the_trouble_is_over() {
    run(async {
        let env = Env::sim(1);
        let (fake, client) = filled(&env, Compression::None).await;
        fake.state.lock().leaderless = vec![0];
        client.forget_topic(TOPIC);
        let mut consumer = Consumer::new(&client, ConsumerConfig::default());
        consumer.assign([(whole(0), Start::Beginning)]);
        assert!(consumer.poll(5 * SECOND).await.unwrap().is_empty());
        assert!(client.trouble().is_some());
        fake.state.lock().leaderless.clear();
        assert!(!consumer.poll(5 * SECOND).await.unwrap().is_empty());
        assert!(client.trouble().is_none());
    });
}

#[test]
fn readers_never_create_a_topic() {
    run(async {
        let env = Env::sim(1);
        let fake = Fake::start(&env, 1).await;
        let client = connect(&env, &fake.address).await;
        let nowhere = PartitionName::new("nosuch", 0);
        let wanted = [(nowhere.clone(), OffsetAt::Latest)];
        let listed = client.list_offsets(&wanted, Isolation::ReadUncommitted).await.unwrap();
        assert!(listed[&nowhere].is_err());
        let mut consumer = Consumer::new(&client, ConsumerConfig::default());
        consumer.assign([(nowhere, Start::End)]);
        assert!(consumer.poll(SECOND).await.unwrap().is_empty());
        assert_eq!(fake.state.lock().may_create, 0);
    });
}

#[test]
fn what_a_producer_tries_again_is_told_while_it_does() {
    run(async {
        let env = Env::sim(1);
        let fake = Fake::start(&env, 1).await;
        let client = connect(&env, &fake.address).await;
        let producer = Producer::new(&client, small_batches());
        fake.state.lock().faults = vec![Some(Fault::Refuse(ErrorCode::KafkaStorageError)); 5].into();
        let (outcomes, trouble) = tokio::join!(send_numbers(&producer, 10), async {
            env.clock.sleep(Duration::from_millis(200)).await;
            client.trouble()
        });
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!(trouble.unwrap().error.code(), Some(ErrorCode::KafkaStorageError));
        assert!(client.trouble().is_none());
    });
}
