//! 5,000 connections that do nothing: cheap, out of the way of others, and gone when they are closed.

use std::io::{Read, Write};
use std::net::TcpStream;

use wire::message::{
    ApiVersionsRequest, MetadataRequest, ProduceRequest, ProduceResponse, metadata_request, produce_request,
};
use wire::{Reader, RequestMessage, request_frame};

use crate::bystander::Bystander;
use crate::run;
use crate::server::{Home, need_descriptors};

const CONNECTIONS: usize = 5_000;
/// Memory of the process for each, bytes.
const BYTES_EACH_MAX: u64 = 20_000;
const TOPIC: &str = "idle";
const VERSIONS_VERSION: i16 = 3;
const METADATA_VERSION: i16 = 9;
const PRODUCE_VERSION: i16 = 8;

#[test]
fn five_thousand_idle_connections_harm_nobody() {
    need_descriptors(CONNECTIONS + 1_000);
    // What an acknowledgement costs on the disk is of no interest here.
    let home = Home::new("idle", &["vltava.durability=page-cache"]);
    let server = home.start();
    run(async {
        let bystander = Bystander::new(&home).await;
        // Opens what the topic needs, and stays to the end.
        let _first = connect(&home.address(), CONNECTIONS);
        let (descriptors, memory) = (server.descriptors(), server.memory());

        let connections: Vec<_> = (0..CONNECTIONS).map(|number| connect(&home.address(), number)).collect();
        let beside = bystander.latencies().await;
        let more = server.memory().resident.saturating_sub(memory.resident);
        let each = more / CONNECTIONS as u64;
        println!(
            "{CONNECTIONS} idle connections: {each} bytes each, at most {BYTES_EACH_MAX}; {}",
            server.memory()
        );
        assert!(server.descriptors() >= descriptors + CONNECTIONS, "they are open");
        assert!(each <= BYTES_EACH_MAX);
        bystander.assert_unharmed(&beside);

        drop(connections);
        let took = server.wait_for_descriptors(descriptors);
        println!("all closed within {took:.1?}; {}", server.memory());
        bystander.latencies().await;
    });
}

/// A connection that has done what a producer does before it falls silent: asked for versions and its topic, and written
/// a record.
fn connect(address: &str, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server takes connections");
    let versions =
        ApiVersionsRequest { client_software_name: "idle".into(), client_software_version: "1".into() };
    ask(&mut stream, VERSIONS_VERSION, &versions);
    let topic = metadata_request::MetadataRequestTopic { name: Some(TOPIC.into()), ..Default::default() };
    let metadata =
        MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: true, ..Default::default() };
    ask(&mut stream, METADATA_VERSION, &metadata);
    let mut batch = base::batch::BatchBuilder::new().producer(number as i64, 0, 0);
    batch.append(1, None, Some(&[b'v'; 100]));
    let batch = batch.finish().expect("a batch");
    let data = produce_request::PartitionProduceData { index: 0, records: Some(&batch) };
    let topic = produce_request::TopicProduceData {
        name: TOPIC.into(),
        partition_data: vec![data],
        ..Default::default()
    };
    let produce =
        ProduceRequest { acks: 1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
    let answer = ask(&mut stream, PRODUCE_VERSION, &produce);
    let response = ProduceResponse::decode(&mut Reader::new(&answer), PRODUCE_VERSION).expect("a response");
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    stream
}

/// The answer to a request, behind the number of the request.
fn ask<'q>(stream: &mut TcpStream, version: i16, request: &impl RequestMessage<'q>) -> Vec<u8> {
    let frame = request_frame(7, Some("idle"), version, request).expect("a request");
    stream.write_all(&frame).expect("the server reads");
    let mut size = [0; 4];
    stream.read_exact(&mut size).expect("an answer");
    let mut answer = vec![0; i32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer).expect("the rest of the answer");
    assert_eq!(answer[..4], 7_i32.to_be_bytes(), "the number of the request");
    answer.split_off(4)
}
