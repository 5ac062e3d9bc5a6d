"""Copies of an LMDB store that lose nothing that was acknowledged before they began.

The inbox is copied first, so that an offer which the main environment has accepted is at worst in both copies. Files are never copied as
they are: to open and close them in a process that has them open would drop LMDB's locks, and let a second writer in.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from ._errors import StoreError
from ._format import (
    COUNTER_KEY,
    ENTRY_KEY,
    INBOX_KEY,
    META_KEY,
    NUMBER,
    POSITION_KEY,
    check_meta,
    make_durable,
    meta_record,
    put_in_place,
)
from ._protocol import Store
from ._urls import lmdb_path

if TYPE_CHECKING:
    from ._environment import Environment, Transaction

SMALL_MAP: Final = 1 << 20  # bytes of address space at least; the map of an environment is never shorter than its content


def backup(source: Store | str, target: str) -> None:
    """Copy an LMDB store, given as its URL, its path or itself, into a new directory, while a host may run. Blocks: call it in a thread.

    The copy is one moment of the store with every batch committed before the call, and every offer acknowledged before it. It takes only
    what space its content needs. Read it back with `restore`. Raises `StoreFull` when there is no room, `StoreError` when `target` exists.
    """
    with opened_environments(source) as environments, _new_directory(target) as building:
        _copy(*environments, building)


def restore(source: str, target: str) -> None:
    """Make a store out of a backup, which stays as it is. `target` must be new. Blocks.

    Its inbox has a new identity, and holds exactly the offers that the copy had not accepted.
    """
    with opened_environments(source) as environments, _new_directory(target) as building:
        _copy(*environments, building)
        _renew_inbox(building)


@contextmanager
def opened_environments(source: Store | str) -> Iterator[tuple[Environment, Environment]]:
    """The main one and the inbox, shared with whoever has them open in this process."""
    from ._environment import acquire  # only who uses LMDB loads it

    path = lmdb_path(str(source))
    with ExitStack() as opened:
        main = acquire(path, SMALL_MAP)
        opened.callback(main.let_go)
        inbox = acquire(os.path.join(path, "inbox"), SMALL_MAP)
        opened.callback(inbox.let_go)
        check_meta(path, main.read([META_KEY])[0], "store")
        yield main, inbox


def _copy(main: Environment, inbox: Environment, directory: str) -> None:
    os.mkdir(os.path.join(directory, "inbox"), 0o700)
    inbox.copy(os.path.join(directory, "inbox"))
    main.copy(directory)


@contextmanager
def _new_directory(target: str) -> Iterator[str]:
    """A directory under another name, which gets its own when it is complete and durable."""
    target = os.path.realpath(target)
    if os.path.exists(target):
        raise StoreError(target, "it exists", "Name a directory that does not: nothing is overwritten.")
    building = tempfile.mkdtemp(prefix=f".{os.path.basename(target)}.new-", dir=os.path.dirname(target))  # mode 0700
    try:
        yield building
        make_durable(building)
        put_in_place(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _renew_inbox(directory: str) -> None:
    id_ = uuid.uuid4().hex
    with opened_environments(directory) as (main, inbox):
        positions = main.view(_positions)
        inbox.write(partial(_forget_accepted, positions=positions, id_=id_), _staged)
        main.write(lambda transaction: transaction.put(INBOX_KEY, id_.encode()), _staged)


def _positions(transaction: Transaction) -> dict[bytes, bytes]:
    """By packed partition: the number of the last accepted offer."""
    found: dict[bytes, bytes] = {}
    with transaction.cursor() as cursor:
        more = cursor.set_range(POSITION_KEY)
        while more and cursor.key().startswith(POSITION_KEY):
            found[cursor.key().removeprefix(POSITION_KEY)] = cursor.value()
            more = cursor.next()
    return found


def _forget_accepted(transaction: Transaction, positions: dict[bytes, bytes], id_: str) -> None:
    transaction.put(META_KEY, meta_record("inbox", id_))
    nothing = NUMBER.pack(0)
    for partition, position in positions.items():
        counter = COUNTER_KEY + partition
        transaction.put(counter, max(transaction.get(counter) or nothing, position))
        with transaction.cursor() as cursor:
            first, last = (ENTRY_KEY + partition + number for number in (nothing, position))
            more = cursor.set_range(first)
            while more and cursor.key() <= last:
                more = cursor.delete()


def _staged() -> None:
    """Nobody waits for the puts."""
