//! Finding the end of a log file after a crash.
//!
//! The tail behind the newest checkpoint is read batch by batch. Where that stops before the end of the
//! file, what lies there is one of three things, and they are told apart as far as bytes can tell:
//!
//! | what lies there | what it is | what is done |
//! |---|---|---|
//! | nothing that could be a later batch | a torn tail: the last write did not finish | cut |
//! | later batches, and in front of them a sector that was never written, after a reboot | the power went before sectors of unsynced writes were written, in any order | cut |
//! | anything else | damage to what was written | reported, never cut |
//!
//! A sector that was never written reads as zeros from where the file's former content ended. Nothing
//! below a sector lost that way can have been acknowledged as durable: syncing covers prefixes. Without
//! a reboot no sector gets lost, so then the second row does not apply. What the bytes cannot tell:
//! damage to the very last batch looks like a torn tail, and damage to a batch whose records hold a
//! sector of zeros looks, after a power cut, like a lost one. Both only within the tail.
//!
//! The batch's own CRC covers neither base offset nor length nor leader epoch, so they are held against
//! what must come next. A batch whose CRC is right while those are not was written and then damaged.

use std::io;

use base::batch::{BASE_OFFSET_AT, BatchHeader, BatchView, HEADER_LEN, MAGIC, MAGIC_AT};
use base::env::File;
use base::ids::{LeaderEpoch, Offset};

use crate::scan::{Chunk, read_up_to};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// What a disk writes as a whole or not at all, bytes; larger units are multiples of it.
const SECTOR_BYTES: u64 = 512;
/// Batches that look right by their header and are read whole to make sure, at most. More than that
/// are not tried: they count as later batches.
const CANDIDATES_MAX: usize = 1_000;
/// Offsets by which a later batch may lie beyond what comes next.
const OFFSET_GAP_MAX: i64 = i32::MAX as i64;

/// What the caller knows of the tail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailRules<'a> {
    /// Where to begin, and which offset comes first there.
    pub(crate) position: u64,
    pub(crate) offset: Offset,
    /// Length of the file.
    pub(crate) length: u64,
    /// Leader epochs and where each begins; empty when they are not known.
    pub(crate) epochs: &'a [(LeaderEpoch, Offset)],
    /// The machine may have lost power since the tail was written.
    pub(crate) power_lost: bool,
}

impl TailRules<'_> {
    fn epoch_fits(&self, header: &BatchHeader) -> bool {
        let at = self.epochs.partition_point(|(_, start)| *start <= header.base_offset);
        match at.checked_sub(1) {
            Some(at) => self.epochs[at].0.0 == header.leader_epoch,
            None => self.epochs.is_empty(),
        }
    }

    /// A header that could come at or after `expected`.
    fn later(&self, header: &BatchHeader, expected: Offset) -> bool {
        let gap = header.base_offset.checked_sub(expected);
        gap.is_some_and(|gap| (0..=OFFSET_GAP_MAX).contains(&gap)) && self.epoch_fits(header)
    }
}

/// How the tail ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TailEnd {
    /// With its last batch.
    Whole,
    /// With bytes from `position` on that belong to no finished write.
    Torn { position: u64 },
    /// With damage at `position`.
    Damaged { position: u64, reason: String },
}

/// Reads the tail and gives each good batch, with its bytes, to `visit`.
pub(crate) fn scan_tail(
    file: &dyn File,
    rules: TailRules<'_>,
    visit: &mut dyn FnMut(u64, &BatchView<'_>),
) -> io::Result<TailEnd> {
    let mut chunk = Chunk::new(CHUNK_BYTES);
    let (mut position, mut expected) = (rules.position, rules.offset);
    while position < rules.length {
        let bytes = chunk.at(file, position, rules.length, HEADER_LEN)?;
        let Some(Ok(header)) = bytes.first_chunk().map(BatchHeader::parse) else {
            return judge(file, rules, position, expected, None);
        };
        if header.total_size() as u64 > rules.length - position {
            return judge(file, rules, position, expected, Some(&header));
        }
        let bytes = chunk.at(file, position, rules.length, header.total_size())?;
        let batch = match BatchView::parse(bytes) {
            Ok(batch) if batch.verify_crc().is_ok() => batch,
            _ => return judge(file, rules, position, expected, Some(&header)),
        };
        if header.base_offset != expected || !rules.epoch_fits(&header) {
            return misplaced(file, rules, position, expected, &header);
        }
        visit(position, &batch);
        position += header.total_size() as u64;
        expected = header.next_offset();
    }
    Ok(TailEnd::Whole)
}

/// A whole batch whose CRC is right, in the wrong place.
fn misplaced(
    file: &dyn File,
    rules: TailRules<'_>,
    position: u64,
    expected: Offset,
    header: &BatchHeader,
) -> io::Result<TailEnd> {
    // The end of a sector that was never written may hold the first bytes of the base offset.
    if rules.power_lost && start_was_lost(file, position, rules.length, expected)? {
        return Ok(TailEnd::Torn { position });
    }
    let (base, epoch) = (header.base_offset, header.leader_epoch);
    let reason = format!("a batch at offset {base} of leader epoch {epoch} where offset {expected} is due");
    Ok(TailEnd::Damaged { position, reason })
}

/// Tells a torn tail from damage. `header` is what the bytes at `position` say if they have the shape of
/// a header.
fn judge(
    file: &dyn File,
    rules: TailRules<'_>,
    position: u64,
    expected: Offset,
    header: Option<&BatchHeader>,
) -> io::Result<TailEnd> {
    let torn = TailEnd::Torn { position };
    // Of a write that ended early the header is right and says where the next batch would begin and
    // with which offset. Records may contain what looks like batches, so only that offset counts then.
    let unfinished = header.filter(|header| {
        let beyond = header.total_size() as u64 > rules.length - position;
        beyond && header.base_offset == expected && rules.epoch_fits(header)
    });
    let next = unfinished.map(|header| header.next_offset());
    let Some(later) = find_later(file, rules, position, expected, next)? else { return Ok(torn) };
    if rules.power_lost && sector_was_lost(file, position, later, expected)? {
        return Ok(torn);
    }
    let reason = format!("no batch, although another one follows at byte {later}");
    Ok(TailEnd::Damaged { position, reason })
}

/// Position of the first whole batch behind `position`. With `exactly` it must begin at that offset,
/// else anywhere from `expected` on.
fn find_later(
    file: &dyn File,
    rules: TailRules<'_>,
    position: u64,
    expected: Offset,
    exactly: Option<Offset>,
) -> io::Result<Option<u64>> {
    let mut candidates = 0;
    let mut chunk = Chunk::new(CHUNK_BYTES);
    let mut batch = Vec::new();
    let mut start = position + 1;
    while start + (HEADER_LEN as u64) <= rules.length {
        let bytes = chunk.at(file, start, rules.length, HEADER_LEN)?;
        let places = bytes.len().saturating_sub(HEADER_LEN - 1);
        for at in 0..places {
            if bytes[at + MAGIC_AT] != MAGIC as u8 {
                continue;
            }
            let header = bytes[at..].first_chunk().map(BatchHeader::parse);
            let Some(Ok(header)) = header else { continue };
            let here = start + at as u64;
            let fits = header.total_size() as u64 <= rules.length - here
                && rules.later(&header, expected)
                && exactly.is_none_or(|offset| header.base_offset == offset);
            if !fits {
                continue;
            }
            candidates += 1;
            batch.resize(header.total_size(), 0);
            let count = read_up_to(file, &mut batch, here)?;
            let whole = BatchView::parse(&batch[..count]).is_ok_and(|batch| batch.verify_crc().is_ok());
            if whole || candidates >= CANDIDATES_MAX {
                return Ok(Some(here));
            }
        }
        if places == 0 {
            break;
        }
        start += places as u64;
    }
    Ok(None)
}

/// Whether a sector between the broken batch at `start` and the whole one at `end` was never written.
fn sector_was_lost(file: &dyn File, start: u64, end: u64, expected: Offset) -> io::Result<bool> {
    if start_was_lost(file, start, end, expected)? {
        return Ok(true);
    }
    // The first bytes of a batch are zeros, so the whole one may begin within the lost sector.
    let end = end.next_multiple_of(SECTOR_BYTES);
    let mut sector = start.next_multiple_of(SECTOR_BYTES);
    let mut chunk = Chunk::new(CHUNK_BYTES);
    while sector + SECTOR_BYTES <= end {
        let bytes = chunk.at(file, sector, end, SECTOR_BYTES as usize)?;
        let mut zeros = bytes.chunks_exact(SECTOR_BYTES as usize);
        let sectors = zeros.len() as u64;
        if zeros.any(|sector| sector.iter().all(|byte| *byte == 0)) {
            return Ok(true);
        }
        if sectors == 0 {
            break;
        }
        sector += sectors * SECTOR_BYTES;
    }
    Ok(false)
}

/// Whether the sector in which a batch at offset `expected` was to begin ends in zeros from there on.
/// A piece so short that a batch could begin with those zeros proves nothing.
fn start_was_lost(file: &dyn File, start: u64, end: u64, expected: Offset) -> io::Result<bool> {
    let boundary = (start + 1).next_multiple_of(SECTOR_BYTES).min(end);
    let mut piece = vec![0; (boundary - start) as usize];
    let count = read_up_to(file, &mut piece, start)?;
    let offset = expected.to_be_bytes();
    let known = &offset[..piece.len().min(offset.len())];
    // Behind the base offset comes the length, which is never zero in its 4 bytes.
    let telling = known.iter().any(|byte| *byte != 0) || piece.len() >= BASE_OFFSET_AT + 12;
    Ok(telling && piece[..count].iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;
    use std::sync::Arc;

    use base::batch::BatchBuilder;
    use base::env::sim::Sim;
    use base::env::{Disk, OpenMode};

    use super::*;

    const EPOCHS: &[(LeaderEpoch, Offset)] = &[(LeaderEpoch(3), 0)];

    /// Batches of one record with `sizes` bytes, and where each begins.
    fn log(sizes: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut log, mut starts) = (Vec::new(), Vec::new());
        for (index, size) in sizes.iter().enumerate() {
            starts.push(log.len());
            let mut batch = BatchBuilder::new().base_offset(1_000 + index as i64).leader_epoch(3);
            batch.append(5, None, Some(&vec![0xaa; *size]));
            batch.finish_into(&mut log).unwrap();
        }
        (log, starts)
    }

    fn scan(bytes: &[u8], power_lost: bool) -> (Vec<Offset>, TailEnd) {
        let sim = Sim::new(1);
        let file: Arc<dyn File> = sim.disk.open(Path::new("/log"), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
        let length = bytes.len() as u64;
        let rules = TailRules { position: 0, offset: 1_000, length, epochs: EPOCHS, power_lost };
        let mut offsets = Vec::new();
        let end = scan_tail(&*file, rules, &mut |_, batch| offsets.push(batch.base_offset)).unwrap();
        (offsets, end)
    }

    #[test]
    fn whole_tails_are_read_whole() {
        let (bytes, _) = log(&[10, 300_000, 700, 1]);
        assert_eq!(scan(&bytes, true), (vec![1_000, 1_001, 1_002, 1_003], TailEnd::Whole));
        assert_eq!(scan(&[], true), (vec![], TailEnd::Whole));
    }

    #[test]
    fn every_cut_is_a_torn_tail() {
        let (bytes, starts) = log(&[10, 700, 5]);
        for power_lost in [false, true] {
            for cut in 1..bytes.len() {
                let whole = starts.iter().skip(1).filter(|start| **start <= cut).count();
                let (offsets, end) = scan(&bytes[..cut], power_lost);
                let position = starts[whole] as u64;
                let expected =
                    if starts.contains(&cut) { TailEnd::Whole } else { TailEnd::Torn { position } };
                assert_eq!((offsets.len(), end), (whole, expected), "cut at {cut}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_before_the_last_batch_is_damage() {
        let (bytes, starts) = log(&[10, 700, 5]);
        for power_lost in [false, true] {
            for bit in 0..starts[2] * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let (_, end) = scan(&damaged, power_lost);
                let position = if bit / 8 < starts[1] { 0 } else { starts[1] as u64 };
                assert!(
                    matches!(end, TailEnd::Damaged { position: at, .. } if at == position),
                    "bit {bit}: {end:?}"
                );
            }
        }
    }

    #[test]
    fn flipped_bits_outside_the_crc_of_the_last_batch_are_damage() {
        let (bytes, _) = log(&[10]);
        for bit in (0..64).chain(12 * 8..16 * 8) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let end = scan(&damaged, false).1;
            // Offsets that cannot be make the header none.
            let impossible = bit == 7;
            assert!(impossible || matches!(end, TailEnd::Damaged { .. }), "bit {bit}: {end:?}");
        }
    }

    #[test]
    fn lost_sectors_are_no_damage_after_a_power_cut() {
        let (bytes, starts) = log(&[100, 2_000, 600, 3_000]);
        let sectors = bytes.len() / 512;
        for sector in 0..sectors {
            // The first batch was synced, so its bytes stand in every version of their sector.
            let start = (sector * 512).max(starts[1]);
            let mut torn = bytes.clone();
            torn[start..(sector + 1) * 512].fill(0);
            let broken = starts.iter().rfind(|at| **at <= start).unwrap();
            let last_is_whole = (sector + 1) * 512 <= starts[3];
            let (_, end) = scan(&torn, true);
            assert_eq!(end, TailEnd::Torn { position: *broken as u64 }, "sector {sector}");
            let (_, end) = scan(&torn, false);
            assert_eq!(matches!(end, TailEnd::Damaged { .. }), last_is_whole, "sector {sector}: {end:?}");
        }
    }

    #[test]
    fn batches_within_records_do_not_turn_a_torn_tail_into_damage() {
        let mut inner = Vec::new();
        for offset in [1_002, 5_000] {
            let mut batch = BatchBuilder::new().base_offset(offset).leader_epoch(3);
            batch.append(5, None, Some(b"mirrored"));
            batch.finish_into(&mut inner).unwrap();
        }
        let mut outer = BatchBuilder::new().base_offset(1_000).leader_epoch(3);
        outer.append(5, None, Some(&inner));
        let bytes = outer.finish().unwrap();
        let torn = &bytes[..bytes.len() - 3];
        assert_eq!(scan(torn, false).1, TailEnd::Torn { position: 0 });
    }

    #[test]
    fn another_epoch_is_damage() {
        let (mut bytes, starts) = log(&[10, 20]);
        let mut other = BatchBuilder::new().base_offset(1_002).leader_epoch(4);
        other.append(0, None, None);
        other.finish_into(&mut bytes).unwrap();
        let (offsets, end) = scan(&bytes, false);
        assert_eq!(offsets, [1_000, 1_001]);
        assert!(matches!(end, TailEnd::Damaged { position, .. } if position > starts[1] as u64));
    }
}
