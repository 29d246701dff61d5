"""Runs one suite against a fresh broker, and reads its lines.

A suite prints `ok NAME` or `not ok NAME: why` per case and `end N` when it has run all its N cases; other
lines are diagnostics. A suite that ends without its `end` line, or with another count, has failed even if
every line it printed was good.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import packages
from .broker import Broker, BrokerError, end_group
from .control import Control
from .suites import Suite

_LINE = re.compile(r"(?P<verdict>ok|not ok) (?P<name>[^\s:]+)(?:: (?P<why>.*))?$")
_END = re.compile(r"end (\d+)$")

# How much of a failed suite's own output and of its broker's is shown.
TAIL_LINES = 40


@dataclass
class Result:
    """What became of one suite."""

    suite: Suite
    passed: list[str] = field(default_factory=list)
    # Case name → why.
    failed: dict[str, str] = field(default_factory=dict)
    # Set when the suite did not run for want of a runtime.
    skipped: str | None = None
    install_s: float = 0.0
    run_s: float = 0.0
    # All that the suite and its broker printed, for the report of a failure.
    output: list[str] = field(default_factory=list)
    broker_tail: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """What holds for all suites of one run."""

    target: Path
    make_broker: Callable[[Path, dict[str, str]], Broker]
    # A missing runtime is a failure, not a reason to skip.
    strict: bool
    # Leave data and logs in place.
    keep: bool


def run_suite(suite: Suite, settings: Settings) -> Result:
    """Prepares, starts a broker, runs, and cleans up; never raises for what a suite or broker does."""
    result = Result(suite)
    folder = settings.target / suite.name
    started = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prepared = suite.prepare(folder)
    except packages.MissingRuntime as error:
        why = f"{error} is missing"
        if settings.strict:
            result.failed["runtime"] = why
        else:
            result.skipped = why
        return result
    except packages.InstallError as error:
        result.failed["install"] = str(error)
        return result
    finally:
        result.install_s = time.monotonic() - started
    started = time.monotonic()
    run_folder = settings.target / "run" / suite.name
    shutil.rmtree(run_folder, ignore_errors=True)
    broker = settings.make_broker(run_folder, suite.settings)
    try:
        broker.start()
        _run(suite, prepared.command, prepared.environment, broker, result)
        trouble = broker.trouble()
        if trouble is not None:
            result.failed["broker"] = trouble
        broker.stop()
    except BrokerError as error:
        result.failed["broker"] = str(error)
    finally:
        result.run_s = time.monotonic() - started
        if result.failed:
            result.broker_tail = broker.log_tail(TAIL_LINES)
        if broker.process is not None:
            end_group(broker.process)
        if not settings.keep:
            broker.remove()
    return result


def _run(suite: Suite, command: list[str], extra: dict[str, str], broker: Broker, result: Result) -> None:
    scratch = broker.folder / "scratch"
    scratch.mkdir()
    control = Control(broker)
    environment = {
        **os.environ, **extra, "BOOTSTRAP": broker.bootstrap, "CONTROL": control.url, "BROKER": broker.kind,
        "DATA_DIR": str(broker.data), "SCRATCH": str(scratch), "TMPDIR": str(scratch),
    }
    process = subprocess.Popen(
        command, env=environment, cwd=scratch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )
    try:
        _read(process, suite.timeout_s, result)
    finally:
        end_group(process)
        control.close()


def _read(process: subprocess.Popen, timeout_s: float, result: Result) -> None:
    lines: queue.Queue[str | None] = queue.Queue()

    def pump() -> None:
        for raw in process.stdout:
            lines.put(raw.decode(errors="replace").rstrip("\n"))
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    deadline = time.monotonic() + timeout_s
    count = None
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            result.failed["suite"] = f"took more than {timeout_s:.0f} s"
            return
        if line is None:
            break
        result.output.append(line)
        count = _take(line, result, count)
        if count is not None:
            break
    process.wait()
    total = len(result.passed) + len(result.failed)
    if count is None:
        result.failed["suite"] = f"ended with status {process.returncode} before its last case"
    elif count != total or count == 0:
        result.failed["suite"] = f"said it has {count} cases but reported {total}"


def _take(line: str, result: Result, count: int | None) -> int | None:
    """Notes one line; returns the number of cases once the suite has told it."""
    end = _END.match(line)
    if end:
        return int(end[1])
    found = _LINE.match(line)
    if found is None:
        return count
    name = found["name"]
    if name in result.passed or name in result.failed:
        result.failed[name] = "reported twice"
    elif found["verdict"] == "ok":
        result.passed.append(name)
    else:
        result.failed[name] = found["why"] or "no reason given"
    return count
