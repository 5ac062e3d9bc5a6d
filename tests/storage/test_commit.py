"""Group commit: what leaves waits for its batch, batches come one after the other, and trouble reaches whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from types import SimpleNamespace

import pytest
from perdure.storage import Batch, CommitUncertain, Fence, Gate, GroupCommit, Limits, MemoryStore, StoreFull, marker_key, pack
from perdure.storage import _commit as commit_module

pytestmark = pytest.mark.anyio


class SlowDisk:
    """A store whose commits wait for `let_through`, and have the outcomes that are given."""

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.outcomes: list[BaseException | bool] = []
        self.asked: list[Batch] = []
        self.turnstile = asyncio.Semaphore(0)
        self.read, self.scan = self.memory.read, self.memory.scan

    async def commit(self, batch: Batch, fence: Fence) -> bool:
        self.asked.append(batch)
        await self.turnstile.acquire()
        outcome = self.outcomes.pop(0) if self.outcomes else True
        if isinstance(outcome, BaseException):
            raise outcome
        await self.memory.commit(batch, fence)
        return outcome

    async def let_through(self, count: int = 1) -> None:
        for _ in range(count):
            self.turnstile.release()
        await settle_down()


def staged(group: GroupCommit) -> Gate:
    """One turn that somebody waits for."""
    gate = group.stage()
    gate.when_open(lambda error: None)
    return gate


async def settle_down() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is asked again at once."""
    monkeypatch.setattr(commit_module, "RETRY_WHEN_FULL", 0)


@pytest.fixture
async def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
def sealed() -> list[Batch]:
    """The batches that were sealed."""
    return []


@pytest.fixture
async def group(disk: SlowDisk, sealed: list[Batch]) -> AsyncIterator[GroupCommit]:
    """A group commit at work, with room for three turns or a hundred bytes."""
    fence = await disk.memory.own(0)
    committing = GroupCommit(disk, fence, seal=sealed.append, limits=Limits(3, 100))  # type: ignore[arg-type]
    work = asyncio.ensure_future(committing.run())
    await settle_down()
    yield committing
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


@pytest.mark.promise("nothing-leaves-before-durable")
async def test_a_gate_opens_only_when_its_batch_is_durable(group: GroupCommit, disk: SlowDisk) -> None:
    group.batch.put(b"a", b"1")
    gate = staged(group)
    await settle_down()

    assert (gate.open, group.under_way, await disk.read([b"a"])) == (False, True, [None])

    await disk.let_through()
    assert (gate.open, group.under_way, await disk.read([b"a"])) == (True, False, [b"1"])


async def test_a_turn_nobody_waits_for_lingers_for_others(group: GroupCommit, disk: SlowDisk) -> None:
    gate = group.stage()
    await settle_down()
    assert not group.under_way

    await disk.let_through()
    await asyncio.sleep(commit_module.LINGER * 2)

    assert gate.open


async def test_a_turn_nobody_waits_for_outlasts_a_slow_commit(group: GroupCommit, disk: SlowDisk) -> None:
    staged(group)
    await settle_down()
    gate = group.stage()

    await asyncio.sleep(commit_module.LINGER * 2)
    await disk.let_through(2)

    assert gate.open


async def test_a_turn_nobody_waits_for_lingers_behind_a_commit(group: GroupCommit, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_module, "LINGER", 60)
    staged(group)
    await settle_down()
    group.stage()

    await disk.let_through()

    assert (group.under_way, group.idle, len(disk.asked)) == (False, False, 1)


async def test_nothing_is_idle_before_all_is_durable(group: GroupCommit, disk: SlowDisk) -> None:
    staged(group)
    seen = [group.idle]
    await settle_down()
    seen.append(group.idle)

    await disk.let_through()

    assert [*seen, group.idle] == [False, False, True]


async def test_a_gate_tells_how_it_stands(group: GroupCommit, disk: SlowDisk) -> None:
    disk.outcomes = [True, ValueError("a bug")]
    first = staged(group)
    waiting = repr(first)
    await disk.let_through()
    second = staged(group)
    await disk.let_through()

    assert [waiting, repr(first), repr(second)] == ["<Gate 1 1 waiting>", "<Gate 1 open>", "<Gate 2 failed: ValueError('a bug')>"]


async def test_turns_collect_while_a_batch_is_under_way(group: GroupCommit, disk: SlowDisk) -> None:
    staged(group)
    await settle_down()
    gates = {staged(group) for _ in range(100)}

    await disk.let_through(2)

    assert [gate.open for gate in gates] == [True]
    assert group.statistics()[:2] == (2, 101)


@pytest.mark.promise("one-line-of-batches")
async def test_each_batch_is_sealed_and_numbered_right_before_it_closes(group: GroupCommit, disk: SlowDisk, sealed: list[Batch]) -> None:
    for _ in range(3):
        staged(group)
        await disk.let_through()

    assert sealed == disk.asked
    assert await disk.read([marker_key(0)]) == [pack((1, 3))]


async def test_reads_see_what_is_staged_and_what_is_under_way(group: GroupCommit, disk: SlowDisk) -> None:
    group.batch.put(b"a", b"1")
    staged(group)
    await settle_down()
    group.batch.put(b"b", b"2")

    assert await group.overlay.read([b"a", b"b"]) == [b"1", b"2"]

    await disk.let_through()
    assert await group.overlay.read([b"a", b"b"]) == [b"1", b"2"]


async def test_passages_are_told_in_their_order_and_late_ones_at_once(group: GroupCommit, disk: SlowDisk) -> None:
    told: list[int] = []

    def tell(number: int, error: BaseException | None) -> None:
        told.append(number)

    gate = group.stage()
    for number in range(3):
        gate.when_open(partial(tell, number))

    await disk.let_through()
    gate.when_open(partial(tell, 3))

    assert told == [0, 1, 2, 3]


async def test_new_work_waits_while_too_many_turns_are_uncommitted(group: GroupCommit, disk: SlowDisk) -> None:
    for _ in range(3):
        staged(group)
    waiting = asyncio.ensure_future(group.space())
    await settle_down()

    assert (group.saturated, waiting.done()) == (True, False)

    await disk.let_through()
    assert (group.saturated, waiting.done()) == (False, True)


async def test_new_work_waits_while_too_many_bytes_are_uncommitted(group: GroupCommit) -> None:
    group.stage(99)
    assert not group.saturated

    group.stage(1)

    assert group.saturated


@pytest.mark.parametrize(("beyond", "saturated"), [(-1, False), (0, True), (1, True)])
async def test_bytes_under_way_are_uncommitted_too(group: GroupCommit, disk: SlowDisk, beyond: int, saturated: bool) -> None:
    group.batch.put(b"a", bytes(70))
    staged(group)
    await settle_down()

    group.stage(100 - disk.asked[0].size + beyond)

    assert group.saturated == saturated


@pytest.mark.parametrize(("turns", "saturated"), [(1, False), (2, True), (3, True)])
async def test_turns_under_way_are_uncommitted_too(group: GroupCommit, turns: int, saturated: bool) -> None:
    staged(group)
    await settle_down()

    for _ in range(turns):
        group.stage()

    assert group.saturated == saturated


async def test_statistics_tell_what_is_durable_and_what_is_not(group: GroupCommit, disk: SlowDisk) -> None:
    staged(group)
    await disk.let_through()
    staged(group)
    await settle_down()
    group.stage()

    assert group.statistics() == (1, 1, disk.asked[0].size, True, 1)


async def test_what_is_durable_takes_no_room(group: GroupCommit, disk: SlowDisk) -> None:
    staged(group)
    await disk.let_through()

    group.stage(99)
    group.stage()

    assert not group.saturated


async def test_a_turn_of_no_size_makes_no_room(group: GroupCommit) -> None:
    group.stage()
    group.stage(100)

    assert group.saturated


async def test_who_wants_space_is_called_back_once_there_is_some(group: GroupCommit, disk: SlowDisk) -> None:
    told: list[str] = []
    staged(group)
    group.when_space(lambda: told.append("staged"))
    await settle_down()
    group.when_space(lambda: told.append("under way"))
    assert told == []

    await disk.let_through()

    assert told == ["staged", "under way"]


async def test_a_busy_loop_lets_a_commit_have_the_gil_each_slice(group: GroupCommit, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, naps = [100.0], list[int]()
    monkeypatch.setattr(commit_module, "time", SimpleNamespace(perf_counter=lambda: clock[0], sleep=naps.append))
    group.breathe()
    assert naps == []
    staged(group)
    await settle_down()

    for clock[0] in (100.001, 100.006, 100.007, 100.012):
        group.breathe()

    assert naps == [0, 0]


@pytest.mark.promise("a-full-disk-loses-nothing")
async def test_a_full_disk_gets_the_same_batch_again(group: GroupCommit, disk: SlowDisk) -> None:
    disk.outcomes = [StoreFull("memory:"), StoreFull("memory:")]
    gate = staged(group)
    await disk.let_through(2)
    assert (group.full is not None, gate.open, len(set(map(id, disk.asked)))) == (True, False, 1)

    await disk.let_through()

    assert (group.full, gate.open) == (None, True)


async def test_who_waits_for_space_hears_that_the_disk_is_full(group: GroupCommit, disk: SlowDisk) -> None:
    disk.outcomes = [StoreFull("memory:")]
    for _ in range(3):
        staged(group)
    waiting = asyncio.ensure_future(group.space())
    await settle_down()

    await disk.let_through()

    with pytest.raises(StoreFull, match="Free some space"):
        await waiting


async def test_intake_stays_closed_until_the_reserve_is_back(group: GroupCommit, disk: SlowDisk) -> None:
    disk.outcomes = [False, False, True]
    gate = staged(group)
    await disk.let_through()
    assert (gate.open, group.full is not None) == (True, True)

    for _ in range(2):
        await asyncio.sleep(0.001)
        await disk.let_through()

    assert (group.full, len(disk.asked)) == (None, 3)


@pytest.mark.promise("one-line-of-batches")
@pytest.mark.parametrize("error", [CommitUncertain("memory:", "EIO", recoverable=False), ValueError("a bug")])
async def test_a_failed_commit_is_told_to_every_gate(group: GroupCommit, disk: SlowDisk, error: Exception) -> None:
    disk.outcomes = [error]
    gates = [staged(group)]
    await settle_down()
    gates.append(staged(group))
    waiting = asyncio.ensure_future(group.settled())

    await disk.let_through()

    assert [gate.error for gate in (*gates, staged(group))] == [error] * 3
    with pytest.raises(type(error)):
        await waiting


async def test_each_who_waits_is_told_by_an_error_of_his_own(group: GroupCommit, disk: SlowDisk) -> None:
    disk.outcomes = [CommitUncertain("memory:", "EIO", recoverable=False)]
    gate = group.stage()
    waiting = [asyncio.ensure_future(gate.wait()) for _ in range(2)]
    await settle_down()

    await disk.let_through()

    one, other = (each.exception() for each in waiting)
    assert repr(one) == repr(other)
    assert one is not other


async def test_reads_fit_together_after_a_commit_has_failed(group: GroupCommit, disk: SlowDisk) -> None:
    disk.outcomes = [CommitUncertain("the store", "a crash", recoverable=True)]
    group.batch.put(b"mailbox", b"one message")
    staged(group)
    await settle_down()
    group.batch.put(b"key", b"of the first message")
    staged(group)

    await disk.let_through()

    assert group.failed
    assert await group.overlay.read([b"mailbox", b"key"]) == [b"one message", b"of the first message"]


async def test_settled_waits_for_the_last_batch_that_was_staged(group: GroupCommit, disk: SlowDisk) -> None:
    await group.settled()
    staged(group)
    await settle_down()
    waiting = asyncio.ensure_future(group.settled())
    await settle_down()
    assert not waiting.done()

    await disk.let_through()

    assert waiting.done()


async def test_nobody_waits_for_room_after_the_end(group: GroupCommit, disk: SlowDisk) -> None:
    disk.outcomes = [CommitUncertain("memory:", "EIO", recoverable=False)]
    for _ in range(3):
        staged(group)
    await disk.let_through()

    with pytest.raises(CommitUncertain):
        await asyncio.wait_for(group.space(), 1)


@pytest.mark.promise("nobody-waits-in-vain")
async def test_who_waits_is_told_when_a_group_commit_is_abandoned(group: GroupCommit) -> None:
    waiting = asyncio.ensure_future(staged(group).wait())
    await settle_down()

    group.abandon()

    with pytest.raises(CommitUncertain, match="its host ended first") as told:
        await waiting
    assert told.value.recoverable
