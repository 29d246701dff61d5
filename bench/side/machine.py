"""The machine that is measured on."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path


def describe() -> str:
    """Processors, memory and kernel, in one line."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{processors()} × {model}, {memory_bytes / 2**30:.0f} GiB, {platform.system()} {platform.release()}"


def processors() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0))


def drop_page_cache() -> None:
    """Drops clean pages, where the system lets us."""
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("1\n")
