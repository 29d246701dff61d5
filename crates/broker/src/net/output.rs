//! Answers on their way out: runs of bytes, written as many as possible at a time.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use base::env::{FileRange, Run, Stream};
use smallvec::SmallVec;

use super::limits::{RUNS_PER_WRITE, WRITE_BYTES};

/// What is to be sent, in order. No run is empty.
#[derive(Debug, Default)]
pub(super) struct Output {
    runs: VecDeque<Run>,
    unsent: usize,
}

/// What a turn of writing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Bytes the socket took.
    pub(super) bytes: usize,
    /// The turn is over although the socket may take more.
    pub(super) more: bool,
}

impl Output {
    /// Adds an answer.
    pub(super) fn push(&mut self, runs: impl IntoIterator<Item = Run>) {
        for run in runs {
            if !run.is_empty() {
                self.unsent += run.len();
                self.runs.push_back(run);
            }
        }
    }

    /// Bytes not sent yet.
    pub(super) fn unsent(&self) -> usize {
        self.unsent
    }

    /// Writes what the socket takes, within the bounds of a turn. When something is left and the turn was not cut
    /// short, the context is woken as soon as the socket takes more.
    pub(super) fn write(
        &mut self,
        stream: &mut dyn Stream,
        context: &mut Context<'_>,
    ) -> io::Result<Written> {
        let mut written = 0;
        while self.unsent > 0 {
            if written >= WRITE_BYTES {
                return Ok(Written { bytes: written, more: true });
            }
            match self.poll_write(stream, context) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    written += count;
                    self.advance(count);
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Written { bytes: written, more: false }),
            }
        }
        if written > 0 {
            // Nothing is left; give back room that a burst of answers took.
            self.runs.shrink_to(RUNS_PER_WRITE);
        }
        Ok(Written { bytes: written, more: false })
    }

    /// Writes once: the runs in memory up to the next one in a file, or as much of that.
    fn poll_write(&mut self, stream: &mut dyn Stream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(Run::File(range)) = self.runs.front() {
            let length = range.length.min(WRITE_BYTES);
            return stream.poll_send_file(context, &FileRange { length, ..range.clone() });
        }
        let in_memory = self.runs.iter().map_while(|run| match run {
            Run::Memory(bytes) => Some(IoSlice::new(bytes)),
            Run::File(_) => None,
        });
        let slices: SmallVec<[IoSlice<'_>; RUNS_PER_WRITE]> = in_memory.take(RUNS_PER_WRITE).collect();
        Pin::new(stream).poll_write_vectored(context, &slices)
    }

    fn advance(&mut self, mut count: usize) {
        self.unsent -= count;
        while let Some(first) = self.runs.front_mut() {
            if first.len() > count {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.runs.pop_front();
        }
    }
}
