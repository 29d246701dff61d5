"""What every suite written in Python shares: cases, waiting for conditions, child processes, the control channel.

A suite registers functions with `@case` (or `add`), gives its child roles with `@role`, and ends with `main()`.
Cases run a few at a time, each with topics and groups of its own; a case marked `exclusive` (one that restarts
the broker, or measures time) runs alone, after the others. Coroutine functions run in an event loop of their own.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

BOOTSTRAP = os.environ["BOOTSTRAP"]
# "vltava" or "kafka": only for the few points where Apache Kafka itself is known to differ.
BROKER = os.environ.get("BROKER", "vltava")
SCRATCH = os.environ.get("SCRATCH", "/tmp")

# How many ordinary cases run at a time.
WIDTH = 4
# A case that takes longer has failed, and the suite ends there.
CASE_TIMEOUT_S = 90.0
# How long a condition is awaited unless the case says otherwise.
WAIT_S = 30.0
# The least session timeout that brokers allow by default: what a member's death costs.
SESSION_MS = 6000

_cases: list[tuple[str, Callable, bool]] = []
_roles: dict[str, Callable] = {}
_numbers = itertools.count(1)
_output = threading.Lock()


class Failure(Exception):
    """A check that did not hold."""


def add(name: str, function: Callable, exclusive: bool = False) -> None:
    """Registers a case under a name without blanks."""
    _cases.append((name, function, exclusive))


def case(function: Callable | None = None, *, exclusive: bool = False):
    """Registers a function as the case of its name, underscores turned to hyphens."""
    def register(body: Callable) -> Callable:
        add(body.__name__.replace("_", "-"), body, exclusive)
        return body

    return register if function is None else register(function)


def role(function: Callable) -> Callable:
    """Registers what a child process started by `Child(name, …)` does; it gets the child's arguments."""
    _roles[function.__name__.replace("_", "-")] = function
    return function


def check(condition: object, why: str) -> None:
    """Fails the case unless the condition holds."""
    if not condition:
        raise Failure(why)


def equal(found: object, wanted: object, what: str) -> None:
    """Fails the case unless both are equal, showing them in a bounded form."""
    if found != wanted:
        raise Failure(f"{what}: found {_short(found)}, wanted {_short(wanted)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:140]}…{text[-140:]} ({len(text)} characters)"


def raises(kind: type[BaseException] | tuple, function: Callable, what: str) -> BaseException:
    """Fails the case unless the call raises an error of that kind; returns the error."""
    try:
        function()
    except kind as error:
        return error
    raise Failure(f"{what} raised nothing")


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = WAIT_S, every_s: float = 0.05):
    """Asks until the answer is true, and returns it; fails the case when time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(every_s)


def unique(prefix: str) -> str:
    """A name that no other case uses."""
    return f"{prefix}-{next(_numbers)}-{random.randrange(1 << 32):08x}"


def payload(number: int, size: int = 100) -> bytes:
    """A value of that size that tells its number and compresses a little, the same for the same number."""
    head = f"{number:08d}:".encode()
    source = random.Random(number)
    body = bytes(source.choice(b"abcdefgh \x00\xff") for _ in range(min(size, 4096)))
    return (head + body * (size // max(1, len(body)) + 1))[:size]


def _control(request: str) -> None:
    url = f"{os.environ['CONTROL']}{request}"
    with urllib.request.urlopen(urllib.request.Request(url, data=b"", method="POST"), timeout=120) as answer:
        answer.read()


def restart(with_signal: str = "KILL") -> None:
    """Ends the broker by the signal and returns once it accepts again, on the same data and port."""
    _control(f"/restart?signal={with_signal}")


def stop(with_signal: str = "KILL") -> None:
    """Ends the broker."""
    _control(f"/stop?signal={with_signal}")


def start() -> None:
    """Starts the broker again."""
    _control("/start")


class Child:
    """Another process of the same suite in one of its roles: what can be killed as a whole.

    Its lines are read as they come. Use as a context manager: leaving it kills the process.
    """

    def __init__(self, role_name: str, *arguments: str):
        self._process = subprocess.Popen(
            [sys.executable, "-u", sys.argv[0], role_name, *arguments], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_line(self, accept: Callable[[str], bool], what: str, timeout_s: float = WAIT_S) -> str:
        """The first line from now on that is accepted."""
        deadline = time.monotonic() + timeout_s
        seen = []
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Failure(f"{what}: not within {timeout_s:.0f} s; last lines {seen[-5:]}") from None
            if line is None:
                raise Failure(f"{what}: the child ended; last lines {seen[-5:]}")
            if accept(line):
                return line
            seen.append(line)

    def tell(self, line: str) -> None:
        """Writes a line to the child's standard input."""
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def end(self, timeout_s: float = WAIT_S) -> None:
        """Asks the child to leave by SIGTERM and waits for its end."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Failure("the child did not end after SIGTERM") from None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def assigned(partitions: Iterable[int]) -> str:
    """The line by which a member child tells what it owns."""
    return "assigned " + ",".join(str(partition) for partition in sorted(partitions))


def partitions_of(line: str) -> set[int]:
    """The inverse of `assigned`."""
    numbers = line.removeprefix("assigned").strip()
    return {int(number) for number in numbers.split(",")} if numbers else set()


def say(line: str) -> None:
    """Prints one whole line."""
    with _output:
        print(line, flush=True)


def _run(name: str, function: Callable) -> None:
    watchdog = threading.Timer(CASE_TIMEOUT_S, _give_up, (name,))
    watchdog.daemon = True
    watchdog.start()
    try:
        if inspect.iscoroutinefunction(function):
            asyncio.run(function())
        else:
            function()
    except Exception as error:
        if not isinstance(error, Failure):
            traceback.print_exc()
        text = f"{type(error).__name__} {error}" if not isinstance(error, Failure) else str(error)
        say(f"not ok {name}: {' '.join(text.split())}")
    else:
        say(f"ok {name}")
    finally:
        watchdog.cancel()


def _give_up(name: str) -> None:
    say(f"not ok {name}: took more than {CASE_TIMEOUT_S:.0f} s")
    for thread, frame in sys._current_frames().items():
        say(f"--- thread {thread}\n{''.join(traceback.format_stack(frame)[-4:])}")
    os._exit(1)


def main() -> None:
    """Runs the role named on the command line, or else all cases (`CASES=a,b` picks some)."""
    if len(sys.argv) > 1:
        _roles[sys.argv[1]](*sys.argv[2:])
        return
    picked = [name for name in os.environ.get("CASES", "").split(",") if name]
    cases = [entry for entry in _cases if not picked or entry[0] in picked]
    with ThreadPoolExecutor(max_workers=WIDTH) as pool:
        for name, function, exclusive in cases:
            if not exclusive:
                pool.submit(_run, name, function)
    for name, function, exclusive in cases:
        if exclusive:
            _run(name, function)
    say(f"end {len(cases)}")
    sys.stdout.flush()
    # Clients may leave threads behind that would hold the process open.
    os._exit(0)
