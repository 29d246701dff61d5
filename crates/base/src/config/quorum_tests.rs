//! Files of Apache Kafka's KRaft clusters, and what is refused of them.

use std::time::Duration;

use super::*;
use crate::ids::BrokerId;

const COMBINED: [&str; 3] = [
    include_str!("kraft/combined-1.properties"),
    include_str!("kraft/combined-2.properties"),
    include_str!("kraft/combined-3.properties"),
];
const CONTROLLER: &str = include_str!("kraft/controller.properties");
const BROKER: &str = include_str!("kraft/broker.properties");

fn load(text: &str) -> Result<Loaded, Vec<ConfigError>> {
    BrokerConfig::load(&parse_properties(text).unwrap(), UnknownKeys::Refuse)
}

/// The errors of a file to which lines were added.
fn refusals(file: &str, lines: &str) -> Vec<String> {
    load(&format!("{file}\n{lines}")).unwrap_err().iter().map(ConfigError::to_string).collect()
}

fn text(address: Option<&HostPort>) -> String {
    address.map(HostPort::to_string).unwrap_or_default()
}

#[test]
fn three_combined_nodes_start_from_kafkas_files_unchanged() {
    for (number, file) in (1..).zip(COMBINED) {
        let Loaded { config, notes } = load(file).unwrap();
        assert_eq!(
            (config.node(), config.roles().to_string().as_str()),
            (BrokerId(number), "broker,controller")
        );
        let voters: Vec<String> =
            config.voters().iter().map(|(id, address)| format!("{id}@{address}")).collect();
        let expected = [1, 2, 3].map(|id| format!("{id}@kafka-{id}.example:9093"));
        assert!(voters == expected && config.has_other_voters());
        assert_eq!(text(config.controller_listener().map(|listener| &listener.bind)), ":9093");
        assert_eq!(config.inter_broker_listener_name(), Some("PLAINTEXT"));
        assert_eq!(config.client_listeners().len(), 1);
        assert_eq!(config.broker_session_timeout(), Duration::from_secs(9));
        assert_eq!(config.broker_heartbeat_interval(), Duration::from_secs(2));
        assert_eq!(config.get(keys::METADATA_LOG_DIR), Some("/var/lib/kafka/metadata"));
        let effective = ["process.roles", "controller.", "inter.broker", "broker.", "metadata.log.dir"];
        let timing = ["controller.quorum.election.timeout.ms", "controller.quorum.fetch.timeout.ms"];
        for note in notes {
            let is_effective = effective.iter().any(|prefix| note.key.starts_with(prefix));
            assert!(!is_effective || timing.contains(&note.key.as_str()), "{note}");
        }
    }
}

#[test]
fn separate_roles_start_from_kafkas_files_unchanged() {
    let Loaded { config, notes } = load(CONTROLLER).unwrap();
    assert_eq!((config.roles().to_string().as_str(), notes.len()), ("controller", 0));
    assert!(config.client_listeners().is_empty() && config.inter_broker_listener().is_none());
    let listener = config.controller_listener().unwrap();
    assert_eq!(text(listener.advertised.as_ref()), "controller-1.example:9093");
    let Loaded { config, .. } = load(BROKER).unwrap();
    assert_eq!(config.roles().to_string(), "broker");
    assert_eq!((config.client_listeners().len(), config.controller_listener()), (2, None));
    assert_eq!(config.inter_broker_listener_name(), Some("BROKERS"));
    let bootstrap: Vec<_> = config.controller_bootstrap().iter().map(HostPort::to_string).collect();
    assert_eq!(bootstrap, [1, 2, 3].map(|id| format!("controller-{id}.example:9093")));
    let other = load(&format!("{BROKER}\ncontroller.quorum.bootstrap.servers=a:1,b:2")).unwrap().config;
    assert_eq!(other.controller_bootstrap().len(), 2);
}

#[test]
fn a_node_alone_needs_no_word_about_others() {
    let config = BrokerConfig::defaults();
    assert!(config.roles().broker && config.roles().controller && !config.has_other_voters());
    assert_eq!(
        (config.controller_listener(), config.inter_broker_listener_name()),
        (None, Some("PLAINTEXT"))
    );
    assert_eq!(config.broker_session_timeout(), Duration::from_secs(3));
    assert_eq!(config.broker_heartbeat_interval(), Duration::from_secs(1));
    let itself = "controller.quorum.voters=1@localhost:9093\nlisteners=OWN://:9092\n\
                  listener.security.protocol.map=OWN:PLAINTEXT";
    let config = load(itself).unwrap().config;
    assert!(!config.has_other_voters() && config.inter_broker_listener_name() == Some("OWN"));
    assert!(load("process.roles=controller").unwrap().config.client_listeners().is_empty());
}

#[test]
fn what_cannot_be_a_cluster_is_refused_with_the_way_out() {
    let combined = COMBINED[0];
    for (file, lines, key, way_out) in [
        (combined, "node.id=4", "node.id", "add 4@host:port to the voters"),
        (
            combined,
            "process.roles=broker\nlisteners=PLAINTEXT://:9092",
            "process.roles",
            "say broker,controller",
        ),
        (combined, "process.roles=", "process.roles", "broker, controller, or both"),
        (combined, "process.roles=controller", "listeners", "add broker to `process.roles`"),
        (combined, "listeners=PLAINTEXT://:9092", "listeners", "add CONTROLLER://:9093"),
        (
            combined,
            "listeners=CONTROLLER://:9093\nadvertised.listeners=",
            "listeners",
            "add one, as in PLAINTEXT",
        ),
        (combined, "listeners=PLAINTEXT://:9092,CONTROLLER://:0", "listeners", "not 0"),
        (combined, "controller.listener.names=CONTROLLER,OTHER", "listeners", "add OTHER://"),
        (combined, "inter.broker.listener.name=OTHER", "inter.broker.listener.name", "one of PLAINTEXT"),
        (combined, "security.inter.broker.protocol=PLAINTEXT", "inter.broker.listener.name", "leave one out"),
        (combined, "controller.quorum.voters=1@a:1,1@b:1", "controller.quorum.voters", "its own `node.id`"),
        (combined, "controller.quorum.voters=1@a:1,2@a:1", "controller.quorum.voters", "the same address"),
        (combined, "controller.quorum.voters=1@a:1,b:1", "controller.quorum.voters", "id@host:port"),
        (combined, "controller.quorum.voters=1@a:1,-2@b:1", "controller.quorum.voters", "id@host:port"),
        (combined, "controller.quorum.voters=1@a:1,2@0.0.0.0:1", "controller.quorum.voters", "name a host"),
        (combined, "broker.session.timeout.ms=0", "broker.session.timeout.ms", "1 ms and more"),
        (CONTROLLER, "listeners=", "listeners", "add CONTROLLER://:9093"),
        (BROKER, "node.id=3002", "process.roles", "say broker,controller"),
        (BROKER, "controller.quorum.voters=", "process.roles", "must know its controllers"),
        (BROKER, "controller.listener.names=", "controller.listener.names", "must name"),
        (BROKER, "inter.broker.listener.name=", "inter.broker.listener.name", "one of CLIENTS, BROKERS"),
        (
            "",
            "controller.quorum.bootstrap.servers=a:1,b:1",
            "controller.quorum.bootstrap.servers",
            "on every node",
        ),
        ("", "controller.quorum.bootstrap.servers=a", "controller.quorum.bootstrap.servers", "host:port"),
    ] {
        let refused = refusals(file, lines);
        let [error] = &refused[..] else { panic!("{lines}: {refused:?}") };
        assert!(error.contains(&format!("`{key}`: ")) && error.contains(way_out), "{lines}: {error}");
    }
    let with_controller =
        refusals(BROKER, "listeners=BROKERS://:9092,CONTROLLER://:9093\nadvertised.listeners=");
    assert!(with_controller[0].contains("add controller to `process.roles`"), "{with_controller:?}");
}

#[test]
fn controllers_speak_plaintext_unless_a_map_says_otherwise() {
    let refused = refusals(COMBINED[0], "listener.security.protocol.map=CONTROLLER:SSL,PLAINTEXT:PLAINTEXT");
    assert!(refused[0].contains("listener `CONTROLLER` wants SSL"), "{refused:?}");
    let refused = refusals(COMBINED[0], "listener.security.protocol.map=PLAINTEXT:PLAINTEXT");
    assert!(refused[0].contains("no security protocol for listener `CONTROLLER`"), "{refused:?}");
    let without = COMBINED[0].lines().filter(|line| !line.starts_with("listener.security.protocol.map"));
    assert!(load(&without.collect::<Vec<_>>().join("\n")).is_ok());
}

#[test]
fn what_an_operator_should_know_of_keys_that_are_valid_is_told() {
    let lines = "controller.quorum.bootstrap.servers=a:1\nbroker.session.timeout.ms=3000";
    let Loaded { config, notes } = load(&format!("{}{lines}", COMBINED[1])).unwrap();
    assert_eq!(config.broker_heartbeat_interval(), Duration::from_secs(1));
    let told = |key: &str| notes.iter().find(|note| note.key == key).map(|note| note.text.clone()).unwrap();
    assert!(told("controller.quorum.bootstrap.servers").contains("`controller.quorum.voters` names"));
    assert!(told("broker.heartbeat.interval.ms").contains("every 1000 ms"));
    assert!(notes.windows(2).all(|pair| pair[0].origin <= pair[1].origin));
}
