"""Bytes, order, atomicity, durability; no idea of actors.

A `Store` is an ordered map of bytes with atomic, durable, fenced batches. `open_store` opens one by URL; `GroupCommit` makes many small
changes durable together; `perdure.storage.conformance` holds any implementation to the protocol.
"""

from ._backup import backup, restore
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
