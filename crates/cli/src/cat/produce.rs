//! `cat -P`: records from standard input or files.

use client::{Client, Producer, ProducerRecord};

use super::properties::Properties;
use super::{CatArguments, one_topic};
use crate::failure::{Failure, Outcome};
use crate::input::{Pieces, Source, read_whole};
use crate::output::InputProgress;
use crate::record::{KeyRule, parse_header, unescape};
use crate::sending::{Sending, send_all};

pub(super) async fn run(client: &Client, arguments: &CatArguments, properties: &Properties) -> Outcome {
    let sending = sending(arguments, properties)?;
    if !arguments.lines && !arguments.operands.is_empty() {
        return send_files(client, arguments, &sending).await;
    }
    let delimiter = unescape(&arguments.delimiter)?;
    if delimiter.is_empty() {
        return Err(Failure::usage("the delimiter is empty"));
    }
    let mut sources: Vec<Source> =
        arguments.operands.iter().map(|name| Source::from_argument(name)).collect();
    if sources.is_empty() {
        sources.push(Source::Stdin);
    }
    let mut sending = sending;
    for source in sources {
        let mut pieces = Pieces::open(client.env(), source.clone(), &delimiter)?;
        let sent = send_all(client, &mut pieces, &sending, &InputProgress::hidden()).await?;
        sent.whole(&source)?;
        if sent.ended_by.is_some() {
            break;
        }
        sending.limit = sending.limit.map(|limit| limit.saturating_sub(sent.records));
    }
    Ok(())
}

fn sending(arguments: &CatArguments, properties: &Properties) -> Outcome<Sending> {
    let keys = KeyRule {
        delimiter: arguments.key_delimiter.as_deref().map(unescape).transpose()?,
        fixed: arguments.key.as_ref().map(|key| key.as_bytes().to_vec()),
        empty_is_null: arguments.null,
    };
    let mut sending = Sending {
        partition: Some(arguments.partition).filter(|partition| *partition >= 0),
        keys,
        headers: arguments.headers.iter().map(|text| parse_header(text)).collect::<Outcome<_>>()?,
        limit: arguments.limit,
        tee: if arguments.tee { Some(unescape(&arguments.delimiter)?) } else { None },
        ..Sending::lines_to(one_topic(arguments)?)
    };
    if let Some(timeout) = arguments.bootstrap.delivery_timeout() {
        sending.producer.delivery_timeout = timeout;
    }
    properties.lay_over_producer(&mut sending.producer);
    if let Some(compression) = arguments.compression {
        sending.producer.compression = compression;
    }
    Ok(sending)
}

/// Each file is one record.
async fn send_files(client: &Client, arguments: &CatArguments, sending: &Sending) -> Outcome {
    let producer = Producer::new(client, sending.producer.clone());
    let headers = sending.headers.iter();
    let headers: Vec<_> =
        headers.map(|(key, value)| base::batch::Header { key, value: value.as_deref() }).collect();
    let limit = usize::try_from(sending.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    for name in arguments.operands.iter().take(limit) {
        let content = read_whole(client.env(), name, sending.producer.record_bytes_max)?;
        let record = ProducerRecord {
            topic: &sending.topic,
            partition: sending.partition,
            key: sending.keys.fixed.as_deref(),
            value: Some(&content),
            headers: &headers,
            timestamp: sending.timestamp,
        };
        producer.send(record).await?;
    }
    Ok(producer.flush().await?)
}
