//! Reads by offset and by time.

use base::batch::Compression;
use base::env::sim::Sim;
use storage::{Patience, Segment, StorageError};

use crate::common::*;

/// A sealed or open segment with batches of 1 to 4 records and of various sizes, from offset 50 on.
fn varied(sim: &Sim, seal: bool) -> (std::sync::Arc<Segment>, Vec<Vec<u8>>) {
    let storage = open(sim);
    let segment = create(&storage, name(0, 1, 50));
    let mut all = Vec::new();
    for index in 0..60usize {
        let size = [5, 300, 40, 2_500, 900][index % 5];
        let bytes = batch(segment.end(), 1 + index % 4, size, 1_000 + index as i64);
        append(&segment, std::slice::from_ref(&bytes)).unwrap();
        all.push(bytes);
    }
    if !seal {
        return (segment, all);
    }
    let info = segment.seal().unwrap();
    (storage.load(name(0, 1, 50), info.end, info.bytes, info.crc), all)
}

#[test]
fn k_2_6_every_offset_upper_bound_and_size_gives_whole_batches() {
    for seal in [false, true] {
        let sim = Sim::new(1);
        let (segment, all) = varied(&sim, seal);
        let headers: Vec<_> = all.iter().map(|bytes| *batches(bytes)[0].header()).collect();
        for from in 50..segment.end() {
            for upper in [from, from + 1, from + 7, segment.end(), segment.end() + 9] {
                for max_bytes in [0, 500, 3_000, 1 << 20] {
                    for at_least_one in [false, true] {
                        // What the rule says, by brute force.
                        let mut expected = Vec::new();
                        let mut next = from;
                        for (header, bytes) in headers.iter().zip(&all) {
                            if header.next_offset() <= from || from >= upper {
                                continue;
                            }
                            let fits = expected.len() + bytes.len() <= max_bytes
                                || (expected.is_empty() && at_least_one);
                            if header.next_offset() > upper || !fits {
                                break;
                            }
                            expected.extend_from_slice(bytes);
                            next = header.next_offset();
                        }
                        let slice = segment.read(from, upper, max_bytes, at_least_one).unwrap();
                        assert_eq!(slice.next_offset, next, "{from} {upper} {max_bytes} {at_least_one}");
                        assert!(slice.bytes == expected);
                        let more = from < upper
                            && headers.iter().any(|h| h.next_offset() > next && h.next_offset() <= upper);
                        assert_eq!(slice.exhausted, !more, "{from} {upper} {max_bytes} {at_least_one}");
                    }
                }
            }
        }
    }
}

#[test]
fn k_2_7_time_search_is_exact_to_the_record() {
    for codec in Compression::ALL {
        let sim = Sim::new(1);
        let storage = open(&sim);
        let segment = create(&storage, name(0, 1, 50));
        let mut records = Vec::new();
        // Batches overlap in time, as those of two producers do.
        for index in 0..50i64 {
            let newest = 1_000 + index * 4 - (index % 3) * 9;
            let bytes = batch_with(segment.end(), 3, 200, newest, codec);
            for step in 0..3 {
                records.push((segment.end() + step, newest - 2 + step));
            }
            append(&segment, &[bytes]).unwrap();
        }
        let check = |segment: &Segment| {
            for timestamp in (900..1_300).step_by(3) {
                for (from, upper) in [(0, i64::MAX), (77, i64::MAX), (60, 101), (199, 200)] {
                    let expected = records
                        .iter()
                        .find(|(offset, time)| *time >= timestamp && *offset >= from && *offset < upper);
                    let found = segment.find_timestamp(timestamp, from, upper).unwrap();
                    assert_eq!(found, expected.copied(), "{codec} {timestamp} {from} {upper}");
                }
            }
        };
        check(&segment);
        let info = segment.seal().unwrap();
        check(&segment);
        check(&storage.load(name(0, 1, 50), info.end, info.bytes, info.crc));
    }
}

#[test]
fn a_batch_that_cannot_be_unfolded_counts_as_a_whole() {
    let sim = Sim::new(1);
    let options = storage::StorageOptions { decompressed_batch_bytes_max: 100, ..options() };
    let storage = storage::Storage::open(sim.env.clone(), DIR.into(), options).unwrap();
    let segment = create(&storage, name(0, 1, 0));
    append(&segment, &[batch_with(0, 3, 5_000, 1_000, Compression::Lz4)]).unwrap();
    assert_eq!(segment.find_timestamp(999, 0, 9).unwrap(), Some((0, 1_000)));
}

#[test]
fn readers_that_go_on_read_the_file_once() {
    let sim = Sim::new(1);
    let (segment, all) = varied(&sim, true);
    segment.read(50, segment.end(), 1, true).unwrap();
    let mut from = 50;
    let mut bytes = 0;
    while from < segment.end() {
        let slice = segment.read(from, segment.end(), 4_000, true).unwrap();
        from = slice.next_offset;
        bytes += slice.bytes.len();
    }
    assert_eq!(bytes, all.concat().len());
    let handles = sim.disk.open_handles();
    assert!(handles <= 3, "{handles}");
}

#[test]
fn an_empty_segment_has_nothing_to_read() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 50));
    let slice = segment.read(50, 60, 100, true).unwrap();
    assert!(slice.bytes.is_empty() && slice.exhausted);
    assert_eq!(segment.max_timestamp().unwrap(), None);
    assert_eq!(segment.find_timestamp(0, 0, 100).unwrap(), None);
    let info = segment.seal().unwrap();
    assert_eq!((info.end, info.bytes, info.crc), (50, 0, 0));
}

#[test]
fn who_does_not_wait_is_told_of_records_that_are_not_in_memory() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let segment = create(&storage, name(0, 1, 0));
        fill(&segment, 20, 500);
        let info = segment.seal().unwrap();
        let loaded = storage.load(segment.name().clone(), info.end, info.bytes, info.crc);
        let read = |patience| loaded.read_with(patience, (5, 20), 3_000, true);
        // Where the records are has to be looked up first.
        assert!(matches!(read(Patience::Cached), Err(StorageError::NotCached)));
        let waited = read(Patience::Wait).unwrap();
        assert_eq!(read(Patience::Cached).unwrap(), waited);
        sim.disk.set_cold(true);
        assert!(matches!(read(Patience::Cached), Err(StorageError::NotCached)));
        assert_eq!(read(Patience::Wait).unwrap(), waited);
    });
}

#[test]
fn what_is_sent_from_the_file_is_what_a_read_gives() {
    for seal in [false, true] {
        let sim = Sim::new(1);
        let storage = open(&sim);
        let segment = create(&storage, name(0, 1, 50));
        let mut all = Vec::new();
        let mut ends = vec![50];
        for index in 0..400usize {
            let bytes = batch(segment.end(), 1 + index % 4, [90, 3_000, 700][index % 3], 1_000);
            append(&segment, std::slice::from_ref(&bytes)).unwrap();
            all.extend_from_slice(&bytes);
            ends.push(segment.end());
        }
        if seal {
            segment.seal().unwrap();
        }
        for (upper, max_bytes) in [(2_000, 1 << 20), (2_000, 200_000), (700, 200_000), (333, 1 << 20)] {
            let (mut from, mut sent, mut ranges) = (50, Vec::new(), 0);
            while from < upper.min(segment.end()) {
                if let Some(range) = segment.range(from, upper, max_bytes).unwrap() {
                    assert!((64 << 10..=max_bytes).contains(&range.length), "{range:?}");
                    let bytes = range.read().unwrap();
                    let last = *batches(&bytes).last().expect("whole batches").header();
                    from = last.next_offset();
                    sent.extend_from_slice(&bytes);
                    ranges += 1;
                } else {
                    let slice = segment.read(from, upper, max_bytes.min(10_000), true).unwrap();
                    if slice.bytes.is_empty() {
                        break;
                    }
                    sent.extend_from_slice(&slice.bytes);
                    from = slice.next_offset;
                }
                assert!(ends.contains(&from) && from <= upper, "{from} of {upper}");
            }
            assert!(all.starts_with(&sent) && ranges > 0, "{seal} {upper} {max_bytes}");
            assert_eq!(Some(&from), ends.iter().rfind(|end| **end <= upper));
        }
    }
}

#[test]
fn nothing_is_sent_from_the_file_that_is_short_or_not_in_memory() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, 100, 2_000);
    let range = |from, upper, max_bytes| segment.range(from, upper, max_bytes).unwrap();
    assert!(range(0, 100, 1 << 20).is_some());
    assert!(range(0, 100, 60_000).is_none(), "little is asked for");
    assert!(range(0, 20, 1 << 20).is_none(), "little is committed");
    assert!(range(13, 100, 1 << 20).is_some());
    assert!(range(80, 100, 1 << 20).is_none(), "little is left");
    sim.disk.set_cold(true);
    assert!(range(0, 100, 1 << 20).is_none());
}
