"""Configs described and altered, whole and in steps."""

from proof.connection import Session

from .helpers import create

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)


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
        if version >= 3:
            ask("with documentation", TOPIC, "configured", ["retention.ms"], includeDocumentation=True)


def _values(session: Session, step: str, name: str) -> None:
    """Records what a topic's altered keys have become."""
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
        ask("set to the default", (SET, "retention.ms", "604800000"))
        _values(session, f"set to the default v{version}", name)


SCENARIOS = [("describe-configs", describe), ("alter-configs", alter), ("alter-in-steps", alter_in_steps)]
