//! One queue before the log: commands of any kind that wait ride together in the next entry.
//!
//! Invariants: one entry is under way at a time, so that what arrives during its fsync shares the next
//! one; commands are applied in the order in which they were proposed; one that was taken in is applied
//! even if nobody waits for its answer.

use std::collections::VecDeque;
use std::sync::Arc;

use base::env::BoxFuture;
use base::ids::Uuid;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::entry::Batch;
use crate::command::{Command, CommandResult};
use crate::proposals::ProposalId;
use crate::record::encode_command;
use crate::store::{COMMAND_BYTES_MAX, ProposeError, check_length};

/// Commands that ride in one entry at most.
const COMMANDS_PER_ENTRY_MAX: usize = 20_000;
/// Commands that may wait, bytes: what proposers can make us hold.
const WAITING_BYTES_MAX: usize = 4 * COMMAND_BYTES_MAX;

type Answer = oneshot::Sender<Result<CommandResult, ProposeError>>;

/// Where entries go.
pub(super) trait Sink: Send + Sync {
    /// Whether it takes no more.
    fn has_ended(&self) -> bool;

    /// Has commands applied as one entry; one result for each, or why nobody can say that they were.
    fn write(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<CommandResult>, String>>;
}

/// See the module's head. Clones share it.
#[derive(Clone)]
pub(super) struct Queue {
    sink: Arc<dyn Sink>,
    /// The name under which this life proposes, where an entry may be given to two leaders.
    proposer: Option<Uuid>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    commands: VecDeque<(Vec<u8>, Answer)>,
    bytes: usize,
    /// Whether a task proposes.
    running: bool,
    /// Number of the last entry.
    sequence: u64,
}

impl Queue {
    /// `proposer` is a random id of this life; `None` for the only voter, who gives each entry to himself.
    pub(super) fn new(sink: Arc<dyn Sink>, proposer: Option<Uuid>) -> Queue {
        Queue { sink, proposer, waiting: Arc::default() }
    }

    /// Takes a command in, as [`crate::MetadataStore::propose`] promises.
    pub(super) fn propose(
        &self,
        command: &Command,
    ) -> BoxFuture<'static, Result<CommandResult, ProposeError>> {
        let encoded = encode_command(command);
        let receiver = check_length(&encoded).and_then(|()| self.push(encoded));
        Box::pin(async move {
            let gone = |_| Err(ProposeError::Unavailable("it was shut down".to_owned()));
            receiver?.await.unwrap_or_else(gone)
        })
    }

    /// Takes an encoded command in; its result comes through the receiver.
    pub(super) fn push(
        &self,
        command: Vec<u8>,
    ) -> Result<oneshot::Receiver<Result<CommandResult, ProposeError>>, ProposeError> {
        if self.sink.has_ended() {
            return Err(ProposeError::Unavailable("it was shut down".to_owned()));
        }
        let (answer, receiver) = oneshot::channel();
        let start = {
            let mut waiting = self.waiting.lock();
            if waiting.bytes + command.len() > WAITING_BYTES_MAX {
                return Err(ProposeError::Busy);
            }
            waiting.bytes += command.len();
            waiting.commands.push_back((command, answer));
            !std::mem::replace(&mut waiting.running, true)
        };
        if start {
            tokio::spawn(self.clone().run());
        }
        Ok(receiver)
    }

    /// Proposes what waits, entry by entry, until nothing does.
    async fn run(self) {
        loop {
            let (commands, answers, sequence) = self.waiting.lock().take_batch();
            if answers.is_empty() {
                return;
            }
            let id = self.proposer.map(|proposer| ProposalId { proposer, sequence });
            match self.sink.write(Batch { commands: Arc::new(commands), id }).await {
                Ok(results) => {
                    for (answer, result) in answers.into_iter().zip(results) {
                        // Who asked may have gone away; then nobody wants the answer.
                        let _ = answer.send(Ok(result));
                    }
                }
                Err(why) => {
                    for answer in answers {
                        let _ = answer.send(Err(ProposeError::Unavailable(why.clone())));
                    }
                }
            }
        }
    }
}

impl Waiting {
    /// What fits one entry, and its number: at least one command if any waits.
    fn take_batch(&mut self) -> (Vec<Vec<u8>>, Vec<Answer>, u64) {
        let (mut commands, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some((command, _)) = self.commands.front() {
            bytes += command.len();
            if !commands.is_empty() && (bytes > COMMAND_BYTES_MAX || commands.len() == COMMANDS_PER_ENTRY_MAX)
            {
                break;
            }
            let (command, answer) = self.commands.pop_front().expect("there is a front");
            self.bytes -= command.len();
            commands.push(command);
            answers.push(answer);
        }
        self.running = !answers.is_empty();
        self.sequence += 1;
        (commands, answers, self.sequence)
    }
}
