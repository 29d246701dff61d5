//! Stored forms: mutated bytes are refused or read as something else, never a panic.

use base::chain::{Rewrite, Seal};
use base::env::sim::SimRandom;
use base::ids::{
    BrokerId, Generation, Incarnation, LeaderEpoch, PartitionId, SegmentId, TopicPartition, Uuid,
};

use super::commands::{Draw, member, sealed_entry, storages};
use crate::command::{ChainEdit, Command, CommandResult, MetadataVersions, StorageHealth};
use crate::control::apply;
use crate::image::Image;
use crate::proposals::{Novelty, ProposalId};
use crate::record::{decode_command, decode_image, encode_command, encode_image};

#[test]
fn every_field_at_its_bounds_comes_back() {
    let partition = TopicPartition { topic_id: Uuid([255; 16]), partition: PartitionId(i32::MIN) };
    let seal = Seal {
        segment: SegmentId(u64::MAX),
        leader_epoch: LeaderEpoch(i32::MIN),
        end: i64::MIN,
        crc: u32::MAX,
        bytes: u64::MAX,
        holders: storages(1),
        unclean: true,
    };
    let edits = vec![
        ChainEdit::Trim { partition, start: i64::MIN },
        ChainEdit::SealAndOpen {
            partition,
            seal,
            ensemble: vec![member(i32::MAX, i64::MAX), member(-1, i64::MIN)],
        },
        ChainEdit::Replace {
            partition,
            rewrite: Rewrite {
                old: vec![(SegmentId(0), Generation(u32::MAX))],
                new: sealed_entry(),
                compacted_to: i64::MAX,
                leader_epoch: Some(LeaderEpoch(i32::MIN)),
            },
        },
        ChainEdit::Replace {
            partition,
            rewrite: Rewrite {
                old: Vec::new(),
                new: sealed_entry(),
                compacted_to: i64::MIN,
                leader_epoch: None,
            },
        },
    ];
    let segment = (SegmentId(u64::MAX), Generation(u32::MAX));
    let (storage, leader) = (Uuid([255; 16]), BrokerId(i32::MIN));
    let more = vec![
        ChainEdit::Elect { partition, leader, epoch: LeaderEpoch(i32::MIN) },
        ChainEdit::AddReplica { partition, segment, storage, crc: u32::MAX },
        ChainEdit::DropReplica { partition, segment, storage },
        ChainEdit::SetPlacement {
            partition,
            brokers: vec![BrokerId(i32::MAX), leader],
            keepers: vec![leader, BrokerId(-1)],
        },
    ];
    let incarnation = Incarnation(i64::MIN);
    for command in [
        Command::Edit(edits),
        Command::Edit(more),
        Command::Edit(Vec::new()),
        Command::AllocateProducerIds { count: i64::MIN },
        Command::SetFenced { broker: leader, incarnation, fenced: true },
        Command::Drain { broker: leader, incarnation },
        Command::FormatCluster { cluster_id: Uuid([255; 16]), metadata_version: 2 },
        Command::SetMetadataVersion(1),
        Command::AllocateBrokerId { above: leader },
        Command::UnregisterBroker { broker: leader },
        Command::SetStorageHealth { broker: leader, storage, state: StorageHealth::Lost },
    ] {
        assert_eq!(decode_command(&encode_command(&command)).as_ref(), Ok(&command));
    }
}

#[test]
fn what_is_of_a_later_version_is_refused_and_says_so() {
    let later = MetadataVersions::SUPPORTED.max + 1;
    for command in [
        Command::SetMetadataVersion(later),
        Command::FormatCluster { cluster_id: Uuid([1; 16]), metadata_version: later },
    ] {
        let refused = decode_command(&encode_command(&command)).unwrap_err().to_string();
        let told = [format!("metadata.version {later}"), MetadataVersions::SUPPORTED.to_string()];
        assert!(told.iter().all(|told| refused.contains(told)), "{refused}");
    }
    let image = Image { metadata_version: later, ..Image::default() };
    let refused = decode_image(&encode_image(&image)).unwrap_err().to_string();
    assert!(refused.contains(&format!("version {later}")), "{refused}");
}

#[test]
fn a_snapshot_has_who_proposed_what_and_which_numbers_were_given() {
    let mut image = Image::default();
    apply(&mut image, Command::FormatCluster { cluster_id: Uuid([1; 16]), metadata_version: 2 });
    apply(&mut image, Command::AllocateBrokerId { above: BrokerId(6) });
    let id = ProposalId { proposer: Uuid([2; 16]), sequence: u64::MAX };
    image.proposers.note(id, 7);
    let mut restored = decode_image(&encode_image(&image)).unwrap();
    assert_eq!((&restored, restored.metadata_version()), (&image, 2));
    assert_eq!(restored.proposers.note(id, 8), Novelty::Repeat(7));
    assert_eq!(
        apply(&mut restored, Command::AllocateBrokerId { above: BrokerId(0) }),
        CommandResult::FirstId(8)
    );
}

#[test]
fn mutated_bytes_never_panic() {
    let random = SimRandom::new(11);
    let draw = Draw(SimRandom::new(12));
    let mut image = Image::default();
    let (mut read, mut refused) = (0, 0);
    for _ in 0..3_000 {
        let command = draw.command(&image);
        for original in [encode_command(&command), encode_image(&image)] {
            let mut bytes = original;
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() as u64 + 1) as usize;
                match random.below(4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, random.below(256) as u8),
                    2 if at < bytes.len() => bytes[at] = [0, 0x7f, 0x80, 0xff][random.below(4) as usize],
                    _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                    _ => {}
                }
            }
            for is_read in [decode_command(&bytes).is_ok(), decode_image(&bytes).is_ok()] {
                if is_read { read += 1 } else { refused += 1 }
            }
        }
        apply(&mut image, command);
        if image.version % 300 == 0 {
            image = Image::default();
        }
    }
    assert!(read > 500 && refused > 500, "{read} {refused}");
}
