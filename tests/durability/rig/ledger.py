"""What was acknowledged, written down with a sync of its own after the acknowledgement came.

A line stands for a promise that the store must keep for ever. What is not in the ledger may or may not have happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, final


@final
class Acknowledgement(NamedTuple):
    """`kind` is deposit, note or transfer; `peer` the sender, or the transfer's label; `number` the sender's, or the transfer's answer."""

    kind: str
    account: str
    peer: str
    number: int


@final
class Ledger:
    """Appends lines; O_DSYNC makes each write durable before it returns, as write and fdatasync would."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_DSYNC | os.O_CLOEXEC, 0o600)

    def note(self, acknowledgement: Acknowledgement) -> None:
        """Write one line; a kill leaves it whole or absent."""
        os.write(self._file, json.dumps(acknowledgement).encode() + b"\n")


def read_ledger(path: Path) -> Iterator[Acknowledgement]:
    """All lines that are whole."""
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield Acknowledgement(*json.loads(line))
