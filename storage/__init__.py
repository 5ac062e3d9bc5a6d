"""Bytes, order, atomicity, durability; no idea of actors.

A `Store` is an ordered map of bytes with atomic, durable, fenced batches. `open_store` opens one by URL; `GroupCommit` makes many small
changes durable together; `perdure.storage.conformance` holds any implementation to the protocol.
"""

import typing

from ._commit import CommitStatistics, Gate, GroupCommit, Limits, fresh, marker_key, settle
from ._errors import (
    CommitUncertain,
    Fenced,
    PerdureError,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreVersionError,
)
from ._memory import MemoryDisk, MemoryStatistics, MemoryStore
from ._overlay import Overlay
from ._protocol import MAX_KEY_BYTES, Batch, Entry, Fence, Offer, Range, Store, check_keys
from ._urls import open_store
from .keys import Element, below, pack, unpack

if typing.TYPE_CHECKING:
    from ._backup import backup, restore

__all__ = [
    "MAX_KEY_BYTES",
    "Batch",
    "CommitStatistics",
    "CommitUncertain",
    "Element",
    "Entry",
    "Fence",
    "Fenced",
    "Gate",
    "GroupCommit",
    "Limits",
    "MemoryDisk",
    "MemoryStatistics",
    "MemoryStore",
    "Offer",
    "Overlay",
    "PerdureError",
    "Range",
    "Store",
    "StoreClosed",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreVersionError",
    "backup",
    "below",
    "check_keys",
    "fresh",
    "marker_key",
    "open_store",
    "pack",
    "restore",
    "settle",
    "unpack",
]


def __getattr__(name: str) -> object:
    if name not in {"backup", "restore"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _backup  # what copies files is loaded by who does: 12 ms

    return getattr(_backup, name)
