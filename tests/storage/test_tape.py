"""A tape is bounded, shared, and never worth a crash: what is damaged is put aside, what does not fit is refused."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from perdure.storage import StoreClosed, StoreError, StoreFull, StoreLocked, Tape
from perdure.storage._format import NUMBER
from perdure.storage._lmdb import LmdbStore
from perdure.storage._tape import MIN_BYTES, MOST_DROPPED

from .stores import Elsewhere, exists

WRITER = """
import sys
from perdure.storage import Tape
tape = Tape(sys.argv[1])
print("open", flush=True)
number = 0
while number < int(sys.argv[2]):
    number += 1
    tape.append(b"theirs %d" % number, [2], number)
print("done", flush=True)
sys.stdin.read()
"""

READER = """
import lmdb, sys
environment = lmdb.open(sys.argv[1], readonly=True, lib_version=0)
transaction = environment.begin()
print(transaction.get(b"none"), flush=True)
sys.stdin.read()
"""

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX, 1)
print("holds", flush=True)
sys.stdin.read()
"""

LONG = bytes(9_000)  # has a row to itself


@pytest.fixture
def tape(place: str) -> Iterator[Tape]:
    """The shortest tape there is; times are plain numbers."""
    opened = Tape(place, max_bytes=MIN_BYTES, max_age=1_000)
    yield opened
    opened.close()


def chunks(tape: Tape, *marks: int) -> list[bytes]:
    """All chunks, in order of time."""
    return [chunk for row in list(tape.newest_first(marks))[::-1] for chunk in row.chunks]


def fill(tape: Tape, count: int = 9_999) -> None:
    for number in range(count):
        tape.append(LONG, [number], 0)


def test_chunks_are_found_by_each_of_their_marks(tape: Tape) -> None:
    tape.append(LONG + b"first", [1, 2], 10)
    tape.append(LONG + b"second", [2, 2**64 - 1], 11)

    assert [chunk.removeprefix(LONG) for chunk in chunks(tape, 2)] == [b"first", b"second"]
    assert [chunk.removeprefix(LONG) for chunk in chunks(tape, 2**64 - 1)] == [b"second"]
    assert [(row.earliest, row.latest) for row in tape.newest_first([1, 3])] == [(10, 10)]
    assert chunks(tape, 3) == []


def test_small_chunks_share_a_row(tape: Tape) -> None:
    for number in range(100):
        tape.append(b"%d" % number, [number], number)

    assert chunks(tape) == [b"%d" % number for number in range(100)]
    assert tape.statistics().rows == 1
    assert [(row.earliest, row.latest) for row in tape.newest_first([50])] == [(0, 99)]


def test_the_oldest_go_when_there_are_too_many_bytes(tape: Tape, place: str) -> None:
    for number in range(2_000):
        tape.append(LONG + b"%d" % number, [number], 0)

    kept = chunks(tape)

    assert os.stat(f"{place}/data.mdb").st_size <= MIN_BYTES
    assert len(kept) > 200
    assert kept == [LONG + b"%d" % number for number in range(2_000 - len(kept), 2_000)]
    assert chunks(tape, 0) == []


def test_the_oldest_go_when_they_are_too_old_a_few_at_a_time(tape: Tape) -> None:
    for number in range(100):
        tape.append(LONG, [1], number)

    tape.append(LONG, [2], 1_099)
    after_one = len(chunks(tape, 1))
    tape.append(LONG, [2], 1_099)

    assert after_one == 100 - MOST_DROPPED
    assert [row.latest for row in tape.newest_first([1])] == [99]


def test_long_and_short_chunks_leave_no_holes_that_nothing_fits_in(tape: Tape, place: str) -> None:
    for number in range(3_000):
        tape.append(bytes((number * 7919) % 200_000), [number], 0)

    assert chunks(tape, 2_999) == [bytes(2_999 * 7919 % 200_000)]
    assert os.stat(f"{place}/data.mdb").st_size <= MIN_BYTES


def test_a_chunk_that_is_too_long_for_the_tape_is_refused(tape: Tape) -> None:
    with pytest.raises(StoreFull, match="too long for it"):
        tape.append(bytes(MIN_BYTES // 4), [1], 0)

    tape.append(b"short", [1], 0)
    assert chunks(tape) == [b"short"]


def test_several_processes_write_and_read(tape: Tape, place: str, elsewhere: Elsewhere) -> None:
    other = elsewhere(WRITER, place, "300")
    assert other.reads() == "open"
    for number in range(300):
        tape.append(b"ours %d" % number, [1], number)

    assert other.reads() == "done"
    assert [chunk for chunk in chunks(tape) if chunk.startswith(b"ours")] == [b"ours %d" % number for number in range(300)]
    assert [chunk for chunk in chunks(tape) if chunk.startswith(b"theirs")] == [b"theirs %d" % number for number in range(1, 301)]


def test_a_writer_that_is_killed_harms_nobody(place: str, elsewhere: Elsewhere) -> None:
    for _ in range(3):
        other = elsewhere(WRITER, place, "1000000000")
        assert other.reads() == "open"
        other.dies()

    tape = Tape(place)
    tape.append(b"ours", [1], 0)
    written = chunks(tape)[:-1]
    tape.close()
    assert [chunk for chunk in written if not chunk.startswith(b"theirs ")] == []
    assert not exists(f"{place}.damaged")


def test_a_process_that_stands_still_while_it_writes_is_not_waited_for(tape: Tape, place: str, elsewhere: Elsewhere) -> None:
    holder = elsewhere(HOLDER, f"{place}/tape.lock")
    assert holder.reads() == "holds"

    with pytest.raises(StoreLocked, match=f"process {holder.pid} has been writing to it for too long"):
        tape.append(b"ours", [1], 0)

    holder.dies()
    tape.append(b"ours", [1], 0)
    assert chunks(tape) == [b"ours"]


def test_a_map_that_a_reader_keeps_full_is_refused_and_read(tape: Tape, place: str, elsewhere: Elsewhere) -> None:
    fill(tape, 350)
    reader = elsewhere(READER, place)
    assert reader.reads() == "None"

    with pytest.raises(StoreFull, match="and they are full"):
        fill(tape)

    kept = len(chunks(tape))
    reader.dies()
    assert kept > 100
    assert os.stat(f"{place}/data.mdb").st_size <= MIN_BYTES


@pytest.mark.parametrize("damage", [b"", b"\0" * 8192, b"no database " * 1000])
def test_a_damaged_tape_is_put_aside_and_begun_anew(place: str, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    Tape(place).close()
    Path(place, "data.mdb").write_bytes(damage)

    with caplog.at_level(logging.WARNING, "perdure.storage"):
        tape = Tape(place)
    tape.append(b"anew", [1], 0)

    assert chunks(tape) == [b"anew"]
    assert f"A new one is begun; the damaged one is in {place}.damaged" in caplog.text
    assert Path(f"{place}.damaged", "data.mdb").read_bytes() == damage
    tape.close()


def test_who_only_reads_puts_nothing_aside(place: str) -> None:
    with pytest.raises(StoreError, match="there is no tape"):
        Tape(place, create=False)
    Tape(place).close()
    Path(place, "data.mdb").write_bytes(b"")

    with pytest.raises(StoreError, match="it is empty"):
        Tape(place, create=False)

    assert exists(place, "data.mdb")
    assert not exists(f"{place}.damaged")


def test_a_tape_that_another_process_put_aside_is_not_written_to(tape: Tape, place: str) -> None:
    tape.append(b"before", [1], 0)
    os.rename(place, f"{place}.damaged")

    tape.append(b"after", [1], 0)

    assert chunks(tape) == [b"after"]


def test_a_chunk_with_a_flipped_bit_is_left_out(tape: Tape) -> None:
    tape.append(LONG + b"first", [1], 0)
    tape.append(LONG + b"second", [1], 0)
    key = b"\1" + NUMBER.pack(1)

    def flip(transaction: object) -> None:
        row = bytearray(transaction.get(key))  # type: ignore[attr-defined]
        row[-1] ^= 1
        transaction.put(key, bytes(row))  # type: ignore[attr-defined]

    tape._used().write(flip, lambda: None)

    assert chunks(tape) == [LONG + b"second"]


@pytest.mark.anyio
async def test_a_store_is_no_tape_and_stays_as_it_is(store: LmdbStore, place: str) -> None:
    with pytest.raises(StoreError, match="it is no tape, but something else"):
        Tape(place)

    assert exists(place, "data.mdb")
    assert not exists(f"{place}.damaged")
    assert store.statistics().entries > 0


def test_nothing_is_written_after_the_end(tape: Tape) -> None:
    tape.close()

    with pytest.raises(StoreClosed):
        tape.append(b"late", [1], 0)
    with pytest.raises(StoreClosed):
        chunks(tape)
    assert "closed" in repr(tape)


def test_a_forked_child_may_not_use_what_its_parent_opened(tape: Tape) -> None:
    with warnings.catch_warnings(action="ignore"):
        child = os.fork()
    if not child:
        try:
            tape.append(b"child's", [1], 0)
        except StoreClosed:
            tape.close()
            os._exit(7)
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    tape.append(b"parent's", [1], 0)
    assert chunks(tape) == [b"parent's"]


def test_a_reader_that_was_killed_keeps_no_room(tape: Tape, place: str, elsewhere: Elsewhere) -> None:
    fill(tape, 350)
    reader = elsewhere(READER, place)
    assert reader.reads() == "None"
    reader.dies()

    fill(tape, 2_000)

    assert os.stat(f"{place}/data.mdb").st_size <= MIN_BYTES
