"""The tape: what processes did to the files of a place, as the recorder wrote it down, and what a power failure may leave of it.

What was durable at a moment is in every image of that moment. Of what was not, each part may be there or not: whole writes, pages or
sectors of them, the later without the earlier.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple, final

STORED: Final = "store/data.mdb", "store/inbox/data.mdb"
NOTED: Final = "ledger", "journal"  # by whoever acts on it at once: a line counts from the moment at which it is written
FILES: Final = (*STORED, *NOTED)
AT_THE_END: Final = 2**64 - 1
CUTS: Final = 512, 4096, 1 << 30  # bytes: sectors, pages, whole writes
TRIES: Final = 3  # for each image that is wanted of one moment: few writes have few images

_EVENT: Final = Struct("=BBHIQQ")  # as in recorder.c


@final
class Event(NamedTuple):
    """`kind` is a letter, see recorder.c; `time` in seconds of the monotonic clock."""

    kind: str
    file: int
    length: int
    offset: int
    time: float
    data: bytes


def build_recorder(directory: Path) -> Path:
    """Compile the recorder."""
    library = directory / "recorder.so"
    source = Path(__file__).with_name("recorder.c")
    subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o", library, source, "-ldl"], check=True)
    return library


def recording(library: Path, place: Path, fail: str = "") -> dict[str, str]:
    """The environment of processes that are recorded on the tape of a place; `fail` as in recorder.c."""
    for name in NOTED:
        (place / name).touch()
    files = ":".join(str(place / name) for name in FILES)
    wanted = {"LD_PRELOAD": str(library), "RECORDER_LOG": str(place / "tape"), "RECORDER_FILES": files, "RECORDER_FAIL": fail}
    return os.environ | wanted


def read_tape(place: Path) -> list[Event]:
    """All events, but for a half one at the end."""
    raw, at, events = (place / "tape").read_bytes(), 0, list[Event]()
    while at + _EVENT.size <= len(raw):
        kind, file, _, length, offset, time = _EVENT.unpack_from(raw, at)
        at += _EVENT.size
        size = length if chr(kind) == "w" else 0
        if at + size <= len(raw):
            events.append(Event(chr(kind), file, length, offset, time / 1e9, raw[at : at + size]))
        at += size
    return events


@final
class Disk:
    """The files of a place while the tape is played: what is durable, and what was written since."""

    def __init__(self, place: Path) -> None:
        found = [place / name for name in FILES]
        self._durable = [bytearray(path.read_bytes() if path.exists() else b"") for path in found]
        self.pending: list[Event] = []

    def play(self, event: Event) -> None:
        """Do what the event says."""
        if event.kind == "w" and event.offset == AT_THE_END:
            self._durable[event.file] += event.data
        elif event.kind == "w":
            self.pending.append(event)
        elif event.kind in "rs":
            self._sync(event)
        else:
            assert event.kind == "f", f"nobody knows how to replay {event}"
            self.pending = [each for each in self.pending if each.file != event.file]  # as the kernel drops what it could not write

    def images(self, wanted: int, rng: random.Random) -> Iterator[list[bytes]]:
        """So many different images of this moment, if there are: with nothing that is not durable, with all of it, and with some."""
        seen: set[int] = set()
        yield from self._unseen(self._image(0, CUTS[-1], rng), seen)
        yield from self._unseen(self._image(1, CUTS[-1], rng), seen)
        for _ in range(TRIES * wanted):
            if len(seen) >= wanted:
                return
            yield from self._unseen(self._image(rng.choice([0.2, 0.5, 0.8]), rng.choice(CUTS), rng), seen)

    def write_durable(self, place: Path) -> None:
        """Leave what is durable, and nothing else, in a place."""
        write_image(place, [bytes(file) for file in self._durable])

    def _sync(self, event: Event) -> None:
        end = AT_THE_END if event.kind == "s" else event.offset + event.length
        done = [each for each in self.pending if each.file == event.file and event.offset <= each.offset <= end - each.length]
        for each in done:
            put(self._durable[each.file], each.offset, each.data)
            self.pending.remove(each)

    def _image(self, share: float, cut: int, rng: random.Random) -> list[bytearray]:
        files = [bytearray(file) for file in self._durable]
        parts = [(each, start) for each in self.pending for start in range(0, each.length, cut)]
        kept = [part for part in parts if rng.random() < share]
        if 0 < share < 1:
            rng.shuffle(kept)
        for each, start in kept:
            put(files[each.file], each.offset + start, each.data[start : start + cut])
        return files

    def _unseen(self, image: list[bytearray], seen: set[int]) -> Iterator[list[bytes]]:
        files = [bytes(file) for file in image]
        mark = hash(tuple(files[: len(STORED)]))
        if mark not in seen:
            seen.add(mark)
            yield files


def put(file: bytearray, offset: int, data: bytes) -> None:
    """Write into a file; what nobody wrote before it is zeros."""
    file.extend(bytes(max(0, offset - len(file))))
    file[offset : offset + len(data)] = data


def write_image(place: Path, files: list[bytes]) -> None:
    """Make a place of an image."""
    for name, content in zip(FILES, files, strict=True):
        (place / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        (place / name).write_bytes(content)
