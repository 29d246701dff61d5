//! `cat -Q`: offsets by time.

use client::admin::OffsetAt;
use client::{Client, PartitionName};
use serde_json::{Map, Value, json};

use super::CatArguments;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::topic::{existing, no_such_partition, offsets_at};

pub(super) async fn run(client: &Client, arguments: &CatArguments) -> Outcome {
    if arguments.topics.is_empty() {
        return Err(bad("nothing"));
    }
    let mut object = Map::new();
    for text in &arguments.topics {
        let (partition, at) = parse(text).ok_or_else(|| bad(text))?;
        let topics = existing(client, &[partition.topic.to_string()]).await?;
        if !topics[&*partition.topic].partitions.contains_key(&partition.partition) {
            return Err(no_such_partition(&partition.topic, partition.partition));
        }
        let found = offsets_at(client, std::slice::from_ref(&partition), at).await?;
        // As kcat has it, -1 is the end: no record is as late.
        let offset = found.get(&partition).copied().flatten().unwrap_or(-1);
        let PartitionName { topic, partition } = partition;
        if arguments.json {
            let entry = object.entry(topic.to_string()).or_insert_with(|| json!({ "topic": *topic }));
            entry[partition.to_string()] = json!({ "partition": partition, "offset": offset });
        } else {
            output::line(&format!("{topic} [{partition}] offset {offset}"))?;
        }
    }
    // One line, as kcat prints it.
    if arguments.json { output::line(&Value::Object(object).to_string()) } else { Ok(()) }
}

fn parse(text: &str) -> Option<(PartitionName, OffsetAt)> {
    let (rest, time) = text.rsplit_once(':')?;
    let (topic, partition) = rest.rsplit_once(':')?;
    let at = match time.parse().ok()? {
        -1 => OffsetAt::Latest,
        -2 => OffsetAt::Earliest,
        time if time >= 0 => OffsetAt::Time(time),
        _ => return None,
    };
    let partition = partition.parse().ok().filter(|number| *number >= 0)?;
    (!topic.is_empty()).then(|| (PartitionName::new(topic, partition), at))
}

fn bad(text: &str) -> Failure {
    Failure::usage(format!("`{text}` is no query")).help("say -Q -t TOPIC:PARTITION:MILLISECONDS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_topic_partition_and_time() {
        let partition = PartitionName::new("a", 2);
        assert_eq!(parse("a:2:77"), Some((partition.clone(), OffsetAt::Time(77))));
        assert_eq!(parse("a:2:-1"), Some((partition.clone(), OffsetAt::Latest)));
        assert_eq!(parse("a:2:-2"), Some((partition, OffsetAt::Earliest)));
        for bad in ["a", "a:1", ":1:2", "a:-1:2", "a:x:1", "a:1:-3"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
