//! Records from topics to standard output: the work of `topic consume` and `cat -C`.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::time::Duration;

use base::ids::{Offset, TimestampMs};
use client::{Client, ConsumedRecord, Consumer, ConsumerConfig, GroupConfig, GroupConsumer, PartitionName};

use crate::failure::{Failure, Outcome};
use crate::output::written;
use crate::record::{Format, json_line, kcat_json_line};
use crate::signals::EndSignals;

/// How long one poll waits for records.
const POLL_WAIT: Duration = Duration::from_millis(500);
/// How long a broker waits when the end of the topic ends the command: nobody wants to wait for more.
const FETCH_WAIT_TO_END: Duration = Duration::from_millis(50);
/// Bytes gathered before they are written, when more records are at hand.
const WRITE_BYTES: usize = 256 * 1024;

/// How a record is printed.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// After a format.
    Format(Format),
    /// As one line of JSON.
    Json,
    /// The same with kcat's names.
    KcatJson,
}

/// What to print and when to stop.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) shape: Shape,
    /// Stop after that many records.
    pub(crate) limit: Option<u64>,
    /// Stop when everything there is was read.
    pub(crate) stop_at_end: bool,
    /// Tell on standard error when the end of a partition is reached and when a group is rebalanced.
    pub(crate) tell: bool,
    /// As a member of a group, commit what was printed.
    pub(crate) commit: bool,
    /// Leave out a partition's records from the first one on that is as late as this.
    pub(crate) end_ms: Option<TimestampMs>,
}

impl Reading {
    /// Settings that suit how the reading ends.
    pub(crate) fn tune(&self, config: &mut ConsumerConfig) {
        if self.stop_at_end {
            config.fetch_wait = FETCH_WAIT_TO_END;
        }
    }
}

/// Prints records until the reading ends or the user ends it; answers how many.
pub(crate) async fn read(mut consumer: Consumer, reading: &Reading) -> Outcome<u64> {
    let mut signals = EndSignals::listen()?;
    let mut printer = Printer::new(reading);
    while !printer.is_full() {
        let records = tokio::select! {
            records = consumer.poll(POLL_WAIT) => records?,
            _ = signals.next() => break,
        };
        let (records, late) = before_end(records, reading.end_ms);
        printer.print(&records)?;
        late.iter().for_each(|partition| consumer.unassign(partition));
        if reading.tell {
            printer.tell_ends(&consumer.positions(), |partition| consumer.caught_up_with(partition));
        }
        let all_late = reading.end_ms.is_some() && consumer.assignment().next().is_none();
        if all_late || (reading.stop_at_end && consumer.caught_up()) {
            break;
        }
    }
    Ok(printer.printed)
}

/// The records before the end of the time window, and the partitions that have reached it.
fn before_end(
    records: Vec<ConsumedRecord>,
    end_ms: Option<TimestampMs>,
) -> (Vec<ConsumedRecord>, HashSet<PartitionName>) {
    let mut late = HashSet::new();
    let Some(end_ms) = end_ms else { return (records, late) };
    let kept = records.into_iter().filter(|record| {
        let partition = PartitionName::new(record.topic.clone(), record.partition);
        if record.timestamp.is_some_and(|timestamp| timestamp >= end_ms) {
            late.insert(partition.clone());
        }
        !late.contains(&partition)
    });
    (kept.collect(), late)
}

/// The same as a member of a group. What was printed is committed (if anything is), and nothing else.
pub(crate) async fn read_in_group(
    client: &Client,
    mut config: GroupConfig,
    reading: &Reading,
) -> Outcome<u64> {
    config.commit_interval = None;
    let group = config.group.clone();
    let mut consumer = GroupConsumer::new(client, config);
    let mut signals = EndSignals::listen()?;
    let mut printer = Printer::new(reading);
    let mut generation = None;
    let result = loop {
        let records = tokio::select! {
            records = consumer.poll(POLL_WAIT) => records,
            _ = signals.next() => break Ok(()),
        };
        if reading.tell && consumer.generation() != generation {
            generation = consumer.generation();
            tell_assignment(&group, &consumer);
        }
        let step = async {
            printer.print(&records?)?;
            // A limit may end the reading in the middle of what was polled.
            if reading.commit && !printer.stopped_short {
                consumer.commit().await?;
            }
            Ok(())
        };
        if let Err(failure) = step.await {
            break Err(failure);
        }
        if reading.tell {
            printer.tell_ends(&consumer.positions(), |partition| consumer.caught_up_with(partition));
        }
        if printer.is_full() || (reading.stop_at_end && consumer.caught_up()) {
            break Ok(());
        }
    };
    tokio::select! {
        left = consumer.leave() => left?,
        signal = signals.impatience() => {
            return Err(Failure::new(format!("{signal} came again: the group was not left in order"))
                .help("the broker notices when the session times out"));
        }
    }
    if reading.commit && printer.stopped_short {
        client.commit_offsets(&group, &printer.next).await?;
    }
    result.map(|()| printer.printed)
}

/// Says what a member reads from now on, in kcat's words.
fn tell_assignment(group: &str, member: &GroupConsumer) {
    let name = |partition: &PartitionName| format!("{} [{}]", partition.topic, partition.partition);
    let partitions: Vec<String> = member.assignment().map(name).collect();
    let (id, partitions) = (member.member_id(), partitions.join(", "));
    tell!("% Group {group} rebalanced (memberid {id}): assigned: {partitions}");
}

/// Prints records up to a limit and remembers how far it came.
struct Printer<'a> {
    reading: &'a Reading,
    printed: u64,
    /// Offset behind the last record printed.
    next: BTreeMap<PartitionName, Offset>,
    /// Whether the limit cut off records that were at hand.
    stopped_short: bool,
    /// Partitions whose end was told and has not moved since.
    told: HashSet<(PartitionName, Offset)>,
    buffer: Vec<u8>,
}

impl<'a> Printer<'a> {
    fn new(reading: &'a Reading) -> Printer<'a> {
        Printer {
            reading,
            printed: 0,
            next: BTreeMap::new(),
            stopped_short: false,
            told: HashSet::new(),
            buffer: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.reading.limit.is_some_and(|limit| self.printed >= limit)
    }

    fn print(&mut self, records: &[ConsumedRecord]) -> Outcome {
        for record in records {
            if self.is_full() {
                self.stopped_short = true;
                break;
            }
            match &self.reading.shape {
                Shape::Format(format) => format.put(record, &mut self.buffer),
                Shape::Json => self.put_line(&json_line(record)),
                Shape::KcatJson => self.put_line(&kcat_json_line(record)),
            }
            self.printed += 1;
            let partition = PartitionName::new(record.topic.clone(), record.partition);
            self.next.insert(partition, record.offset + 1);
            if self.buffer.len() >= WRITE_BYTES {
                self.write()?;
            }
        }
        self.write()
    }

    fn put_line(&mut self, line: &str) {
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
    }

    fn write(&mut self) -> Outcome {
        let mut out = io::stdout().lock();
        let result = out.write_all(&self.buffer).and_then(|()| out.flush());
        self.buffer.clear();
        written(result)
    }

    fn tell_ends(
        &mut self,
        positions: &BTreeMap<PartitionName, Offset>,
        caught_up: impl Fn(&PartitionName) -> bool,
    ) {
        for (partition, offset) in positions.iter().filter(|(partition, _)| caught_up(partition)) {
            if self.told.insert((partition.clone(), *offset)) {
                self.told.retain(|(other, told)| other != partition || told == offset);
                let exiting = if self.reading.stop_at_end { ": exiting" } else { "" };
                let PartitionName { topic, partition } = partition;
                tell!("% Reached end of topic {topic} [{partition}] at offset {offset}{exiting}");
            }
        }
    }
}
