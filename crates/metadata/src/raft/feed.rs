//! What nodes that are no voters follow: the entries that were applied last, and the image for who is too far behind.
//!
//! Nothing is queued for a follower: each has a place in the one list of kept entries, and who falls off its end is sent
//! away, comes back and begins with an image.
//!
//! Invariants: kept entries are applied, so no voter ever takes one back, and a follower may go on at another voter;
//! their indexes have no gaps; an image and the index that goes with it are published together.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::entry::Batch;
use crate::image::Image;
use crate::record::encode_image;
use crate::store::COMMAND_BYTES_MAX;
use crate::watch;

/// Entries are kept up to this many bytes, the newest in any case.
const KEPT_BYTES_MAX: usize = 2 * COMMAND_BYTES_MAX;
/// Entries go into one response up to this many bytes, the first in any case.
const RESPONSE_BYTES: usize = 1 << 20;

/// An image, and the index of the first entry that it does not show.
#[derive(Clone, Default)]
pub(super) struct Shown {
    pub(super) next: u64,
    pub(super) image: Arc<Image>,
}

/// An encoded image.
pub(super) struct Encoded {
    pub(super) next: u64,
    pub(super) bytes: Vec<u8>,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<(Batch, usize)>,
    bytes: usize,
    /// Index of the entry that comes after them.
    next: u64,
}

impl Kept {
    fn first(&self) -> u64 {
        self.next - self.entries.len() as u64
    }
}

/// See the module's head.
pub(super) struct Feed {
    entries_max: usize,
    /// Entries are kept although nobody follows.
    keeps: bool,
    kept: Mutex<Kept>,
    shown: watch::Sender<Shown>,
    /// The image that somebody is being sent.
    encoded: tokio::sync::Mutex<Weak<Encoded>>,
}

impl Feed {
    /// Keeps so many entries at most. It begins with the first image that is published.
    pub(super) fn new(entries_max: usize) -> Feed {
        let shown = watch::Sender::new(Shown::default());
        let (kept, encoded) = (Mutex::default(), tokio::sync::Mutex::default());
        Feed { entries_max, keeps: true, kept, shown, encoded }
    }

    /// As [`Feed::new`], and keeps nothing as long as nobody follows: for a voter that is alone, as most are.
    pub(super) fn while_followed(entries_max: usize) -> Feed {
        Feed { keeps: false, ..Feed::new(entries_max) }
    }

    /// Keeps an entry that was applied.
    pub(super) fn add(&self, index: u64, batch: Batch) {
        let mut kept = self.kept.lock();
        if !self.keeps && self.shown.receiver_count() == 0 {
            *kept = Kept { next: index + 1, ..Kept::default() };
            return;
        }
        if index != kept.next {
            *kept = Kept { next: index, ..Kept::default() };
        }
        let bytes = batch.bytes();
        kept.entries.push_back((batch, bytes));
        kept.bytes += bytes;
        kept.next = index + 1;
        while kept.entries.len() > self.entries_max || kept.bytes > KEPT_BYTES_MAX && kept.entries.len() > 1 {
            let dropped = kept.entries.pop_front();
            kept.bytes -= dropped.map_or(0, |(_, bytes)| bytes);
        }
    }

    /// Shows the image that has everything up to an entry.
    pub(super) fn publish(&self, shown: Shown) {
        let mut kept = self.kept.lock();
        if shown.next > kept.next {
            // It came as a snapshot.
            *kept = Kept { next: shown.next, ..Kept::default() };
        }
        drop(kept);
        self.shown.send_replace(shown);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Shown> {
        self.shown.subscribe()
    }

    /// Entries from one on, as many as go into a response; `None` when that one is not kept any more.
    pub(super) fn from(&self, next: u64) -> Option<Vec<(u64, Batch)>> {
        let kept = self.kept.lock();
        let skipped = usize::try_from(next.checked_sub(kept.first())?).ok()?;
        let mut bytes = 0;
        let fitting = kept.entries.iter().skip(skipped).take_while(|(_, size)| {
            let first = bytes == 0;
            // An entry takes room beside its commands.
            bytes += size + 32;
            first || bytes <= RESPONSE_BYTES
        });
        Some((next..).zip(fitting.map(|(batch, _)| batch.clone())).collect())
    }

    /// The image as bytes: as it is, or as it was when another one was sent it, if the entries after it are kept.
    pub(super) async fn encode(&self, env: &base::env::Env) -> Arc<Encoded> {
        let mut last = self.encoded.lock().await;
        if let Some(encoded) = last.upgrade().filter(|encoded| self.from(encoded.next).is_some()) {
            return encoded;
        }
        let Shown { next, image } = self.shown.borrow().clone();
        let bytes = env.blocking(move || encode_image(&image)).await;
        let encoded = Arc::new(Encoded { next, bytes });
        *last = Arc::downgrade(&encoded);
        encoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(bytes: usize) -> Batch {
        Batch { commands: Arc::new(vec![vec![0; bytes]]), id: None }
    }

    fn indexes(feed: &Feed, next: u64) -> Option<Vec<u64>> {
        feed.from(next).map(|entries| entries.into_iter().map(|(index, _)| index).collect())
    }

    #[test]
    fn the_last_entries_are_kept() {
        let feed = Feed::new(3);
        feed.publish(Shown { next: 5, ..Shown::default() });
        assert_eq!(indexes(&feed, 5), Some(vec![]));
        assert_eq!(indexes(&feed, 4), None, "only the image has it");
        for index in 5..10 {
            feed.add(index, batch(1));
        }
        assert_eq!(indexes(&feed, 6), None);
        assert_eq!(indexes(&feed, 7), Some(vec![7, 8, 9]));
        assert_eq!(indexes(&feed, 10), Some(vec![]));
        assert_eq!(indexes(&feed, 99), Some(vec![]), "it is ahead of this voter");
        feed.publish(Shown { next: 50, ..Shown::default() });
        assert_eq!(indexes(&feed, 10), None);
        assert_eq!(indexes(&feed, 50), Some(vec![]));
    }

    #[test]
    fn a_voter_that_is_alone_keeps_entries_while_somebody_follows() {
        let feed = Feed::while_followed(3);
        feed.add(1, batch(1));
        assert_eq!((indexes(&feed, 1), indexes(&feed, 2)), (None, Some(vec![])));
        let follower = feed.subscribe();
        feed.add(2, batch(1));
        feed.add(3, batch(1));
        assert_eq!(indexes(&feed, 2), Some(vec![2, 3]));
        drop(follower);
        feed.add(4, batch(1));
        assert_eq!((indexes(&feed, 4), indexes(&feed, 5)), (None, Some(vec![])));
    }

    #[test]
    fn large_entries_go_alone_and_are_kept_up_to_a_sum() {
        let feed = Feed::new(100);
        for index in 0..5 {
            feed.add(index, batch(COMMAND_BYTES_MAX - 1));
        }
        assert_eq!(indexes(&feed, 2), None);
        assert_eq!(indexes(&feed, 3), Some(vec![3]));
        feed.add(5, batch(3 * COMMAND_BYTES_MAX));
        assert_eq!(indexes(&feed, 5), Some(vec![5]));
    }
}
