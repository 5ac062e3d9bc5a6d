"""The file that actors travel in: a stream of records, of which a reader believes nothing that is not whole.

It begins with a magic and the number of its format; then come frames (length, CRC-32, a msgpack array); the last one says how many actors
and rows there were, so that a file that was cut short is seen for what it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple, TypeAlias, final

import msgspec

from ..storage import PerdureError
from ._ids import ActorId
from ._records import Charge, DamagedRecord, RecordFormat

MAGIC: Final = b"perdure actors\0"
FORMAT: Final = 1
PART_BYTES: Final = 1 << 20  # of rows in one frame, but for a row that is longer
MAX_FRAME: Final = 1 << 31  # a length beyond this is damage: nobody should reserve the memory for it

_HEAD: Final = struct.Struct("<15sH")
_LENGTH: Final = struct.Struct("<I")


@final
class ExportUnreadable(PerdureError):
    """A file is no export of actors, or of a history, or none that can be read here.

    `file` is its name, `what` is wrong with it, `cure` helps.
    """

    __module__ = "perdure.actors"

    def __init__(self, file: str, what: str, cure: str) -> None:
        super().__init__(file, what, cure)
        self.file = file
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.file}: {self.what}. {self.cure}"


class Row(NamedTuple):
    """A row of an actor: its table's number, what its key ends with behind the actor's address, and its value."""

    table: int
    tail: bytes
    value: bytes


@final
class Opening(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=0):
    """The first frame. `perdure` is the release that wrote it."""

    perdure: str


@final
class TypeEntry(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """What the store knew of an actor type."""

    name: str
    version: int
    entry: bytes


@final
class Charged(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """An interrupted attempt that is remembered."""

    charge: Charge


@final
class Part(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Rows of an actor, `of` being its type; an actor with many has several parts, one behind the other."""

    of: str
    key: str
    rows: list[Row]


@final
class Closing(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """The last frame: how many actors and rows there are before it."""

    actors: int
    rows: int


@final
class Whole(NamedTuple):
    """An actor with all its rows, by table, then in order."""

    actor: ActorId
    rows: list[Row]


Frame: TypeAlias = Opening | TypeEntry | Charged | Part | Closing
_FRAME: Final = RecordFormat[Frame](Frame)


@final
class ArchiveWriter:
    """Writes an archive to a file; rows come by actor, then by table."""

    def __init__(self, file: BinaryIO, perdure: str) -> None:
        self._file = file
        self._actor: ActorId | None = None
        self._part: list[Row] = []
        self._part_bytes = 0
        self.actors = 0
        self.rows = 0
        self.size = file.write(_HEAD.pack(MAGIC, FORMAT))
        self.add(Opening(perdure))

    def __repr__(self) -> str:
        return f"<ArchiveWriter of {self.actors} actors, {self.rows} rows>"

    def add(self, frame: Frame) -> None:
        """Write a frame."""
        raw = _FRAME.pack(frame)
        self.size += self._file.write(_LENGTH.pack(len(raw)))
        self.size += self._file.write(raw)

    def add_row(self, actor: ActorId, row: Row) -> None:
        """Write the next row."""
        if actor != self._actor or self._part_bytes >= PART_BYTES:
            self._end_part()
        if actor != self._actor:
            self._actor = actor
            self.actors += 1
        self._part.append(row)
        self._part_bytes += len(row.tail) + len(row.value)
        self.rows += 1

    def close(self) -> None:
        """Write the end, without which all of it counts for nothing."""
        self._end_part()
        self.add(Closing(self.actors, self.rows))

    def _end_part(self) -> None:
        if self._actor is not None and self._part:
            self.add(Part(*self._actor, self._part))
        self._part, self._part_bytes = [], 0


def read_archive(file: BinaryIO) -> Iterator[TypeEntry | Charged | Whole]:
    """What is in an archive, from its beginning. Raises ExportUnreadable, at the latest where it ends."""
    actors = rows = 0
    whole: Whole | None = None
    for frame in _frames(file):
        match frame:
            case Part():
                actor = ActorId(frame.of, frame.key)
                if whole is None or whole.actor != actor:
                    if whole is not None:
                        yield whole
                    whole = Whole(actor, [])
                    actors += 1
                whole.rows.extend(frame.rows)
                rows += len(frame.rows)
            case Closing():
                if whole is not None:
                    yield whole
                if frame != Closing(actors, rows) or file.read(1):
                    raise _damaged(file, "its end does not fit")
            case Opening():
                pass
            case _:
                yield frame


def _frames(file: BinaryIO) -> Iterator[Frame]:
    """The frames up to the last one."""
    end = file.seek(0, 2)
    file.seek(0)
    _check_head(file)
    frame: Frame | None = None
    while not isinstance(frame, Closing):
        length = _LENGTH.unpack(_exactly(file, _LENGTH.size, end))[0]
        if length > MAX_FRAME:
            raise _damaged(file, "a length is impossible")
        try:
            frame = _FRAME.unpack(_exactly(file, length, end))
        except DamagedRecord as damage:
            raise _damaged(file, str(damage)) from damage
        yield frame


def _check_head(file: BinaryIO) -> None:
    head = file.read(_HEAD.size)
    if not head.startswith(MAGIC) or len(head) < _HEAD.size:
        raise ExportUnreadable(_name(file), "it is no export of actors", "Give it what `perdure export` has written.")
    format_ = _HEAD.unpack(head)[1]
    if format_ != FORMAT:
        cure = "Import it with the release of Perdure that wrote it, or a later one: pip install --upgrade perdure"
        raise ExportUnreadable(_name(file), f"it has format {format_}, and this release reads {FORMAT}", cure)


def _exactly(file: BinaryIO, size: int, end: int) -> bytes:
    """The next bytes of a file that ends there: for those that it cannot have, no memory is reserved."""
    read = file.read(size) if size <= end - file.tell() else b""
    if len(read) < size:
        raise _damaged(file, "it is cut short")
    return read


def _damaged(file: BinaryIO, how: str) -> ExportUnreadable:
    what = f"it is damaged before byte {file.tell():,} ({how})"
    return ExportUnreadable(_name(file), what, "Nothing of it was imported: copy it again, or export again.")


def _name(file: BinaryIO) -> str:
    return str(getattr(file, "name", "the export"))
