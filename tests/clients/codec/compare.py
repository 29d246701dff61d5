"""Compares our codec with another one for every message and version that both have.

The bytes must be the same, and so must every field by name: bytes alone would not tell two fields of one
type apart that have changed places.

    compare.py PATH_OF_CODEC_PEER SEEDS kafka-python
    compare.py PATH_OF_CODEC_PEER SEEDS apache-kafka CLASSPATH
"""

from __future__ import annotations

import random
import sys
import traceback

from ours import Ours


def same(what: str, one: object, other: object) -> None:
    """Raises with both sides if they differ; of fields, only those that do."""
    if one == other:
        return
    if isinstance(one, dict) and isinstance(other, dict):
        paths = sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))
        listed = "; ".join(f"{path}: {one.get(path)} / {other.get(path)}" for path in paths[:5])
        raise AssertionError(f"{what}: ours / theirs at {listed}")
    show = [value.hex() if isinstance(value, bytes) else str(value) for value in (one, other)]
    raise AssertionError(f"{what}:\n    ours   {show[0]}\n    theirs {show[1]}")


class AgainstKafkaPython:
    """Values of ours are decoded and encoded again by kafka-python, and the other way round."""

    def __init__(self, ours: Ours):
        from kafka_python import KafkaPython  # needs the package, which the other comparison does not

        self._ours = ours
        self._theirs = KafkaPython(ours.versions())
        self.versions = self._theirs.versions

    def try_one(self, name: str, version: int, seed: int) -> None:
        """Raises on a difference."""
        ours, theirs = self._ours, self._theirs
        message, fields = ours.sample(name, version, seed)
        if name == "ApiVersionsResponse":  # read as version 0 over there unless the error code is none
            message, fields = ours.decode(name, version, b"\0\0" + message[2:])
        again, read = theirs.decode(name, version, message)
        same("fields of ours", fields, read)
        same("bytes of ours", message, again)
        message, fields = theirs.sample(name, version, random.Random(seed))
        again, read = ours.decode(name, version, message)
        same("fields of theirs", read, fields)
        same("bytes of theirs", again, message)


class AgainstApacheKafka:
    """Values of ours are decoded and encoded again by Apache Kafka, which must serve the same versions."""

    def __init__(self, ours: Ours, classpath: str):
        from apache_kafka import ApacheKafka

        self._ours = ours
        self._theirs = ApacheKafka(classpath)
        self._known = ours.versions()
        self.versions = self._theirs.versions

    def try_one(self, name: str, version: int, seed: int) -> None:
        """Raises on a difference."""
        same("versions", self._known[name], self.versions(name))
        self._theirs.judge(name, version, *self._ours.sample(name, version, seed))


def main() -> int:
    """Returns the exit status."""
    peer, seeds, other, *rest = sys.argv[1:]
    ours = Ours(peer)
    against = AgainstKafkaPython(ours) if other == "kafka-python" else AgainstApacheKafka(ours, *rest)
    passed = failed = 0
    lacking = []
    for name, (least, most) in ours.versions().items():
        known = against.versions(name)
        if known is None:
            lacking.append(name)
            continue
        for version in range(max(least, known[0]), min(most, known[1]) + 1):
            try:
                for seed in range(int(seeds)):
                    against.try_one(name, version, seed)
                passed += 1
            except Exception as error:  # whatever goes wrong over there fails this case alone
                failed += 1
                print(f"{name} {version}: {error}")
                if not isinstance(error, (AssertionError, ValueError)):
                    traceback.print_exc()
        if known[1] < most:
            lacking.append(f"{name} {known[1] + 1}-{most}")
    if lacking:
        print(f"{other} lacks {', '.join(lacking)}")
    print(f"{other}: {passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
