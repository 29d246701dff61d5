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
//!
//! A small request may ask for a large answer. So those that may are held up before they begin, and answers hold what
//! is read for them while they are made ([`Held`]). They may go a quarter beyond the budget, so that frames, which stop
//! at the budget, never keep all records from those who read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::limits::{ACCOUNT_GRAIN_BYTES, ANSWERS_BEYOND_PART, READ_BYTES, SMALL_FRAME_BYTES};

/// The least an answer may be allowed to hold when memory is short, bytes.
const ALLOWANCE_MIN_BYTES: i64 = 64 * 1024;

/// Bytes that all connections together may hold.
#[derive(Debug)]
pub struct MemoryBudget {
    total: i64,
    available: AtomicI64,
    has_waiters: AtomicBool,
    waiters: Mutex<Waiters>,
    /// Answers that wait for room.
    answers_waiting: AtomicUsize,
    /// Told, for one of them, that there is room.
    room: Notify,
}

#[derive(Debug, Default)]
struct Waiters {
    wakers: BTreeMap<u64, Waker>,
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
            answers_waiting: AtomicUsize::new(0),
            room: Notify::new(),
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

    /// Whether an answer of any size may be begun. See [`MemoryBudget::room_for_answers`].
    pub fn has_room_for_answers(&self) -> bool {
        self.available.load(Ordering::SeqCst) > -(self.total / ANSWERS_BEYOND_PART)
    }

    /// Completes once an answer of any size may be begun: for requests whose answers may be much larger than they
    /// are. Those who hold memory without need are cut off, so there is room some time.
    pub async fn room_for_answers(&self) {
        if self.has_room_for_answers() {
            return;
        }
        let _waiting = Waiting::new(&self.answers_waiting);
        // Whoever gives back after this line sees that someone waits; what came before it is seen here.
        while !self.has_room_for_answers() {
            self.room.notified().await;
        }
    }

    /// What an answer that is being made holds: nothing yet.
    pub fn answering(self: &Arc<Self>) -> Held {
        Held { budget: self.clone(), bytes: 0 }
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
        self.wake_answer();
    }

    /// Lets one answer begin; when it is made, the next one does, so that they do not all begin at once.
    fn wake_answer(&self) {
        if self.answers_waiting.load(Ordering::SeqCst) > 0 && self.has_room_for_answers() {
            self.room.notify_one();
        }
    }

    fn wake_all(&self, waiters: &mut Waiters) {
        self.has_waiters.store(false, Ordering::SeqCst);
        std::mem::take(&mut waiters.wakers).into_values().for_each(Waker::wake);
    }
}

/// One more that waits, as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, Ordering::SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What an answer holds until it is handed to its connection. Dropping it gives all back.
#[derive(Debug)]
pub struct Held {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Held {
    /// Says how much it is now.
    pub fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.take(bytes - self.bytes);
        } else if bytes < self.bytes {
            self.budget.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
        // One that held nothing lets the next one begin, too.
        self.budget.wake_answer();
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
    fn answers_wait_beyond_the_budget_and_begin_one_by_one() {
        let budget = MemoryBudget::new(100);
        let mut made = budget.answering();
        made.set(124);
        assert!(budget.is_spent() && budget.has_room_for_answers());
        made.set(125);
        let wakes: Vec<_> = (0..2).map(|_| Arc::new(CountedWake(AtomicUsize::new(0)))).collect();
        let counts = || wakes.iter().map(|wake| wake.0.load(Ordering::SeqCst)).sum::<usize>();
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(budget.room_for_answers())).collect();
        for (waiting, wake) in waiting.iter_mut().zip(&wakes) {
            let waker = Waker::from(wake.clone());
            assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        made.set(126);
        assert_eq!(counts(), 0);
        made.set(10);
        assert_eq!((counts(), budget.held()), (1, 10));
        let begun = budget.answering();
        drop(waiting.remove(0));
        drop(begun);
        assert_eq!(counts(), 2, "one that held nothing passes the turn on");
        assert!(waiting[0].as_mut().poll(&mut Context::from_waker(&noop_waker())).is_ready());
        drop(waiting);
        drop(made);
        assert_eq!((budget.held(), budget.answers_waiting.load(Ordering::SeqCst)), (0, 0));
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
