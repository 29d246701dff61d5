"""What a person reads while and after the suites run."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from .runner import TAIL_LINES, Result

_lock = threading.Lock()


def say(text: str) -> None:
    """Prints whole lines even when two suites finish at once."""
    with _lock:
        print(text, flush=True)


def finished(result: Result) -> None:
    """One line as soon as a suite is done, and all that helps when it failed."""
    name = result.suite.name
    if result.skipped is not None:
        say(f"{name}: skipped, {result.skipped}")
        return
    lines = [
        f"{name}: {len(result.passed)} passed, {len(result.failed)} failed"
        f" (install {result.install_s:.1f} s, run {result.run_s:.1f} s)"
    ]
    lines += [f"  not ok {case}: {why}" for case, why in result.failed.items()]
    if result.failed:
        lines += _tail("output", result.output[-TAIL_LINES:]) + _tail("broker log", result.broker_tail)
    say("\n".join(lines))


def _tail(title: str, lines: list[str]) -> list[str]:
    return [f"  --- {title}, last {len(lines)} lines ---", *(f"  | {line}" for line in lines)] if lines else []


def table(results: Iterable[Result]) -> None:
    """The table of all suites and the closing line."""
    results = list(results)
    rows = [("suite", "passed", "failed", "install s", "run s", "client")]
    for result in results:
        counts = ("-", "skipped") if result.skipped else (str(len(result.passed)), str(len(result.failed)))
        rows.append((result.suite.name, *counts, f"{result.install_s:.1f}", f"{result.run_s:.1f}",
                     result.suite.about))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if 0 < column < 5 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        say("  ".join(cells).rstrip())
    passed = sum(len(result.passed) for result in results)
    failed = sum(len(result.failed) for result in results)
    say(f"{passed} passed, {failed} failed")
