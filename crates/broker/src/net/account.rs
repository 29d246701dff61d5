//! The memory that all connections share, and what each of them holds of it.
//!
//! Held are: room of the read buffer, requests that are being answered, answers not sent yet. Nothing is ever
//! refused to a connection that already has it in hand; what stops is reading. So the budget can be
//! exceeded, by what the requests that were running at that moment still answer.
//!
//! Small requests are read even when the budget is spent: they hold next to nothing, and heartbeats must not wait for
//! bulk. When every byte is held by large frames that are not complete yet, none of them could ever complete.
//! So one connection at a time may go on reading its frame although the budget is spent; it must be quick
//! about it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::limits::{ACCOUNT_GRAIN_BYTES, READ_BYTES, SMALL_FRAME_BYTES};

/// The least an answer may be allowed to hold when memory is short, bytes.
const ALLOWANCE_MIN_BYTES: i64 = 64 * 1024;

/// Bytes that all connections together may hold.
#[derive(Debug)]
pub struct MemoryBudget {
    total: i64,
    available: AtomicI64,
    has_waiters: AtomicBool,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    wakers: HashMap<u64, Waker>,
    /// The connection that may read although nothing is available.
    overdraft: Option<u64>,
}

impl MemoryBudget {
    /// A budget of which nothing is held.
    pub fn new(bytes: u64) -> Arc<MemoryBudget> {
        let total = i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        Arc::new(MemoryBudget {
            total,
            available: AtomicI64::new(total),
            has_waiters: AtomicBool::new(false),
            waiters: Mutex::default(),
        })
    }

    /// Bytes held at the moment.
    pub fn held(&self) -> u64 {
        u64::try_from(self.total - self.available.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// How large one more answer should be at most, bytes: a quarter of what is left, so that a few large
    /// Fetch answers do not take it all, but enough to get on with.
    pub fn allowance(&self) -> usize {
        let quarter = self.available.load(Ordering::Relaxed) / 4;
        usize::try_from(quarter.max(ALLOWANCE_MIN_BYTES)).unwrap_or(usize::MAX)
    }

    /// True if connections wait, or would, for others to let go.
    pub(super) fn is_spent(&self) -> bool {
        self.available.load(Ordering::SeqCst) <= 0
    }

    fn take(&self, bytes: usize) {
        self.available.fetch_sub(bytes as i64, Ordering::SeqCst);
    }

    fn give_back(&self, bytes: usize) {
        let before = self.available.fetch_add(bytes as i64, Ordering::SeqCst);
        if before + bytes as i64 > 0 && self.has_waiters.load(Ordering::SeqCst) {
            self.wake_all(&mut self.waiters.lock());
        }
    }

    fn wake_all(&self, waiters: &mut Waiters) {
        self.has_waiters.store(false, Ordering::SeqCst);
        waiters.wakers.drain().for_each(|(_, waker)| waker.wake());
    }
}

/// What one connection holds. Dropping it gives all back.
#[derive(Debug)]
pub(super) struct Account {
    budget: Arc<MemoryBudget>,
    connection: u64,
    /// Bytes taken from the budget; within a grain of what is really held.
    taken: usize,
    overdraft: bool,
}

impl Account {
    pub(super) fn new(budget: Arc<MemoryBudget>, connection: u64) -> Account {
        Account { budget, connection, taken: 0, overdraft: false }
    }

    /// Says how much the connection holds now.
    pub(super) fn set_held(&mut self, held: usize) {
        // Rounded down: a connection that holds less than a grain holds nothing.
        let rounded = held / ACCOUNT_GRAIN_BYTES * ACCOUNT_GRAIN_BYTES;
        if rounded > self.taken {
            self.budget.take(rounded - self.taken);
        } else if rounded < self.taken {
            self.budget.give_back(self.taken - rounded);
        }
        self.taken = rounded;
    }

    /// Ready with the bytes that may be read now. `buffered`: bytes of a frame that are there already, so that reading
    /// on is the way to become free of them.
    pub(super) fn poll_may_read(&mut self, buffered: usize, context: &mut Context<'_>) -> Poll<usize> {
        if !self.budget.is_spent() || (self.overdraft && buffered > 0) {
            return Poll::Ready(READ_BYTES);
        }
        if buffered < SMALL_FRAME_BYTES {
            return Poll::Ready(SMALL_FRAME_BYTES - buffered);
        }
        let mut waiters = self.budget.waiters.lock();
        waiters.wakers.insert(self.connection, context.waker().clone());
        self.budget.has_waiters.store(true, Ordering::SeqCst);
        // Whoever gives back after this line sees that someone waits; what came before it is seen here.
        if !self.budget.is_spent() {
            waiters.wakers.remove(&self.connection);
            return Poll::Ready(READ_BYTES);
        }
        if waiters.overdraft.is_none() {
            waiters.overdraft = Some(self.connection);
            waiters.wakers.remove(&self.connection);
            self.overdraft = true;
            return Poll::Ready(READ_BYTES);
        }
        Poll::Pending
    }

    /// True while the connection reads although the budget is spent.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.overdraft
    }

    /// Ends the permission to read beyond the budget: the frame is complete.
    pub(super) fn end_overdraft(&mut self) {
        if self.overdraft {
            self.overdraft = false;
            let mut waiters = self.budget.waiters.lock();
            waiters.overdraft = None;
            self.budget.wake_all(&mut waiters);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.set_held(0);
        self.end_overdraft();
        self.budget.waiters.lock().wakers.remove(&self.connection);
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const GRAIN: usize = ACCOUNT_GRAIN_BYTES;

    struct CountedWake(AtomicUsize);

    impl std::task::Wake for CountedWake {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn may_read(account: &mut Account, buffered: usize) -> bool {
        account.poll_may_read(buffered, &mut Context::from_waker(&noop_waker())).is_ready()
    }

    #[test]
    fn small_amounts_are_not_told_and_everything_comes_back() {
        let budget = MemoryBudget::new(10 * GRAIN as u64);
        let mut account = Account::new(budget.clone(), 1);
        account.set_held(GRAIN - 1);
        assert_eq!(budget.held(), 0);
        account.set_held(3 * GRAIN + 5);
        assert_eq!(budget.held(), 3 * GRAIN as u64);
        account.set_held(GRAIN);
        assert_eq!(budget.held(), GRAIN as u64);
        drop(account);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_spent_budget_stops_readers_until_something_comes_back() {
        let budget = MemoryBudget::new(2 * GRAIN as u64);
        let mut rich = Account::new(budget.clone(), 1);
        let mut poor = Account::new(budget.clone(), 2);
        let mut favoured = Account::new(budget, 3);
        rich.set_held(5 * GRAIN);
        assert!(may_read(&mut favoured, GRAIN) && favoured.is_overdrawn());
        let wakes = Arc::new(CountedWake(AtomicUsize::new(0)));
        let waker = Waker::from(wakes.clone());
        assert!(poor.poll_may_read(GRAIN, &mut Context::from_waker(&waker)).is_pending());
        rich.set_held(4 * GRAIN);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0, "still nothing available");
        rich.set_held(GRAIN);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert!(may_read(&mut poor, GRAIN));
    }

    #[test]
    fn one_connection_at_a_time_may_complete_its_frame_beyond_the_budget() {
        let budget = MemoryBudget::new(GRAIN as u64);
        let mut accounts: Vec<Account> = (0..3).map(|id| Account::new(budget.clone(), id)).collect();
        accounts.iter_mut().for_each(|account| account.set_held(GRAIN));
        assert!(may_read(&mut accounts[0], GRAIN));
        assert!(accounts[0].is_overdrawn() && may_read(&mut accounts[0], GRAIN));
        assert!(!may_read(&mut accounts[1], GRAIN));
        accounts[0].end_overdraft();
        assert!(may_read(&mut accounts[1], GRAIN));
        assert!(!may_read(&mut accounts[2], GRAIN));
        accounts.remove(1);
        assert!(may_read(&mut accounts[1], GRAIN), "a connection that ends lets the next one go on");
    }

    #[test]
    fn small_requests_are_read_from_a_spent_budget() {
        let budget = MemoryBudget::new(GRAIN as u64);
        let mut rich = Account::new(budget.clone(), 1);
        rich.set_held(GRAIN);
        let mut other = Account::new(budget, 2);
        let mut room = |buffered| other.poll_may_read(buffered, &mut Context::from_waker(&noop_waker()));
        assert_eq!(room(0), Poll::Ready(SMALL_FRAME_BYTES));
        assert_eq!(room(SMALL_FRAME_BYTES - 1), Poll::Ready(1));
        assert!(!other.is_overdrawn());
    }

    #[test]
    fn the_allowance_shrinks_but_not_to_nothing() {
        let budget = MemoryBudget::new(64 << 20);
        assert_eq!(budget.allowance(), 16 << 20);
        let mut account = Account::new(budget.clone(), 1);
        account.set_held(100 << 20);
        assert_eq!(budget.allowance(), 64 << 10);
    }
}
