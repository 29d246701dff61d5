//! What is said comes back, and garbage is refused.

use base::config::Durability;
use base::env::Random;
use base::env::sim::SimRandom;
use base::ids::{
    BrokerId, Generation, Incarnation, LeaderEpoch, PartitionId, SegmentId, TopicPartition, Uuid,
};
use bytes::Bytes;
use storage::{SealedInfo, SegmentName};

use super::message::*;
use crate::protocol::FenceAnswer;

fn name(topic: &str) -> SegmentName {
    SegmentName {
        topic: topic.into(),
        partition: TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionId(3) },
        id: SegmentId(u64::MAX),
        generation: Generation(2),
        base: 1_000,
    }
}

fn fetch(number: u64, storage: Uuid, sealed: SealedInfo, snapshot: Option<Bytes>) -> Message {
    let epoch = LeaderEpoch(4);
    let source = Uuid::ZERO;
    Message::Fetch(
        number,
        Box::new(FetchRequest { name: name("b"), storage, sealed, source, epoch, snapshot }),
    )
}

fn said() -> Vec<Message> {
    let life =
        |broker, incarnation| BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(incarnation) };
    let epochs = vec![(LeaderEpoch(0), -5), (LeaderEpoch(4), 1_000)];
    let storage = Uuid([9; 16]);
    let bytes = Bytes::from_static(b"batches");
    let create = Create {
        stream: 7,
        name: name("orders.eu"),
        storage,
        epoch: LeaderEpoch(4),
        epochs: epochs.clone(),
        incarnation: Incarnation(i64::MAX),
        durability: Durability::PageCache,
        kind: PushKind::CopyUp,
        snapshot: Bytes::from_static(b"producers"),
    };
    let fence = FenceRequest {
        name: name("a"),
        storage,
        epochs,
        epoch: LeaderEpoch(i32::MAX),
        durability: Durability::Fsync,
    };
    let sealed = SealedInfo { end: 2_000, bytes: 77, crc: 5 };
    let pull = |sealed| PullRequest { name: name("b"), storage, sealed, from: 1_000, max_bytes: 9 };
    let answer = FenceAnswer { end: 12, authoritative: true };
    let mut all = vec![
        Message::Hello(Hello { version: VERSION, cluster: storage, from: life(1, 2), to: life(3, 4) }),
        Message::Welcome,
        Message::Refused(Reason::Incarnation, "too late".to_owned()),
        Message::Create(Box::new(Create {
            kind: PushKind::Member,
            snapshot: Bytes::new(),
            ..create.clone()
        })),
        Message::Create(Box::new(create)),
        Message::Append { stream: 1, from: 0, high_watermark: -1, bytes },
        Message::Commit { stream: 1, high_watermark: 9 },
        Message::Close { stream: u32::MAX },
        Message::Fence(3, Box::new(fence)),
        Message::Pull(u64::MAX, Box::new(pull(None))),
        Message::Pull(0, Box::new(pull(Some(sealed)))),
        Message::Ack { stream: 3, end: 0 },
        Message::FenceAnswer(1, FenceResult::Promised { answer, high_watermark: None }),
        Message::FenceAnswer(1, FenceResult::Promised { answer, high_watermark: Some(0) }),
        Message::FenceAnswer(1, FenceResult::Fenced(LeaderEpoch(9))),
        Message::FenceAnswer(1, FenceResult::Unknown),
        Message::Pulled(5, PullResult::Bytes(Bytes::from_static(b"more"))),
        fetch(3, storage, sealed, None),
        fetch(4, storage, sealed, Some(Bytes::from_static(b"producers"))),
        Message::Fetched(3, None),
        Message::Fetched(4, Some("why not".to_owned())),
        Message::Pulled(5, PullResult::NotHere),
        Message::Pulled(5, PullResult::Unknown),
        Message::Pulled(5, PullResult::Failed("why".to_owned())),
    ];
    let refusals = [
        Refusal::Fenced(LeaderEpoch(2)),
        Refusal::StaleIncarnation(Incarnation(8)),
        Refusal::Gap(5),
        Refusal::NoSpace,
        Refusal::StorageFailed,
        Refusal::Sealed,
        Refusal::Busy,
    ];
    all.extend(refusals.map(|refusal| Message::Nack { stream: 2, refusal }));
    all.into_iter().chain(confirmations()).collect()
}

fn confirmations() -> [Message; 3] {
    let (partition, epoch, incarnation) = (name("a").partition, LeaderEpoch(3), Incarnation(7));
    [
        Message::Confirm(9, ConfirmRequest { partition, epoch, incarnation }),
        Message::Confirmed(9, None),
        Message::Confirmed(9, Some(Refusal::Fenced(LeaderEpoch(4)))),
    ]
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out).unwrap();
    out
}

fn decoded(frame: &[u8]) -> Result<Message, MessageError> {
    Message::decode(Bytes::copy_from_slice(&frame[LENGTH_BYTES..]))
}

#[test]
fn the_magic_is_no_size_of_a_kafka_request() {
    let as_size = i32::from_be_bytes(*MAGIC.first_chunk().unwrap());
    assert!(as_size > 1 << 30);
}

#[test]
fn what_is_said_comes_back() {
    for message in said() {
        let frame = encoded(&message);
        let length = u32::from_be_bytes(*frame.first_chunk().unwrap()) as usize;
        assert_eq!(length, frame.len() - LENGTH_BYTES);
        assert_eq!(decoded(&frame).as_ref(), Ok(&message));
        if let Message::Append { stream, from, high_watermark, bytes } = &message {
            let mut direct = Vec::new();
            encode_append(&mut direct, *stream, *from, *high_watermark, bytes).unwrap();
            assert_eq!(direct, frame);
        }
    }
}

#[test]
fn a_cut_message_is_short_unless_its_last_field_is_open() {
    for message in said() {
        let frame = encoded(&message);
        for cut in LENGTH_BYTES..frame.len() {
            let result = decoded(&frame[..cut]);
            assert_ne!(result.as_ref(), Ok(&message));
            let open = matches!(
                message,
                Message::Append { .. } | Message::Create(_) | Message::Pulled(..) | Message::Fetch(..)
            );
            assert!(open || result.is_err(), "{message:?} at {cut}");
        }
    }
}

#[test]
fn names_that_are_no_file_names_are_refused() {
    for topic in ["", ".", "..", "a/b", "../x", "a b", "a\0", "ü", &"x".repeat(250)] {
        let pull =
            PullRequest { name: name(topic), storage: Uuid::ZERO, sealed: None, from: 0, max_bytes: 0 };
        let frame = encoded(&Message::Pull(1, Box::new(pull)));
        assert_eq!(decoded(&frame), Err(MessageError::Field("topic")), "{topic}");
    }
}

#[test]
fn a_long_text_is_cut_and_a_long_frame_is_not_made() {
    let frame = encoded(&Message::Refused(Reason::Version, "ü".repeat(2_000)));
    let Ok(Message::Refused(_, text)) = decoded(&frame) else { panic!("a refusal") };
    assert_eq!(text, "ü".repeat(500));
    let mut out = vec![1, 2, 3];
    let bytes = Bytes::from(vec![0; FRAME_BYTES_MAX]);
    let long = Message::Append { stream: 1, from: 0, high_watermark: 0, bytes: bytes.clone() };
    assert!(matches!(long.encode(&mut out), Err(MessageError::Length(_))));
    assert!(encode_append(&mut out, 1, 0, 0, &bytes).is_err());
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn a_count_does_not_make_us_allocate() {
    let Some(fence) = said().into_iter().find(|message| matches!(message, Message::Fence(..))) else {
        panic!("a fence");
    };
    let mut frame = encoded(&fence);
    let at = frame.windows(4).position(|bytes| bytes == [0, 0, 0, 2]).unwrap();
    for (count, error) in [(1 << 16, MessageError::Short), (0, MessageError::Field("epochs"))] {
        // The first such bytes are the generation; the count follows the storage's id.
        let count_at = frame[at + 4..].windows(4).position(|bytes| bytes == [0, 0, 0, 2]);
        let count_at = at + 4 + count_at.unwrap_or_default();
        let original = frame[count_at..count_at + 4].to_vec();
        frame[count_at..count_at + 4].copy_from_slice(&(count as u32).to_be_bytes());
        assert_eq!(decoded(&frame), Err(error));
        frame[count_at..count_at + 4].copy_from_slice(&original);
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let random = SimRandom::new(5);
    let frames: Vec<Vec<u8>> = said().iter().map(encoded).collect();
    let mut refused = 0;
    for original in frames.iter().cycle().take(50_000) {
        let mut bytes = original[LENGTH_BYTES..].to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len().max(1) as u64) as usize;
            match random.below(3) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.below(256) as u8),
                _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                _ => {}
            }
        }
        let decoded = Message::decode(bytes.clone().into());
        refused += usize::from(decoded.is_err());
        if let Ok(message) = decoded {
            // What is understood is understood again when it is said.
            let again = encoded(&message);
            assert_eq!(Message::decode(Bytes::copy_from_slice(&again[LENGTH_BYTES..])), Ok(message));
        }
    }
    for length in 0..2_000 {
        let mut bytes = vec![0; length % 97];
        random.fill(&mut bytes);
        refused += usize::from(Message::decode(bytes.into()).is_err());
    }
    assert!(refused > 10_000, "{refused}");
}
