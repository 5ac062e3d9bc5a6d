"""Compaction: an LMDB file shrinks only by a copy of what is in it, which takes its place.

At every instant the old file or the new one is whole, has its name, and holds everything: one rename, of what is durable by then. Nobody
has the store open meanwhile, since who did would go on with the old file for ever, and what it offered there would be lost.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

from ._errors import StoreCorrupt, StoreFull
from ._format import META_KEY, check_file, check_meta, make_durable, resemble, sync_directory
from ._ownership import Ownership
from ._urls import lmdb_path

if TYPE_CHECKING:
    import lmdb

BUILDING: Final = "compacting"  # the directory in which the new file is made; a killed compaction leaves it


class Compacted(NamedTuple):
    """How long a store's files were, and are, in bytes."""

    before: int
    after: int
    inbox_before: int
    inbox_after: int


def compact(source: str) -> Compacted:
    """Give back the room that an LMDB store, given as its URL or path, does not need any more. Blocks.

    It needs room for a copy of what is in the store. Killed at any instant it leaves a whole store, and the next one clears away what is
    left of it. Who opens the store meanwhile is refused. Raises `StoreLocked` while a process, this one too, hosts the store or has it
    open; `StoreFull` where there is no room.
    """
    path = lmdb_path(source)
    ownership = Ownership(os.path.join(path, "owner.lock"), f"lmdb:{path}")
    ownership.take()
    try:
        return _compact_alone(path)
    finally:
        ownership.give_back()


def _compact_alone(path: str) -> Compacted:
    from ._environment import alone  # only who uses LMDB loads it

    inbox = os.path.join(path, "inbox")
    with ExitStack() as shutting:
        for directory in (path, inbox):
            shutting.enter_context(alone(directory))
        for directory in (path, inbox):
            shutil.rmtree(os.path.join(directory, BUILDING), ignore_errors=True)
        inbox_sizes = _replace(inbox, "inbox")
        return Compacted(*_replace(path, "store"), *inbox_sizes)


def _replace(directory: str, kind: str) -> tuple[int, int]:
    data, building = (os.path.join(directory, name) for name in ("data.mdb", BUILDING))
    before = os.stat(data).st_size
    os.mkdir(building, 0o700)
    try:
        _copy(directory, building, kind)
        make_durable(building)
        resemble(os.path.join(building, "data.mdb"), data)
        os.rename(os.path.join(building, "data.mdb"), data)
        sync_directory(directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return before, os.stat(data).st_size


def _copy(directory: str, building: str, kind: str) -> None:
    import lmdb

    from ._ballast import has_room
    from ._environment import ROOM

    try:
        with _reading(directory) as environment:
            check_meta(directory, _checked(environment, directory), kind)
            environment.copy(building, compact=True)
            entries = environment.stat()["entries"]
        with _reading(building) as copy:
            _checked(copy, building)
            if copy.stat()["entries"] != entries:
                raise StoreCorrupt(directory, f"its copy has {copy.stat()['entries']:,} of {entries:,} rows")
    except lmdb.Error as error:
        if not has_room(building, ROOM):
            raise StoreFull(directory) from error
        raise StoreCorrupt(directory, f"LMDB cannot copy it ({error})") from error


def _reading(directory: str) -> lmdb.Environment:
    """Without LMDB's lock, which is held: to open and close lock.mdb again would give it up."""
    import lmdb

    from ._environment import ENGINE

    check_file(os.path.join(directory, "data.mdb"))
    return lmdb.open(directory, create=False, readonly=True, lock=False, lib_version=ENGINE)


def _checked(environment: lmdb.Environment, directory: str) -> bytes | None:
    """The meta record of an environment whose trees are sound."""
    from ._structure import check_tree

    with environment.begin() as transaction:
        check_tree(os.path.join(directory, "data.mdb"), transaction.id())
        return transaction.get(META_KEY)


Compacted.__module__ = "perdure.storage"  # a named tuple takes none in its body
