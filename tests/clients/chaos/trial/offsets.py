"""Asks again and again, while faults go on, what groups have committed, and compares with what was known before."""

from __future__ import annotations

import threading

from confluent_kafka import Consumer, KafkaException, TopicPartition

from .family import PARTITIONS, Program

EVERY_S = 0.25
# A watch that has not had so many answers has watched nothing.
ANSWERS_LEAST = 20
REQUEST_TIMEOUT_S = 5.0


class Watch:
    """Follows the committed offsets of groups, each named as the topic that it reads.

    They never go back, nor behind what a member was told before. It asks by consumers that are no members, since
    librdkafka's AdminClient ends the process when a coordinator has moved.
    """

    def __init__(self, bootstrap: str, groups: dict[str, Program]):
        config = {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 1000, "log_level": 0}
        self._clients = {group: Consumer({**config, "group.id": group}) for group in groups}
        self._groups = groups
        self._ends = threading.Event()
        # Group → partition → the greatest offset that was told.
        self.told: dict[str, dict[int, int]] = {group: {} for group in groups}
        self.findings: list[str] = []
        # While set, a broker may be a coordinator in its own eyes only, and tell what was committed before it was held;
        # such answers are counted.
        self.tolerates = False
        self.stale = 0
        self.answers = dict.fromkeys(groups, 0)
        self._threads = [threading.Thread(target=self._follow, args=(group,), daemon=True) for group in groups]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Asks no more."""
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Ends the clients, too."""
        self.end()
        for client in self._clients.values():
            client.close()

    def wrong(self) -> list[str]:
        """What was found, and whether there were answers enough to find it."""
        few = {group: count for group, count in self.answers.items() if count < ANSWERS_LEAST}
        return self.findings + [f"group {group}: only {count} answers told what is committed"
                                for group, count in few.items()]

    def _follow(self, group: str) -> None:
        while not self._ends.wait(EVERY_S):
            self.ask(group)

    def ask(self, group: str) -> bool:
        """Asks once; whether there was an answer."""
        known, tolerated = self._groups[group].committed(), self.tolerates
        asked = [TopicPartition(group, partition) for partition in range(PARTITIONS)]
        try:
            places = self._clients[group].committed(asked, timeout=REQUEST_TIMEOUT_S)
        except KafkaException:
            return False
        if any(place.error is not None for place in places):
            return False
        self.answers[group] += 1
        wrong = compare(group, {place.partition: place.offset for place in places}, self.told[group], known)
        if tolerated or self.tolerates:
            self.stale += len(wrong)
        else:
            self.findings += wrong
        return True


def compare(group: str, answer: dict[int, int], told: dict[int, int], known: dict[int, int]) -> list[str]:
    """What is wrong with an answer, given those before and what was committed before it was asked for."""
    findings = []
    for partition in sorted(answer.keys() | told.keys() | known.keys()):
        # Below 0 where nothing is committed yet.
        offset = max(-1, answer.get(partition, -1))
        for least, whence in [(told.get(partition, -1), "told before"), (known.get(partition, -1), "committed")]:
            if offset < least:
                findings.append(f"group {group}/{partition}: {offset} is committed, but {least} was {whence}")
        told[partition] = max(offset, told.get(partition, -1))
    return findings
