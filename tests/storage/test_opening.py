"""What `open_store` makes, finds and refuses."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from perdure.storage import MemoryStore, StoreCorrupt, StoreError, StoreVersionError, open_store
from perdure.storage._lmdb import LmdbStore
from perdure.storage._urls import GROUP

from .stores import exists

pytestmark = pytest.mark.anyio


def rewrite(place: str, key: bytes, value: bytes | None) -> None:
    with lmdb.open(place, lib_version=0) as environment, environment.begin(write=True) as transaction:
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)


def replace_by_lmdb_1(place: str) -> None:
    os.unlink(f"{place}/data.mdb")
    os.unlink(f"{place}/lock.mdb")
    lmdb.open(place, lib_version=1).close()


NEWER = b'{"kind": "store", "id": "x", "format": 2, "engine": "lmdb-0.9", "release": "0.7.1"}'
OLDER = NEWER.replace(b"2", b"0", 1)
UNFIT: dict[str, tuple[Callable[[str], object], type[StoreError], str]] = {
    "empty": (lambda place: os.truncate(f"{place}/data.mdb", 0), StoreCorrupt, r"data.mdb: it is empty \(0 bytes\)"),
    "truncated": (lambda place: os.truncate(f"{place}/data.mdb", 8192), StoreCorrupt, "truncated: 8192 of at least"),
    "stump": (lambda place: os.truncate(f"{place}/data.mdb", 100), StoreCorrupt, "truncated: 100 bytes are left"),
    "text": (lambda place: Path(place, "data.mdb").write_text("hello " * 9999), StoreCorrupt, "not a database of LMDB"),
    "missing": (lambda place: os.unlink(f"{place}/data.mdb"), StoreCorrupt, "data.mdb is missing"),
    "no inbox": (lambda place: os.unlink(f"{place}/inbox/data.mdb"), StoreCorrupt, "data.mdb is missing"),
    "empty inbox": (lambda place: os.truncate(f"{place}/inbox/data.mdb", 0), StoreCorrupt, "inbox/data.mdb: it is empty"),
    "not ours": (lambda place: rewrite(place, b"\0perdure", None), StoreCorrupt, "not a Perdure store"),
    "odd record": (lambda place: rewrite(place, b"\0perdure", b"{"), StoreCorrupt, "its meta record is damaged"),
    "other inbox": (lambda place: rewrite(place, b"\0inbox", b"other"), StoreCorrupt, "Put the store's own inbox directory back"),
    "newer": (
        lambda place: rewrite(place, b"\0perdure", NEWER),
        StoreVersionError,
        r"format 2 of engine lmdb-0.9, written by perdure 0.7.1; this release \(\d\S+\) reads format 1 .*: pip install --upgrade perdure$",
    ),
    "older": (lambda place: rewrite(place, b"\0perdure", OLDER), StoreVersionError, r'format 0 .*: pip install "perdure==0.7.1"$'),
    "anonymous": (
        lambda place: rewrite(place, b"\0perdure", NEWER.replace(b', "release": "0.7.1"', b"")),
        StoreVersionError,
        "format 2 of engine lmdb-0.9, written by a newer release of Perdure",
    ),
    "another engine": (
        lambda place: rewrite(place, b"\0perdure", NEWER.replace(b"2", b"1", 1).replace(b"lmdb-0.9", b"lmdb-1.0")),
        StoreVersionError,
        "format 1 of engine lmdb-1.0, .* reads format 1 of lmdb-0.9.*: pip install --upgrade perdure$",
    ),
    "other engine": (replace_by_lmdb_1, StoreVersionError, "the file format of LMDB 1.0.*: pip install --upgrade perdure$"),
}


@pytest.mark.parametrize("case", UNFIT)
async def test_what_is_not_a_sound_store_of_ours_is_refused(place: str, case: str) -> None:
    change, error, message = UNFIT[case]
    await LmdbStore(place).close()
    change(place)

    with pytest.raises(error, match=message):
        LmdbStore(place)


async def test_a_refused_store_leaves_nothing_open(place: str) -> None:
    await LmdbStore(place).close()
    rewrite(place, b"\0perdure", NEWER)
    with pytest.raises(StoreVersionError):
        LmdbStore(place)

    rewrite(place, b"\0perdure", NEWER.replace(b"2", b"1"))

    await LmdbStore(place).close()


async def test_a_store_says_which_release_hosted_it_last(place: str) -> None:
    await LmdbStore(place).close()
    rewrite(place, b"\0perdure", NEWER.replace(b"2", b"1", 1))

    store = LmdbStore(place)
    await store.own(0)
    await store.close()

    with lmdb.open(place, lib_version=0) as environment, environment.begin() as transaction:
        meta = json.loads(transaction.get(b"\0perdure") or b"")
    assert meta == {"kind": "store", "id": "x", "format": 1, "engine": "lmdb-0.9", "release": importlib.metadata.version("perdure")}


def test_a_client_does_not_make_a_store(place: str) -> None:
    with pytest.raises(StoreError, match=r"there is no store. Check the path, or start the host first"):
        open_store(f"lmdb:{place}", create=False)

    assert not os.path.exists(place)


def test_a_directory_with_other_things_is_left_alone(place: str) -> None:
    os.mkdir(place)
    Path(place, "precious").write_text("mine")

    with pytest.raises(StoreCorrupt, match=r"data.mdb is missing. Name a directory that is new or empty"):
        open_store(f"lmdb:{place}")

    assert (os.listdir(place), len(os.listdir(os.path.dirname(place)))) == (["precious"], 1)


def test_a_path_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(StoreError, match=r"it cannot be created .*Check the path"):
        open_store(f"lmdb:{tmp_path / 'file' / 'store'}")


async def test_an_empty_directory_becomes_a_store(place: str) -> None:
    os.mkdir(place)

    await open_store(f"lmdb:{place}").close()

    assert exists(place, "data.mdb")


@pytest.mark.promise("half-written-is-whole-or-absent")
async def test_a_crash_during_creation_leaves_no_damaged_store(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*paths: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            open_store(f"lmdb:{place}")
    assert not exists(place)

    await open_store(f"lmdb:{place}").close()


async def test_two_who_create_at_once_open_the_same_store(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, quicker = os.rename, []

    def be_late(source: str, target: str) -> None:
        monkeypatch.setattr(os, "rename", rename)
        quicker.append(LmdbStore(place))
        rename(source, target)

    monkeypatch.setattr(os, "rename", be_late)
    store = LmdbStore(place)

    assert store.id == quicker[0].id
    await store.close()
    await quicker[0].close()


def test_an_unknown_scheme_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no store has the scheme 'redis'; there are .*lmdb, memory"):
        open_store("redis:host")
    with pytest.raises(ValueError, match="'orders' is not the URL of a store: write lmdb:orders"):
        open_store("orders")
    with pytest.raises(ValueError, match="a path is missing"):
        open_store("lmdb:")


def test_another_package_adds_a_scheme_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("mine", "builtins:list", GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if group == GROUP else [])

    assert list(open_store("mine:ab")) == ["a", "b"]  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def test_each_memory_url_is_a_store_of_its_own() -> None:
    disks = {store.disk for _ in range(3) if isinstance(store := open_store("memory:"), MemoryStore)}

    assert len(disks) == 3


def test_lmdb_is_loaded_only_by_who_uses_it() -> None:
    program = "import perdure.storage, sys; perdure.storage.open_store('memory:'); print('lmdb' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "False\n"
