//! What is offered for values that are known without a broker, as the shells' scripts get it.

use std::ffi::OsString;

use clap::CommandFactory;

use crate::arguments::Arguments;

/// The candidates for the last word of a line.
fn offered(line: &str) -> Vec<String> {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    let last = words.len() - 1;
    let candidates = clap_complete::engine::complete(&mut Arguments::command(), words, last, None);
    let candidates = candidates.expect("every line has some answer").into_iter();
    candidates.map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
}

#[test]
fn configs_of_topics_are_offered_with_what_they_take() {
    assert_eq!(offered("vltava topic create t -c clean"), ["cleanup.policy="]);
    assert_eq!(
        offered("vltava topic create t --config cleanup.policy="),
        ["cleanup.policy=compact", "cleanup.policy=delete"]
    );
    assert_eq!(
        offered("vltava topic config t --set cleanup.policy=compact,"),
        ["cleanup.policy=compact,delete"]
    );
    let booleans = offered("vltava topic config t --set preallocate=");
    assert_eq!(booleans, ["preallocate=true", "preallocate=false"]);
    assert_eq!(offered("vltava topic config t --set retention.ms="), ["retention.ms=604800000"]);
    assert_eq!(offered("vltava topic config t --reset max.m"), ["max.message.bytes"]);
    assert_eq!(offered("vltava topic config t --append clean"), ["cleanup.policy="]);
    assert!(offered("vltava topic config t --set no.such.key=").is_empty());
}

#[test]
fn keys_of_brokers_are_offered_those_with_effect_first() {
    assert_eq!(offered("vltava serve --set num.part"), ["num.partitions="]);
    assert_eq!(offered("vltava serve --set=num.part"), ["--set=num.partitions="]);
    assert_eq!(offered("vltava dev cluster --set num.part"), ["num.partitions="]);
    let durability = offered("vltava serve --set vltava.durability=");
    assert_eq!(durability, ["vltava.durability=fsync", "vltava.durability=page-cache"]);
    let of_log = offered("vltava serve --set log.");
    assert!(of_log.contains(&"log.dirs=".to_owned()), "{of_log:?}");
    // Where no key that begins so has effect, whoever types it wants the one there is.
    assert_eq!(offered("vltava serve --set zookeeper.co"), [""; 0]);
    assert_eq!(offered("vltava serve --set ssl.keystore.l"), ["ssl.keystore.location="]);
}

#[test]
fn words_with_few_values_are_offered() {
    assert_eq!(offered("vltava topic produce t -z "), ["none", "gzip", "snappy", "lz4", "zstd"]);
    assert_eq!(offered("vltava topic produce t --acks l"), ["leader"]);
    assert_eq!(offered("vltava topic list -o "), ["table", "json"]);
    assert_eq!(offered("vltava group reset g --to b"), ["beginning"]);
    assert_eq!(offered("vltava cat -o e"), ["end", "e@"]);
    assert_eq!(offered("vltava cat -X isol"), ["isolation.level="]);
    assert_eq!(offered("vltava --log w"), ["warn"]);
    assert_eq!(offered("vltava topic cr"), ["create"]);
    assert_eq!(offered("vltava dev cl"), ["cluster"]);
}
