//! A producer whose answer was lost with the process sends its batches again, and they are known.

use std::sync::Arc;

use base::batch::BatchBuilder;
use base::error::ErrorCode;
use client::admin::{NewTopic, OffsetAt};
use client::{Client, Connection, Isolation, PartitionName};
use wire::message::produce_request::{PartitionProduceData, TopicProduceData};
use wire::message::{InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse};

use crate::run;
use crate::server::Home;

const TOPIC: &str = "retries";
/// Records of a batch.
const RECORDS: i32 = 3;
/// Batches of a producer that a broker remembers.
const REMEMBERED: i32 = 5;
/// Batches written in each life.
const BATCHES: i32 = 7;
const LIVES: i32 = 4;

#[test]
fn batches_sent_again_over_a_restart_are_written_once() {
    let home = Home::new("retries", &[]);
    let mut server = home.start();
    let id = run(async {
        let client = home.client().await;
        // So small that segments roll, and producers are known from snapshots.
        let configs = vec![("segment.ms".to_owned(), "1".to_owned())];
        let topic = NewTopic { partitions: Some(1), configs, ..NewTopic::named(TOPIC) };
        client.create_topics(&[topic], false).await.expect("an answer").remove(0).expect("a new topic");
        new_producer(&client).await
    });
    for life in 1..=LIVES {
        run(async {
            let writer = Writer::connect(&home, id).await;
            for batch in (life - 1) * BATCHES..life * BATCHES {
                let base = i64::from(batch * RECORDS);
                assert_eq!(writer.produce(batch).await, (ErrorCode::None, base), "life {life}");
            }
        });
        match life % 2 {
            0 => drop(server.end()),
            _ => server.kill(),
        }
        server = home.start();
        run(check_retries(&home, id, life * BATCHES));
    }
}

/// Sends again what was written before this life: so many batches.
async fn check_retries(home: &Home, id: Identity, written: i32) {
    let writer = Writer::connect(home, id).await;
    for batch in written - REMEMBERED..written {
        let base = i64::from(batch * RECORDS);
        assert_eq!(writer.produce(batch).await, (ErrorCode::None, base), "batch {batch} of {written} again");
    }
    // One that is forgotten, and one that leaves a gap, are refused.
    for batch in [written - REMEMBERED - 1, written + 1] {
        let (code, _) = writer.produce(batch).await;
        assert_ne!(code, ErrorCode::None, "batch {batch} of {written}");
    }
    let partition = PartitionName::new(TOPIC, 0);
    let wanted = [(partition.clone(), OffsetAt::Latest)];
    let mut listed =
        writer.client.list_offsets(&wanted, Isolation::ReadUncommitted).await.expect("an answer");
    let end = listed.remove(&partition).expect("it was asked for").expect("it is there").offset;
    assert_eq!(end, Some(i64::from(written * RECORDS)), "nothing was written twice");
}

#[derive(Clone, Copy, Debug)]
struct Identity {
    id: i64,
    epoch: i16,
}

async fn new_producer(client: &Client) -> Identity {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        ..Default::default()
    };
    let answer = client.any().await.expect("it listens").call(&request).await.expect("an answer");
    let response: InitProducerIdResponse = answer.read().expect("what was asked for");
    assert_eq!(response.error_code, 0);
    Identity { id: response.producer_id, epoch: response.producer_epoch }
}

/// Writes batches by their number, each with the sequence that belongs to it.
struct Writer {
    client: Client,
    connection: Arc<Connection>,
    identity: Identity,
}

impl Writer {
    async fn connect(home: &Home, identity: Identity) -> Writer {
        let client = home.client().await;
        let connection = client.any().await.expect("it listens");
        Writer { client, connection, identity }
    }

    async fn produce(&self, batch: i32) -> (ErrorCode, i64) {
        let Identity { id, epoch } = self.identity;
        let mut builder = BatchBuilder::new().producer(id, epoch, batch * RECORDS);
        for record in 0..RECORDS {
            builder.append(1_700_000_000_000, None, Some(format!("{batch}.{record}").as_bytes()));
        }
        let bytes = builder.finish().expect("a few records");
        let partition_data = vec![PartitionProduceData { index: 0, records: Some(&bytes) }];
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![TopicProduceData { name: TOPIC.into(), partition_data, ..Default::default() }],
            ..Default::default()
        };
        let answer = self.connection.call(&request).await.expect("an answer");
        let response: ProduceResponse = answer.read().expect("what was asked for");
        let row = &response.responses[0].partition_responses[0];
        (ErrorCode::from_code(row.error_code), row.base_offset)
    }
}
