"""The seam between durability and everything above it: an ordered map of bytes with atomic, durable, fenced batches.

A store has no idea of actors. What it promises is little, so that a back-end is small and easy to trust (`conformance` holds it to this):

- `commit` applies a whole batch or nothing of it, and returns only when it is durable; batches of one fence become durable in the order
  of their calls.
- A key has 1 to `MAX_KEY_BYTES` bytes and does not begin with 0x00; another is a ValueError at the call. A value may be empty.
- The fence is checked in the same transaction as the batch: a former owner changes nothing.
- An offer (bytes from a process that does not own the partition) is durable when `offer` returns, and is handed to the owner in order of
  its number until a batch that *accepts* it is durable, and never again after that, whatever crashes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final, NamedTuple, Protocol, final, runtime_checkable

MAX_KEY_BYTES: Final = 511  # LMDB's compiled-in limit (mdb_env_get_maxkeysize), the narrowest of the back-ends
FIRST_KEY: Final = b"\1"  # what sorts before it is for a store's own rows


class Entry(NamedTuple):
    """One key and its value."""

    key: bytes
    value: bytes


class Range(NamedTuple):
    """All keys with start <= key < stop."""

    start: bytes
    stop: bytes

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self.start <= key < self.stop


class Fence(NamedTuple):
    """The right to write to one partition, until a later epoch of it begins."""

    partition: int
    epoch: int


class Offer(NamedTuple):
    """Bytes that another process put in front of the owner. Numbers rise by one, without a gap, and never go back."""

    number: int
    payload: bytes


@final
class Batch:
    """Changes that become durable together. Deleted ranges apply first, then the puts and deletes; the last word on a key wins.

    `puts` maps a key to its new value, or to None where it is deleted. `accepted` is the highest offer whose content the batch holds.
    """

    __module__ = "perdure.storage"

    __slots__ = ("accepted", "puts", "ranges", "size")

    def __init__(self) -> None:
        self.puts: dict[bytes, bytes | None] = {}
        self.ranges: list[Range] = []
        self.accepted: int | None = None
        self.size = 0  # bytes staged, an upper bound: what was staged twice counts twice

    def __bool__(self) -> bool:
        return bool(self.puts or self.ranges or self.accepted is not None)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""
        self.puts[key] = value
        self.size += len(key) + len(value)

    def delete(self, key: bytes) -> None:
        """Remove a key; a key that is absent is no error."""
        self.puts[key] = None
        self.size += len(key)

    def delete_range(self, range_: Range) -> None:
        """Remove every key of the range, those staged before this call included."""
        start, stop = range_
        for key in [key for key in self.puts if start <= key < stop]:  # compared here: a call for each key would cost ten times as much
            del self.puts[key]
        self.ranges.append(range_)
        self.size += len(range_.start) + len(range_.stop)

    def accept(self, number: int) -> None:
        """Say that all offers up to `number` are dealt with in this batch."""
        self.accepted = number


class Store(Protocol):
    """What a back-end implements. All methods belong to one event loop; errors are the `StoreError` tree.

    `str(store)` is the URL that opens it, for messages.
    """

    async def own(self, partition: int) -> Fence:
        """Become the partition's only owner, in a new epoch. Raises `StoreLocked` while another process is."""
        ...

    async def release(self, fence: Fence) -> None:
        """Give the ownership back; waits for a commit that is under way."""
        ...

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of the keys, in their order, all from one moment; None where a key is absent."""
        ...

    async def scan(self, range_: Range, *, limit: int, reverse: bool = False) -> list[Entry]:
        """The first `limit` entries of the range in key order (from its end if `reverse`), all from one moment."""
        ...

    async def commit(self, batch: Batch, fence: Fence) -> bool:
        """Make the batch durable, whole; returns whether there is room for more.

        False means that this batch is safe, but only reserve space is left: take in no new work until a commit returns True.
        Raises `StoreFull` (nothing was written: the same batch may be committed again), `Fenced` (nothing was written, ever again),
        `CommitUncertain` (nobody knows). A batch is not touched by its caller after this call.
        """
        ...

    async def offer(self, partition: int, payload: bytes) -> int:
        """Put bytes in front of whoever owns the partition, now or later; returns the offer's number once it is durable."""
        ...

    def watch(self, fence: Fence) -> AsyncIterator[list[Offer]]:
        """The owner's stream of offers not accepted yet, in order, each once per owner; waits, without polling, while there are none.

        They come in lists of as many as a host can take at once. An empty one, once in each watch, says that all that was offered before
        the watch began has been handed out: an owner that has seen it is up to date.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; later calls raise `StoreClosed`. Closing twice is fine."""
        ...


@runtime_checkable
class MeasuredStore(Protocol):
    """A store that knows how much room it takes: what tells of a host tells that, too."""

    def size(self) -> int:
        """Bytes, now. It may be asked from any thread, also while the store is closed, and should take no longer than a look at a file."""
        ...


def check_keys(keys: Collection[bytes]) -> None:
    """Raise ValueError for a key that no store takes: for authors of stores."""
    for key in keys:
        if key < FIRST_KEY or len(key) > MAX_KEY_BYTES:
            raise ValueError(f"a key has 1 to {MAX_KEY_BYTES} bytes and does not begin with 0x00; this one has {len(key)}: {key[:40]!r}")


for _public in (Entry, Range, Fence, Offer, Store, MeasuredStore):
    _public.__module__ = "perdure.storage"  # named tuples and protocols take none in their bodies
