//! Consumers that wait for what producers of the same process send.

use std::time::Duration;

use base::env::Env;
use client::{Client, Consumer, ConsumerConfig, PartitionName, Start};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::report::Latencies;
use super::{clients, partition_count};
use crate::arguments::Bootstrap;
use crate::failure::{Failure, Outcome};

/// How long a poll waits for records.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Receiving fails when nothing comes for so long though something is due.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the head of a value says: which run it is of, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    run: u64,
}

impl Stamp {
    /// Bytes it takes of a value.
    pub(super) const BYTES: usize = 16;

    /// One that no other run has.
    pub(super) fn new(env: &Env) -> Stamp {
        Stamp { run: env.random.next_u64() }
    }

    /// Writes it to the head of a value of at least [`Stamp::BYTES`].
    pub(super) fn write(self, due: Duration, value: &mut [u8]) {
        let due_ns = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
        value[..8].copy_from_slice(&self.run.to_le_bytes());
        value[8..16].copy_from_slice(&due_ns.to_le_bytes());
    }

    /// When a value was due; `None` when it is not of this run.
    pub(super) fn read(self, value: &[u8]) -> Option<Duration> {
        let (run, rest) = value.split_first_chunk()?;
        let due_ns = u64::from_le_bytes(*rest.first_chunk()?);
        (u64::from_le_bytes(*run) == self.run).then(|| Duration::from_nanos(due_ns))
    }
}

/// What is to be received.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// Records due from here on count.
    measured: Duration,
    /// How many there are in all, once that is known.
    records: Option<u64>,
}

/// The consumers. Each receives every record.
pub(super) struct Receivers {
    target: watch::Sender<Target>,
    tasks: Vec<JoinHandle<Outcome<Latencies>>>,
}

impl Receivers {
    /// Starts them; when this returns each stands at the end of the topic.
    pub(super) async fn start(
        bootstrap: &Bootstrap,
        count: u16,
        topic: &str,
        stamp: Stamp,
    ) -> Outcome<Receivers> {
        let target = watch::Sender::new(Target { measured: Duration::MAX, records: None });
        let mut tasks = Vec::new();
        for client in clients(bootstrap, count).await? {
            let partitions = partition_count(&client, topic).await?;
            let names: Vec<_> =
                (0..partitions).map(|partition| PartitionName::new(topic, partition)).collect();
            let mut consumer = Consumer::new(&client, ConsumerConfig::default());
            consumer.assign(names.iter().map(|name| (name.clone(), Start::End)));
            let began = client.env().clock.now();
            while !names.iter().all(|name| consumer.caught_up_with(name)) {
                consumer.poll(POLL_WAIT).await?;
                if client.env().clock.now() > began + PATIENCE {
                    return Err(Failure::new(format!("the ends of topic {topic} cannot be found")));
                }
            }
            tasks.push(tokio::spawn(receive(client, consumer, stamp, target.subscribe())));
        }
        Ok(Receivers { target, tasks })
    }

    /// Records due from then on count. To be said before the first is sent.
    pub(super) fn count_from(&self, measured: Duration) {
        self.target.send_modify(|target| target.measured = measured);
    }

    /// Waits until each has received that many records, counted or not; answers the latencies.
    pub(super) async fn finish(self, records: u64) -> Outcome<Latencies> {
        self.target.send_modify(|target| target.records = Some(records));
        let mut whole = Latencies::default();
        for task in self.tasks {
            whole.add(&task.await.expect("a consumer does not panic")?);
        }
        Ok(whole)
    }
}

async fn receive(
    client: Client,
    mut consumer: Consumer,
    stamp: Stamp,
    target: watch::Receiver<Target>,
) -> Outcome<Latencies> {
    let clock = client.env().clock.clone();
    let mut latencies = Latencies::default();
    let (mut received, mut last) = (0, clock.now());
    loop {
        let records = consumer.poll(POLL_WAIT).await?;
        let (now, Target { measured, records: expected }) = (clock.now(), *target.borrow());
        for due in records.iter().filter_map(|record| stamp.read(record.value.as_deref()?)) {
            (received, last) = (received + 1, now);
            if due >= measured {
                latencies.record(now.saturating_sub(due));
            }
        }
        match expected {
            Some(expected) if received >= expected => return Ok(latencies),
            Some(expected) if now > last + PATIENCE => {
                return Err(Failure::new(format!("only {received} of {expected} records came back")));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_other_runs_are_told_apart() {
        let (ours, others) = (Stamp { run: 1 }, Stamp { run: 2 });
        let mut value = [7; 20];
        let due = Duration::from_nanos(1_234_567_891);
        ours.write(due, &mut value);
        assert_eq!((ours.read(&value), others.read(&value)), (Some(due), None));
        assert_eq!(ours.read(&value[..15]), None);
        assert_eq!(value[16..], [7; 4]);
    }
}
