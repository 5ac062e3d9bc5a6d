"""How much room an LMDB store takes: its files, and each of its rows.

It reads beside a host as a client does, page by page, and never a value: so it costs little memory however long the values are, and keeps
no page from being used again.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from itertools import islice
from types import TracebackType
from typing import Final, NamedTuple, Self, final

from ._backup import opened_environments
from ._environment import Environment, Transaction
from ._errors import StoreCorrupt
from ._format import Header, headers
from ._protocol import FIRST_KEY, Range
from ._urls import lmdb_path

HEADER_PAGES: Final = 2
OPEN_HERE: Final = frozenset({"data.mdb", os.path.join("inbox", "data.mdb")})  # and so known to be sound


class FileRoom(NamedTuple):
    """A file of a store. `spare` is what a compaction would give back of it. All in bytes."""

    name: str
    size: int  # on the disk, where a file with holes takes less than its length
    spare: int


class RowSize(NamedTuple):
    """A row's key, and the length of key and value together, in bytes."""

    key: bytes
    size: int


@final
class Room:
    """An open LMDB store, to be measured. `source` is its URL or path. Use it with `with`; raises StoreError as opening the store does."""

    __module__ = "perdure.storage"

    def __init__(self, source: str) -> None:
        self._source = source
        self._environments: tuple[Environment, Environment] | None = None
        self._opened = ExitStack()

    def __repr__(self) -> str:
        return f"<Room of {self._source}>"

    def __enter__(self) -> Self:
        self._environments = self._opened.enter_context(opened_environments(self._source))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._opened.close()

    def rows(self, range_: Range, *, limit: int) -> list[RowSize]:
        """The first rows of a range, in order of their keys."""
        assert self._environments is not None, "a store is measured inside `with`"
        return self._environments[0].view(lambda transaction: _sizes(transaction, range_, limit), buffers=True)

    def files(self) -> list[FileRoom]:
        """All files of the store, the longest first."""
        path = lmdb_path(self._source)
        names = [os.path.relpath(os.path.join(directory, name), path) for directory, _, names in os.walk(path) for name in names]
        found = [FileRoom(name, *_room_of(os.path.join(path, name), is_open=name in OPEN_HERE)) for name in names]
        return sorted(found, key=lambda file: (-file.size, file.name))


def _sizes(transaction: Transaction, range_: Range, limit: int) -> list[RowSize]:
    found: list[RowSize] = []
    with transaction.cursor() as cursor:
        if cursor.set_range(max(range_.start, FIRST_KEY)):
            for key, value in islice(cursor, limit):
                if bytes(key) >= range_.stop:
                    break
                found.append(RowSize(bytes(key), len(key) + len(value)))
    return found


def _room_of(path: str, *, is_open: bool) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:  # a host clears away meanwhile
        return 0, 0
    if not is_open:  # a killed compaction may have left half of one
        return status.st_blocks * 512, 0
    try:
        header = max(headers(path), key=_transaction)
    except StoreCorrupt:  # as `check_file` says
        header = max(headers(path), key=_transaction)
    used = HEADER_PAGES + header.main.branch_pages + header.main.leaf_pages + header.main.overflow_pages
    return status.st_size, max(0, status.st_size - used * header.page_size)


def _transaction(header: Header) -> int:
    return header.transaction


for _public in (FileRoom, RowSize):
    _public.__module__ = "perdure.storage"  # a named tuple takes none in its body
