"""The miniature broker of `bench/yardstick`, and its client, which drives real brokers too."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from driver.broker import Broker

PACKAGE = Path(__file__).resolve().parent.parent / "yardstick"


def build(target: Path) -> Path:
    """The binary, built when it is older than its source."""
    place = target / "yardstick"
    done = subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", str(PACKAGE / "Cargo.toml")],
        env={**os.environ, "CARGO_TARGET_DIR": str(place)}, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=600, check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the yardstick does not build: {done.stderr.decode(errors='replace')}")
    return place / "release" / "yardstick"


class Yardstick(Broker):
    """The miniature broker."""

    kind = "yardstick"

    def __init__(self, folder: Path, binary: Path):
        super().__init__(folder)
        self.binary = binary

    def command(self) -> list[str]:
        return [str(self.binary), "serve", str(self.port), str(self.data)]
