//! The tables against the facts of Kafka 4.3.1, and configurations as operators write them.

use std::collections::{BTreeMap, BTreeSet};

use super::key::Valid;
use super::*;
use crate::batch::{Compression, TimestampType};

/// `scope, name, type, default, validator, importance, internal, update mode or synonyms`, read off the
/// classes of Kafka 4.3.1. A default is `null`, `required` or `=` and its text.
const KAFKA: &str = include_str!("kafka_4_3_1.tsv");

/// Defaults that differ from Kafka's on purpose: a start without any file must work, and listen to
/// this machine alone, and a dead broker is found out sooner.
const OWN_DEFAULTS: &[&str] = &[
    "broker.session.timeout.ms",
    "controller.listener.names",
    "listeners",
    "log.dir",
    "node.id",
    "process.roles",
];

fn kafka_validator(valid: Valid) -> String {
    match valid {
        Valid::Any => String::new(),
        Valid::Min(least) => format!("[{least},...]"),
        Valid::Between(least, most) => format!("[{least},...,{most}]"),
        Valid::BetweenOr(least, most, other) => format!("[{least},...,{most}] or {other}"),
        Valid::Ratio(least, most) => format!("[{least},...,{most}]"),
        Valid::OneOf(values) | Valid::EachOf(values) => format!("[{}]", values.join(", ")),
        Valid::OneOfAnyCase(values) => format!("(case insensitive) [{}]", values.join(", ")),
        Valid::NotEmpty => "non-empty string".to_owned(),
        Valid::Replicas => "[partitionId]:[brokerId],[partitionId]:[brokerId],...".to_owned(),
    }
}

#[test]
fn the_tables_are_kafkas() {
    let mut named = BTreeSet::new();
    for line in KAFKA.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [scope, name, kind, default, validator, importance, internal, rest] = columns[..] else {
            panic!("{line}");
        };
        named.insert((scope, name));
        let row = if scope == "broker" { broker_key(name) } else { topic_key(name) };
        let row = row.unwrap_or_else(|| panic!("{scope} key {name} is missing"));
        assert_eq!(row.kind.name(), kind, "{name}");
        assert_eq!(row.importance.name(), importance, "{name}");
        assert_eq!(row.internal, internal == "internal", "{name}");
        if !OWN_DEFAULTS.contains(&name) {
            assert_eq!(row.default.map_or("null".to_owned(), |text| format!("={text}")), default, "{name}");
        }
        let validator =
            if matches!(validator, "non-null string" | "non-empty list") { "" } else { validator };
        assert_eq!(kafka_validator(row.valid), validator, "{name}");
        if scope == "broker" {
            assert_eq!(row.update.name(), if rest.is_empty() { "read-only" } else { rest }, "{name}");
        } else {
            let synonyms: Vec<_> =
                row.synonyms.iter().map(|(name, factor)| format!("{name}*{factor}")).collect();
            assert_eq!(synonyms.join(" "), rest, "{name}");
        }
    }
    for (scope, rows) in [("broker", broker_keys()), ("topic", topic_keys())] {
        let others = rows.iter().filter(|row| !named.contains(&(scope, row.name)));
        assert!(
            others.clone().all(|row| row.name.starts_with("vltava.")),
            "{:?}",
            others.collect::<Vec<_>>()
        );
    }
}

#[test]
fn every_row_is_whole() {
    for rows in [broker_keys(), topic_keys()] {
        assert!(rows.windows(2).all(|pair| pair[0].name < pair[1].name), "a name stands twice");
        for row in rows {
            assert!(row.doc.len() > 10 && row.doc.ends_with('.'), "{}: {}", row.name, row.doc);
            assert!(row.default.is_none_or(|text| row.parse(text).is_ok()), "default of {}", row.name);
            assert!(row.synonyms.iter().all(|(name, _)| broker_key(name).is_some()), "{}", row.name);
            if let Effect::Accepted(reason) | Effect::DefaultOnly(reason) = row.effect {
                assert!(!reason.ends_with('.') && !reason.is_empty(), "{}", row.name);
            }
        }
    }
}

fn load(text: &str) -> Result<Loaded, Vec<ConfigError>> {
    BrokerConfig::load(&parse_properties(text).unwrap(), UnknownKeys::Refuse)
}

fn refusals(text: &str) -> Vec<String> {
    load(text).unwrap_err().iter().map(ConfigError::to_string).collect()
}

/// What a combined node of Apache Kafka 4.x is usually given.
const KRAFT: &str = "\
# roles
process.roles=broker,controller
node.id=7
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=4
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=100
log.segment.bytes=1073741824
";

#[test]
fn a_kraft_file_starts_unchanged() {
    let Loaded { config, notes } = load(KRAFT).unwrap();
    assert_eq!((config.get(keys::NODE_ID), config.get(keys::BROKER_ID)), (7, 7));
    assert_eq!(config.get(keys::NUM_PARTITIONS), 4);
    assert_eq!(config.log_dirs(), ["/tmp/kraft-combined-logs"]);
    let [listener] = config.client_listeners() else { panic!("{:?}", config.client_listeners()) };
    assert_eq!((listener.name.as_str(), listener.bind.port), ("PLAINTEXT", 9092));
    assert_eq!(TopicSettings::resolve(&config, &BTreeMap::new()).retention_ms, Some(100 * 3_600_000));
    // A value that is the default anyway needs no note.
    let noted: Vec<_> = notes.iter().map(|note| note.key.as_str()).collect();
    let expected = [
        "controller.quorum.bootstrap.servers",
        "num.recovery.threads.per.data.dir",
        "transaction.state.log.min.isr",
    ];
    assert_eq!(noted, expected);
    assert_eq!(
        notes[0].to_string(),
        "line 4: `controller.quorum.bootstrap.servers` has no effect here, because without `controller.quorum.voters` this node is the only controller"
    );
}

#[test]
fn slips_are_refused_with_their_line_all_at_once() {
    let text = "num.partition=3\n\nlog.retention.ms=abc\nretention.ms=5\ncompression.type=rar\n";
    let expected = [
        "line 1: unknown key `num.partition`; did you mean `num.partitions`?",
        "line 3: Invalid value `abc` for `log.retention.ms`: it takes a whole number of 64 bits",
        "line 4: unknown key `retention.ms`; `retention.ms` is a topic's key, a broker's is `log.retention.ms`",
        "line 5: Invalid value `rar` for `compression.type`: it takes one of uncompressed, zstd, lz4, snappy, gzip, producer",
    ];
    assert_eq!(refusals(text), expected);
    let told = BrokerConfig::load(&parse_properties("num.partition=3").unwrap(), UnknownKeys::Tell).unwrap();
    assert_eq!(told.notes.len(), 1);
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    for (text, key) in [
        ("node.id=1\nbroker.id=2", "broker.id"),
        ("log.retention.minutes=0", "log.retention.ms"),
        ("log.roll.ms=0", "log.roll.ms"),
        ("queued.max.request.bytes=100", "queued.max.request.bytes"),
        ("vltava.memory.limit=67108863", "vltava.memory.limit"),
        ("log.cleaner.dedupe.buffer.size=1000000", "log.cleaner.dedupe.buffer.size"),
        ("max.connections.per.ip.overrides=a", "max.connections.per.ip.overrides"),
        ("vltava.http.listener=9644", "vltava.http.listener"),
        ("log.dirs=/a,/b,/a", "log.dirs"),
        ("log.dirs=", "log.dirs"),
        ("listeners=SSL://:9092", "listener.security.protocol.map"),
        ("group.min.session.timeout.ms=7\ngroup.max.session.timeout.ms=6", "group.min.session.timeout.ms"),
        ("replica.selector.class=com.example.Nearest", "replica.selector.class"),
    ] {
        let refused = refusals(text);
        assert!(refused.len() == 1 && refused[0].contains(&format!("`{key}`: ")), "{text}: {refused:?}");
    }
}

#[test]
fn what_protects_is_not_dropped_in_silence() {
    let refused = refusals("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer");
    assert!(refused[0].contains("access control is not served yet"), "{refused:?}");
    assert!(load("authorizer.class.name=").is_ok() && load("config.providers=").is_ok());
    assert!(load("config.providers=file").is_err());
}

#[test]
fn keys_of_other_releases_plug_ins_and_listeners_are_told() {
    let text = "zookeeper.connect=a:2181\nrsm.config.x=1\nlistener.name.ssl.ssl.keystore.location=/a\n\
                listener.name.sasl.scram-sha-256.sasl.jaas.config=b\nnum.partitions=1\nnum.partitions=2\n";
    let Loaded { config, notes } = load(text).unwrap();
    assert_eq!((config.get(keys::NUM_PARTITIONS), notes.len()), (2, 5));
    assert!(load("listener.name.ssl.no.such.key=1").is_err());
    let file = parse_properties("num.partitions=1").unwrap();
    let both = [file, vec![Assignment::from_argument("num.partitions=9").unwrap()]].concat();
    let loaded = BrokerConfig::load(&both, UnknownKeys::Refuse).unwrap();
    assert_eq!((loaded.config.get(keys::NUM_PARTITIONS), loaded.notes.len()), (9, 0));
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// `name value source synonyms`, as seen in the answers of Kafka 4.3.1 to the same settings.
fn shown(described: &Described) -> String {
    let synonyms = described.synonyms.iter();
    let synonyms =
        synonyms.map(|s| format!(" {}:{}={}", s.source.name(), s.name, s.value.as_deref().unwrap_or("-")));
    let value = described.value.as_deref().unwrap_or("null");
    let (name, source) = (described.key.name, described.source.name());
    format!("{name} {value} {source}{}", synonyms.collect::<String>())
}

fn changed() -> BrokerConfig {
    let text = "node.id=1\nlog.retention.hours=100\nlog.roll.hours=99\nmessage.max.bytes=1000000\nssl.key.password=x";
    let for_all =
        map(&[("log.retention.bytes", "777"), ("log.roll.jitter.ms", "7"), ("min.insync.replicas", "1")]);
    let (config, errors) =
        load(text).unwrap().config.with_changes(&for_all, &map(&[("log.segment.bytes", "2097152")]));
    assert_eq!(errors, []);
    config
}

#[test]
fn a_topic_is_described_as_kafka_does() {
    let config = changed();
    let overrides = map(&[("segment.ms", "5000")]);
    let all = config.describe_topic(&overrides);
    assert!(
        all.iter().all(|described| !described.read_only && described.key.name != "internal.segment.bytes")
    );
    for expected in [
        "cleanup.policy delete DEFAULT_CONFIG DEFAULT_CONFIG:log.cleanup.policy=delete",
        "flush.ms 9223372036854775807 DEFAULT_CONFIG",
        "max.message.bytes 1000000 STATIC_BROKER_CONFIG STATIC_BROKER_CONFIG:message.max.bytes=1000000 DEFAULT_CONFIG:message.max.bytes=1048588",
        "min.cleanable.dirty.ratio 0.5 DEFAULT_CONFIG DEFAULT_CONFIG:log.cleaner.min.cleanable.ratio=0.5",
        "min.insync.replicas 1 DYNAMIC_DEFAULT_BROKER_CONFIG DYNAMIC_DEFAULT_BROKER_CONFIG:min.insync.replicas=1 DEFAULT_CONFIG:min.insync.replicas=1",
        "retention.bytes 777 DYNAMIC_DEFAULT_BROKER_CONFIG DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.bytes=777 DEFAULT_CONFIG:log.retention.bytes=-1",
        "retention.ms 360000000 DEFAULT_CONFIG",
        "remote.storage.enable false DEFAULT_CONFIG",
        "segment.bytes 2097152 DYNAMIC_BROKER_CONFIG DYNAMIC_BROKER_CONFIG:log.segment.bytes=2097152 DEFAULT_CONFIG:log.segment.bytes=1073741824",
        "segment.jitter.ms 7 DYNAMIC_DEFAULT_BROKER_CONFIG DYNAMIC_DEFAULT_BROKER_CONFIG:log.roll.jitter.ms=7 DEFAULT_CONFIG:log.roll.jitter.hours=0",
        "segment.ms 5000 DYNAMIC_TOPIC_CONFIG DYNAMIC_TOPIC_CONFIG:segment.ms=5000",
        "leader.replication.throttled.replicas  DEFAULT_CONFIG",
    ] {
        let name = expected.split(' ').next().unwrap();
        let one = config.describe_topic_value(&overrides, name).unwrap();
        assert_eq!(shown(&one), expected);
        assert!(all.iter().any(|described| shown(described) == expected));
    }
}

#[test]
fn a_value_set_to_its_default_is_the_topics_all_the_same() {
    let config = BrokerConfig::defaults();
    let one = config.describe_topic_value(&map(&[("retention.bytes", "-1")]), "retention.bytes").unwrap();
    assert_eq!(one.source, ConfigSource::DynamicTopic);
    let own = config.describe_topic_value(&BTreeMap::new(), "vltava.durability").unwrap();
    assert_eq!(shown(&own), "vltava.durability fsync DEFAULT_CONFIG DEFAULT_CONFIG:vltava.durability=fsync");
}

#[test]
fn a_broker_is_described_as_kafka_does() {
    let config = changed();
    let all = config.describe();
    let find = |name: &str| all.iter().find(|described| described.key.name == name).unwrap();
    for (expected, read_only) in [
        (
            "broker.id 1 STATIC_BROKER_CONFIG STATIC_BROKER_CONFIG:broker.id=1 DEFAULT_CONFIG:broker.id=-1",
            true,
        ),
        ("broker.rack null DEFAULT_CONFIG", true),
        ("log.flush.interval.ms null DEFAULT_CONFIG", false),
        (
            "log.retention.hours 100 STATIC_BROKER_CONFIG STATIC_BROKER_CONFIG:log.retention.hours=100 DEFAULT_CONFIG:log.retention.hours=168",
            true,
        ),
        ("log.retention.ms null DEFAULT_CONFIG", false),
        (
            "log.roll.jitter.ms 7 DYNAMIC_DEFAULT_BROKER_CONFIG DYNAMIC_DEFAULT_BROKER_CONFIG:log.roll.jitter.ms=7 DEFAULT_CONFIG:log.roll.jitter.hours=0",
            false,
        ),
        ("advertised.listeners null DEFAULT_CONFIG", true),
        ("ssl.key.password null STATIC_BROKER_CONFIG STATIC_BROKER_CONFIG:ssl.key.password=-", false),
    ] {
        let described = find(expected.split(' ').next().unwrap());
        assert_eq!((shown(described).as_str(), described.read_only), (expected, read_only));
    }
    assert!(find("ssl.key.password").key.is_sensitive());
    assert!(!all.iter().any(|described| described.key.internal));
    let for_all: Vec<_> = config.describe_for_all().iter().map(shown).collect();
    assert_eq!(
        for_all[0],
        "log.retention.bytes 777 DYNAMIC_DEFAULT_BROKER_CONFIG DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.bytes=777"
    );
    assert_eq!(for_all.len(), 3);
}

#[test]
fn changes_while_running_keep_the_good_and_tell_the_bad() {
    let base = BrokerConfig::defaults();
    let for_all = map(&[
        ("node.id", "5"),
        ("listeners", "PLAINTEXT://:1"),
        ("log.retention.ms", "60000"),
        ("no.such.key", "1"),
        ("log.cleaner.min.compaction.lag.ms", "-1"),
    ]);
    let (config, errors) = base.with_changes(&for_all, &BTreeMap::new());
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert_eq!(TopicSettings::resolve(&config, &BTreeMap::new()).retention_ms, Some(60_000));
    // Together they contradict each other; one alone stays.
    let clash =
        map(&[("log.cleaner.max.compaction.lag.ms", "5"), ("log.cleaner.min.compaction.lag.ms", "9")]);
    let (config, errors) = base.with_changes(&clash, &map(&[("log.retention.bytes", "1")]));
    assert_eq!((errors.len(), config.get(keys::LOG_CLEANER_MAX_COMPACTION_LAG_MS)), (1, 5));
    assert_eq!(config.get(keys::LOG_RETENTION_BYTES), 1);
    // The later call replaces what the earlier one set.
    let (config, _) = config.with_changes(&BTreeMap::new(), &BTreeMap::new());
    assert_eq!(config.get(keys::LOG_RETENTION_BYTES), -1);
}

#[test]
fn topic_values_are_checked_alone_and_together() {
    let broker = BrokerConfig::defaults();
    assert!(
        check_topic_values(&broker, &map(&[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")]))
            .is_ok()
    );
    let refused = |entries| check_topic_values(&broker, &map(entries)).unwrap_err().to_string();
    assert_eq!(
        refused(&[("retention.msec", "1")]),
        "unknown topic key `retention.msec`; did you mean `retention.ms`?"
    );
    let expected = "Invalid value `-2` for `retention.ms`: it takes a whole number of 64 bits, at least -1";
    assert_eq!(refused(&[("retention.ms", "-2")]), expected);
    let lags = [("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")];
    assert!(refused(&lags).contains("must not exceed"));
    assert!(refused(&[("vltava.durability", "none")]).contains("one of fsync, page-cache"));
}

#[test]
fn a_list_of_choices_has_each_once() {
    let key = topic_key("cleanup.policy").unwrap();
    assert_eq!(key.parse("compact, delete ,compact").unwrap().to_text().as_deref(), Some("compact,delete"));
    let key = broker_key("log.dirs").unwrap();
    assert_eq!(key.parse("/a,/a").unwrap().to_text().as_deref(), Some("/a,/a"));
}

#[test]
fn lists_grow_and_shrink() {
    let policy = topic_key("cleanup.policy").unwrap();
    let change = |current, change, items| change_list(policy, current, change, items).unwrap();
    assert_eq!(change(None, ListChange::Append, "compact"), "delete,compact");
    assert_eq!(change(Some("compact"), ListChange::Append, "compact, delete"), "compact,delete");
    assert_eq!(change(Some("compact,delete"), ListChange::Subtract, "compact"), "delete");
    assert_eq!(change(None, ListChange::Subtract, "delete"), "");
    let number = topic_key("retention.ms").unwrap();
    assert!(change_list(number, None, ListChange::Append, "1").is_err());
}

#[test]
fn settings_come_from_topic_broker_and_default() {
    let plain = TopicSettings::default();
    assert_eq!((plain.delete, plain.compact, plain.retention_ms), (true, false, Some(604_800_000)));
    assert_eq!((plain.retention_bytes, plain.segment_bytes, plain.compression), (None, 1 << 30, None));
    assert_eq!((plain.timestamp_type, plain.durability), (TimestampType::CreateTime, Durability::Fsync));
    let broker =
        load("log.retention.minutes=2\nvltava.durability=page-cache\nlog.cleanup.policy=compact").unwrap();
    let overrides = map(&[
        ("compression.type", "gzip"),
        ("compression.gzip.level", "9"),
        ("internal.segment.bytes", "512"),
        ("message.timestamp.type", "LogAppendTime"),
        ("retention.bytes", "0"),
        ("segment.ms", "not valid any more"),
    ]);
    let set = TopicSettings::resolve(&broker.config, &overrides);
    assert_eq!((set.delete, set.compact, set.retention_ms), (false, true, Some(120_000)));
    assert_eq!((set.compression, set.compression_level), (Some(Compression::Gzip), Some(9)));
    assert_eq!((set.segment_bytes, set.segment_ms, set.retention_bytes), (512, 604_800_000, Some(0)));
    assert_eq!((set.timestamp_type, set.durability), (TimestampType::LogAppendTime, Durability::PageCache));
    let for_ever = load("log.retention.hours=-1").unwrap().config;
    assert_eq!(TopicSettings::resolve(&for_ever, &BTreeMap::new()).retention_ms, None);
}

#[test]
fn the_markdown_has_every_key_that_is_shown() {
    let (broker, topic) = (broker_table_markdown(), topic_table_markdown());
    for (text, rows) in [(&broker, broker_keys()), (&topic, topic_keys())] {
        for row in rows {
            assert_eq!(text.contains(&format!("| `{}` |", row.name)), !row.internal, "{}", row.name);
        }
        let bars = |line: &str| line.replace("\\|", "").matches('|').count();
        assert!(text.lines().filter(|line| line.starts_with('|')).all(|line| (6..=7).contains(&bars(line))));
    }
}
