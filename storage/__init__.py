"""Bytes, order, atomicity, durability; no idea of actors.

A `Store` is an ordered map of bytes with atomic, durable, fenced batches. `open_store` opens one by URL; `GroupCommit` makes many small
changes durable together; `perdure.storage.conformance` holds any implementation to the protocol.
"""

import typing

from ._commit import CommitStatistics, Committed, Gate, GroupCommit, Limits, fresh, marker_key, settle
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
from ._protocol import MAX_KEY_BYTES, Batch, Entry, Fence, MeasuredStore, Offer, Range, Store, check_keys
from ._urls import open_store
from .keys import Element, below, pack, unpack

if typing.TYPE_CHECKING:
    from ._backup import backup, restore
    from ._compaction import Compacted, compact
    from ._offers import waiting_offers
    from ._room import FileRoom, Room, RowSize
    from ._tape import Tape, TapeRow, TapeStatistics

__all__ = [
    "MAX_KEY_BYTES",
    "Batch",
    "CommitStatistics",
    "CommitUncertain",
    "Committed",
    "Compacted",
    "Element",
    "Entry",
    "Fence",
    "Fenced",
    "FileRoom",
    "Gate",
    "GroupCommit",
    "Limits",
    "MeasuredStore",
    "MemoryDisk",
    "MemoryStatistics",
    "MemoryStore",
    "Offer",
    "Overlay",
    "PerdureError",
    "Range",
    "Room",
    "RowSize",
    "Store",
    "StoreClosed",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreVersionError",
    "Tape",
    "TapeRow",
    "TapeStatistics",
    "backup",
    "below",
    "check_keys",
    "compact",
    "fresh",
    "marker_key",
    "open_store",
    "pack",
    "restore",
    "settle",
    "unpack",
    "waiting_offers",
]


_LATER: typing.Final = {
    "Compacted": "._compaction",
    "FileRoom": "._room",
    "Room": "._room",
    "RowSize": "._room",
    "Tape": "._tape",
    "TapeRow": "._tape",
    "TapeStatistics": "._tape",
    "backup": "._backup",
    "compact": "._compaction",
    "restore": "._backup",
    "waiting_offers": "._offers",
}


def __getattr__(name: str) -> object:
    import importlib  # what copies and measures files is loaded by who does: 12 ms

    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(_LATER[name], __name__), name)
    return found
