"""What was acknowledged, written down with a sync of its own after the acknowledgement came; and which steps ran, before they were done.

A line stands for a promise that the store must keep for ever. What is not in the ledger may or may not have happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, final


@final
class Acknowledgement(NamedTuple):
    """`kind` is deposit, note or transfer; `peer` the sender, or the transfer's label; `number` the sender's, or the transfer's answer.

    Or it is of an order, whose key is the `account` then: order (`number` is its price), approval, line, or earned.
    """

    kind: str
    account: str
    peer: str
    number: int


@final
class Run(NamedTuple):
    """An attempt at a step: under which idempotency key, in which life of the host, and whether it is one of those that are to fail."""

    key: str
    attempt: int
    life: int
    fails: bool


@final
class Ledger:
    """Appends lines; O_DSYNC makes each write durable before it returns, as write and fdatasync would."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_DSYNC | os.O_CLOEXEC, 0o600)

    def note(self, line: Acknowledgement | Run) -> None:
        """Write one line; a kill leaves it whole or absent."""
        os.write(self._file, json.dumps(line).encode() + b"\n")


def read_ledger(path: Path) -> Iterator[Acknowledgement]:
    """All acknowledgements."""
    return (Acknowledgement(*line) for line in _lines(path))


def read_journal(path: Path) -> Iterator[Run]:
    """All attempts at steps."""
    return (Run(*line) for line in _lines(path))


def _lines(path: Path) -> Iterator[list[Any]]:
    """Those that are whole."""
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield json.loads(line)
