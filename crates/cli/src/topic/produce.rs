//! `vltava topic produce`.

use std::io::IsTerminal;
use std::str::FromStr;
use std::time::Duration;

use base::batch::Compression;
use clap::{Args, ValueEnum};
use client::{Acks, Client, ProducerConfig};
use serde_json::json;

use super::existing;
use crate::completion;
use crate::failure::Outcome;
use crate::input::{Pieces, Source};
use crate::output::{self, Form, InputProgress, bytes, count, duration, rate};
use crate::record::{KeyRule, parse_header, unescape};
use crate::sending::{Sending, send_all};

/// Arguments of `vltava topic produce`.
#[derive(Args, Debug)]
pub(crate) struct ProduceArguments {
    /// Name of the topic, which must exist
    #[arg(add = completion::topics())]
    topic: String,
    /// The file to read; - is standard input
    #[arg(default_value = "-", add = completion::files())]
    file: String,
    /// The partition; without it the key decides
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// What stands between key and value in a line
    #[arg(short = 'K', long, value_name = "TEXT")]
    key_delimiter: Option<String>,
    /// The key of lines that have none
    #[arg(short, long, value_name = "KEY")]
    key: Option<String>,
    /// What stands between records
    #[arg(short = 'D', long, value_name = "TEXT", default_value = "\\n")]
    delimiter: String,
    /// Send empty keys and values as null
    #[arg(short = 'Z', long)]
    empty_is_null: bool,
    /// A header of every record; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// How to compress batches: none, gzip, snappy, lz4 or zstd
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none", value_parser = Compression::from_str,
          add = completion::codecs())]
    compression: Compression,
    /// What to wait for: all copies in sync, the leader, or nothing
    #[arg(long, value_enum, default_value_t = AcksWord::All)]
    acks: AcksWord,
}

/// What an acknowledgement stands for, as users write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AcksWord {
    All,
    Leader,
    None,
}

impl From<AcksWord> for Acks {
    fn from(word: AcksWord) -> Acks {
        match word {
            AcksWord::All => Acks::All,
            AcksWord::Leader => Acks::Leader,
            AcksWord::None => Acks::None,
        }
    }
}

impl ProduceArguments {
    fn sending(&self) -> Outcome<Sending> {
        let keys = KeyRule {
            delimiter: self.key_delimiter.as_deref().map(unescape).transpose()?,
            fixed: self.key.as_ref().map(|key| key.as_bytes().to_vec()),
            empty_is_null: self.empty_is_null,
        };
        Ok(Sending {
            partition: self.partition,
            keys,
            headers: self.headers.iter().map(|text| parse_header(text)).collect::<Outcome<_>>()?,
            producer: ProducerConfig {
                acks: self.acks.into(),
                compression: self.compression,
                ..ProducerConfig::default()
            },
            ..Sending::lines_to(&self.topic)
        })
    }
}

pub(crate) async fn run(
    client: &Client,
    arguments: &ProduceArguments,
    form: Form,
    delivery_timeout: Option<Duration>,
) -> Outcome {
    let mut sending = arguments.sending()?;
    if let Some(timeout) = delivery_timeout {
        sending.producer.delivery_timeout = timeout;
    }
    let delimiter = unescape(&arguments.delimiter)?;
    existing(client, std::slice::from_ref(&arguments.topic)).await?;
    let source = Source::from_argument(&arguments.file);
    let progress = if source == Source::Stdin && std::io::stdin().is_terminal() {
        tell!("a record for each line; end with Ctrl-D");
        // It would be drawn over what is being typed.
        InputProgress::hidden()
    } else {
        InputProgress::new(source.size(client.env()), "producing")
    };
    let mut pieces = Pieces::open(client.env(), source.clone(), &delimiter)?;
    let sent = send_all(client, &mut pieces, &sending, &progress).await?;
    progress.finish();
    match form {
        Form::Json => output::json(&json!({
            "topic": arguments.topic,
            "records": sent.records,
            "bytes": sent.bytes,
            "seconds": sent.took.as_secs_f64(),
        }))?,
        Form::Table => {
            let (records, size, took) = (count(sent.records), bytes(sent.bytes), duration(sent.took));
            let rate = rate(sent.records, sent.took);
            tell!("{records} records ({size}) written to {} in {took}, {rate}", arguments.topic);
        }
    }
    sent.whole(&source)
}
