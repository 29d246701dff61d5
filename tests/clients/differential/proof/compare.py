"""Compares two normalised transcripts, and weighs each difference against the list of those with a reason."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .connection import Exchange, Transcript
from .normalise import Normaliser, key_of

_ABSENT = "(absent)"


@dataclass
class Difference:
    """One leaf in which the two answers differ, over all the versions in which they do."""

    scenario: str
    step: str
    api: str
    path: str
    left: str
    right: str
    versions: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        return (f"{self.scenario}/{self.step} {self.api} v{_ranges(self.versions)} {self.path}:"
                f" {self.left} | {self.right}")


@dataclass
class Expected:
    """One row of the list: patterns for what it covers, and why that is right."""

    where: str
    api: str
    path: str
    left: str
    right: str
    reason: str
    used: bool = False

    def covers(self, difference: Difference) -> bool:
        """Whether the row gives the reason of this difference."""
        pairs = [
            (f"{difference.scenario}/{difference.step}", self.where), (difference.api, self.api),
            (difference.path, self.path), (difference.left, self.left), (difference.right, self.right),
        ]
        return all(_fits(value, pattern) for value, pattern in pairs)


def _fits(value: str, pattern: str) -> bool:
    """Whether a value fits a pattern with `*` for anything and `{a,b}` for one of several."""
    choice = re.search(r"\{([^{}']*,[^{}']*)\}", pattern)
    if choice:
        return any(_fits(value, pattern[:choice.start()] + one + pattern[choice.end():]) for one in choice[1].split(","))
    # Paths hold brackets, which are not meant as character classes.
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


def read_expected(path: Path) -> list[Expected]:
    """The rows of the Markdown table: where | API | field | Kafka | Vltava | reason."""
    rows = []
    for line in path.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 6 and not set(cells[0]) <= {"-", ":"} and cells[0] != "where":
            rows.append(Expected(*[cell.replace("\\|", "|") for cell in cells]))
    return rows


def _any_version(text: str) -> str:
    """Names that tell the version they were made for, made one, so that a difference in all versions is listed once."""
    return re.sub(r"\bv\d+\b", "vN", text)


def _ranges(versions: list[int]) -> str:
    parts: list[list[int]] = []
    for version in sorted(set(versions)):
        if parts and version == parts[-1][1] + 1:
            parts[-1][1] = version
        else:
            parts.append([version, version])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def differences(left: Any, right: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """The leaves in which two normalised values differ, as (path, left, right)."""
    if path == "" and _telling(left) != _telling(right):
        yield "(answer)", _short(left), _short(right)
    elif isinstance(left, dict) and isinstance(right, dict):
        if left.get("errorCode") != right.get("errorCode"):
            # All else there follows from the one being refused in another way than the other.
            left, right = ({"errorCode": side.get("errorCode", _ABSENT)} for side in (left, right))
        for name in [*left, *(name for name in right if name not in left)]:
            inner = f"{path}.{name}" if path else name
            yield from differences(left.get(name, _ABSENT), right.get(name, _ABSENT), inner)
    elif isinstance(left, list) and isinstance(right, list) and _keyed(left + right):
        lefts, rights = _by_key(left), _by_key(right)
        for key in [*lefts, *(key for key in rights if key not in lefts)]:
            yield from differences(lefts.get(key, _ABSENT), rights.get(key, _ABSENT), f"{path}[{key}]")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for number, (one, other) in enumerate(zip(left, right)):
            yield from differences(one, other, f"{path}[{number}]")
    elif left != right:
        yield path, _short(left), _short(right)


def _telling(answer: dict) -> tuple:
    """What kind of outcome it is: an answer, a closed connection, or nothing that was ever asked."""
    return "connection" in answer, "exchange" in answer


def _keyed(values: list) -> bool:
    return bool(values) and None not in [key_of(value) for value in values]


def _by_key(values: list) -> dict[str, Any]:
    """The elements by their key; those that share one are numbered, so that none hides another."""
    table: dict[str, Any] = {}
    for value in values:
        key, turn = key_of(value), 1
        while (name := key if turn == 1 else f"{key}#{turn}") in table:
            turn += 1
        table[name] = value
    return table


def _short(value: Any) -> str:
    text = value if value == _ABSENT else repr(value)
    return text if len(text) <= 160 else f"{text[:100]}…{text[-40:]}"


@dataclass
class Verdict:
    """What the comparison found."""

    compared: int
    unexplained: list[Difference]
    explained: list[Difference]
    # How many exchanges have an unexplained difference.
    failed: int


def compare(left: Transcript, right: Transcript, expected: list[Expected]) -> Verdict:
    """Compares exchange by exchange; marks the rows of the list that were needed."""
    found: dict[tuple, Difference] = {}
    failed = 0
    normalisers = Normaliser(left.topic_ids), Normaliser(right.topic_ids)
    pairs = _pair(left, right)
    for one, other in pairs:
        bad = False
        answers = normalisers[0].exchange(one), normalisers[1].exchange(other)
        for path, a, b in differences(*answers):
            key = (one.scenario, _any_version(one.step), one.api, *map(_any_version, (path, a, b)))
            difference = found.setdefault(key, Difference(*key))
            difference.versions.append(one.version)
            reasons = [row for row in expected if row.covers(difference)]
            for row in reasons:
                row.used = True
            bad = bad or not reasons
        failed += bad
    explained = [d for d in found.values() if any(row.covers(d) for row in expected)]
    unexplained = [d for d in found.values() if d not in explained]
    return Verdict(len(pairs), unexplained, explained, failed)


def _pair(left: Transcript, right: Transcript) -> list[tuple[Exchange, Exchange]]:
    """Exchanges of the same name and turn; one that only one side has is paired with a note of that."""
    lefts, rights = _index(left), _index(right)
    pairs = [(exchange, rights.pop(name, None)) for name, exchange in lefts.items()]
    pairs += [(None, exchange) for exchange in rights.values()]
    return [(one or _not_asked(other), other or _not_asked(one)) for one, other in pairs]


def _not_asked(exchange: Exchange) -> Exchange:
    # A scenario breaks off where an answer leaves it nothing to go on from.
    return replace(exchange, answer={"exchange": "never came to it"})


def _index(transcript: Transcript) -> dict[tuple, Exchange]:
    turns: dict[tuple, int] = {}
    table = {}
    for exchange in transcript.exchanges:
        name = (exchange.scenario, exchange.step, exchange.api, exchange.version)
        turns[name] = turns.get(name, 0) + 1
        table[(*name, turns[name])] = exchange
    return table
