"""Takes out of an answer what must differ between two brokers: ids, addresses, times, free text and order.

Topic ids are replaced by the topic's name, producer ids by where they were first seen, other ids by the order in which
they first appear (`member-2`), so that two answers still differ if one broker confuses two topics or members. Lists whose order means nothing are sorted by their elements' key.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from . import records
from .connection import Exchange

# What identifies an element of a list, most telling first.
_KEYS = ["name", "topicName", "topic", "groupId", "group", "key", "apiKey", "resourceName", "configName", "topicId",
         "partitionIndex", "partition", "partitionId", "index", "memberId", "nodeId", "brokerId"]
# Lists whose order is part of the answer.
_ORDERED = {"synonyms", "recordBatches"}
_NODES = {"nodeId", "brokerId", "leaderId", "controllerId", "coordinatorId"}
_NODE_LISTS = {"replicaNodes", "isrNodes", "offlineReplicas", "eligibleLeaderReplicas", "lastKnownElr"}
_TEXTS = {"errorMessage", "documentation", "batchIndexErrorMessage"}
_TIMES = {"timestamp", "logAppendTimeMs", "baseTimestamp", "maxTimestamp", "lastTimestamp"}
_RECENT_MS = 24 * 3600 * 1000
_ZERO = uuid.UUID(int=0)


class Normaliser:
    """Holds what has been seen in one transcript."""

    def __init__(self, topic_ids: dict[uuid.UUID, str]):
        self._topic_ids = topic_ids
        self._names: dict[str, dict[Any, str]] = {}
        self._place = ""

    def _name(self, kind: str, value: Any) -> str:
        names = self._names.setdefault(kind, {})
        return names.setdefault(value, f"{kind}-{len(names) + 1}")

    def exchange(self, exchange: Exchange) -> Any:
        """The answer of one exchange without what must differ."""
        self._place = f"{exchange.scenario}/{exchange.step} v{exchange.version}"
        return self._value(exchange.answer, "", exchange.api)

    def _value(self, value: Any, name: str, api: str) -> Any:
        if isinstance(value, dict):
            return {key: self._value(inner, key, api) for key, inner in value.items()}
        if isinstance(value, list):
            return self._list(value, name, api)
        if name == "records":
            return self._list(records.describe(value) or [], "recordBatches", api) if value is not None else None
        return self._leaf(value, name, api)

    def _list(self, values: list, name: str, api: str) -> list:
        if name in _NODE_LISTS:
            return sorted(self._name("node", value) for value in values)
        values = [value for value in values if not (isinstance(value, dict) and _is_ours(value))]
        if name in _ORDERED:
            return [self._value(value, name, api) for value in values]
        # Sorted before, so that names are given in the same order, and after, since ids have become names.
        return sorted((self._value(value, name, api) for value in sorted(values, key=sort_key)), key=sort_key)

    def _leaf(self, value: Any, name: str, api: str) -> Any:
        if isinstance(value, uuid.UUID):
            return "zero id" if value == _ZERO else f"id of {self._topic_ids.get(value, value)}"
        if isinstance(value, bytes):
            return value.hex()
        if name in _TEXTS:
            return value if not value else "some text"
        if name in ("host", "port"):
            return name if value not in ("", -1, 0) else value
        if name == "clusterId":
            return value if value is None else "cluster"
        if name in _NODES and isinstance(value, int):
            return self._name("node", value) if value >= 0 else value
        return self._by_api(value, name, api)

    def _by_api(self, value: Any, name: str, api: str) -> Any:
        if name in ("memberId", "leader") and isinstance(value, str):
            return self._name("member", value) if value else value
        if name == "producerId":
            # Named by where it was first seen: one that only one broker gives does not shift the others.
            producers = self._names.setdefault("producer", {})
            return producers.setdefault(value, f"producer of {self._place}") if value >= 0 else value
        if name == "sessionId" and api == "Fetch":
            return self._name("session", value) if value > 0 else value
        if name in _TIMES and abs(time.time() * 1000 - value) < _RECENT_MS:
            return "now"
        if name in ("sessionLifetimeMs", "finalizedFeaturesEpoch"):
            return "a number"
        return value


def _is_ours(value: dict) -> bool:
    """Config keys of Vltava's own have no counterpart."""
    return str(value.get("name", "")).startswith("vltava.")


def key_of(value: Any) -> str | None:
    """What identifies an element of a list, as text; None where nothing does."""
    if isinstance(value, dict):
        for name in _KEYS:
            if name in value and value[name] not in (None, "", "zero id"):
                return f"{name}={value[name]}"
    return None


def sort_key(value: Any) -> tuple:
    """Sorts elements by their key, and those without one after the others, by themselves."""
    if not isinstance(value, dict):
        return (0, repr(value))
    for name in _KEYS:
        if name in value and value[name] not in (None, ""):
            inner = value[name]
            return (0, name, (0, inner, "") if isinstance(inner, int) else (1, 0, str(inner)))
    return (1, repr(value))
