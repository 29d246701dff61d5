"""Configs described and altered, whole and in steps."""

from proof.connection import Session

from .helpers import create, settle_configs

TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)


# Resources whose values belong to features that Vltava does not have.
_KINDS_WITHOUT_VALUES = [("client metrics", CLIENT_METRICS), ("group", GROUP)]


def describe(session: Session) -> None:
    create(session, "configured", retention_ms="12345", cleanup_policy="compact,delete")
    node = str(session.ask("Metadata", 5, topics=[])["brokers"][0]["nodeId"])
    for version in session.each("DescribeConfigs"):
        def ask(step: str, kind: int, name: str, keys: list | None, **more) -> dict:
            resources = [{"resourceType": kind, "resourceName": name, "configurationKeys": keys}]
            return session.call(step, "DescribeConfigs", version, resources=resources, **more)

        ask("all of a topic", TOPIC, "configured", None)
        ask("with synonyms", TOPIC, "configured", None, includeSynonyms=True)
        ask("some keys", TOPIC, "configured", ["retention.ms", "segment.bytes"], includeSynonyms=True)
        ask("unknown key", TOPIC, "configured", ["no.such.config"])
        ask("no keys", TOPIC, "configured", [])
        ask("unknown topic", TOPIC, "configured-unknown", None)
        ask("bad topic name", TOPIC, "not/ok", None)
        ask("empty topic name", TOPIC, "", None)
        ask("strange kind", 77, "x", None)
        broker_keys = ["log.retention.hours", "num.partitions", "message.max.bytes", "auto.create.topics.enable",
                       "group.initial.rebalance.delay.ms", "log.segment.bytes", "offsets.retention.minutes",
                       "compression.type", "min.insync.replicas", "group.min.session.timeout.ms"]
        ask("broker keys", BROKER, node, broker_keys, includeSynonyms=True)
        ask("another broker", BROKER, "77", broker_keys)
        ask("broker by no number", BROKER, "one", broker_keys)
        ask("all brokers", BROKER, "", broker_keys)
        session.call("nothing", "DescribeConfigs", version, resources=[])
        session.call("same topic twice", "DescribeConfigs", version, resources=[
            {"resourceType": TOPIC, "resourceName": "configured", "configurationKeys": ["retention.ms"]}] * 2)
        ask("same key twice", TOPIC, "configured", ["retention.ms", "retention.ms"])
        ask("loggers of another broker", BROKER_LOGGER, "77", ["no.such.logger"])
        ask("loggers of all brokers", BROKER_LOGGER, "", ["no.such.logger"])
        ask("unknown logger", BROKER_LOGGER, node, ["no.such.logger"])
        for step, kind in _KINDS_WITHOUT_VALUES:
            ask(step, kind, "configured", ["no.such.config"])
            ask(f"{step}, all keys", kind, "configured", None)
            ask(f"{step}, empty name", kind, "", None)
        ask("no kind", 0, "configured", None)
        ask("groups' topic", TOPIC, "__consumer_offsets", ["cleanup.policy", "compression.type", "segment.bytes"])
        if version >= 3:
            ask("with documentation", TOPIC, "configured", ["retention.ms"], includeDocumentation=True)


def _values(session: Session, step: str, name: str) -> None:
    """Records what a topic's altered keys have become."""
    settle_configs(session)
    keys = ["retention.ms", "retention.bytes", "cleanup.policy", "segment.bytes", "max.message.bytes"]
    session.call(step, "DescribeConfigs", 4, resources=[
        {"resourceType": TOPIC, "resourceName": name, "configurationKeys": keys}])


def alter(session: Session) -> None:
    for version in session.each("AlterConfigs"):
        name = f"altered-v{version}"
        create(session, name, retention_ms="12345")

        def ask(step: str, configs: list, name: str = name, kind: int = TOPIC, **more) -> dict:
            resources = [{"resourceType": kind, "resourceName": name,
                          "configs": [{"name": key, "value": value} for key, value in configs]}]
            return session.call(step, "AlterConfigs", version, resources=resources, **more)

        ask("replace", [("retention.bytes", "4096"), ("segment.bytes", "2000000")])
        _values(session, f"replaced v{version}", name)
        ask("validate only", [("retention.bytes", "1")], validateOnly=True)
        ask("null value", [("retention.ms", None)])
        ask("unknown key", [("no.such.config", "1")])
        ask("bad value", [("retention.ms", "soon")])
        ask("same key twice", [("retention.ms", "1"), ("retention.ms", "2")])
        ask("unknown topic", [("retention.ms", "1")], name="altered-unknown")
        ask("bad topic name", [("retention.ms", "1")], name="not/ok")
        ask("strange kind", [("x", "1")], kind=77)
        ask("nothing set", [])
        _values(session, f"all taken back v{version}", name)
        session.call("nothing", "AlterConfigs", version, resources=[])
        session.call("one good and one bad", "AlterConfigs", version, resources=[
            {"resourceType": TOPIC, "resourceName": one, "configs": [{"name": "retention.ms", "value": "1"}]}
            for one in (name, "altered-unknown")])
        ask("empty topic name", [("retention.ms", "1")], name="")
        ask("empty key", [("", "1")])
        _others(session, ask)
    # Apache Kafka never answers this one; no use in waiting long.
    connection = session.connect()
    connection.send("AlterConfigs", 2, {"resources": [
        {"resourceType": TOPIC, "resourceName": "altered-v2", "configs": [{"name": "retention.ms", "value": "1"}]}] * 2})
    session.record("same topic twice", "AlterConfigs", 2, connection.receive(timeout_s=2))
    connection.close()


def _others(session: Session, ask) -> None:
    """Changes of what is no topic; `ask` takes a step, pairs of key and value, a name and a kind."""
    node = str(session.ask("Metadata", 5, topics=[])["brokers"][0]["nodeId"])
    for step, name in [("this broker", node), ("all brokers", ""), ("another broker", "77"), ("no number", "one")]:
        def at(what: str, *configs: tuple, step: str = step, name: str = name, **more) -> dict:
            return ask(f"{step}: {what}", list(configs), name=name, kind=BROKER, **more)

        at("fixed key", ("node.id", "5"))
        at("unknown key", ("no.such.config", "1"))
        at("key of topics", ("retention.ms", "1000"))
        at("bad value", ("log.retention.ms", "soon"))
        at("value out of range", ("num.io.threads", "-1"))
        at("null value", ("log.retention.ms", None))
        at("same key twice", ("log.retention.ms", "1"), ("log.retention.ms", "2"))
        at("set", ("log.cleaner.backoff.ms", "15000"))
        at("validate only", ("log.cleaner.backoff.ms", "15000"), validateOnly=True)
        at("nothing set")
    for step, name in [("this broker's loggers", node), ("another broker's loggers", "77"), ("all loggers", "")]:
        ask(step, [("no.such.logger", "INFO")], name=name, kind=BROKER_LOGGER)
    for step, kind in _KINDS_WITHOUT_VALUES:
        ask(step, [("no.such.config", "1")], name="x", kind=kind)
        ask(f"{step}, empty name", [("no.such.config", "1")], name="", kind=kind)
    ask("no kind", [("x", "1")], name="x", kind=0)


def alter_in_steps(session: Session) -> None:
    for version in session.each("IncrementalAlterConfigs"):
        name = f"stepped-v{version}"
        create(session, name, retention_ms="12345")

        def ask(step: str, *changes: tuple, name: str = name, kind: int = TOPIC, **more) -> dict:
            configs = [{"name": key, "configOperation": op, "value": value} for op, key, value in changes]
            resources = [{"resourceType": kind, "resourceName": name, "configs": configs}]
            return session.call(step, "IncrementalAlterConfigs", version, resources=resources, **more)

        ask("set", (SET, "retention.bytes", "4096"))
        ask("append", (APPEND, "cleanup.policy", "compact"))
        _values(session, f"set and appended v{version}", name)
        ask("append what is there", (APPEND, "cleanup.policy", "compact"))
        ask("subtract", (SUBTRACT, "cleanup.policy", "delete"))
        ask("subtract what is not there", (SUBTRACT, "cleanup.policy", "delete"))
        ask("delete", (DELETE, "retention.ms", None))
        ask("delete what is not set", (DELETE, "max.message.bytes", None))
        _values(session, f"subtracted and deleted v{version}", name)
        ask("delete an unknown key", (DELETE, "no.such.config", None))
        ask("append to a number", (APPEND, "retention.ms", "1"))
        ask("subtract from a number", (SUBTRACT, "retention.ms", "1"))
        ask("strange operation", (9, "retention.ms", "1"))
        ask("set to null", (SET, "retention.ms", None))
        ask("unknown key", (SET, "no.such.config", "1"))
        ask("bad value", (SET, "retention.ms", "soon"))
        ask("same key twice", (SET, "retention.ms", "1"), (SET, "retention.ms", "2"))
        ask("validate only", (SET, "retention.ms", "1"), validateOnly=True)
        ask("unknown topic", (SET, "retention.ms", "1"), name="stepped-unknown")
        ask("bad topic name", (SET, "retention.ms", "1"), name="not/ok")
        ask("empty topic name", (SET, "retention.ms", "1"), name="")
        ask("strange kind", (SET, "x", "1"), kind=77)
        ask("set null to delete it", (SET, "retention.bytes", None))
        ask("delete with a value", (DELETE, "retention.bytes", "x"))
        ask("append nothing", (APPEND, "cleanup.policy", ""))
        ask("subtract nothing", (SUBTRACT, "cleanup.policy", ""))
        ask("append with a gap", (APPEND, "cleanup.policy", "delete,,compact"))
        ask("append with blanks", (APPEND, "cleanup.policy", " delete , compact "))
        _values(session, f"appended with blanks v{version}", name)
        ask("set to a list with an item twice", (SET, "cleanup.policy", "compact,compact"))
        _values(session, f"set to a list with an item twice v{version}", name)
        ask("set to a list with a gap", (SET, "cleanup.policy", "compact,"))
        ask("set to an empty list", (SET, "cleanup.policy", ""))
        _values(session, f"set to an empty list v{version}", name)
        ask("subtract all", (SUBTRACT, "cleanup.policy", "compact,delete"))
        _values(session, f"subtracted all v{version}", name)
        ask("append null", (APPEND, "cleanup.policy", None))
        ask("append two", (APPEND, "cleanup.policy", "delete,compact"))
        ask("append a bad item", (APPEND, "cleanup.policy", "forget"))
        ask("append to an unknown key", (APPEND, "no.such.config", "x"))
        ask("empty key", (SET, "", "1"))
        ask("no changes")
        ask("negative operation", (-1, "retention.ms", "1"))
        session.call("same topic twice", "IncrementalAlterConfigs", version, resources=[
            {"resourceType": TOPIC, "resourceName": name, "configs": [
                {"name": "retention.ms", "configOperation": SET, "value": "1"}]}] * 2)
        session.call("nothing", "IncrementalAlterConfigs", version, resources=[])
        _values(session, f"after many refusals v{version}", name)
        _others(session, lambda step, pairs, **more: ask(step, *((SET, key, value) for key, value in pairs), **more))
        ask("set to the default", (SET, "retention.ms", "604800000"))
        _values(session, f"set to the default v{version}", name)


SCENARIOS = [("describe-configs", describe), ("alter-configs", alter), ("alter-in-steps", alter_in_steps)]
