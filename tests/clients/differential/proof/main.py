"""Starts two brokers, plays the corpus on both at once, compares and reports."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from driver.broker import Broker, BrokerError, Kafka, Vltava, end_group

import corpus

from . import codec
from .compare import compare, read_expected
from .connection import Session, Transcript

EXPECTED = Path(__file__).resolve().parent.parent / "expected.md"
# Nothing of the corpus may depend on how long it takes: members join without waiting for others, and records keep
# their old timestamps without being too old.
SETTINGS = {"group.initial.rebalance.delay.ms": "0", "log.retention.ms": "-1", "group.max.size": "2"}


def parse() -> argparse.Namespace:
    """The command line, as `run` gives it."""
    parser = argparse.ArgumentParser()
    for name in ["left", "right", "only"]:
        parser.add_argument(f"--{name}", required=True)
    for name in ["binary", "libs", "folder"]:
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--explained", action="store_true")
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def make(kind: str, folder: Path, arguments: argparse.Namespace) -> Broker:
    """A broker of that kind."""
    if kind == "kafka":
        return Kafka(folder, arguments.libs, SETTINGS)
    return Vltava(folder, arguments.binary, {**SETTINGS, "node.id": "1"})


def play(broker: Broker, only: list[str]) -> Transcript:
    """The whole corpus, or some scenarios, on one broker."""
    broker.start()
    session = Session(("127.0.0.1", broker.port))
    for name, scenario in corpus.SCENARIOS:
        if only and name not in only:
            continue
        session.begin(name)
        started = time.monotonic()
        try:
            scenario(session)
        except Exception as error:  # an answer that a scenario cannot go on from is a finding like any other
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"{broker.kind}: {name} broke off: {error!r} at {Path(where.filename).name}:{where.lineno}")
            session.record("broke off", "none", 0, {"reason": repr(error)})
        if os.environ.get("TIMES"):
            print(f"{broker.kind}: {name} took {time.monotonic() - started:.1f} s")
    return session.transcript


def main() -> int:
    """Returns the exit status."""
    arguments = parse()
    only = [name for name in arguments.only.split(",") if name]
    shutil.rmtree(arguments.folder, ignore_errors=True)
    brokers = [make(kind, arguments.folder / side, arguments)
               for side, kind in [("left", arguments.left), ("right", arguments.right)]]
    try:
        with ThreadPoolExecutor(max_workers=2) as pool:
            transcripts = list(pool.map(lambda broker: play(broker, only), brokers))
        troubles = [broker.trouble() for broker in brokers]
    except BrokerError as error:
        print(error)
        for broker in brokers:
            print("\n".join(broker.log_tail(20)))
        return 1
    finally:
        for broker in brokers:
            if broker.process is not None:
                end_group(broker.process)
        if not arguments.keep:
            shutil.rmtree(arguments.folder, ignore_errors=True)
    return report(arguments, only, transcripts, troubles)


def report(arguments: argparse.Namespace, only: list[str], transcripts: list[Transcript], troubles: list) -> int:
    """Prints what differs; returns the exit status."""
    expected = read_expected(EXPECTED) if arguments.left != arguments.right else []
    verdict = compare(transcripts[0], transcripts[1], expected)
    if arguments.explained:
        for difference in verdict.explained:
            print(f"explained: {difference}")
    for difference in verdict.unexplained:
        print(f"differs: {difference}")
    stale = [] if only else [row for row in expected if not row.used]
    unasked = [] if only else list(never_asked(transcripts[1]))
    for api in unasked:
        print(f"served, but no step asks for it: {api}")
    for row in stale:
        print(f"no longer differs, so take it off the list: {row.where} {row.api} {row.path}")
    for trouble in filter(None, troubles):
        print(f"broker: {trouble}")
    failed = verdict.failed + len(unasked) + len(stale) + len([trouble for trouble in troubles if trouble])
    print(f"{len(verdict.unexplained)} differences without a reason, {len(verdict.explained)} with one;"
          f" {arguments.left} left, {arguments.right} right")
    print(f"{verdict.compared - verdict.failed} passed, {failed} failed")
    return 1 if failed else 0


def never_asked(transcript: Transcript) -> Iterator[str]:
    """What the broker says it serves and the corpus leaves out, so that nothing new stays without comparison."""
    told = [e.answer for e in transcript.exchanges if (e.scenario, e.step) == ("api-versions", "plain")][-1]
    names = {codec.load(f"{e.api}Request").key: e.api for e in transcript.exchanges if e.api != "none"}
    asked = {(e.api, e.version) for e in transcript.exchanges}
    for served in told.get("apiKeys", []):
        name = names.get(served["apiKey"])
        if name is None:
            yield f"API {served['apiKey']}"
            continue
        # Produce is told from version 0 on and answered from 3 on, by either broker.
        lowest = max(served["minVersion"], codec.load(f"{name}Request").valid.low)
        for version in range(lowest, served["maxVersion"] + 1):
            if (name, version) not in asked:
                yield f"{name} v{version}"


if __name__ == "__main__":
    sys.exit(main())
