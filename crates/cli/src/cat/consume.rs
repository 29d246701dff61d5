//! `cat -C` and `cat -G`: records to standard output.

use client::{Client, Consumer, ConsumerConfig, GroupConfig, PartitionName, Start};

use super::properties::Properties;
use super::{CatArguments, one_topic};
use crate::failure::{Failure, Outcome};
use crate::moment::parse_start;
use crate::reading::{Reading, Shape, read, read_in_group};
use crate::record::{Format, unescape};
use crate::topic::{existing, no_such_partition};

/// Where to begin and, with kcat's `e@`, at which time to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    start: Start,
    end_ms: Option<i64>,
}

pub(super) async fn run(client: &Client, arguments: &CatArguments, properties: &Properties) -> Outcome {
    let topic = one_topic(arguments)?;
    let window = window(&arguments.offsets, client.env().clock.wall_ms())?;
    let reading = reading(arguments, properties)?;
    let mut config = ConsumerConfig::default();
    reading.tune(&mut config);
    properties.lay_over_consumer(&mut config);
    let topics = existing(client, &[topic.to_owned()]).await?;
    let mut partitions: Vec<i32> = topics[topic].partitions.keys().copied().collect();
    if arguments.partition >= 0 {
        if !partitions.contains(&arguments.partition) {
            return Err(no_such_partition(topic, arguments.partition));
        }
        partitions = vec![arguments.partition];
    }
    let mut consumer = Consumer::new(client, config);
    consumer.assign(partitions.into_iter().map(|index| (PartitionName::new(topic, index), window.start)));
    read(consumer, &Reading { end_ms: window.end_ms, ..reading }).await.map(drop)
}

pub(super) async fn run_in_group(
    client: &Client,
    arguments: &CatArguments,
    properties: &Properties,
) -> Outcome {
    let group = arguments.group.as_deref().unwrap_or_default();
    let names: Vec<String> = arguments.operands.iter().chain(&arguments.topics).cloned().collect();
    if names.is_empty() {
        return Err(Failure::usage("no topic is named").help("say -G GROUP TOPIC…"));
    }
    let topics = existing(client, &names).await?;
    let reading = reading(arguments, properties)?;
    let mut config = GroupConfig::new(group, topics.keys());
    // As kcat has it, a new group begins at the end unless told otherwise.
    config.start = Some(Start::End);
    reading.tune(&mut config.consumer);
    properties.lay_over_consumer(&mut config.consumer);
    properties.lay_over_group(&mut config);
    read_in_group(client, config, &reading).await.map(drop)
}

fn reading(arguments: &CatArguments, properties: &Properties) -> Outcome<Reading> {
    let shape = match &arguments.format {
        _ if arguments.json => Shape::KcatJson,
        Some(format) => Shape::Format(Format::parse(format, arguments.null)?),
        None => {
            let key_delimiter = arguments.key_delimiter.as_deref().map(unescape).transpose()?;
            let delimiter = unescape(&arguments.delimiter)?;
            let format = Format::usual(key_delimiter.as_deref(), &delimiter, arguments.null);
            Shape::Format(if arguments.offset {
                format.behind_offset(key_delimiter.as_deref())
            } else {
                format
            })
        }
    };
    Ok(Reading {
        shape,
        limit: arguments.limit,
        stop_at_end: arguments.exit_at_end,
        tell: !arguments.quiet,
        commit: properties.commits.unwrap_or(true),
        end_ms: None,
    })
}

/// Reads `-o`: our positions, kcat's `s@` and `e@` and `stored`, which only a group knows.
fn window(texts: &[String], now_ms: i64) -> Outcome<Window> {
    let mut window = Window { start: Start::Beginning, end_ms: None };
    for text in texts {
        let moment =
            |prefix| text.strip_prefix(prefix).map(|moment| crate::moment::parse_moment(moment, now_ms));
        if let Some(time) = moment("s@") {
            window.start = Start::Time(time?);
        } else if let Some(time) = moment("e@") {
            window.end_ms = Some(time?);
        } else if text == "stored" {
            return Err(Failure::usage("only a group stores offsets").help("say -G GROUP TOPIC"));
        } else {
            window.start = parse_start(text, now_ms)?;
        }
    }
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_kcats_and_ours() {
        let read = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            window(&texts, 0).ok().map(|window| (window.start, window.end_ms))
        };
        assert_eq!(read(&[]), Some((Start::Beginning, None)));
        assert_eq!(read(&["-5"]), Some((Start::BeforeEnd(5), None)));
        assert_eq!(read(&["s@100", "e@200"]), Some((Start::Time(100), Some(200))));
        assert_eq!(read(&["end"]), Some((Start::End, None)));
        assert_eq!(read(&["stored"]), None);
    }
}
