"""A codec in a process of its own: one question a line, one answer a line."""

from __future__ import annotations

import subprocess


class Process:
    """A child that answers until its standard input is closed."""

    def __init__(self, command: list[str]):
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )

    def ask(self, question: str) -> str:
        """The answer; raises `ValueError` if it tells of an error, `EOFError` if there is none."""
        self._child.stdin.write(question + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline().rstrip("\n")
        if not answer:
            raise EOFError(f"no answer to `{question[:200]}`")
        if answer.startswith("error: "):
            raise ValueError(f"{answer} (asked `{question[:2000]}`)")
        return answer
