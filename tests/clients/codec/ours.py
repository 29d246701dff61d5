"""Our codec: the example `codec_peer` of crate `wire` as a child process."""

from __future__ import annotations

from process import Process

Fields = dict[str, str]
Versions = tuple[int, int]


class Ours:
    """The process, given the path of its binary."""

    def __init__(self, path: str):
        self._process = Process([path])

    def versions(self) -> dict[str, Versions]:
        """The versions of each message."""
        entries = (entry.split(" ") for entry in self._process.ask("list").split(";"))
        return {name: (int(least), int(most)) for name, least, most in entries}

    def sample(self, name: str, version: int, seed: int) -> tuple[bytes, Fields]:
        """Bytes and fields of a random message."""
        return _parse(self._process.ask(f"sample {name} {version} {seed}"))

    def decode(self, name: str, version: int, message: bytes) -> tuple[bytes, Fields]:
        """The message encoded again, and its fields."""
        return _parse(self._process.ask(f"decode {name} {version} {message.hex()}"))


def _parse(answer: str) -> tuple[bytes, Fields]:
    message, _, fields = answer.partition("\t")
    pairs = (field.split("=", 1) for field in fields.split(";") if field)
    return bytes.fromhex(message), {path: value for path, value in pairs}
