//! Requests of one connection that are being answered, oldest first.
//!
//! Invariants: outcomes leave in the order of the requests; after one that closes, nothing of later requests
//! leaves.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::task::{Context, Poll};

use base::env::BoxFuture;

use super::limits::WINDOW_REQUESTS;
use super::output::Output;
use super::{Outcome, Pace};

struct Slot {
    state: State,
    request_bytes: usize,
}

enum State {
    Running(BoxFuture<'static, Outcome>),
    Done(Outcome),
}

/// The requests under way.
#[derive(Default)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// One of them must be alone.
    exclusive: bool,
    request_bytes: usize,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of the requests.
    pub(super) fn request_bytes(&self) -> usize {
        self.request_bytes
    }

    /// Whether a request of this pace may start now.
    pub(super) fn admits(&self, pace: Pace) -> bool {
        self.slots.is_empty()
            || (pace == Pace::Pipelined && !self.exclusive && self.slots.len() < WINDOW_REQUESTS)
    }

    /// Adds a request that [`Window::admits`] let in and polls it once.
    pub(super) fn start(
        &mut self,
        pace: Pace,
        request_bytes: usize,
        mut future: BoxFuture<'static, Outcome>,
        context: &mut Context<'_>,
    ) {
        debug_assert!(self.admits(pace), "a request started before its time");
        self.exclusive = pace == Pace::Alone;
        self.request_bytes += request_bytes;
        let state = match future.as_mut().poll(context) {
            Poll::Ready(outcome) => State::Done(outcome),
            Poll::Pending => State::Running(future),
        };
        self.slots.push_back(Slot { state, request_bytes });
    }

    /// Polls all requests and moves the outcomes of the oldest ones that are done to `output`. Returns why the
    /// connection must be closed, if one says so.
    pub(super) fn advance(
        &mut self,
        output: &mut Output,
        context: &mut Context<'_>,
    ) -> Option<Cow<'static, str>> {
        for slot in &mut self.slots {
            if let State::Running(future) = &mut slot.state
                && let Poll::Ready(outcome) = future.as_mut().poll(context)
            {
                slot.state = State::Done(outcome);
            }
        }
        self.flush(output)
    }

    /// Like [`Window::advance`] without polling.
    pub(super) fn flush(&mut self, output: &mut Output) -> Option<Cow<'static, str>> {
        while let Some(Slot { state: State::Done(_), .. }) = self.slots.front() {
            let Some(Slot { state: State::Done(outcome), request_bytes }) = self.slots.pop_front() else {
                return None;
            };
            self.request_bytes -= request_bytes;
            match outcome {
                Outcome::Answer(runs) => output.push(runs),
                Outcome::Silence => {}
                Outcome::Close(reason) => {
                    *self = Window::default();
                    return Some(reason);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt;
    use futures::task::noop_waker;
    use tokio::sync::oneshot;

    use super::*;

    struct Fixture {
        window: Window,
        output: Output,
    }

    impl Fixture {
        fn new() -> Fixture {
            Fixture { window: Window::default(), output: Output::default() }
        }

        fn start(&mut self, pace: Pace) -> oneshot::Sender<Outcome> {
            let (sender, receiver) = oneshot::channel();
            let future = receiver.map(|outcome| outcome.expect("the test answers")).boxed();
            self.window.start(pace, 10, future, &mut Context::from_waker(&noop_waker()));
            sender
        }

        fn advance(&mut self) -> (usize, Option<Cow<'static, str>>) {
            let closed = self.window.advance(&mut self.output, &mut Context::from_waker(&noop_waker()));
            (self.output.unsent(), closed)
        }
    }

    fn answer(bytes: usize) -> Outcome {
        Outcome::Answer(vec![Bytes::from(vec![0; bytes]).into()])
    }

    #[test]
    fn outcomes_wait_for_those_before_them() {
        let mut fixture = Fixture::new();
        let [first, second, third] = [(); 3].map(|()| fixture.start(Pace::Pipelined));
        second.send(Outcome::Silence).unwrap();
        third.send(answer(7)).unwrap();
        assert_eq!(fixture.advance(), (0, None));
        assert_eq!(fixture.window.request_bytes(), 30);
        first.send(answer(1)).unwrap();
        assert_eq!(fixture.advance(), (8, None));
        assert!(fixture.window.is_empty() && fixture.window.request_bytes() == 0);
    }

    #[test]
    fn only_pipelined_requests_start_behind_pipelined_ones() {
        let mut fixture = Fixture::new();
        let first = fixture.start(Pace::Pipelined);
        assert!(fixture.window.admits(Pace::Pipelined) && !fixture.window.admits(Pace::Alone));
        first.send(Outcome::Silence).unwrap();
        fixture.advance();
        assert!(fixture.window.admits(Pace::Alone));
        let _alone = fixture.start(Pace::Alone);
        assert!(!fixture.window.admits(Pace::Pipelined));
        let mut full = Fixture::new();
        let _senders: Vec<_> = (0..WINDOW_REQUESTS).map(|_| full.start(Pace::Pipelined)).collect();
        assert!(!full.window.admits(Pace::Pipelined));
    }

    #[test]
    fn nothing_leaves_after_a_request_that_closes() {
        let mut fixture = Fixture::new();
        let [first, second, third] = [(); 3].map(|()| fixture.start(Pace::Pipelined));
        third.send(answer(100)).unwrap();
        second.send(Outcome::Close("because".into())).unwrap();
        assert_eq!(fixture.advance(), (0, None));
        first.send(answer(1)).unwrap();
        assert_eq!(fixture.advance(), (1, Some("because".into())));
        assert!(fixture.window.is_empty());
    }
}
