"""What an LMDB store is made of, and whether a directory holds one.

Nothing is handed to LMDB that would crash it: the header pages are checked with plain reads before the file is mapped, since a page beyond
the end of the file is a SIGBUS. A store appears by one rename, so a crash while it is made leaves nothing that looks like a damaged one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
import uuid
from struct import Struct
from typing import Final, NamedTuple

from ._errors import StoreCorrupt, StoreError, StoreVersionError

FORMAT: Final = 1  # of the rows and the files, ours
ENGINE_NAME: Final = "lmdb-0.9"

# Our own rows begin with 0x00 and so sort before every packed tuple.
META_KEY: Final = b"\0perdure"
INBOX_KEY: Final = b"\0inbox"
BELL_KEY: Final = b"\0bell"
EPOCH_KEY: Final = b"\0epoch"  # + partition
POSITION_KEY: Final = b"\0position"  # + partition
COUNTER_KEY: Final = b"\0counter"  # + partition; in the inbox
ENTRY_KEY: Final = b"\1"  # + partition + number; in the inbox

NUMBER: Final = Struct(">Q")

# From LMDB 0.9's mdb.c, 64 bit: MDB_page's header, then MDB_meta.
MAGIC: Final = 0xBEEFC0DE
_PAGE: Final = Struct("=QHHHH")  # number, pad, flags, lower, upper
_META: Final = Struct("=IIQQ IHHQQQQQ IHHQQQQQ QQ")
_META_PAGE_FLAG: Final = 0x08
_INTEGER_KEYS: Final = 0x08
EMPTY_TREE: Final = 2**64 - 1
MAX_DEPTH: Final = 32


class Tree(NamedTuple):
    """LMDB's record of one B+ tree."""

    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


class Header(NamedTuple):
    """One of the two header pages, which the commits write in turn."""

    page_size: int
    free: Tree
    main: Tree
    last_page: int
    transaction: int


def numbered(key: bytes, partition: int) -> bytes:
    """The key of a partition's own row."""
    return key + NUMBER.pack(partition)


def release() -> str:
    """The version of Perdure that is installed here; empty if none is."""
    from importlib.metadata import PackageNotFoundError, version  # 10 ms, and only hosts and refusals need it

    try:
        return version("perdure")
    except PackageNotFoundError:
        return ""


def meta_record(kind: str, id_: str) -> bytes:
    """The row that says whose database this is. `kind` is "store" or "inbox"."""
    return json.dumps({"kind": kind, "id": id_, "format": FORMAT, "engine": ENGINE_NAME}).encode()


def signed(record: bytes, by: str) -> bytes:
    """A meta record that names the release which wrote last; releases read it by the names of its fields, and pass over this one."""
    return json.dumps({**json.loads(record), "release": by}).encode()


def check_meta(path: str, record: bytes | None, kind: str) -> str:
    """The id in a meta record; raises `StoreCorrupt` or `StoreVersionError` if the database is not one of ours, of this format."""
    if record is None:
        raise StoreCorrupt(path, "it is an LMDB database, but not a Perdure store", "Check the path.")
    try:
        meta = json.loads(record)
        kind_found, id_, format_, engine = str(meta["kind"]), str(meta["id"]), int(meta["format"]), str(meta["engine"])
    except (ValueError, KeyError, TypeError):
        raise StoreCorrupt(path, "its meta record is damaged") from None
    if format_ != FORMAT or engine != ENGINE_NAME:
        raise _unreadable(path, f"format {format_} of engine {engine}", str(meta.get("release", ""))[:20], older=format_ < FORMAT)
    if kind_found != kind:
        raise StoreCorrupt(path, f"it holds a {kind_found[:20]!r} where a {kind} belongs")
    return id_


def _unreadable(path: str, found: str, by: str, *, older: bool = False) -> StoreVersionError:
    """What is said of a store that another release wrote; `by` is its version, if that is known."""
    writer = f"perdure {by}" if by else f"{'an older' if older else 'a newer'} release of Perdure"
    what = f"it has {found}, written by {writer}; this release ({release()}) reads format {FORMAT} of {ENGINE_NAME}"
    if not older:
        return StoreVersionError(path, what, "Use the newer release: pip install --upgrade perdure")
    install = f'pip install "perdure=={by}"' if by else f"pip install the release that wrote it, from before {release()}"
    return StoreVersionError(path, what, f"Let the older release write its actors to a file, and read them with this one: {install}")


def headers(path: str) -> list[Header]:
    """Both header pages of a data file; raises what is wrong with them.

    The file may end before the last page that they count: what a transaction allocated and gave back is never written.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise StoreCorrupt(path, "it is empty (0 bytes)")
        first = file.read(_PAGE.size + _META.size)
        _check_magic(path, first)
        page_size = _META.unpack_from(first, _PAGE.size)[4]
        if page_size not in (1 << n for n in range(9, 16)):
            raise StoreCorrupt(path, "its first page is damaged")
        file.seek(page_size)
        second = file.read(len(first))
    found = [_header(path, number, page, page_size) for number, page in enumerate((first, second))]
    older, newer = sorted(header.transaction for header in found)
    if newer - older != 1 and newer != 0:  # each commit writes the next number
        raise StoreCorrupt(path, "its header pages do not belong together")
    return found


def check_file(path: str) -> None:
    """Raise what makes a data file unfit to be mapped."""
    try:
        headers(path)
    except StoreCorrupt:
        headers(path)  # a second look: the first may have met a commit of the running host half-way


def building_site(path: str) -> str:
    """A new directory beside a path, to be put in its place by one rename. Raises StoreError where none can be made."""
    parent, name = os.path.split(path)
    try:
        os.makedirs(parent, exist_ok=True)
        return tempfile.mkdtemp(prefix=f".{name}.new-", dir=parent)  # mode 0700
    except OSError as error:
        raise StoreError(path, f"it cannot be created ({error})", "Check the path and its permissions.") from error


def create(path: str) -> None:
    """Make a new store, unless there is one. Raises StoreError where a directory holds something else, or cannot be made."""
    path = os.path.realpath(path)
    if os.path.exists(os.path.join(path, "data.mdb")):
        return
    building = building_site(path)
    try:
        _build(building)
        put_in_place(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def put_in_place(building: str, path: str) -> None:
    """Give a finished directory its name, by one rename onto nothing or onto an empty directory."""
    try:
        os.rename(building, path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and os.path.exists(os.path.join(path, "data.mdb")):
            return  # another process was quicker, and is just as good
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise StoreCorrupt(path, "it is no Perdure store: data.mdb is missing", "Name a directory that is new or empty.") from error
        raise StoreError(path, f"it cannot be created ({error})", "A mount point cannot be a store: name a directory below it.") from error
    sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """Make names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems refuse it, and then need no help
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_durable(directory: str) -> None:
    """Make what is in a directory durable, and its owner's alone."""
    for path, _, names in os.walk(directory):
        for name in names:
            os.chmod(os.path.join(path, name), 0o600)
            file = os.open(os.path.join(path, name), os.O_RDWR)
            os.fsync(file)
            os.close(file)
        sync_directory(path)


def resemble(path: str | int, model: str) -> None:
    """Give a file the owner, the group and the mode of another one, as far as this process may: who could use that one may use this one."""
    wanted = os.stat(model)
    for owner, group in ((-1, wanted.st_gid), (wanted.st_uid, -1)):
        with contextlib.suppress(PermissionError):
            os.chown(path, owner, group)
    is_of_group = os.stat(path).st_gid == wanted.st_gid
    os.chmod(path, stat.S_IMODE(wanted.st_mode) & (0o777 if is_of_group else 0o707))


def _build(path: str) -> None:
    inbox = os.path.join(path, "inbox")
    os.mkdir(inbox, 0o700)
    inbox_id = uuid.uuid4().hex
    first_rows(inbox, {META_KEY: meta_record("inbox", inbox_id)})
    first_rows(path, {META_KEY: meta_record("store", uuid.uuid4().hex), INBOX_KEY: inbox_id.encode()})
    sync_directory(inbox)
    sync_directory(path)


def first_rows(path: str, rows: dict[bytes, bytes]) -> None:
    """Make an environment in an empty directory, and put rows into it."""
    import lmdb  # only who opens an LMDB store loads it

    with lmdb.open(path, 1 << 20, mode=0o600, lib_version=0) as environment, environment.begin(write=True) as transaction:
        for key, value in rows.items():
            transaction.put(key, value)


def _check_magic(path: str, page: bytes) -> None:
    if len(page) < _PAGE.size + _META.size:
        raise StoreCorrupt(path, f"it is truncated: {len(page)} bytes are left")
    if page[24:28] == MAGIC.to_bytes(4, "little"):
        raise _unreadable(path, "the file format of LMDB 1.0", "")
    magic, version = _META.unpack_from(page, _PAGE.size)[:2]
    if magic != MAGIC or version != 1:
        raise StoreCorrupt(path, "it is not a database of LMDB 0.9, or its first page is damaged", "Check the path, or restore a backup.")


def _header(path: str, number: int, page: bytes, page_size: int) -> Header:
    if len(page) < _PAGE.size + _META.size:
        raise StoreCorrupt(path, "it is truncated: its second page is missing")
    page_number, _, flags, _, _ = _PAGE.unpack_from(page)
    magic, version, _, _, *fields = _META.unpack_from(page, _PAGE.size)
    header = Header(page_size, Tree(*fields[:8]), Tree(*fields[8:16]), *fields[16:18])
    fits = page_number == number and flags == _META_PAGE_FLAG and magic == MAGIC and version == 1
    fits = fits and header.transaction in (0, header.transaction // 2 * 2 + number)  # an even number is in page 0, an odd one in page 1
    fits = fits and (header.free.pad, header.free.flags) == (page_size, _INTEGER_KEYS) and header.main[:2] == (0, 0)
    if not fits or header.free.depth >= MAX_DEPTH or header.main.depth >= MAX_DEPTH:
        raise StoreCorrupt(path, f"its header page {number} is damaged")
    return header
