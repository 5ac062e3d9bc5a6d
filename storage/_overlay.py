"""Reads over what is not yet durable.

The overlay answers as the store will once every staged batch is committed; so whatever a host put aside before its commit
(a passivated actor, a mailbox row, an idempotency key) is found again at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from ._protocol import Batch, Entry, Range, Store


@final
class Overlay:
    """A store seen through batches that are on their way to it, the oldest first."""

    __module__ = "perdure.storage"

    __slots__ = ("_store", "layers")

    def __init__(self, store: Store) -> None:
        self._store = store
        self.layers: list[Batch] = []

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `Store.read`."""
        layers = tuple(self.layers)  # as of now: a batch that becomes durable during the read still hides what it replaces
        values = await self._store.read(keys)
        if not any(layers):
            return values
        return [_through(layers, key, value) for key, value in zip(keys, values, strict=True)]

    async def scan(self, range_: Range, *, limit: int, reverse: bool = False) -> list[Entry]:
        """As `Store.scan`."""
        layers = tuple(layer for layer in self.layers if layer)
        if not layers:
            return await self._store.scan(range_, limit=limit, reverse=reverse)
        staged = _staged(layers, range_)
        found = await self._scan_beneath(layers, staged, range_, limit, reverse)
        entries = sorted((*found, *(Entry(k, v) for k, v in staged.items() if v is not None)), reverse=reverse)
        return entries[:limit]

    async def _scan_beneath(
        self, layers: tuple[Batch, ...], staged: dict[bytes, bytes | None], range_: Range, limit: int, reverse: bool
    ) -> list[Entry]:
        """Up to `limit` entries of the store that no layer hides; staged keys are left to the caller."""
        found: list[Entry] = []
        rest = range_
        while len(found) < limit:
            page = await self._store.scan(rest, limit=limit, reverse=reverse)
            found += (e for e in page if e.key not in staged and not any(_is_deleted(layer, e.key) for layer in layers))
            if len(page) < limit:
                break
            last = page[-1].key
            rest = Range(rest.start, last) if reverse else Range(last + b"\0", rest.stop)
        return found


def _through(layers: tuple[Batch, ...], key: bytes, value: bytes | None) -> bytes | None:
    for layer in reversed(layers):
        if key in layer.puts:
            return layer.puts[key]
        if _is_deleted(layer, key):
            return None
    return value


def _staged(layers: tuple[Batch, ...], range_: Range) -> dict[bytes, bytes | None]:
    start, stop = range_
    staged: dict[bytes, bytes | None] = {}
    for layer in layers:
        for key in [key for key in staged if _is_deleted(layer, key)]:
            del staged[key]
        staged.update([(key, value) for key, value in layer.puts.items() if start <= key < stop])
    return staged


def _is_deleted(layer: Batch, key: bytes) -> bool:
    """Whether it is in a range that a batch deletes; compared here, since a batch may have thousands of them."""
    for start, stop in layer.ranges:  # noqa: SIM110  a third of the time of any()
        if start <= key < stop:
            return True
    return False
