"""Stores by URL: `lmdb:PATH`, `memory:`, and what other packages add by an entry point of the group `perdure.stores`.

What a scheme needs is imported when it is first used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from ._errors import StoreCorrupt, StoreError
from ._memory import MemoryStore
from ._protocol import Store

GROUP: Final = "perdure.stores"


def open_store(url: str, *, create: bool = True) -> Store:
    """Open the store that a URL names; `create=False` refuses an LMDB path where there is none yet, as a client should.

    An entry point of another package, in the group `perdure.stores`, is named for its scheme and is called with what follows the colon.
    Raises ValueError for an unknown scheme, and the `StoreError` of a store that cannot be opened.
    """
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise ValueError(f"{url!r} is not the URL of a store: write lmdb:{url}, or memory:")
    if scheme == "lmdb":
        return _open_lmdb(rest, create)
    if scheme == "memory":
        return MemoryStore()
    return _open_other(scheme, rest)


def lmdb_path(source: str) -> str:
    """Where the LMDB store is that is given as its URL or path. Raises StoreError where there is none, StoreCorrupt for half of one."""
    scheme, colon, rest = source.partition(":")
    if colon and scheme != "lmdb" and not os.path.exists(source):
        raise StoreError(source, "it is not in files", "Only LMDB stores are copied, measured and compacted.")
    path = os.path.realpath(rest if colon and scheme == "lmdb" else source)
    if not os.path.exists(path):
        raise StoreError(f"lmdb:{path}", "there is no store", "Check the path.")
    if not os.path.exists(os.path.join(path, "data.mdb")):
        raise StoreCorrupt(path, "data.mdb is missing")
    return path


def _open_lmdb(path: str, create: bool) -> Store:
    if not path:
        raise ValueError("a path is missing: write lmdb:PATH")
    from ._lmdb import LmdbStore  # only who uses LMDB loads it

    return LmdbStore(path, create=create)


def _open_other(scheme: str, rest: str) -> Store:
    import importlib.metadata  # 10 ms

    others = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
    if scheme not in others:
        raise ValueError(f"no store has the scheme {scheme!r}; there are {', '.join(sorted({'lmdb', 'memory', *others}))}")
    opened: Callable[[str], Store] = others[scheme].load()
    return opened(rest)
