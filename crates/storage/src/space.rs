//! When a disk is full, and the file that is given up then (replication.md section 2.11).
//!
//! Getting full ([`StorageState::ReadOnly`]) is advice to place new segments elsewhere; full
//! ([`StorageState::NoSpace`]) refuses appends before anything is written. So that what must still be
//! written then (checkpoints, index ends, the metadata log beside us) finds room, a file of reserved
//! blocks is removed when the disk is full and made anew when it no longer is.

use std::sync::Arc;

use base::env::Space;

/// What a storage can do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageState {
    /// Everything.
    Writable,
    /// Getting full: appends go on, but new segments should be placed elsewhere.
    ReadOnly,
    /// Full: appends are refused before anything is written.
    NoSpace,
    /// A write or sync failed; for good. Holds the first failure.
    Failed(Arc<str>),
}

/// From when on a disk counts as full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceLimits {
    /// Share of the file system in use from which on [`StorageState::ReadOnly`], percent.
    pub read_only_percent: u8,
    /// Share of the file system in use from which on [`StorageState::NoSpace`], percent.
    pub no_space_percent: u8,
    /// With this much available, bytes, the shares do not matter.
    pub ample_bytes: u64,
}

impl Default for SpaceLimits {
    fn default() -> SpaceLimits {
        SpaceLimits { read_only_percent: 90, no_space_percent: 97, ample_bytes: 32 << 30 }
    }
}

/// How full a disk is. Ordered from empty to full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Fullness {
    Roomy = 0,
    Filling = 1,
    Full = 2,
}

impl Fullness {
    pub(crate) fn from_u8(number: u8) -> Fullness {
        match number {
            0 => Fullness::Roomy,
            1 => Fullness::Filling,
            _ => Fullness::Full,
        }
    }
}

/// Judges the room left. `reserve_missing` bytes of it belong to the reserve that was given up: they do
/// not count as available, or else giving it up would end the emergency.
pub(crate) fn fullness(space: Space, limits: SpaceLimits, reserve_missing: u64) -> Fullness {
    let available = space.available.saturating_sub(reserve_missing);
    if available >= limits.ample_bytes && available > 0 {
        return Fullness::Roomy;
    }
    let used = u128::from(space.total.saturating_sub(available)) * 100;
    let share = |percent: u8| u128::from(percent) * u128::from(space.total);
    if used >= share(limits.no_space_percent) {
        Fullness::Full
    } else if used >= share(limits.read_only_percent) {
        Fullness::Filling
    } else {
        Fullness::Roomy
    }
}

/// Size of the reserve on a disk: what was asked for, but never more than a hundredth of it.
pub(crate) fn reserve_bytes(asked: u64, space: Space) -> u64 {
    asked.min(space.total / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SpaceLimits =
        SpaceLimits { read_only_percent: 90, no_space_percent: 97, ample_bytes: 1 << 40 };

    fn judge(available: u64, reserve_missing: u64) -> Fullness {
        fullness(Space { total: 1_000, available }, LIMITS, reserve_missing)
    }

    #[test]
    fn shares_decide() {
        assert_eq!(judge(1_000, 0), Fullness::Roomy);
        assert_eq!(judge(101, 0), Fullness::Roomy);
        assert_eq!(judge(100, 0), Fullness::Filling);
        assert_eq!(judge(31, 0), Fullness::Filling);
        assert_eq!(judge(30, 0), Fullness::Full);
        assert_eq!(judge(0, 0), Fullness::Full);
    }

    #[test]
    fn the_reserve_given_up_does_not_end_the_emergency() {
        assert_eq!(judge(40, 0), Fullness::Filling);
        assert_eq!(judge(40, 10), Fullness::Full);
    }

    #[test]
    fn ample_room_is_room_whatever_the_share() {
        let limits = SpaceLimits { ample_bytes: 20, ..LIMITS };
        assert_eq!(fullness(Space { total: 1_000, available: 20 }, limits, 0), Fullness::Roomy);
        let nothing = SpaceLimits { ample_bytes: 0, ..LIMITS };
        assert_eq!(fullness(Space { total: 1_000, available: 0 }, nothing, 0), Fullness::Full);
    }

    #[test]
    fn the_reserve_stays_small_on_a_small_disk() {
        assert_eq!(reserve_bytes(64, Space { total: 1_000, available: 0 }), 10);
        assert_eq!(reserve_bytes(64, Space { total: 1 << 40, available: 0 }), 64);
    }
}
