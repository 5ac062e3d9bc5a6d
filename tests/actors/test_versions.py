"""Versions: what a deploy does to actors that are half-way, with the class of before beside the new one or without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from perdure.actors import (
    ActorQuarantined,
    DefinitionError,
    MigrationFailed,
    NonDeterminismError,
    VersionMismatch,
    WorkflowRef,
    continue_as_new,
    durable_actor,
    migrate,
    on_event,
    patched,
    query,
    send_signal,
    signal,
    spawn,
    step,
    wait_for_signal,
    workflow,
)
from perdure.actors.testing import World

from .conftest import Deploy

pytestmark = pytest.mark.anyio


@step
async def charge(what: str) -> str:
    return f"charged {what}"


@step
async def bill(what: str) -> str:
    return f"billed {what}"


@durable_actor(name="Account")
class Account1:
    def __init__(self) -> None:
        self.cents = 0

    @on_event
    def add(self, cents: int) -> int:
        self.cents += cents
        return self.cents

    @query
    def balance(self) -> int:
        return self.cents


@durable_actor(name="Account", version=2)
class Account2:
    def __init__(self) -> None:
        self.money = (0, "EUR")

    @migrate(1)
    @staticmethod
    def with_currency(state: dict[str, Any]) -> dict[str, Any]:
        return {"money": (state["cents"], "EUR")}

    @on_event
    def add(self, cents: int) -> tuple[int, str]:
        self.money = (self.money[0] + cents, self.money[1])
        return self.money

    @query
    def balance(self) -> tuple[int, str]:
        return self.money


@durable_actor(name="Account", version=3)
@dataclass
class Account3:
    money: tuple[int, str] = (0, "EUR")
    history: list[int] = field(default_factory=list)

    @migrate(1)
    @staticmethod
    def with_currency(state: dict[str, Any]) -> dict[str, Any]:
        return {"money": (state["cents"], "EUR")}

    @migrate(2)
    @staticmethod
    def with_history(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "history": []}

    @on_event
    def add(self, cents: int) -> tuple[int, str]:
        self.history.append(cents)
        self.money = (self.money[0] + cents, self.money[1])
        return self.money


@durable_actor(name="Account", version=4)
class Unprepared:
    """It has no migration."""

    @on_event
    def add(self, cents: int) -> int:
        return cents


@durable_actor(name="Account", version=2)
class Clumsy:
    @migrate(1)
    @staticmethod
    def lose_it(state: dict[str, Any]) -> dict[str, Any]:
        return {"money": state["dollars"]}

    @on_event
    def add(self, cents: int) -> int:
        return cents


@durable_actor(name="Order")
class Order1:
    approved = signal(str)

    def __init__(self) -> None:
        self.status = "new"

    @workflow
    async def run(self, what: str) -> str:
        self.status = await charge(what)
        by = await wait_for_signal(Order1.approved)
        return f"{self.status}, approved by {by}, version 1"


@durable_actor(name="Order", version=2)
class Order2:
    approved = signal(str)

    def __init__(self) -> None:
        self.status = "new"

    @migrate(1)
    @staticmethod
    def unchanged(state: dict[str, Any]) -> dict[str, Any]:
        return state

    @workflow
    async def run(self, what: str) -> str:
        by = await wait_for_signal(Order2.approved)
        return f"{await charge(what)}, approved by {by}, version 2"


@durable_actor(name="Order", version=2, replays=(1,))
class Order2Compatible:
    approved = signal(str)

    def __init__(self) -> None:
        self.status = "new"

    @workflow
    async def run(self, what: str) -> str:
        self.status = await charge(what)
        by = await wait_for_signal(Order2Compatible.approved)
        return f"{self.status}, approved by {by}, version 2, {await charge('twice')}"


@durable_actor(name="Order", version=3, replays=(2,))
class Order3Forgetful:
    """It replays version 2, and says nothing of version 1."""

    approved = signal(str)

    def __init__(self) -> None:
        self.status = "new"

    @workflow
    async def run(self, what: str) -> str:
        self.status = await charge(what)
        by = await wait_for_signal(Order3Forgetful.approved)
        return f"{self.status}, approved by {by}, version 3, {await charge('twice')}"


# --- nothing waits: the state migrates ---


async def test_an_idle_actor_is_migrated_when_it_is_needed(deploy: Deploy) -> None:
    async with deploy(Account1) as before:
        await before.ref(Account1, "a").ask(Account1.add, 5)

    async with deploy(Account2) as now:
        version_before = (await now.ref(Account2, "a").info()).version
        answer = await now.ref(Account2, "a").ask(Account2.add, 1)

        assert (version_before, answer) == (1, (6, "EUR"))
        assert (await now.ref(Account2, "a").info()).version == 2


async def test_a_state_goes_through_all_later_migrations(deploy: Deploy) -> None:
    async with deploy(Account1) as before:
        await before.ref(Account1, "a").ask(Account1.add, 5)

    async with deploy(Account3) as now:
        assert await now.ref(Account3, "a").ask(Account3.add, 1) == (6, "EUR")


@pytest.mark.promise("queries-only-read")
async def test_a_query_sees_a_migrated_state_and_records_nothing(deploy: Deploy) -> None:
    async with deploy(Account1) as before:
        await before.ref(Account1, "a").ask(Account1.add, 5)

    async with deploy(Account2) as now:
        assert await now.ref(Account2, "a").query(Account2.balance) == (5, "EUR")
        assert (await now.ref(Account2, "a").info()).version == 1


async def test_without_a_path_the_old_class_beside_goes_on(deploy: Deploy) -> None:
    async with deploy(Account1) as before:
        await before.ref(Account1, "a").ask(Account1.add, 5)

    async with deploy(Account1, Unprepared) as now:
        assert await now.ref(Account1, "a").ask(Account1.add, 1) == 6
        assert await now.ref(Unprepared, "b").ask(Unprepared.add, 1) == 1
        assert [(each.id.key, each.version) async for each in now.actors()] == [("a", 1), ("b", 4)]


@pytest.mark.promise("what-does-not-fit-goes-on-later")
async def test_without_a_path_an_actor_stands_still_and_says_the_line_to_write(deploy: Deploy) -> None:
    async with deploy(Account1) as before:
        await before.ref(Account1, "a").ask(Account1.add, 5)

    async with deploy(Unprepared) as now:
        with pytest.raises(VersionMismatch, match=r"state is of version 1 .* runs version 4(.|\n)*@migrate\(1\)\n *@staticmethod"):
            await now.ref(Unprepared, "a").ask(Unprepared.add, 1)


@pytest.mark.promise("what-does-not-fit-goes-on-later")
async def test_the_next_deploy_that_knows_the_way_ends_the_quarantine(deploy: Deploy) -> None:
    async with deploy(Account1) as first:
        await first.ref(Account1, "a").ask(Account1.add, 5)
    async with deploy(Unprepared) as second:
        await second.ref(Unprepared, "a").send_event(Unprepared.add, 1)

    async with deploy(Account3) as third:
        await third.settled()
        info = await third.ref(Account3, "a").info()
        assert (info.status, info.version, info.events) == ("idle", 3, 0)
        assert await third.ref(Account3, "a").ask(Account3.add, 1) == (7, "EUR")


@pytest.mark.promise("code-runs-its-own-past")
async def test_a_rollback_leaves_what_is_newer_alone(deploy: Deploy) -> None:
    async with deploy(Account2) as newer:
        await newer.ref(Account2, "a").ask(Account2.add, 5)

    async with deploy(Account1) as older:
        with pytest.raises(VersionMismatch, match="Host version 2 again"):
            await older.ref(Account1, "a").ask(Account1.add, 1)


@pytest.mark.promise("migrated-once-in-effect")
async def test_a_migration_that_raises_changes_nothing_and_is_tried_again(deploy: Deploy) -> None:
    async with deploy(Account1) as first:
        await first.ref(Account1, "a").ask(Account1.add, 5)
    async with deploy(Clumsy) as second:
        with pytest.raises(MigrationFailed, match="version 1 could not be migrated to version 2: KeyError: 'dollars'"):
            await second.ref(Clumsy, "a").ask(Clumsy.add, 1)
        with pytest.raises(MigrationFailed):
            await second.ref(Clumsy, "a").retry()

    async with deploy(Account2) as third:
        assert await third.ref(Account2, "a").ask(Account2.add, 1) == (6, "EUR")


@pytest.mark.parametrize(
    "made", [lambda _: None, lambda _: {"f": lambda: 0, "g": open}, lambda _: {1: 2}], ids=["none", "unstorable", "keys"]
)
async def test_what_a_migration_makes_must_be_a_state(deploy: Deploy, made: Callable[[Any], Any]) -> None:
    @durable_actor(name="Account", version=2, codec="msgspec")
    class Strict:
        @migrate(1)
        @staticmethod
        def other(state: dict[str, Any]) -> dict[str, Any]:
            return made(state)  # type: ignore[no-any-return]

        @on_event
        def add(self, cents: int) -> int:
            return cents

    async with deploy(Account1) as before:
        await before.ref(Account1, "a").ask(Account1.add, 5)

    async with deploy(Strict) as now:
        with pytest.raises(MigrationFailed):
            await now.ref(Strict, "a").ask(Strict.add, 1)


def hang() -> None:
    while True:
        pass


def leave() -> None:
    raise SystemExit(1)


def be_cancelled() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("does", [hang, leave, be_cancelled])
async def test_a_migration_that_never_returns_ends_no_host(deploy: Deploy, does: Callable[[], None]) -> None:
    @durable_actor(name="Account", version=2)
    class Stubborn:
        @migrate(1)
        @staticmethod
        def never(state: dict[str, Any]) -> dict[str, Any]:
            does()
            return state

        @on_event
        def add(self, cents: int) -> int:
            return cents

    async with deploy(Account1) as before:
        await before.ref(Account1, "a").ask(Account1.add, 5)

    async with deploy(Stubborn, turn_limit=0.3) as now:
        with pytest.raises(MigrationFailed):
            await now.ref(Stubborn, "a").ask(Stubborn.add, 1)
        assert await now.ref(Stubborn, "b").ask(Stubborn.add, 1) == 1


async def test_what_it_stands_still_for_is_what_is_wrong_today(deploy: Deploy) -> None:
    async with deploy(Account1) as first:
        await first.ref(Account1, "a").ask(Account1.add, 5)
    async with deploy(Unprepared) as second:
        await second.ref(Unprepared, "a").send_event(Unprepared.add, 1)

    async with deploy(Clumsy) as third:
        await third.settled()
        with pytest.raises(MigrationFailed, match="dollars"):
            await third.ref(Clumsy, "a").ask(Clumsy.add, 1)


def left_out() -> list[type]:
    """Classes with a balance, which no migration of theirs says anything of."""

    class Migrating:
        @migrate(1)
        @staticmethod
        def forget(state: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in state.items() if name != "cents"}

        @on_event
        def add(self, cents: int) -> int:
            return cents

    class Plain(Migrating):
        def __init__(self) -> None:
            self.balance = 0

    class Annotated(Migrating):
        balance: int = 0

    @dataclass
    class AsDataclass(Migrating):
        balance: int = 0

    class Struct(msgspec.Struct):
        balance: int = 0

        @migrate(1)
        @staticmethod
        def forget(state: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in state.items() if name != "cents"}

        @on_event
        def add(self, cents: int) -> int:
            return cents

    return [durable_actor(name="Account", version=2)(cls) for cls in (Plain, Annotated, AsDataclass, Struct)]


@pytest.mark.parametrize("forgetful", left_out(), ids=lambda cls: cls.__name__)
async def test_a_migration_leaves_out_nothing_that_new_actors_have(deploy: Deploy, forgetful: Any) -> None:
    async with deploy(Account1) as before:
        await before.ref(Account1, "a").ask(Account1.add, 5)

    async with deploy(forgetful) as now:
        with pytest.raises(MigrationFailed, match="it leaves out balance, which every new actor has"):
            await now.ref(forgetful, "a").ask(forgetful.add, 1)


# --- something waits: the code that wrote it goes on ---


@pytest.mark.promise("code-runs-its-own-past")
async def test_two_versions_side_by_side_each_finish_their_own(deploy: Deploy) -> None:
    async with deploy(Order1) as before:
        await before.start(Order1.run, "old", "tea")
        await before.settled()

    async with deploy(Order1, Order2) as now:
        old, new = now.ref(Order2.run, "old"), await now.start(Order2.run, "new", "ham")
        for order in (old, new):
            await send_signal(order, Order2.approved, "ada")

        assert await old.result() == "charged tea, approved by ada, version 1"
        assert await new.result() == "charged ham, approved by ada, version 2"


async def test_a_version_that_replays_another_goes_on_where_it_waits(deploy: Deploy) -> None:
    async with deploy(Order1) as before:
        await before.start(Order1.run, "o", "tea")
        await before.settled()

    async with deploy(Order2Compatible, max_active=0) as now:
        order = now.ref(Order2Compatible.run, "o")
        await send_signal(order, "approved", "ada")

        assert await order.result() == "charged tea, approved by ada, version 2, charged twice"


@durable_actor(name="Order", version=2, replays=(1,))
class Order2Listed:
    """It replays version 1, in a state of another form."""

    approved = signal(str)
    note = signal()

    def __init__(self) -> None:
        self.history = ["new"]

    @migrate(1)
    @staticmethod
    def listed(state: dict[str, Any]) -> dict[str, Any]:
        return {"history": [state["status"]]}

    @workflow
    async def run(self, what: str) -> list[str]:
        self.history = [await charge(what)]
        self.history.append(await wait_for_signal(Order2Listed.approved))
        await wait_for_signal(Order2Listed.note)
        return self.history

    @query
    def so_far(self) -> list[str]:
        return self.history


@pytest.mark.parametrize("max_active", [10_000, 0])
async def test_what_waits_is_replayed_in_a_migrated_state(deploy: Deploy, max_active: int) -> None:
    async with deploy(Order1) as before:
        await before.start(Order1.run, "o", "tea")
        await before.settled()

    async with deploy(Order2Listed, max_active=max_active) as now:
        order = now.ref(Order2Listed.run, "o")
        assert await order.query(Order2Listed.so_far) == ["charged tea"]
        await send_signal(order, Order2Listed.approved, "ada")
        await now.settled()
        await now.restart()
        await send_signal(order, Order2Listed.note)
        assert await order.result() == ["charged tea", "ada"]


@durable_actor(name="Order", version=3, replays=(1, 2))
class Order3Late:
    """It has a migration of version 2, which had another attribute, and none of version 1."""

    approved = signal(str)

    def __init__(self) -> None:
        self.status = "new"

    @migrate(2)
    @staticmethod
    def renamed(state: dict[str, Any]) -> dict[str, Any]:
        return {"status": state["stage"]}

    @workflow
    async def run(self, what: str) -> str:
        self.status = await charge(what)
        by = await wait_for_signal(Order3Late.approved)
        return f"{self.status}, approved by {by}, version 3"


async def test_a_state_that_no_migration_begins_at_is_replayed_as_it_is(deploy: Deploy) -> None:
    async with deploy(Order1) as before:
        await before.start(Order1.run, "o", "tea")
        await before.settled()

    async with deploy(Order3Late) as now:
        order = now.ref(Order3Late.run, "o")
        await send_signal(order, Order3Late.approved, "ada")

        assert await order.result() == "charged tea, approved by ada, version 3"


@pytest.mark.promise("code-runs-its-own-past")
async def test_suspended_code_is_never_run_by_a_version_that_did_not_write_it(deploy: Deploy) -> None:
    async with deploy(Order1) as before:
        await before.start(Order1.run, "o", "tea")
        await before.settled()

    async with deploy(Order2) as now:
        order = now.ref(Order2.run, "o")
        await send_signal(order, Order2.approved, "ada")
        await now.settled()
        with pytest.raises(VersionMismatch, match=r"waits in code of version 1(.|\n)*replays=\(1,\)"):
            await order.result()

    async with deploy(Order1, Order2) as again:
        assert await again.ref(Order2.run, "o").result() == "charged tea, approved by ada, version 1"


@durable_actor(name="Order", version=2, replays=(1,))
class Order2Longer:
    """It replays version 1, and then waits for longer."""

    approved = signal(str)
    sent = signal(str)

    def __init__(self) -> None:
        self.status = "new"

    @workflow
    async def run(self, what: str) -> str:
        self.status = await charge(what)
        by = await wait_for_signal(Order2Longer.approved)
        sent_by = await wait_for_signal(Order2Longer.sent)
        return f"{self.status}, approved by {by}, sent by {sent_by}"


@pytest.mark.promise("code-runs-its-own-past")
async def test_all_versions_that_wrote_the_log_have_to_be_replayed(deploy: Deploy) -> None:
    async with deploy(Order1) as first:
        await first.start(Order1.run, "o", "tea")
        await first.settled()
    async with deploy(Order2Longer) as second:
        await send_signal(second.ref(Order2Longer.run, "o"), Order2Longer.approved, "ada")

    async with deploy(Order3Forgetful) as third:
        with pytest.raises(VersionMismatch, match="code of version 2 and 1 of its type"):
            await third.ref(Order3Forgetful.run, "o").result()
    async with deploy(Order2Longer) as again:
        await send_signal(again.ref(Order2Longer.run, "o"), Order2Longer.sent, "bob")
        assert await again.ref(Order2Longer.run, "o").result() == "charged tea, approved by ada, sent by bob"


async def test_the_result_of_what_has_ended_needs_no_path(deploy: Deploy) -> None:
    async with deploy(Order1) as before:
        order = await before.start(Order1.run, "o", "tea")
        await send_signal(order, Order1.approved, "ada")
        await order.result()

    async with deploy(Order3Forgetful) as now:
        assert await now.ref(Order3Forgetful.run, "o").result() == "charged tea, approved by ada, version 1"
        assert (await now.ref(Order3Forgetful, "o").info()).status == "completed"


# --- continue_as_new ---


@durable_actor(name="Meter")
class Meter1:
    go = signal()

    def __init__(self) -> None:
        self.read = 0

    @workflow
    async def run(self, month: int) -> str:
        await wait_for_signal(Meter1.go)
        self.read += 1
        continue_as_new(month + 1)


@durable_actor(name="Meter", version=2)
class Meter2:
    def __init__(self) -> None:
        self.readings: list[int] = []

    @migrate(1)
    @staticmethod
    def listed(state: dict[str, Any]) -> dict[str, Any]:
        return {"readings": [0] * state["read"]}

    @workflow
    async def measure(self, month: int) -> str:
        return f"month {month} after {self.readings}"


async def test_continue_as_new_moves_to_the_newest_version(deploy: Deploy) -> None:
    async with deploy(Meter1) as before:
        await before.start(Meter1.run, "m", 1)
        await before.settled()

    async with deploy(Meter1, Meter2) as now:
        await send_signal(now.ref(Meter1, "m"), Meter1.go)

        assert await now.ref(Meter2.measure, "m").result() == "month 2 after [0]"
        assert (await now.ref(Meter2, "m").info()).version == 2


@durable_actor(name="Meter", version=2)
class MeterOfTwo:
    @migrate(1)
    @staticmethod
    def listed(state: dict[str, Any]) -> dict[str, Any]:
        return {"readings": [0] * state["read"]}

    @workflow
    async def run(self, year: int, month: int) -> str:
        return f"{year}-{month}"


async def test_a_next_life_that_cannot_begin_is_not_lost(deploy: Deploy) -> None:
    async with deploy(Meter1) as before:
        await before.start(Meter1.run, "m", 1)
        await before.settled()

    async with deploy(Meter1, MeterOfTwo) as now:
        await send_signal(now.ref(Meter1, "m"), Meter1.go)
        with pytest.raises(ActorQuarantined, match="missing a required argument: 'month'"):
            await now.ref(MeterOfTwo.run, "m").result()
    async with deploy(Meter1, Meter2) as mended:
        await mended.ref(Meter2, "m").retry()
        assert await mended.ref(Meter2.measure, "m").result() == "month 2 after [0]"


# --- spawn, and what was sent by another version ---


@durable_actor(name="Parcel")
class Parcel1:
    @workflow
    async def run(self, to: str) -> str:
        return f"to {to}, version 1"


@durable_actor(name="Parcel", version=2, codec="msgspec")
class Parcel2:
    @workflow
    async def run(self, to: str, express: bool = False) -> str:
        return f"to {to}, version 2, {'fast' if express else 'slow'}"


@durable_actor
class Sender:
    go = signal()

    @workflow
    async def run(self, to: str) -> str:
        await wait_for_signal(Sender.go)
        return await spawn(Parcel1.run, "p", to).result()


async def test_spawn_picks_the_highest_version_whichever_is_named(deploy: Deploy) -> None:
    async with deploy(Sender, Parcel1) as before:
        await before.start(Sender.run, "s", "Rome")
        await before.settled()

    async with deploy(Sender, Parcel1, Parcel2) as now:
        await send_signal(now.ref(Sender, "s"), Sender.go)

        assert await now.ref(Sender.run, "s").result() == "to Rome, version 2, slow"


@durable_actor(name="Account", version=2, codec="msgspec-json")
class InJson:
    def __init__(self) -> None:
        self.cents = 0

    @migrate(1)
    @staticmethod
    def unchanged(state: dict[str, Any]) -> dict[str, Any]:
        return state

    @on_event
    def add(self, cents: int) -> int:
        self.cents += cents
        return self.cents


async def test_what_another_version_has_sent_is_read_by_its_own_codec(deploy: Deploy) -> None:
    async with deploy(Account1) as before:
        await before.ref(Account1, "a").ask(Account1.add, 5)

    async with deploy(Account1, InJson) as now:
        assert await now.ref(Account1, "a").ask(Account1.add, 1) == 6  # pickled by version 1, taken by version 2
        assert await now.ref(InJson, "a").ask(InJson.add, 1) == 7


# --- patched ---


def patient(*, changed: bool, asks: bool = True) -> Any:
    """A workflow before and after a change within its code, of one version."""

    @durable_actor
    class Patient:
        go = signal()

        def __init__(self) -> None:
            self.seen: list[str] = []

        @workflow
        async def run(self) -> list[str]:
            for _ in range(2):
                if (changed and not asks) or (changed and patched("new price")):
                    self.seen.append(await bill("new"))
                else:
                    self.seen.append(await charge("old"))
                await wait_for_signal(Patient.go)
            return self.seen

    return Patient


def patient_in(world: World, run: Any, key: str) -> WorkflowRef[Any, list[str]]:
    """A reference to one: of a class that checkers do not know, they do not see that it has a result."""
    found = world.ref(run, key)
    assert isinstance(found, WorkflowRef)
    return found


@pytest.mark.promise("code-runs-its-own-past")
async def test_a_patch_keeps_the_old_branch_where_it_was_begun(deploy: Deploy) -> None:
    async with deploy(before_change := patient(changed=False)) as before:
        await before.start(before_change.run, "old")
        await before.settled()

    async with deploy(changed := patient(changed=True), max_active=0) as now:
        old, new = patient_in(now, changed.run, "old"), await now.start(changed.run, "new")
        for order in (old, new, old, new):
            await send_signal(order, changed.go)
        assert await old.result() == ["charged old", "charged old"]
        assert await new.result() == ["billed new", "billed new"]


async def test_a_patch_may_go_once_only_new_code_waits(deploy: Deploy) -> None:
    async with deploy(changed := patient(changed=True)) as before:
        await before.start(changed.run, "p")
        await before.settled()

    async with deploy(cleaned := patient(changed=True, asks=False)) as now:
        patient_ref = patient_in(now, cleaned.run, "p")
        for _ in range(2):
            await send_signal(patient_ref, cleaned.go)
        assert await patient_ref.result() == ["billed new", "billed new"]


@pytest.mark.promise("replay-is-checked")
async def test_a_patch_that_goes_too_early_is_found(deploy: Deploy) -> None:
    async with deploy(before_change := patient(changed=False)) as before:
        await before.start(before_change.run, "p")
        await before.settled()

    async with deploy(cleaned := patient(changed=True, asks=False)) as now:
        patient_ref = patient_in(now, cleaned.run, "p")
        await send_signal(patient_ref, cleaned.go)
        with pytest.raises(NonDeterminismError, match=r"asked for step .*bill; when it first ran it asked for step .*charge"):
            await patient_ref.result()


# --- what a class must be ---


def test_migrations_are_checked_when_the_class_is_made() -> None:
    with pytest.raises(DefinitionError, match=r"it migrates version 2, and its class is version 2(.|\n)*version=3"):

        @durable_actor(version=2)
        class TooNew:
            @migrate(2)
            @staticmethod
            def other(state: dict[str, Any]) -> dict[str, Any]:
                return state

    with pytest.raises(DefinitionError, match="'one' migrates version 1 already"):

        @durable_actor(version=2)
        class Twice:
            @migrate(1)
            @staticmethod
            def one(state: dict[str, Any]) -> dict[str, Any]:
                return state

            @migrate(1)
            @staticmethod
            def other(state: dict[str, Any]) -> dict[str, Any]:
                return state
