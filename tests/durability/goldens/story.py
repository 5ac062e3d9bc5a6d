"""How the golden store of a release comes about: two deploys of its app, the first of which ends in a turn, and what came after the second.

The story is of the newest app; what an older one has left stands in its folder, and is not written again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from perdure.actors import send_signal
from perdure.actors._envelope import Form, Kind
from perdure.actors._persistence import PREFIX, Table, scan_arrivals, suffix_of
from perdure.actors._records import ArrivalRow
from perdure.actors._ref import Request, make_ref
from perdure.actors.testing import World
from perdure.storage import Entry, Store

from .postbox import Postbox, offer
from .v0_1.app import FIRST, SECOND, Account1, Account2, Bomb, Brief, Clerk, Deal1, Deal2, Errand, Guardian, Late, Late2, Team, Touchy, Ward

DEPLOYS: Final = FIRST, SECOND
ERRANDS: Final = (
    "in_a_step",
    "after_a_failure",
    "for_time",
    "after_some_time",
    "for_a_signal",
    "for_a_signal_in_time",
    "for_a_condition",
    "for_an_answer",
    "for_a_result",
    "for_a_child",
    "with_a_late_child",
    "in_a_saga",
    "undone_in_vain",
    "on_a_new_way",
    "at_a_queue",
    "cleaning_up",
    "with_everything",
    "again",
)
GUARDIANS: Final = "renewing", "escalating", "stopping", "waiting"


async def begin(world: World) -> None:
    """The first deploy: everything begins; then the bomb ends the process."""
    for key in ERRANDS:
        await world.start(Errand.run, key)
    for key in GUARDIANS:
        await world.start(Guardian.run, key, 1)
    await world.start(Team.run, "team", 2)
    await world.start(Late.run, "late", 2)
    await world.start(Late.run, "another", 0)
    await world.start(Errand.run, "for_a_late_result")
    await world.start(Deal1.run, "deal", "tea")
    await world.start(Touchy.run, "touchy")
    for key in ("old", "closed"):
        await world.ref(Account1, key).ask(Account1.add, 5)
    await world.ref(Bomb, "bomb").send_event(Bomb.light, "a fuse")
    await world.settled()
    for errand in ("in_a_step", "in_a_step", "again"):
        await send_signal(world.ref(Errand, errand), Errand.go, "on")
    await send_signal(world.ref(Errand, "for_a_condition"), Errand.hear, "a word")
    await world.ref(Errand, "cleaning_up").cancel("it takes too long")
    await world.ref(Touchy, "touchy").send_event(Touchy.refuse, "what it cannot bear")
    await world.ref(Clerk, "another clerk").send_event(Clerk.refuse, "in vain")
    await tell(world, ("renewing 0", "fail"), ("escalating 0", "fail badly"), ("team 0", "fail"))
    await world.advance(timedelta(days=1))


async def ask_from_afar(post: Postbox) -> None:
    """Between the deploys: another process asks, and is never heard of again."""
    clerk, brief = make_ref(post.registry, Clerk, "third clerk", post), make_ref(post.registry, Brief, "of a client", post)
    await offer(clerk.ask(Clerk.note, "from afar"), clerk.options(idempotency_key="afar").ask(Clerk.note, "twice"))
    await offer(clerk.ask(Clerk.refuse, "from afar"), brief.ask(Brief.note, "from afar"))


async def go_on(world: World) -> None:
    """The second deploy: new versions beside old ones or in their place, and one type whose code is gone."""
    late = world.ref(Late2, "late")
    await world.settled()
    await late.options(idempotency_key="late").send_event(Late2.note, "an event")
    await send_signal(late, Late2.hear, "a signal")
    await send_signal(late, Late2.go, "a word")
    await tell(world, ("late ward 0", "fail"), ("late ward 1", "fail for good"))
    await send_signal(world.ref(Deal2, "deal"), Deal2.go, "from the second version")
    await world.ref(Account2, "new").ask(Account2.add, 5)
    await send_signal(world.ref(Errand, "with_a_late_child"), Errand.go, "on")
    await world.options(if_exists="fail").start(Errand.run, "again, from the start")
    await world.options(if_exists="restart").start(Errand.run, "again, restarted")
    await world.ref(Clerk, "clerk").options(idempotency_key="once").send_event(Clerk.note, "behind who is served")
    await world.ref(Errand, "at_a_queue").ask(Errand.put, "cake")
    await world.start(Brief.run, "brief", "the story")
    await world.start(Brief.run, "forgotten", "the past")
    await world.ref(Brief, "noted").options(idempotency_key="once").ask(Brief.note, "with a key")
    await world.ref(Clerk, "third clerk").send_event(Clerk.refuse, "again in vain")
    await tell(world, ("waiting 0", "fail"))


@asynccontextmanager
async def ended(world: World) -> AsyncIterator[None]:
    """The last batches: what has arrived for actors that the disk is too slow to read stays where it is, and nothing comes after it."""
    store, read, enough = world.store, world.store.read, asyncio.Event()
    ward, times = world.ref(Ward, "stopping 0"), 0

    async def read_slowly(keys: Sequence[bytes]) -> list[bytes | None]:
        nonlocal times
        times += PREFIX[Table.ACTOR] + suffix_of(ward.id) in keys
        if times > 1 and any(key.startswith(PREFIX[Table.ACTOR]) for key in keys):  # its guardian has judged it
            await enough.wait()
        return await read(keys)

    vars(store).update(read=read_slowly)
    await send_signal(ward, Ward.go, "fail for good")
    while times < 2:  # noqa: ASYNC110  reading tells nobody
        await asyncio.sleep(0)
    world.clock.move_to(world.clock.now() + 2 * 3_600)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.runtime.sweep())
        tasks.create_task(surely(world.ref(Clerk, "third clerk").send_event(Clerk.note, "on arrival")))
        while not {Kind.SETTLE, Kind.RETIRE, Kind.EVENT} <= {row.envelope.kind async for _, row in arrivals(store)}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield
        enough.set()


async def arrivals(store: Store) -> AsyncIterator[tuple[Entry, ArrivalRow]]:
    async for entry, row in scan_arrivals(store):
        assert isinstance(row, ArrivalRow)
        yield entry, row


async def leave(post: Postbox) -> None:
    """After the last deploy: what is in the inbox, and no host has seen."""
    registry = post.registry
    third, another = make_ref(registry, Clerk, "third clerk", post), make_ref(registry, Clerk, "another clerk", post)
    await another.send_event(Clerk.note, "from the inbox")
    await post.send(Request(another.id, Kind.EVENT, "note", b'{"what": "as JSON"}', Form.JSON))
    await offer(
        another.options(idempotency_key="inbox").ask(Clerk.note, "asked from the inbox"),
        another.redrive(),
        third.edit_dead_letter(4, "with other words"),
        third.drop_dead_letters(),
        make_ref(registry, Errand.run, "for_a_signal", post).result(),
        make_ref(registry, Account1, "closed", post).delete(),
        make_ref(registry, Late, "another", post).retry(),
        make_ref(registry, Ward, "ward", post).terminate("from the inbox"),
        make_ref(registry, Errand, "for_time", post).cancel("from the inbox"),
    )


async def tell(world: World, *words: tuple[str, str]) -> None:
    """Tell wards how to end."""
    for key, word in words:
        await send_signal(world.ref(Ward, key), Ward.go, word)
    await world.settled()


async def surely(sent: Awaitable[None]) -> None:
    """Await it, as a task."""
    await sent
