//! `vltava topic alter`: more partitions.

use clap::Args;
use client::Client;
use serde_json::json;

use super::create::wait_for_leaders;
use super::existing;
use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Form};

/// What nobody should find out afterwards.
const KEYS_MOVE: &str = "\
warning: keys map to other partitions from now on; what was written stays where it is, so records of one key may stand \
in two partitions, and only within each are they in order";

/// Arguments of `vltava topic alter`.
#[derive(Args, Debug)]
pub(crate) struct AlterArguments {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC", add = completion::topics())]
    topics: Vec<String>,
    /// How many partitions each is to have; never fewer than it has
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Let the broker check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// A topic, and how many partitions it had.
struct Grown {
    topic: String,
    before: i32,
    /// Whether more were added.
    altered: bool,
}

pub(crate) async fn run(client: &Client, arguments: &AlterArguments, form: Form) -> Outcome {
    let topics = existing(client, &arguments.topics).await?;
    let mut planned = Vec::new();
    for (topic, metadata) in topics {
        let before = i32::try_from(metadata.partitions.len()).unwrap_or(i32::MAX);
        if before > arguments.partitions {
            return Err(too_few(&topic, before, arguments.partitions));
        }
        planned.push(Grown { topic, before, altered: before < arguments.partitions && !arguments.dry_run });
    }
    if planned.iter().any(|grown| grown.before < arguments.partitions) {
        tell!("{KEYS_MOVE}");
    }
    let mut done = Vec::new();
    let mut first_failure = None;
    for grown in planned {
        let result = match grown.before < arguments.partitions {
            true => client.create_partitions(&grown.topic, arguments.partitions, arguments.dry_run).await,
            false => Ok(()),
        };
        match result.map_err(Failure::from) {
            Ok(()) => done.push(grown),
            Err(failure) if first_failure.is_none() => first_failure = Some(failure),
            Err(failure) => tell!("{failure}"),
        }
    }
    let altered: Vec<_> =
        done.iter().filter(|grown| grown.altered).map(|grown| grown.topic.clone()).collect();
    wait_for_leaders(client, &altered, arguments.partitions).await?;
    match form {
        Form::Json => {
            let object = |grown: &Grown| {
                json!({
                    "topic": grown.topic,
                    "partitions_before": grown.before,
                    "partitions": arguments.partitions,
                    "altered": grown.altered,
                })
            };
            output::json(&done.iter().map(object).collect::<Vec<_>>())?;
        }
        Form::Table => {
            done.iter().try_for_each(|grown| output::line(&sentence(grown, arguments.partitions)))?;
        }
    }
    first_failure.map_or(Ok(()), Err)
}

fn too_few(topic: &str, now: i32, wanted: i32) -> Failure {
    Failure::new(format!("topic {topic} has {now} partitions, which cannot become {wanted}")).help(
        "no partition can be taken away, because its records would go with it: create another topic, \
         and write there",
    )
}

fn sentence(grown: &Grown, partitions: i32) -> String {
    let Grown { topic, before, altered } = grown;
    match altered {
        _ if *before == partitions => format!("topic {topic} has {partitions} partitions already"),
        true => format!("topic {topic} altered: partitions {before} before, {partitions} now"),
        false => format!("topic {topic} would be altered: partitions {before} now, {partitions} then"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_read_as_sentences() {
        let told = |before, altered| sentence(&Grown { topic: "t".to_owned(), before, altered }, 6);
        assert_eq!(told(3, true), "topic t altered: partitions 3 before, 6 now");
        assert_eq!(told(3, false), "topic t would be altered: partitions 3 now, 6 then");
        assert_eq!(told(6, false), "topic t has 6 partitions already");
    }

    #[test]
    fn fewer_partitions_are_refused_with_a_way_out() {
        let text = too_few("t", 6, 3).to_string();
        assert!(
            text.starts_with("error: topic t has 6 partitions, which cannot become 3\n help: "),
            "{text}"
        );
        assert!(text.contains("create another topic"), "{text}");
    }
}
