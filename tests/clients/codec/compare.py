"""Compares two codecs: ours, a process that answers line by line, and kafka-python's in this process.

For every message and version that both have, values of ours are decoded and encoded again over there, and
the other way round. The bytes must be the same, and so must every field by name: bytes alone would not tell
two fields of one type apart that have changed places.

    compare.py PATH_OF_CODEC_PEER SEEDS
"""

from __future__ import annotations

import random
import subprocess
import sys
import traceback

from theirs import Theirs


class Ours:
    """The example `codec_peer` as a child process."""

    def __init__(self, path: str):
        self._process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _ask(self, question: str) -> str:
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().rstrip("\n")
        if not answer:
            raise EOFError(f"no answer to `{question[:200]}`")
        if answer.startswith("error: "):
            raise ValueError(f"{answer} (asked `{question[:2000]}`)")
        return answer

    def versions(self) -> dict[str, tuple[int, int]]:
        """The versions of each message."""
        entries = (entry.split(" ") for entry in self._ask("list").split(";"))
        return {name: (int(least), int(most)) for name, least, most in entries}

    def sample(self, name: str, version: int, seed: int) -> tuple[bytes, dict[str, str]]:
        """Bytes and fields of a random message."""
        return _parse(self._ask(f"sample {name} {version} {seed}"))

    def decode(self, name: str, version: int, message: bytes) -> tuple[bytes, dict[str, str]]:
        """The message encoded again, and its fields."""
        return _parse(self._ask(f"decode {name} {version} {message.hex()}"))


def _parse(answer: str) -> tuple[bytes, dict[str, str]]:
    message, _, fields = answer.partition("\t")
    pairs = (field.split("=", 1) for field in fields.split(";") if field)
    return bytes.fromhex(message), {path: value for path, value in pairs}


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


def case(ours: Ours, theirs: Theirs, name: str, version: int, seeds: int) -> None:
    """One message at one version, both ways; raises on a difference."""
    for seed in range(seeds):
        message, fields = ours.sample(name, version, seed)
        if name == "ApiVersionsResponse":  # read as version 0 over there unless the error code is none
            message, fields = ours.decode(name, version, b"\0\0" + message[2:])
        again, read = theirs.decode(name, version, message)
        same(f"seed {seed}: fields of ours", fields, read)
        same(f"seed {seed}: bytes of ours", message, again)
        message, fields = theirs.sample(name, version, random.Random(seed))
        again, read = ours.decode(name, version, message)
        same(f"seed {seed}: fields of theirs", read, fields)
        same(f"seed {seed}: bytes of theirs", again, message)


def main() -> int:
    """Returns the exit status."""
    ours = Ours(sys.argv[1])
    theirs = Theirs(ours.versions())
    seeds = int(sys.argv[2])
    passed = failed = 0
    missing = []
    for name, (least, most) in ours.versions().items():
        known = theirs.versions(name)
        if known is None:
            missing.append(name)
            continue
        for version in range(max(least, known[0]), min(most, known[1]) + 1):
            try:
                case(ours, theirs, name, version, seeds)
                passed += 1
            except Exception as error:  # whatever goes wrong over there fails this case alone
                failed += 1
                print(f"{name} {version}: {error}")
                if not isinstance(error, (AssertionError, ValueError)):
                    traceback.print_exc()
        if known[1] < most:
            missing.append(f"{name} {known[1] + 1}-{most}")
    print(f"kafka-python lacks {', '.join(missing)}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
